//! A granted program runs as the contract says, and no freer than the job that runs it.

use crate::support::{child, job::Job, plugins};
use backstay_sandbox::{Confinement, EngineErrorKind, Rights, SandboxError, confine};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const SH: &str = "/bin/sh";

/// The plugin's answer: what the tool did.
async fn told(job: &Job) -> String {
    answer(job).await.1
}

async fn answer(job: &Job) -> (EngineErrorKind, String) {
    match plugins::load("hostile").inspect(job.context()).await {
        Err(SandboxError::Engine(error)) => (error.kind, error.message),
        other => panic!("not the plugin's answer: {other:?}"),
    }
}

fn shell(behaviour: &str, script: &str) -> Job {
    Job::crime(behaviour).tool(SH.as_ref(), &["-c", script])
}

fn is_running(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

async fn wait_gone(pid: &str, patience: Duration) {
    assert!(pid.parse::<u32>().is_ok(), "no process id: {pid}");
    let waited = Instant::now();
    while is_running(pid) {
        assert!(waited.elapsed() < patience, "{pid} runs on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_goes_in_comes_out_and_the_exit_code_is_told() {
    let job = Job::crime("tool").tool("/bin/cat".as_ref(), &[]).input("some bytes");
    assert_eq!(told(&job).await, r#"0: "some bytes": """#);
    let large = "0123456789abcdef".repeat(16 << 10);
    let job = shell("tool", "wc -c; echo oops >&2; exit 3").input(&large);
    assert_eq!(told(&job).await, format!(r#"3: "{}\n": "oops""#, large.len()));
}

#[tokio::test]
async fn arguments_reach_the_program_as_they_are() {
    let job = Job::crime("tool").tool("/usr/bin/printf".as_ref(), &["%s|", "a b", "$HOME", "; id", "*"]);
    assert_eq!(told(&job).await, r#"0: "a b|$HOME|; id|*|": """#);
}

#[tokio::test]
async fn the_environment_has_a_path_and_a_locale_and_nothing_else() {
    let job = Job::crime("tool").tool("/usr/bin/env".as_ref(), &[]);
    let told = told(&job).await;
    let expected = [
        r#"0: "PATH=/usr/local/bin:/usr/bin:/bin\nLC_ALL=C\n": """#,
        r#"0: "LC_ALL=C\nPATH=/usr/local/bin:/usr/bin:/bin\n": """#,
    ];
    assert!(expected.contains(&told.as_str()), "{told}");
}

#[tokio::test]
async fn the_tail_of_what_it_complained_about_is_kept_and_printable() {
    let script = "i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done >&2; printf '\\033[2Jend' >&2";
    let told = told(&shell("tool", script)).await;
    // The answer itself is cut to what one message may have.
    assert!(told.starts_with("0: \"\": \"") && told.contains("0123456789") && told.len() < 5000, "{told}");
    assert!(!told.contains('\u{1b}'));
}

#[tokio::test]
async fn an_end_by_a_signal_is_told_as_shells_do() {
    assert_eq!(told(&shell("tool", "kill -SEGV $$")).await, r#"139: "": """#);
}

#[tokio::test]
async fn a_tool_is_asked_to_end_while_its_end_is_waited_for() {
    let script = "trap 'echo tidied >&2; exit 7' TERM; echo up; while :; do sleep 0.05; done";
    let asked = Instant::now();
    assert_eq!(told(&shell("tool-terminate", script)).await, r#"7: "up": "tidied""#);
    assert!(asked.elapsed() < Duration::from_secs(8), "it was killed, not asked");
}

#[tokio::test]
async fn a_tool_that_does_not_listen_is_killed_after_ten_seconds() {
    let script = "trap '' TERM; echo up; while :; do sleep 0.05; done";
    let asked = Instant::now();
    assert_eq!(told(&shell("tool-terminate", script)).await, r#"137: "up": """#);
    assert!((10..30).contains(&asked.elapsed().as_secs()), "after {:?}", asked.elapsed());
}

#[tokio::test]
async fn a_tool_whose_handle_is_dropped_is_asked_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("note");
    let script = format!("trap 'echo tidied > {}; exit' TERM; echo $$; while :; do sleep 0.05; done", note.display());
    let pid = told(&shell("tool-drop", &script)).await;
    wait_gone(&pid, Duration::from_secs(5)).await;
    assert_eq!(fs::read_to_string(note).unwrap(), "tidied\n");
}

#[tokio::test]
async fn a_tool_does_not_outlive_the_job() {
    let pid = told(&shell("tool-left", "trap '' TERM; echo $$; while :; do sleep 0.05; done")).await;
    wait_gone(&pid, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn tools_are_rationed() {
    let (kind, told) = answer(&shell("tools", "sleep 30")).await;
    assert_eq!((kind, told.as_str()), (EngineErrorKind::Internal, "4 run: too many tools are running"));
}

#[tokio::test]
async fn taking_the_output_twice_ends_the_plugin() {
    let job = shell("tool-output-twice", "echo x");
    let error = plugins::load("hostile").inspect(job.context()).await.unwrap_err();
    assert!(matches!(&error, SandboxError::Trapped { reason, .. } if reason.contains("already taken")), "{error}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_a_wrong_grant() {
    let job = Job::crime("tool").tool("/nowhere/tool".as_ref(), &[]);
    let (kind, told) = answer(&job).await;
    assert_eq!(kind, EngineErrorKind::BadConfig);
    assert!(told.contains("failed to run /nowhere/tool"), "{told}");
}

/// Runs tools in a process that has shut itself in: confinement lasts as long as the process.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn act() {
    let folder = PathBuf::from(child::setting("FOLDER"));
    // Loaded before: a job that confined itself does not find its plugin any more.
    let plugin = plugins::load("hostile");
    let rights =
        Rights { write: vec![folder.join("write")], run: vec![folder.join("granted/tool")], ..Rights::default() };
    assert_ne!(
        confine(&rights).unwrap(),
        Confinement::None,
        "this kernel has no Landlock: run the tests on Linux 5.13 or newer with it"
    );
    for (tool, script) in [
        ("granted", format!("echo inside > {0}/write/file; cat {0}/write/file", folder.display())),
        ("granted", format!("cat {}/outside/file", folder.display())),
        ("granted", format!("echo x > {}/outside/new", folder.display())),
        ("granted", format!("{}/other/tool -c 'echo runs'", folder.display())),
        ("other", "echo runs".to_owned()),
    ] {
        let job = Job::crime("tool").tool(&folder.join(tool).join("tool"), &["-c", &script]);
        let error = plugin.inspect(job.context()).await.unwrap_err();
        println!("\n> {error}");
    }
}

#[test]
fn a_granted_tool_reaches_what_the_job_reaches_and_no_other_program_is_run() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["granted", "other", "outside", "write"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let shell = fs::canonicalize(SH).unwrap();
    fs::copy(&shell, folder.path().join("granted/tool")).unwrap();
    fs::copy(&shell, folder.path().join("other/tool")).unwrap();
    fs::write(folder.path().join("outside/file"), "secret").unwrap();
    plugins::load("hostile");
    let output = child::run("tool", &[("FOLDER", folder.path().to_str().unwrap())]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("> ")).collect();
    assert_eq!(lines.len(), 5, "{told}");
    assert_eq!(lines[0], r#"0: "inside\n": """#);
    assert!(lines[1].contains("Permission denied") && !lines[1].contains("secret"), "{}", lines[1]);
    assert!(lines[2].to_lowercase().contains("permission denied"), "{}", lines[2]);
    assert!(lines[3].contains("Permission denied") && !lines[3].contains("runs\\n"), "{}", lines[3]);
    assert!(lines[4].starts_with("failed to run") && lines[4].contains("permission denied"), "{}", lines[4]);
    assert!(!folder.path().join("outside/new").exists());
}
