//! Method `files`: the data folder is read while the server writes to it, and restores to random places yield the
//! ledger all the same; from a primary with a tablespace, and from a standby.

use anyhow::{Context, Result, ensure};
use backstay_tests::{
    backstay::{Backstay, Backup},
    history::History,
    ledger::{self, Ledger, Workload},
    postgres::{BACKUP_USER, Installation, Options, Postgres},
    rehearsal::{Rehearsal, adopt_restic_restore, restic_restore},
    scratch::Scratch,
    seed::Seed,
    target::Stop,
};
use std::time::Duration;

/// Random places restored to, for each version.
const TARGETS: usize = 5;

/// Points the target at `server` and its data folder.
fn read_from(backstay: &mut Backstay, server: &Postgres) -> Result<()> {
    let tablespaces = server.sql(
        "SELECT format('directories.tablespace-%s = \"%s\"', oid, pg_tablespace_location(oid)) FROM pg_tablespace
         WHERE pg_tablespace_location(oid) <> ''",
    )?;
    backstay.reconfigure(|config| {
        config.grants.retain(|line| line.starts_with("credentials."));
        config.grants.push(format!("endpoints.primary = \"{}\"", server.address()));
        config.grants.push(format!("directories.data = \"{}\"", server.data().display()));
        config.grants.extend(tablespaces.lines().map(str::to_owned));
    })
}

/// What the method needs beside REPLICATION.
fn allow_backup_mode(server: &Postgres) -> Result<()> {
    server.sql(&format!(
        "GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) TO {BACKUP_USER}"
    ))?;
    Ok(())
}

/// The paths of a backup's files, as stock restic lists them.
fn listing(backstay: &Backstay, backup: &Backup) -> Result<Vec<String>> {
    let root = Scratch::new()?;
    backstay.restic().restore(&backup.snapshot, root.path())?;
    let data = restic_restore(root.path())?;
    let mut paths = Vec::new();
    let mut folders = vec![data.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                paths.push(entry.path().strip_prefix(&data)?.display().to_string());
            }
        }
    }
    Ok(paths)
}

/// Loads, backs up twice on the way, and restores to random places.
fn rehearse(seed: &mut Seed, primary: &Postgres, source: &Postgres, installation: &Installation) -> Result<()> {
    allow_backup_mode(primary)?;
    let mut backstay = Backstay::in_folder(&primary.address())?;
    let from = ledger::mark(primary)?;
    let mut archive = backstay.archive()?;
    primary.wait_streaming("backstay")?;
    let load = Workload::start(primary, 6, 250, seed)?;
    primary.sql("CREATE UNLOGGED TABLE forgotten AS SELECT generate_series(1, 10000) AS number")?;
    let unlogged = primary.sql("SELECT pg_relation_filepath('forgotten')")?;
    ledger::run_for(primary, Duration::from_secs(2), Duration::from_millis(300), "early ")?;
    primary.sql("CHECKPOINT")?;

    backstay.fails(&["backup", "shop", "--method", "files"], 2, &["directories.data"])?;
    read_from(&mut backstay, source)?;
    let by_files = |backstay: &Backstay| backstay.backup_with(&["--method", "files"]);
    let first = by_files(&backstay)?;
    ledger::run_for(primary, Duration::from_secs(2), Duration::from_millis(300), "first ")?;
    let second = by_files(&backstay)?;
    ledger::run_for(primary, Duration::from_secs(2), Duration::from_millis(300), "second ")?;
    load.stop(primary)?;

    let history = History::read(primary, from)?;
    let ends = Ledger::read(primary)?;
    backstay.wait_archived(&mut archive, primary.flushed()?)?;
    archive.stop()?;
    let rehearsal = Rehearsal::new(&backstay, installation, &history, &ends, &first);
    for backup in [&first, &second] {
        let restored = rehearsal.at(&Stop::latest(), &["--backup", &backup.id])?;
        let rows = restored.server.sql("SELECT count(*) FROM forgotten")?;
        ensure!(rows == "0", "an unlogged table comes back empty, not with {rows} rows");
    }
    for _ in 0..TARGETS {
        rehearsal.at(&history.random_target(seed, first.end)?, &[])?;
    }

    let stored = listing(&backstay, &second)?;
    for path in ["backup_label", "global/pg_control", "PG_VERSION", &format!("{unlogged}_init")] {
        ensure!(stored.iter().any(|stored| stored == path), "{path} is missing");
    }
    for path in ["postmaster.pid", "postmaster.opts", &unlogged] {
        ensure!(!stored.iter().any(|stored| stored == path), "{path} does not belong into a backup");
    }

    // With Backstay gone.
    let root = Scratch::new()?;
    backstay.restic().restore(&second.snapshot, root.path())?;
    let data = restic_restore(root.path())?;
    adopt_restic_restore(root.path(), &data)?;
    let mut server = Postgres::adopt(installation, &data)?;
    server.start_without_waiting()?;
    server.wait_ready(Duration::from_secs(60)).context("what stock restic restored must start under PostgreSQL")?;
    ensure!(Ledger::read(&server)?.transactions() > 500, "restic's restore has too few transactions");
    drop(server);
    backstay.finish()
}

#[test]
fn a_primary_of_version_15_with_a_tablespace() -> Result<()> {
    let installation = Installation::postgres_15()?;
    let primary = Postgres::create(&installation, &Options::default())?;
    primary.tablespace("elsewhere")?;
    ledger::create(&primary, Some("elsewhere"))?;
    rehearse(&mut Seed::from_env("files_15"), &primary, &primary, &installation)
}

#[test]
fn a_standby_of_version_18() -> Result<()> {
    let installation = Installation::postgres_18()?;
    let primary = Postgres::create(&installation, &Options::default())?;
    ledger::create(&primary, None)?;
    let standby = primary.standby("second")?;
    rehearse(&mut Seed::from_env("files_18"), &primary, &standby, &installation)
}

#[test]
fn another_cluster_s_folder_is_refused() -> Result<()> {
    let installation = Installation::postgres_15()?;
    let [ours, another] = [0; 2].map(|_| Postgres::create(&installation, &Options::default()));
    let (ours, another) = (ours?, another?);
    let mut backstay = Backstay::in_folder(&ours.address())?;
    read_from(&mut backstay, &ours)?;
    backstay.reconfigure(|config| {
        config.grants.retain(|line| !line.starts_with("directories.data"));
        config.grants.push(format!("directories.data = \"{}\"", another.data().display()));
    })?;
    backstay.fails(&["backup", "shop", "--method", "files"], 2, &["belongs to cluster"])?;
    backstay.reconfigure(|config| {
        config.grants.retain(|line| !line.starts_with("directories.data"));
        config.grants.push(format!("directories.data = \"{}\"", ours.data().display()));
    })?;
    let words = ["permission denied for function pg_backup_start"];
    let outcome = backstay.fails(&["backup", "shop", "--method", "files"], 3, &words)?;
    ensure!(outcome.stderr.contains("GRANT EXECUTE ON FUNCTION pg_backup_start"), "{}", outcome.stderr);
    backstay.finish()
}
