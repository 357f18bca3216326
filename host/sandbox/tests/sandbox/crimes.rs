//! What any call can do wrong, and how it ends: with words, in time, within memory, and
//! with a process that goes on.

use crate::{
    escape,
    support::{
        child,
        heard::Lines,
        job::{self, Job},
        plugins,
        stores::{MemoryBackup, MemoryLog},
    },
};
use backstay_sandbox::{EngineErrorKind, SandboxError};
use std::{
    fs,
    net::TcpListener,
    time::{Duration, Instant},
};

/// Longest that the end of a plugin may take here: the stall rule gives it one second, and
/// the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Crimes that end the plugin, with what the host says of each.
const TRAPS: &[(&str, &str)] = &[
    ("loop", "it computed for 1 seconds without moving a byte"),
    ("allocate", "it asked for more than 64 MiB of memory"),
    ("panic", "unreachable"),
    ("unreachable", "unreachable"),
    // Its own stack, in its memory, ends first; the second one uses only the runtime's.
    ("stack", "out of bounds memory access"),
    ("stack-deep", "call stack exhausted"),
    ("log-beyond-fuel", "fuel"),
];

fn trap(error: SandboxError) -> String {
    let SandboxError::Trapped { plugin, reason } = error else { panic!("not a trap: {error:?}") };
    assert_eq!(plugin, "hostile");
    assert!(!reason.contains('\n') && reason.len() < 600, "not one line: {reason}");
    reason
}

fn refusal(error: SandboxError) -> (EngineErrorKind, String) {
    let SandboxError::Engine(error) = error else { panic!("not the plugin's answer: {error:?}") };
    (error.kind, error.message)
}

#[tokio::test]
async fn whatever_ends_the_plugin_is_told_in_words_and_the_process_lives_on() {
    let plugin = plugins::load("hostile");
    for (behaviour, words) in TRAPS {
        let started = Instant::now();
        let job = Job::crime(behaviour);
        let reason = trap(plugin.inspect(job.context()).await.unwrap_err());
        assert!(reason.contains(words), "inspect, {behaviour}: {reason}");

        let backup = MemoryBackup::new();
        let reason = trap(plugin.backup(job.context(), "crime", "b1", backup.clone()).await.unwrap_err());
        assert!(reason.contains(words), "backup, {behaviour}: {reason}");
        assert!(backup.is_empty());

        let log = MemoryLog::new();
        let reason = trap(plugin.archive(job.context(), log.clone()).await.unwrap_err());
        assert!(reason.contains(words), "archive, {behaviour}: {reason}");
        assert_eq!(log.pieces(), 0);
        assert!(started.elapsed() < PATIENCE, "{behaviour} took {:?}", started.elapsed());

        // The same plugin, a new store: nothing of the end is left.
        plugin.inspect(Job::crime("honest").context()).await.unwrap();
    }
}

#[tokio::test]
async fn describing_itself_is_guarded_like_everything_else() {
    let plugin = plugins::load("hostile");
    for (behaviour, words) in TRAPS {
        let reason = trap(plugin.describe(Job::crime(behaviour).context()).await.unwrap_err());
        assert!(reason.contains(words), "{behaviour}: {reason}");
    }
}

#[tokio::test]
async fn a_stop_that_nobody_hears_does_not_keep_others_from_running() {
    let plugin = plugins::load("hostile");
    let started = Instant::now();
    let looping = Job::crime("loop");
    let honest = Job::crime("honest");
    // One thread: the loop has to yield for the other to get on.
    let (looped, answered) = tokio::join!(plugin.inspect(looping.context()), async {
        let facts = plugin.inspect(honest.context()).await;
        (facts, started.elapsed())
    });
    trap(looped.unwrap_err());
    answered.0.unwrap();
    assert!(answered.1 < started.elapsed(), "the honest one waited for the loop to end");
}

#[tokio::test]
async fn a_plugin_that_sleeps_for_ever_is_ended_by_the_clock() {
    // An inspection's clock runs for two minutes, by the same rule.
    let error = plugins::load("raw").describe(Job::new("sleep".into()).context()).await.unwrap_err();
    let SandboxError::Trapped { reason, .. } = error else { panic!("not a trap: {error:?}") };
    assert_eq!(reason, "it did not answer within 10 seconds");
}

#[tokio::test]
async fn a_job_that_waits_for_nothing_is_ended() {
    let plugin = plugins::load("hostile");
    let job = Job::crime("sleep").patience(1, 1);
    let reason = trap(plugin.backup(job.context(), "crime", "b1", MemoryBackup::new()).await.unwrap_err());
    assert_eq!(reason, "it moved nothing for 1 seconds");

    let into = tempfile::tempdir().unwrap();
    let restored = escape::restore(job, job::open(into.path(), true)).await;
    assert_eq!(trap(restored.unwrap_err()), "it moved nothing for 1 seconds");
}

#[tokio::test]
async fn a_job_whose_bytes_trickle_is_not_idle() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), vec![1; 4 << 20]).unwrap();
    let job = Job::crime("slow").folder("data", folder.path()).patience(1, 1);
    plugins::load("hostile").backup(job.context(), "crime", "b1", MemoryBackup::new()).await.unwrap();
}

#[tokio::test]
async fn an_archiver_may_idle_but_has_to_end_when_it_is_asked_to() {
    let plugin = plugins::load("hostile");
    let job = Job::crime("deaf").patience(1, 2);
    let stop = job.stop();
    let started = Instant::now();
    let (ended, ()) = tokio::join!(plugin.archive(job.context(), MemoryLog::new()), async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        stop.send_replace(true);
    });
    assert_eq!(trap(ended.unwrap_err()), "it did not end within 2 seconds after it was asked to stop");
    assert!((5..20).contains(&started.elapsed().as_secs()), "after {:?}", started.elapsed());
}

#[tokio::test]
async fn a_flood_of_log_lines_is_cut_off_and_counted() {
    let plugin = plugins::load("hostile");
    let (lines, _hearing) = Lines::hear();
    plugin.inspect(Job::crime("log-flood").context()).await.unwrap();
    let lines = lines.all();
    assert!(lines.len() < 1000, "{} of 100000 lines came through", lines.len());
    assert!(lines.iter().any(|line| line.contains("log lines were dropped")), "nobody says that lines are missing");
}

#[tokio::test]
async fn a_log_line_is_printable_and_of_bounded_length() {
    let plugin = plugins::load("hostile");
    let (lines, _hearing) = Lines::hear();
    plugin.inspect(Job::crime("log-control").context()).await.unwrap();
    plugin.inspect(Job::crime("log-huge").context()).await.unwrap();
    let lines = lines.all();
    assert_eq!(lines.len(), 2);
    for line in &lines {
        assert!(line.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{line:?}");
        assert!(line.len() < 3000, "{} bytes", line.len());
    }
    assert!(lines[0].contains("gone"), "{}", lines[0]);
}

#[tokio::test]
async fn progress_is_printable_and_random_bytes_are_rationed() {
    let plugin = plugins::load("hostile");
    let job = Job::crime("progress-flood");
    plugin.inspect(job.context()).await.unwrap();
    let calls = job.progress.calls();
    assert!(calls.iter().all(|(phase, ..)| phase.chars().all(|c| !c.is_control())), "{:?}", calls[0]);
    plugin.inspect(Job::crime("random").context()).await.unwrap();
}

#[tokio::test]
async fn an_error_with_control_characters_becomes_one_printable_line() {
    let plugin = plugins::load("hostile");
    let SandboxError::Engine(error) = plugin.inspect(Job::crime("error-control").context()).await.unwrap_err() else {
        panic!("not the plugin's answer")
    };
    assert_eq!(error.kind, EngineErrorKind::Denied);
    assert!(error.message.chars().all(|c| !c.is_control()), "{:?}", error.message);
    assert!(error.hint.unwrap().chars().all(|c| !c.is_control()));

    let (_, message) = refusal(plugin.inspect(Job::crime("error-huge").context()).await.unwrap_err());
    assert!(message.len() < 5000, "{} bytes", message.len());
}

#[tokio::test]
async fn what_is_not_granted_does_not_exist() {
    let plugin = plugins::load("hostile");
    let cases = [
        ("ask-endpoint", "endpoint `nowhere`"),
        ("ask-credential", "credential `nobody`"),
        ("ask-directory", "directory `nothing`"),
        ("ask-tool", "tool `sh`"),
    ];
    for (behaviour, words) in cases {
        let (kind, message) = refusal(plugin.inspect(Job::crime(behaviour).context()).await.unwrap_err());
        assert_eq!(kind, EngineErrorKind::BadConfig, "{behaviour}");
        assert!(message.contains(words) && message.contains("not granted"), "{behaviour}: {message}");
    }
}

#[tokio::test]
async fn connections_are_rationed_one_by_one_and_all_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let plugin = plugins::load("hostile");
    let job = Job::crime("connections").endpoint("primary", &address);
    let (_, message) = refusal(plugin.inspect(job.context()).await.unwrap_err());
    assert_eq!(message, "16 open: too many connections are open");

    let job = Job::crime("connections-at-once").endpoint("primary", &address);
    let (_, message) = refusal(plugin.inspect(job.context()).await.unwrap_err());
    assert_eq!(message, "16 open, 984 refused");
}

#[tokio::test]
async fn taking_the_same_bytes_twice_ends_the_plugin() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let job = Job::crime("receive-twice").endpoint("primary", &listener.local_addr().unwrap().to_string());
    let reason = trap(plugins::load("hostile").inspect(job.context()).await.unwrap_err());
    assert!(reason.contains("already taken"), "{reason}");
}

#[tokio::test]
async fn handles_and_streams_run_out() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), vec![1; 2 << 20]).unwrap();
    let plugin = plugins::load("hostile");
    for behaviour in ["handles", "streams"] {
        let job = Job::crime(behaviour).folder("data", folder.path());
        trap(plugin.inspect(job.context()).await.unwrap_err());
        plugin.inspect(Job::crime("honest").context()).await.unwrap();
    }
}

/// Runs one crime in this process and says how much memory the process took at most.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn act() {
    let folder = child::setting("FOLDER");
    let job = Job::crime(&child::setting("BEHAVIOUR")).folder("data", folder.as_ref());
    let ended = plugins::load("hostile").backup(job.context(), "crime", "b1", MemoryBackup::new()).await;
    println!("\n{} {}", child::peak_kib(), ended.is_ok());
}

fn peak_kib(behaviour: &str, folder: &str) -> u64 {
    let output = child::run("crime", &[("BEHAVIOUR", behaviour), ("FOLDER", folder)]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{behaviour}: {told}{}", String::from_utf8_lossy(&output.stderr));
    let line = told.lines().find(|line| line.starts_with(|c: char| c.is_ascii_digit())).unwrap();
    line.split_once(' ').unwrap().0.parse().unwrap()
}

#[test]
fn no_crime_takes_much_more_memory_than_the_plugin_may_have() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), vec![1; 4 << 20]).unwrap();
    let folder = folder.path().to_str().unwrap();
    plugins::component("hostile");
    let honest = peak_kib("honest", folder);
    // The plugin's 64 MiB; what streams hold: two chunks for each of 100; and slack.
    let cases = [
        ("allocate", 64 + 32),
        ("stack", 32),
        ("log-flood", 32),
        ("log-huge", 32),
        ("lie-notes", 32),
        ("error-huge", 32),
        ("abandon-many", 64),
        ("unread", 32),
        ("trickle", 64 + 100 / 2 + 32),
        ("handles", 32),
    ];
    for (behaviour, mib_max) in cases {
        let peak = peak_kib(behaviour, folder);
        let more_mib = peak.saturating_sub(honest) >> 10;
        println!("{behaviour}: {more_mib} MiB more than an honest run's {} MiB", honest >> 10);
        assert!(more_mib <= mib_max, "{behaviour} took {more_mib} MiB more than an honest run");
    }
}
