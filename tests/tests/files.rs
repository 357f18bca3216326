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

fn primary(installation: &Installation, seed: &str) -> Result<()> {
    let primary = Postgres::create(installation, &Options::default())?;
    primary.tablespace("elsewhere")?;
    ledger::create(&primary, Some("elsewhere"))?;
    rehearse(&mut Seed::from_env(seed), &primary, &primary, installation)
}

fn standby(installation: &Installation, seed: &str) -> Result<()> {
    let primary = Postgres::create(installation, &Options::default())?;
    ledger::create(&primary, None)?;
    let standby = primary.standby("second")?;
    rehearse(&mut Seed::from_env(seed), &primary, &standby, installation)
}

#[test]
fn a_primary_of_version_15_with_a_tablespace() -> Result<()> {
    primary(&Installation::postgres_15()?, "files_15")
}

#[test]
fn a_primary_of_version_18_with_a_tablespace() -> Result<()> {
    primary(&Installation::postgres_18()?, "files_18")
}

#[test]
fn a_standby_of_version_15() -> Result<()> {
    standby(&Installation::postgres_15()?, "standby_15")
}

#[test]
fn a_standby_of_version_18() -> Result<()> {
    standby(&Installation::postgres_18()?, "standby_18")
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

/// Spoils one byte of a page, as a disk does: behind the server's back.
fn rot(server: &Postgres, path: &str, block: u64) -> Result<()> {
    let file = std::fs::File::options().read(true).write(true).open(server.data().join(path))?;
    let mut byte = [0];
    let at = block * 8192 + 5000;
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, at)?;
    byte[0] ^= 0x10;
    Ok(std::os::unix::fs::FileExt::write_all_at(&file, &byte, at)?)
}

fn findings(view: &serde_json::Value) -> Vec<(String, String)> {
    let text = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let list = view["findings"].as_array().cloned().unwrap_or_default();
    list.iter().map(|finding| (text(finding, "path"), text(finding, "what"))).collect()
}

fn rotten_pages(installation: &Installation) -> Result<()> {
    let server = Postgres::create(installation, &Options::default())?;
    allow_backup_mode(&server)?;
    server.sql("CREATE TABLE victim AS SELECT n, md5(n::text) FROM generate_series(1, 100000) n")?;
    server.sql("CREATE TABLE bystander AS SELECT n, md5(n::text) FROM generate_series(1, 100000) n")?;
    // Nothing of it may be written again, nor lie in the log behind the backup's start.
    server.sql("VACUUM (FREEZE, ANALYZE)")?;
    server.sql("CHECKPOINT")?;
    let path = server.sql("SELECT pg_relation_filepath('victim')")?;
    let mut backstay = Backstay::in_folder(&server.address())?;
    read_from(&mut backstay, &server)?;
    let by_files = ["backup", "shop", "--method", "files"];
    let sound = backstay.ok(&by_files)?;
    ensure!(findings(&sound).is_empty(), "{sound}");

    rot(&server, &path, 7)?;
    rot(&server, &path, 300)?;
    // Files that were written to just before a backup are read again by the next one.
    std::thread::sleep(Duration::from_millis(2500));
    let marked = backstay.ok(&by_files)?;
    let found = findings(&marked);
    let stored = format!("data/{path}");
    ensure!(found.len() == 2 && found.iter().all(|(path, _)| *path == stored), "{marked}");
    for block in ["block 7: ", "block 300: "] {
        ensure!(found.iter().any(|(_, what)| what.starts_with(block)), "{found:?}");
    }
    // What is kept is marked wherever it is shown, also when the file is not read again.
    let id = marked["id"].as_str().context("a backup without id")?;
    ensure!(findings(&backstay.ok(&["backups", "show", id])?) == found);
    let again = backstay.ok(&by_files)?;
    ensure!(findings(&again) == found, "{again}");
    ensure!(again["unread"].as_u64() > Some(0), "{again}");
    ensure!(findings(&backstay.ok(&[&by_files[..], &["--reread"]].concat())?) == found);
    backstay.finish()
}

#[test]
fn a_page_that_rotted_on_disk_is_named_by_file_and_block() -> Result<()> {
    rotten_pages(&Installation::postgres_15()?)?;
    rotten_pages(&Installation::postgres_18()?)
}

#[test]
fn a_cluster_without_checksums_says_so() -> Result<()> {
    let installation = Installation::postgres_15()?;
    let server = Postgres::create(&installation, &Options { checksums: false, ..Options::default() })?;
    allow_backup_mode(&server)?;
    let mut backstay = Backstay::in_folder(&server.address())?;
    read_from(&mut backstay, &server)?;
    let outcome = backstay.run(&["backup", "shop", "--method", "files"])?;
    ensure!(outcome.code == 0, "{}", outcome.stderr);
    ensure!(outcome.stderr.contains("pages are not checked: the cluster has no checksums"), "{}", outcome.stderr);
    backstay.finish()
}
