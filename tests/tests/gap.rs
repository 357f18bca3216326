//! The archive was away for too long and the server has thrown log away: it is told, accepted by the operator, and
//! shown; restores work on both sides of the gap and never across it.

use anyhow::{Context, Result, ensure};
use backstay_tests::{
    backstay::{Backstay, Backup, SLOT, TARGET, position},
    history::History,
    ledger::{self, Ledger, Workload},
    limits,
    lsn::Lsn,
    postgres::{Installation, Options, Postgres},
    rehearsal::Rehearsal,
    scratch::wait_for,
    seed::Seed,
    target::{Stop, Target},
};
use serde_json::Value;
use std::time::Duration;

const SEGMENT_MB: u32 = 1;

/// A server that keeps as little log as it can.
fn forgetful(installation: &Installation) -> Result<Postgres> {
    let conf = ["wal_keep_size = 0", "min_wal_size = '2MB'", "max_wal_size = '8MB'"].map(String::from).to_vec();
    let server = Postgres::create(installation, &Options { conf, wal_segment_mb: SEGMENT_MB, ..Options::default() })?;
    ledger::create(&server, None)?;
    Ok(server)
}

/// Commits for a moment, sets a name, and answers what was committed by then; a little more comes behind it.
fn write(server: &Postgres, seed: &mut Seed, name: &str) -> Result<Ledger> {
    let load = Workload::start(server, 4, 200, seed)?;
    std::thread::sleep(Duration::from_secs(1));
    load.stop(server)?;
    let ledger = Ledger::read(server)?;
    server.sql(&format!("SELECT pg_create_restore_point('{name}')"))?;
    server.sql("INSERT INTO ledger VALUES (pg_current_xact_id()::text::bigint, 0, 1, 0, 'behind the name')")?;
    Ok(ledger)
}

/// Goes on writing until the server no longer has the file that holds `tail`.
fn forget(server: &Postgres, tail: Lsn) -> Result<()> {
    wait_for("the slot to be free", limits::ARCHIVE_STOP, || {
        let free = server.sql(&format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{SLOT}'"))?;
        Ok((free == "t").then_some(()))
    })?;
    server.sql(&format!("SELECT pg_drop_replication_slot('{SLOT}')"))?;
    let file = server.sql(&format!("SELECT pg_walfile_name('{tail}'::pg_lsn + 1)"))?;
    wait_for("the server to throw log away", limits::SERVER_STOP, || {
        server.sql("INSERT INTO ledger VALUES (pg_current_xact_id()::text::bigint, 0, 1, 0, 'in the gap')")?;
        server.sql("SELECT pg_switch_wal()")?;
        server.sql("CHECKPOINT")?;
        Ok((!server.data().join("pg_wal").join(&file).exists()).then_some(()))
    })
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

fn windows(backstay: &Backstay) -> Result<Vec<Value>> {
    let answer = backstay.ok(&["window", TARGET])?;
    answer.as_array().cloned().with_context(|| format!("`window` answered no list: {answer}"))
}

#[test]
fn a_gap_is_told_then_accepted_and_restores_work_on_both_sides_of_it() -> Result<()> {
    let mut seed = Seed::from_env("gap");
    let server = forgetful(&Installation::postgres_15()?)?;
    let backstay = Backstay::in_folder(&server.address())?;
    let named = |name: &str| Stop { target: Target::Name(name.into()), inclusive: true };

    let mut archive = backstay.archive()?;
    server.wait_streaming("backstay")?;
    let first = backstay.backup()?;
    let before = write(&server, &mut seed, "before the gap")?;
    backstay.wait_archived(&mut archive, server.flushed()?)?;
    archive.stop()?;
    let tail = backstay.window_end()?.context("a window")?;
    forget(&server, tail)?;

    let outcome = backstay.fails(&["archive", TARGET], 4, &["has already been removed"])?;
    ensure!(outcome.stderr.contains("--accept-gap"), "no way out is told: {}", outcome.stderr);
    // Nothing happened yet: what could be restored still can.
    let [window] = &windows(&backstay)?[..] else { anyhow::bail!("not one window") };
    ensure!(position(&window["to"])? == tail && window["gaps"] == Value::Array(Vec::new()), "{window}");
    backstay.ok(&["repo", "check", "main"])?;

    let mut archive = backstay.spawn(&["-v", "archive", TARGET, "--accept-gap"])?;
    server.wait_streaming("backstay").with_context(|| archive.log())?;
    let second = backstay.backup()?;
    let after = write(&server, &mut seed, "behind the gap")?;
    let last = Ledger::read(&server)?;
    backstay.wait_archived(&mut archive, server.flushed()?)?;
    archive.stop()?;

    let shown = windows(&backstay)?;
    let [older, newer] = &shown[..] else { anyhow::bail!("not two windows: {shown:?}") };
    ensure!(position(&older["to"])? == tail, "{older}");
    ensure!(position(&newer["from"])? == second.end, "{newer}");
    ensure!(newer["gaps"] == Value::Array(Vec::new()), "{newer}");
    let [gap] = older["gaps"].as_array().map(Vec::as_slice).unwrap_or_default() else {
        anyhow::bail!("not one gap behind the older window: {older}")
    };
    ensure!(position(&gap["from"])? == tail && position(&gap["to"])? > tail, "{gap}");
    ensure!(position(&gap["to"])? <= second.start, "the gap reaches into the backup: {gap}");
    let text = backstay.command(&["window", TARGET]).output()?;
    let text = String::from_utf8(text.stdout)?;
    ensure!(text.lines().any(|line| line.starts_with("gap: log is missing from")), "{text}");
    let report = backstay.fails(&["repo", "check", "main"], 4, &["log is missing"])?;
    ensure!(report.json["gaps"].as_array().is_some_and(|gaps| gaps.len() == 1), "{}", report.json);

    restored(&backstay, &server, &first, &named("before the gap"), &before)?;
    restored(&backstay, &server, &second, &named("behind the gap"), &after)?;
    restored(&backstay, &server, &second, &Stop::latest(), &last)?;
    let into = backstay.scratch().join("across").display().to_string();
    for to in ["latest", "name:behind the gap"] {
        let across = ["restore", TARGET, "--into", &into, "--backup", &first.id, "--to", to];
        let outcome = backstay.fails(&across, 4, &["log is missing"])?;
        ensure!(outcome.json["error"]["kind"] == "gap", "{}", outcome.json);
    }
    let inside = format!("position:{}", Lsn(tail.0 + 1024 * 1024));
    backstay.fails(&["restore", TARGET, "--into", &into, "--to", &inside], 4, &["log is missing"])?;
    backstay.finish()
}
