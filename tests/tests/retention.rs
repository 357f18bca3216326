//! Backups and log are dropped by policy while the server is written to and the archive runs, and everything that the
//! policy keeps comes back; stock restic prunes, forgets and backs up beside it.

use anyhow::{Context, Result, ensure};
use backstay_tests::{
    backstay::{Backstay, Backup, Running, TARGET, position},
    history::History,
    kill::descendants,
    ledger::{self, Ledger, Workload},
    limits,
    postgres::{Installation, Options, Postgres},
    rehearsal::Rehearsal,
    s3::{self, S3},
    scratch::{run, wait_for},
    seed::Seed,
    target::{Stop, Target},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    fs,
    time::{Duration, Instant},
};

/// Commits for a moment and sets a name; answers what was committed by then.
fn write(server: &Postgres, seed: &mut Seed, name: &str) -> Result<Ledger> {
    let load = Workload::start(server, 4, 200, seed)?;
    std::thread::sleep(Duration::from_secs(2));
    load.stop(server)?;
    let ledger = Ledger::read(server)?;
    server.sql(&format!("SELECT pg_create_restore_point('{name}')"))?;
    server.sql("SELECT pg_switch_wal()")?;
    Ok(ledger)
}

fn named(name: &str) -> Stop {
    Stop { target: Target::Name(name.into()), inclusive: true }
}

/// Restores to `stop` and compares.
fn restored(backstay: &Backstay, server: &Postgres, from: &Backup, stop: &Stop, expected: &Ledger) -> Result<()> {
    // No history: what must be there was read when nothing was written.
    let history = History { events: Vec::new(), timelines: Vec::new() };
    let rehearsal = Rehearsal::new(backstay, &server.installation, &history, expected, from);
    let restored = rehearsal.start(stop, &[])?;
    Ledger::read(&restored.server)?
        .must_equal(expected, &history)
        .with_context(|| format!("{stop}\n{}", restored.server.log_tail()))
}

fn ids(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(|one| one["id"].as_str()).collect()
}

/// What people read of a command that must succeed.
fn text(backstay: &Backstay, arguments: &[&str]) -> Result<String> {
    Ok(String::from_utf8(run(&mut backstay.command(arguments))?.stdout)?)
}

/// Runs a command dry and then for good: both show the same plan to the letter, and only say otherwise what became of it.
fn shown_and_done(backstay: &Backstay, arguments: &[&str], would: &str, did: &str) -> Result<String> {
    let look = text(backstay, &[arguments, &["--dry-run"]].concat())?;
    let done = text(backstay, arguments)?;
    ensure!(look.matches(would).count() == 1 && look.replace(would, did) == done, "{look}\nbecame\n{done}");
    Ok(done)
}

/// A command's process and all that came from it.
fn family(of: &Running) -> Vec<u32> {
    descendants(of.pid()).into_iter().chain([of.pid()]).collect()
}

fn signal(family: &[u32], signal: Signal) -> Result<()> {
    let mut pids = family.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?));
    Ok(pids.try_for_each(|pid| kill_process(pid, signal))?)
}

/// Runs it again while somebody else holds a lock, as a schedule would.
fn when_unlocked(backstay: &Backstay, arguments: &[&str]) -> Result<Value> {
    wait_for("the repository to be unlocked", limits::COMMAND, || {
        let outcome = backstay.run(arguments)?;
        let locked = outcome.stderr.contains("the repository is locked");
        ensure!(outcome.code == 0 || locked, "{arguments:?} ended with {}: {}", outcome.code, outcome.stderr);
        Ok((outcome.code == 0).then_some(outcome.json))
    })
}

#[test]
fn what_the_window_needs_stays_and_comes_back_and_the_rest_is_freed() -> Result<()> {
    let mut seed = Seed::from_env("retention");
    let server = Postgres::create(&Installation::postgres_15()?, &Options { wal_segment_mb: 1, ..Options::default() })?;
    ledger::create(&server, None)?;
    let mut backstay = Backstay::in_folder(&server.address())?;
    backstay.fails(&["forget", TARGET], 2, &["no retention policy"])?;
    let mut archive = backstay.archive()?;
    server.wait_streaming("backstay")?;
    let mut make = |name| Ok::<_, anyhow::Error>((name, backstay.backup()?, write(&server, &mut seed, name)?));
    let made = [make("first")?, make("second")?, make("third")?, make("fourth")?];
    backstay.wait_archived(&mut archive, server.flushed()?)?;

    a_mirror_is_thinned_by_a_policy_of_its_own(&mut backstay, &made.each_ref().map(|(_, backup, _)| &*backup.id))?;

    // It stands still for a while: idle, it moves the window on every few seconds, and no look would say what is done then.
    let archiver = family(&archive);
    signal(&archiver, Signal::STOP)?;
    // The window starts inside the third backup's log.
    let (_, third, _) = &made[2];
    let window = backstay.ok(&["window", TARGET])?;
    let end = jiff_seconds(&window[0]["to"]["time"])?;
    let shown = backstay.ok(&["backups", "show", &third.id])?;
    let seconds = (end - jiff_seconds(&shown["consistent-at"])?).max(1.0) - 0.5;
    let policy = format!("pitr-window = \"{}ms\"", (seconds * 1000.0) as u64);
    backstay.reconfigure(|config| config.limits.push(format!("[targets.{TARGET}.retention]\n{policy}")))?;

    let pinned = &made[0].1;
    let look = backstay.ok(&["forget", TARGET, "--dry-run"])?;
    ensure!(backstay.ok(&["backups", TARGET])?.as_array().is_some_and(|all| all.len() == 4), "a look forgot");
    let quick = backstay.ok(&["forget", TARGET, "--dry-run", "--quick"])?;
    ensure!(quick["forgotten"] == look["forgotten"] && quick["bytes-freed"].is_null(), "{quick}");
    let plan = backstay.ok(&["forget", TARGET])?;
    for part in ["kept", "forgotten", "waiting", "log", "bytes-freed"] {
        ensure!(plan[part] == look[part], "{part}: {look}\nbecame\n{plan}");
    }
    let freed = &backstay.ok(&["prune", "main", "--dry-run"])?["bytes-freed"];
    ensure!(
        freed.as_u64().is_some_and(|bytes| bytes > 0) && plan["bytes-freed"] == *freed,
        "{freed} are freed, not\n{plan}"
    );
    ensure!(ids(&plan["forgotten"]) == [&made[1].1.id], "{plan}");
    let reasons = plan["kept"].to_string();
    ensure!(reasons.contains("audit") && reasons.contains("\"window\"") && reasons.contains("\"newest\""), "{plan}");

    let size = || -> Result<u64> { folder_bytes(&backstay.repository()) };
    let before = size()?;
    let most = backstay.ok(&["prune", "main", "--max-unused", "0", "--dry-run"])?;
    let max_repack = copied(&most)?.checked_sub(1).context("nothing is used in part")?.to_string();
    let bounded = ["prune", "main", "--max-unused", "0", "--max-repack", &max_repack];
    let look = backstay.ok(&[&bounded[..], &["--dry-run"]].concat())?;
    ensure!(size()? == before, "a look freed something");
    ensure!(copied(&look)? < copied(&most)? && most["plan"]["unused-bytes-left"] == 0, "{most}\n{look}");
    let plan = backstay.ok(&bounded)?;
    let (freed, told) = (before - size()?, plan["bytes-freed"].as_u64().context("bytes-freed")?);
    for part in ["plan", "logs", "bytes-freed"] {
        ensure!(plan[part] == look[part], "{part}: {look}\nbecame\n{plan}");
    }
    // New headers and an index take a little.
    ensure!(freed + 64 * 1024 > told, "freed {freed}, told {told}");
    ensure!(plan["logs"][0]["objects"].as_u64() > Some(0), "no log went: {plan}");
    signal(&archiver, Signal::CONT)?;
    archive.must_run()?;
    backstay.ok(&["repo", "check", "main", "--read-data"])?;

    let last = write(&server, &mut seed, "after the prune")?;
    backstay.wait_archived(&mut archive, server.flushed()?)?;
    archive.stop()?;
    // From here on it is another machine: what the server's was granted is not there.
    fs::remove_file(backstay.scratch().join("database.password"))?;
    let gone = backstay.scratch().join("gone").display().to_string();
    backstay.reconfigure(|config| config.grants.push(format!("directories.data = \"{gone}\"")))?;
    backstay.fails(&["backup", TARGET], 2, &["database.password"])?;
    let (_, fourth, of_fourth) = &made[3];
    restored(&backstay, &server, third, &named("third"), &made[2].2)?;
    restored(&backstay, &server, third, &named("fourth"), of_fourth)?;
    restored(&backstay, &server, fourth, &named("after the prune"), &last)?;
    // The pinned one is a restore point of its own.
    let into = backstay.scratch().join("pinned");
    backstay.restore(&into, &["--to".into(), "backup-end".into(), "--backup".into(), pinned.id.clone()])?;
    let across = backstay.scratch().join("across").display().to_string();
    let back = ["restore", TARGET, "--into", &across, "--to", "name:first", "--backup", &pinned.id];
    backstay.fails(&back, 4, &[])?;
    let (sound, text) = backstay.restic().attempt(&["check"])?;
    ensure!(sound && !text.contains("not referenced"), "{text}");
    backstay.finish()
}

/// The mirror gets all four. Pins count there, whether they came along or were made later, and home stays as it is.
fn a_mirror_is_thinned_by_a_policy_of_its_own(backstay: &mut Backstay, made: &[&str; 4]) -> Result<()> {
    let judge = backstay.add_repository("second")?;
    backstay.reconfigure(|config| config.target.push("mirrors = [\"second\"]".into()))?;
    backstay.ok(&["backups", "pin", made[0], "--reason", "audit"])?;
    let copied = backstay.ok(&["repo", "copy", "main", "second"])?;
    let pairs = copied["copied"].as_array().context("copied")?;
    let there = made.map(|id| pairs.iter().find(|pair| pair["from"] == id).and_then(|pair| pair["to"].as_str()));
    let [Some(first), Some(second), Some(_), Some(fourth)] = there else { anyhow::bail!("not all came: {copied}") };
    backstay.ok(&["backups", "pin", made[1], "--reason", "trial"])?;

    let thin = ["forget", TARGET, "--repository", "second", "--keep-last", "1"];
    let done = shown_and_done(backstay, &thin, "would forget", "forgot")?;
    let said = ["pinned: audit", "pinned: trial", "a prune frees", "forgot 1 of 4"];
    ensure!(said.iter().all(|words| done.contains(words)), "{done}");
    let left = judge.snapshots()?;
    ensure!(left.len() == 3 && [first, second, fourth].iter().all(|id| left.contains(&(*id).to_owned())), "{left:?}");
    let home = backstay.ok(&["backups", TARGET])?;
    ensure!(ids(&home) == made, "home was thinned: {home}");
    let named = ["forget", TARGET, "--repository", "second", "--backup", &second[..12]];
    backstay.fails(&named, 1, &["pinned: trial"])?;
    backstay.ok(&["backups", "unpin", made[1]])?;
    ensure!(ids(&backstay.ok(&named)?["forgotten"]) == [second], "unpinning did not reach the mirror");
    shown_and_done(backstay, &["prune", "second"], "would free", "freed")?;
    judge.check_read_data()
}

/// Bytes that a prune copies.
fn copied(pruned: &Value) -> Result<u64> {
    let repacked = pruned["plan"]["repack"].as_array().context("repack")?;
    let bytes: Option<u64> = repacked.iter().map(|pack| pack["used-bytes"].as_u64()).sum();
    bytes.context("used-bytes")
}

/// An RFC 3339 time as seconds since 1970.
fn jiff_seconds(time: &Value) -> Result<f64> {
    let text = time.as_str().with_context(|| format!("no time: {time}"))?;
    Ok(text.parse::<jiff::Timestamp>()?.as_microsecond() as f64 / 1e6)
}

fn folder_bytes(folder: &std::path::Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let is_folder = entry.file_type()?.is_dir();
        // An archiver's object may be merged away while we look.
        bytes += if is_folder { folder_bytes(&entry.path())? } else { entry.metadata().map_or(0, |there| there.len()) };
    }
    Ok(bytes)
}

#[test]
fn writers_an_archive_prunes_and_stock_restic_work_on_one_repository_at_once() -> Result<()> {
    let mut seed = Seed::from_env("together");
    let server = Postgres::create(&Installation::postgres_15()?, &Options { wal_segment_mb: 1, ..Options::default() })?;
    ledger::create(&server, None)?;
    let backstay = Backstay::in_folder(&server.address())?;
    let mut archive = backstay.archive()?;
    server.wait_streaming("backstay")?;
    let load = Workload::start(&server, 4, 200, &mut seed)?;
    let theirs = backstay.scratch().folder("theirs")?;
    backstay_tests::account::write(&theirs.join("file"), &"theirs ".repeat(100_000))?;
    let theirs = theirs.display().to_string();
    let backup = || {
        Ok::<_, anyhow::Error>(
            when_unlocked(&backstay, &["backup", TARGET])?["id"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let mut last = (String::new(), String::new());
    for _ in 0..3 {
        // Two writers and both programs' prunes and forgets, all at once.
        last = std::thread::scope(|scope| -> Result<(String, String)> {
            let first = scope.spawn(backup);
            let second = scope.spawn(backup);
            let others = scope.spawn(|| -> Result<()> {
                when_unlocked(&backstay, &["forget", TARGET, "--keep-last", "2"])?;
                when_unlocked(&backstay, &["prune", "main"])?;
                Ok(())
            });
            let restic = scope.spawn(|| -> Result<()> {
                backstay.restic().when_unlocked(&["backup", &theirs])?;
                backstay.restic().when_unlocked(&["forget", "--path", &theirs, "--keep-last", "1"])?;
                backstay.restic().when_unlocked(&["prune"])?;
                Ok(())
            });
            let ended =
                |what: std::thread::Result<Result<()>>| what.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            ended(others.join()).context("forget and prune")?;
            ended(restic.join()).context("stock restic")?;
            let id = |what: std::thread::Result<Result<String>>| {
                what.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            Ok((id(first.join()).context("a backup")?, id(second.join()).context("a backup")?))
        })?;
    }
    load.stop(&server)?;
    let expected = Ledger::read(&server)?;
    backstay.wait_archived(&mut archive, server.flushed()?)?;
    archive.stop()?;
    when_unlocked(&backstay, &["forget", TARGET, "--keep-last", "2"])?;
    when_unlocked(&backstay, &["prune", "main", "--max-unused", "0"])?;
    let left = backstay.ok(&["backups", TARGET])?;
    let left = ids(&left);
    ensure!(left.len() == 2 && left.contains(&last.0.as_str()) && left.contains(&last.1.as_str()), "{left:?} {last:?}");
    ensure!(backstay.restic().snapshots()?.len() == 3, "restic's own backup is gone");
    backstay.ok(&["repo", "check", "main", "--read-data"])?;
    for id in left {
        let shown = backstay.ok(&["backups", "show", id])?;
        ensure!(position(&shown["end"])?.0 > 0, "{shown}");
        let into = backstay.scratch().join(format!("to-{id}")).display().to_string();
        backstay.ok(&["restore", TARGET, "--into", &into, "--backup", id, "--to", "latest"])?;
    }
    a_prune_waits_for_whoever_works_there(&backstay)?;
    let newest = backstay.backup()?;
    restored(&backstay, &server, &newest, &Stop::latest(), &expected)?;
    backstay.finish()
}

/// A backup that stands still in the middle holds its lock.
fn a_prune_waits_for_whoever_works_there(backstay: &Backstay) -> Result<()> {
    let locks = backstay.repository().join("locks");
    let backup = backstay.spawn(&["backup", TARGET])?;
    wait_for("the backup to take its lock", limits::COMMAND, || Ok(fs::read_dir(&locks)?.next().map(drop)))?;
    let family = family(&backup);
    signal(&family, Signal::STOP)?;
    let begun = Instant::now();
    backstay.fails(&["prune", "main", "--wait", "2s"], 1, &["the repository is locked"])?;
    ensure!(begun.elapsed() >= Duration::from_secs(2), "it did not wait");
    let prune = backstay.spawn(&["-v", "prune", "main", "--wait", "10m"])?;
    let waits = || Ok(prune.log().contains("waiting for the lock").then_some(()));
    wait_for("the prune to wait", limits::COMMAND, waits)?;
    signal(&family, Signal::CONT)?;
    for (what, running) in [("backup", backup), ("prune", prune)] {
        let outcome = running.wait(limits::COMMAND)?;
        ensure!(outcome.code == 0, "the {what} ended with {}: {}", outcome.code, outcome.stderr);
    }
    Ok(())
}

#[test]
fn what_a_locked_bucket_keeps_waits_and_is_told() -> Result<()> {
    let s3 = S3::start_with(s3::Options { object_lock_days: Some(2), ..s3::Options::default() })?;
    let mut seed = Seed::from_env("retention");
    let server = Postgres::create(&Installation::postgres_15()?, &Options { wal_segment_mb: 1, ..Options::default() })?;
    ledger::create(&server, None)?;
    let backstay = Backstay::on_locked_s3(&server.address(), &s3, 2)?;
    let mut archive = backstay.archive()?;
    server.wait_streaming("backstay")?;
    let first = backstay.backup()?;
    write(&server, &mut seed, "one")?;
    let second = backstay.backup()?;
    let ledger = write(&server, &mut seed, "two")?;
    backstay.wait_archived(&mut archive, server.flushed()?)?;
    archive.stop()?;

    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(47);
    let late =
        |until: &Value| -> Result<bool> { Ok(until.as_str().context("a time")?.parse::<jiff::Timestamp>()? > soon) };
    for arguments in [["forget", TARGET, "--keep-last", "1", "--dry-run"], ["forget", TARGET, "--keep-last", "1", "-v"]]
    {
        let plan = backstay.ok(&arguments)?;
        ensure!(ids(&plan["forgotten"]).is_empty(), "the store keeps it: {plan}");
        ensure!(ids(&plan["waiting"]) == [&first.id], "it waits: {plan}");
        ensure!(late(&plan["waiting"][0]["until"])?, "and is told until when: {plan}");
    }
    // Whoever may hide things, as stock restic may, does not free them.
    backstay.restic().when_unlocked(&["forget", &first.id])?;
    let pruned = backstay.ok(&["prune", "main"])?;
    let plan = &pruned["plan"];
    ensure!(plan["unused-bytes-left"].as_u64() > Some(0), "what it alone had is unused: {pruned}");
    ensure!(plan["repack"].as_array().is_some_and(Vec::is_empty), "and not copied, which would free nothing: {pruned}");
    ensure!(pruned["done"]["packs-removed"] == 0 && pruned["bytes-freed"] == 0, "nothing went: {pruned}");
    let log = &pruned["logs"][0];
    ensure!(log["objects"] == 0 && log["objects-waiting"].as_u64() > Some(0), "the log waits, too: {pruned}");
    ensure!(late(&log["waiting-until"])?, "until the store lets it go: {pruned}");
    backstay.ok(&["repo", "check", "main", "--read-data"])?;
    backstay.restic().check_read_data()?;
    restored(&backstay, &server, &second, &named("two"), &ledger)?;
    backstay.finish()
}
