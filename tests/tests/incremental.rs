//! Method `incremental`: PostgreSQL 17 and later send only blocks that changed; what is stored is a full backup all
//! the same, and restores to random places yield the ledger.

use anyhow::{Context, Result, ensure};
use backstay_tests::{
    backstay::{Backstay, Backup},
    history::History,
    ledger::{self, Ledger, Workload},
    limits,
    postgres::{self, Installation, Options, Postgres},
    rehearsal::{Rehearsal, adopt_restic_restore, restic_restore},
    scratch::{Scratch, run, wait_for},
    seed::Seed,
    target::Stop,
};
use std::time::Duration;

/// Random places restored to.
const TARGETS: usize = 4;

const BY_CHANGES: [&str; 2] = ["--method", "incremental"];

fn summarizing() -> Options {
    Options { conf: vec!["summarize_wal = on".into()], ..Options::default() }
}

#[test]
fn changed_blocks_become_full_backups() -> Result<()> {
    let mut seed = Seed::from_env("incremental_18");
    let installation = Installation::postgres_18()?;
    let primary = Postgres::create(&installation, &summarizing())?;
    primary.tablespace("elsewhere")?;
    ledger::create(&primary, Some("elsewhere"))?;
    // What never changes, what grows, what is cut short, what goes, and what is made anew in between.
    primary.sql("CREATE TABLE still AS SELECT n, md5(n::text) FROM generate_series(1, 200000) n")?;
    primary.sql("CREATE TABLE growing AS SELECT n FROM generate_series(1, 50000) n")?;
    primary.sql("CREATE TABLE shrinking AS SELECT n, md5(n::text) FROM generate_series(1, 100000) n")?;
    primary.sql("CREATE TABLE going AS SELECT n FROM generate_series(1, 1000) n")?;
    primary.sql("CREATE TABLE scattered (n int, filler text) WITH (fillfactor = 50)")?;
    primary.sql("INSERT INTO scattered SELECT n, repeat('x', 200) FROM generate_series(1, 100000) n")?;
    primary.sql("CREATE TABLE regrown AS SELECT n, repeat('x', 500) FROM generate_series(1, 40000) n")?;
    let copied = Scratch::new()?;
    let copied = copied.join("rows");
    let backstay = Backstay::in_folder(&primary.address())?;
    let from = ledger::mark(&primary)?;
    let mut archive = backstay.archive()?;
    primary.wait_streaming("backstay")?;
    let load = Workload::start(&primary, 6, 250, &mut seed)?;
    ledger::run_for(&primary, Duration::from_secs(1), Duration::from_millis(300), "early ")?;

    let full = backstay.backup_with(&["--method", "stream"])?;
    let mut backups = vec![full];
    for round in 0..3 {
        primary.sql("INSERT INTO growing SELECT n FROM generate_series(1, 30000) n")?;
        primary.sql(&format!("DELETE FROM shrinking WHERE n > {}", 60_000 - 20_000 * round))?;
        primary.sql("VACUUM (TRUNCATE) shrinking")?;
        primary.sql(&format!("UPDATE scattered SET n = n + 1 WHERE n % 997 = {round}"))?;
        primary.sql(&format!("CREATE TABLE made{round} AS SELECT n FROM generate_series(1, 5000) n"))?;
        primary.sql("DROP TABLE IF EXISTS going")?;
        // Cut, then made longer by a bulk load, which adds blocks that the log does not mention.
        primary.sql("DELETE FROM regrown WHERE n > 2000")?;
        primary.sql("VACUUM (TRUNCATE) regrown")?;
        let rows = format!("SELECT n, repeat('y', 500) FROM generate_series(1, {}) n", 20_001 + round);
        primary.sql(&format!("COPY ({rows}) TO '{}'", copied.display()))?;
        primary.sql(&format!("COPY regrown FROM '{}'", copied.display()))?;
        ledger::run_for(&primary, Duration::from_secs(1), Duration::from_millis(300), &format!("round {round} "))?;
        backups.push(backstay.backup_with(&BY_CHANGES)?);
    }
    let sum = "SELECT (SELECT count(*) FROM growing), (SELECT sum(hashtext(t::text)) FROM shrinking t),
               (SELECT sum(hashtext(t::text)) FROM scattered t), (SELECT sum(hashtext(t::text)) FROM still t),
               (SELECT count(*) FROM made2), (SELECT sum(hashtext(t::text)) FROM regrown t)";
    let expected = primary.sql(sum)?;
    load.stop(&primary)?;
    let history = History::read(&primary, from)?;
    let ends = Ledger::read(&primary)?;
    backstay.wait_archived(&mut archive, primary.flushed()?)?;
    archive.stop()?;

    let (first, last) = (&backups[0], &backups[3]);
    ensure!(last.uploaded < first.uploaded, "{} after {}", last.uploaded, first.uploaded);
    let rehearsal = Rehearsal::new(&backstay, &installation, &history, &ends, first);
    for backup in &backups[1..] {
        let restored = rehearsal.at(&Stop::latest(), &["--backup", &backup.id])?;
        let found = restored.server.sql(sum)?;
        ensure!(found == expected, "{found} in place of {expected}");
    }
    for _ in 0..TARGETS {
        rehearsal.at(&history.random_target(&mut seed, last.end)?, &[])?;
    }

    // PostgreSQL's own judge: every file has the size and the checksum that the manifest says.
    let scratch = Scratch::new()?;
    let data = rehearsal.files(&scratch, &Stop::latest(), &["--backup", &last.id])?;
    rehearsal.verify(&data)?;

    // With Backstay gone.
    let root = Scratch::new()?;
    backstay.restic().restore(&last.snapshot, root.path())?;
    let data = restic_restore(root.path())?;
    adopt_restic_restore(root.path(), &data)?;
    let mut server = Postgres::adopt(&installation, &data)?;
    server.start_without_waiting()?;
    server.wait_ready(Duration::from_secs(60)).context("what stock restic restored must start under PostgreSQL")?;
    ensure!(server.sql(sum)? == expected);
    drop(server);
    backstay.finish()
}

#[test]
fn after_a_failover_everything_is_copied_and_changes_go_on_from_there() -> Result<()> {
    let installation = Installation::postgres_18()?;
    let mut primary = Postgres::create(&installation, &summarizing())?;
    primary.sql("CREATE TABLE still AS SELECT n, md5(n::text) FROM generate_series(1, 100000) n")?;
    primary.sql("CREATE TABLE growing AS SELECT n FROM generate_series(1, 1000) n")?;
    let mut standby = primary.standby("second")?;
    let backstay = Backstay::in_folder(&primary.address())?;
    let by_changes = || {
        let outcome = backstay.run(&["-v", "backup", "shop", "--method", "incremental"])?;
        ensure!(outcome.code == 0, "{}", outcome.stderr);
        Ok((Backup::read(&outcome.json)?, outcome.stderr.contains("changed its timeline")))
    };
    by_changes()?;
    primary.sql("INSERT INTO growing SELECT n FROM generate_series(1, 1000) n")?;
    let (_, switched) = by_changes()?;
    ensure!(!switched, "there was no failover yet");

    let end = primary.flushed()?;
    let caught_up = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'");
    wait_for("the standby to catch up", limits::RECOVERY, || Ok((standby.sql(&caught_up)? == "t").then_some(())))?;
    primary.stop(postgres::Stop::Fast)?;
    standby.take_over(&primary)?;
    standby.sql("INSERT INTO growing SELECT n FROM generate_series(1, 1000) n")?;
    let (full, switched) = by_changes()?;
    ensure!(switched, "the backup before is of another timeline");
    standby.sql("INSERT INTO growing SELECT n FROM generate_series(1, 1000) n")?;
    let (changes, switched) = by_changes()?;
    ensure!(!switched, "the backup before is of this timeline");

    for (backup, rows) in [(full, 3000), (changes, 4000)] {
        let into = Scratch::new()?;
        let data = into.join("data");
        backstay.restore(&data, &["--backup".into(), backup.id])?;
        run(installation.tool("pg_verifybackup").arg("-n").arg(&data))?;
        let mut server = Postgres::adopt(&installation, &data)?;
        server.start_without_waiting()?;
        server.wait_recovered()?;
        let found =
            server.sql("SELECT (SELECT count(*) FROM growing), (SELECT sum(hashtext(t::text)) FROM still t)")?;
        let expected = standby.sql(&format!("SELECT {rows}, sum(hashtext(t::text)) FROM still t"))?;
        ensure!(found == expected, "{found} in place of {expected}");
    }
    backstay.finish()
}

#[test]
fn what_the_server_cannot_do_is_told_with_a_way_out() -> Result<()> {
    let old = Postgres::create(&Installation::postgres_15()?, &Options::default())?;
    let backstay = Backstay::in_folder(&old.address())?;
    let arguments = ["backup", "shop", "--method", "incremental"];
    let outcome = backstay.fails(&arguments, 1, &["makes no incremental backups"])?;
    ensure!(outcome.stderr.contains("use the method stream or files"), "{}", outcome.stderr);
    drop(old);

    let new = Postgres::create(&Installation::postgres_18()?, &Options::default())?;
    let backstay = Backstay::in_folder(&new.address())?;
    let first = backstay.backup_with(&BY_CHANGES).context("the first copies everything")?;
    ensure!(first.bytes > 0);
    let outcome = backstay.fails(&arguments, 2, &["WAL summarization"])?;
    ensure!(outcome.stderr.contains("summarize_wal"), "{}", outcome.stderr);
    backstay.finish()
}
