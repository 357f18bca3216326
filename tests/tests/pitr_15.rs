//! PostgreSQL 15 under load: restores to random places yield exactly what was there, across checkpoints, a
//! planned failover and a tablespace; PostgreSQL's and restic's own tools agree.

use anyhow::{Context, Result, ensure};
use backstay_tests::{
    account,
    backstay::{Backstay, Backup},
    history::History,
    ledger::{self, Ledger, Workload},
    lsn::Lsn,
    postgres::{Installation, Options, Postgres, Stop},
    rehearsal::{Rehearsal, adopt_restic_restore, restic_restore},
    scratch::{Scratch, run},
    seed::Seed,
    target,
};
use std::time::Duration;

#[test]
fn restores_to_random_places_yield_the_ledger_of_that_moment() -> Result<()> {
    let mut seed = Seed::from_env("pitr_15");
    let installation = Installation::postgres_15()?;
    let mut primary = Postgres::create(&installation, &Options::default())?;
    primary.tablespace("elsewhere")?;
    ledger::create(&primary, Some("elsewhere"))?;
    let mut standby = primary.standby("second")?;
    let backstay = Backstay::in_folder(&primary.address())?;
    let from = ledger::mark(&primary)?;

    let mut archive = backstay.archive()?;
    primary.wait_streaming("backstay")?;
    let load = Workload::start(&primary, 6, 250, &mut seed)?;
    ledger::run_for(&primary, Duration::from_secs(1), Duration::from_millis(500), "early ")?;
    let first = backstay.backup()?;
    ledger::run_for(&primary, Duration::from_secs(3), Duration::from_millis(300), "first ")?;
    primary.sql("CHECKPOINT")?;
    primary.sql("SELECT pg_switch_wal()")?;
    ledger::run_for(&primary, Duration::from_secs(2), Duration::from_millis(300), "switched ")?;
    let second = backstay.backup()?;
    ledger::run_for(&primary, Duration::from_secs(2), Duration::from_millis(300), "second ")?;

    // A planned failover: the old primary serves everybody to the end before it goes.
    primary.stop(Stop::Fast)?;
    load.stop_with_server()?;
    standby.take_over(&primary)?;
    standby.wait_streaming("backstay").with_context(|| archive.log())?;
    let load = Workload::start(&standby, 6, 250, &mut seed)?;
    ledger::run_for(&standby, Duration::from_secs(3), Duration::from_millis(300), "after ")?;
    let third = backstay.backup()?;
    ledger::run_for(&standby, Duration::from_secs(2), Duration::from_millis(300), "last ")?;
    load.stop(&standby)?;

    let history = History::read(&standby, from)?;
    let ends = Ledger::read(&standby)?;
    assert_eq!(history.timelines.len(), 2, "{:?}", history.timelines);
    // The file that is written to is whole, so that it can be compared.
    standby.sql("SELECT pg_switch_wal()")?;
    backstay.wait_archived(&mut archive, standby.flushed()?)?;
    archive.stop()?;
    let rehearsal = Rehearsal::new(&backstay, &installation, &history, &ends, &first);
    assert_eq!(rehearsal.volumes.len(), 1, "{:?}", rehearsal.volumes);

    // The end of the log, from every backup; the oldest has to cross the failover.
    for backup in [&first, &second, &third] {
        rehearsal.at(&target::Stop::latest(), &["--backup", &backup.id])?;
    }
    for stop in history.targets(&mut seed, first.end, 10)? {
        rehearsal.at(&stop, &[])?;
    }
    // The plan takes the newest backup that fits; the oldest must do as well, wherever the target lies.
    let switch = history.timelines[1].1;
    for after in [first.end, second.end, switch] {
        let stop = history.random_target(&mut seed, after)?;
        rehearsal.at(&stop, &["--backup", &first.id])?;
    }

    // PostgreSQL's own judge of backups, and an index that agrees with its table.
    let scratch = Scratch::new()?;
    let stop = history.random_target(&mut seed, second.end)?;
    let data = rehearsal.files(&scratch, &stop, &[])?;
    rehearsal.verify(&data)?;
    let restored = rehearsal.at(&stop, &[])?;
    restored
        .server
        .sql("CREATE EXTENSION IF NOT EXISTS amcheck")
        .context("a restored server can be written to once it is promoted")?;
    restored.server.sql("SELECT count(bt_index_check(c.oid, true)) FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'btree'")?;
    drop(restored);

    // An older state is a good start: most of it is right already.
    let mut arguments = target::Stop::latest().arguments()?;
    arguments.push("--delta".into());
    for volume in &rehearsal.volumes {
        arguments.extend(["--map".into(), format!("{volume}={}", scratch.join("volume0").display())]);
    }
    let summary = backstay.restore(&data, &arguments)?;
    let (kept, bytes) = (summary["kept-bytes"].as_u64(), summary["bytes"].as_u64());
    ensure!(kept > Some(0), "nothing was kept of an older state: {summary}");
    ensure!(kept <= bytes, "{summary}");
    let mut server = Postgres::adopt(&installation, &data)?;
    server.start_without_waiting()?;
    server.wait_recovered()?;
    Ledger::read(&server)?.must_equal(&ends, &history).context("a restore over an older state")?;
    drop(server);

    log_files_are_the_server_s_own(&backstay, &standby, [first.end, switch])?;
    let parting = standby.sql(&format!("SELECT '00000001' || substr(pg_walfile_name('{switch}'), 9)"))?;
    let fetched = fetching_server(&backstay, &installation, &first, &parting)?;
    Ledger::read(&fetched.0)?.must_equal(&ends, &history).context("a restore that fetches its log itself")?;
    drop(fetched);

    // With Backstay gone.
    let root = Scratch::new()?;
    backstay.restic().restore(&third.snapshot, root.path())?;
    let data = restic_restore(root.path())?;
    run(installation.tool("pg_verifybackup").arg("-n").arg(&data))?;
    adopt_restic_restore(root.path(), &data)?;
    let mut server = Postgres::adopt(&installation, &data)?;
    server.start().context("what stock restic restored must start under PostgreSQL")?;
    let found = Ledger::read(&server)?;
    ensure!(found.transactions() > 500, "restic's restore has {} transactions", found.transactions());
    drop(server);

    backstay.finish()
}

/// `log fetch` of the first timeline's file with the first of these places, of the second's with the other, and of
/// the second's history; what the log does not have is no file, with an exit code that lets PostgreSQL go on.
fn log_files_are_the_server_s_own(backstay: &Backstay, server: &Postgres, places: [Lsn; 2]) -> Result<()> {
    let scratch = Scratch::new()?;
    let fetch = |name: &str| ["log", "fetch", "shop", name].map(str::to_owned).to_vec();
    let into = scratch.join("fetched").display().to_string();
    let of = |lsn: Lsn| server.sql(&format!("SELECT substr(pg_walfile_name('{lsn}'), 9)"));
    let [first, second] = places;
    for name in [format!("00000001{}", of(first)?), format!("00000002{}", of(second)?), "00000002.history".into()] {
        backstay.ok(&[fetch(&name), vec![into.clone()]].concat())?;
        let (ours, theirs) = (std::fs::read(&into)?, std::fs::read(server.data().join("pg_wal").join(&name))?);
        ensure!(ours == theirs, "{name} is not the server's: {} bytes, not {}", ours.len(), theirs.len());
        std::fs::remove_file(&into)?;
    }
    for name in ["00000003.history", "0000000100000000000000FF", "000000020000000000000000"] {
        backstay.fails(&[fetch(name), vec![into.clone()]].concat(), 1, &[name])?;
        ensure!(!scratch.join("fetched").exists(), "{name} is not there and left a file");
    }
    Ok(())
}

/// What stock restic restored of a backup, as a server that gets its log by `restore_command`; `parting` is the file of the
/// first timeline in which the second begins.
fn fetching_server(
    backstay: &Backstay,
    installation: &Installation,
    backup: &Backup,
    parting: &str,
) -> Result<(Postgres, Scratch)> {
    let root = Scratch::new()?;
    backstay.restic().restore(&backup.snapshot, root.path())?;
    let data = restic_restore(root.path())?;
    adopt_restic_restore(root.path(), &data)?;
    account::write(&data.join("recovery.signal"), "")?;
    // A client that was ended between the two halves of its commit left a prepared transaction. PostgreSQL reads it in the
    // old timeline's file, and asks the command for the new one's alone.
    let place = data.join("pg_wal").join(parting).display().to_string();
    backstay.ok(&["log", "fetch", "shop", parting, &place])?;
    let mut server = Postgres::adopt(installation, &data)?;
    let (config, program) = (backstay.config_file(), &backstay.install().program);
    server.configure(&format!(
        "restore_command = '{} --config {} --quiet log fetch shop %f \"%p\" --ahead 4'",
        program.display(),
        config.display()
    ))?;
    server.start_without_waiting()?;
    server.wait_recovered()?;
    Ok((server, root))
}
