//! Every other version from 13 to 18: back up by `stream` and `files`, archive, restore to a name and to the end.
//!
//! The versions differ in the dialect of `BASE_BACKUP` (new in 15), in how backup mode is entered over SQL (renamed
//! in 15), in what may be asked about a slot (new in 15), and in the manifest (second form in 17).

use anyhow::{Context, Result, ensure};
use backstay_tests::{
    backstay::Backstay,
    history::History,
    ledger::{self, Ledger, Workload},
    postgres::{BACKUP_USER, Installation, Options, Postgres},
    rehearsal::Rehearsal,
    scratch::{Scratch, run},
    seed::Seed,
    target::{Stop, Target},
};
use std::{path::Path, time::Duration};

/// What method `files` needs beside REPLICATION, in the words of the version.
fn allow_backup_mode(server: &Postgres) -> Result<()> {
    let functions = match server.installation.major {
        ..15 => "pg_start_backup(text, boolean, boolean), pg_stop_backup(boolean, boolean)",
        _ => "pg_backup_start(text, boolean), pg_backup_stop(boolean)",
    };
    server.sql(&format!("GRANT EXECUTE ON FUNCTION {functions} TO {BACKUP_USER}"))?;
    Ok(())
}

/// Commits for a moment, and what they left.
fn load(server: &Postgres, seed: &mut Seed) -> Result<Ledger> {
    let load = Workload::start(server, 4, 200, seed)?;
    std::thread::sleep(Duration::from_secs(1));
    load.stop(server)?;
    Ledger::read(server)
}

/// A started server must hold what was there.
fn compare(data: &Path, installation: &Installation, expected: &Ledger) -> Result<()> {
    let mut server = Postgres::adopt(installation, data)?;
    server.start_without_waiting()?;
    server.wait_recovered()?;
    // No history: what must be there was read before and after the name, when nothing was written.
    let history = History { events: Vec::new(), timelines: Vec::new() };
    Ledger::read(&server)?.must_equal(expected, &history).with_context(|| server.log_tail())
}

fn rehearse(major: u32) -> Result<()> {
    let mut seed = Seed::from_env(&format!("versions_{major}"));
    let installation = Installation::version(major)?;
    let server = Postgres::create(&installation, &Options::default())?;
    let elsewhere = server.tablespace("elsewhere")?;
    ledger::create(&server, Some("elsewhere"))?;
    allow_backup_mode(&server)?;
    let mut backstay = Backstay::in_folder(&server.address())?;
    let oid = server.sql("SELECT oid FROM pg_tablespace WHERE spcname = 'elsewhere'")?;
    backstay.reconfigure(|config| {
        config.grants.push(format!("directories.data = \"{}\"", server.data().display()));
        config.grants.push(format!("directories.tablespace-{oid} = \"{}\"", elsewhere.display()));
    })?;
    let seen = backstay.ok(&["inspect", "shop"])?;
    ensure!(seen["version"].as_str().is_some_and(|version| version.starts_with(&major.to_string())), "{seen}");
    ensure!(seen["role"] == "primary", "{seen}");
    ensure!(seen["tail"]["epoch"] == 1, "{seen}");

    let mut archive = backstay.archive()?;
    server.wait_streaming("backstay").with_context(|| archive.log())?;
    load(&server, &mut seed)?;
    let streamed = backstay.backup_with(&["--method", "stream"])?;
    let read = backstay.backup_with(&["--method", "files"])?;
    ensure!(streamed.volumes.len() == 1 && read.volumes == streamed.volumes, "{streamed:?} {read:?}");
    let named = load(&server, &mut seed)?;
    server.sql("SELECT pg_create_restore_point('here')")?;
    let last = load(&server, &mut seed)?;
    ensure!(last.transactions() > named.transactions(), "nothing was committed behind the name");
    backstay.wait_archived(&mut archive, server.flushed()?)?;
    archive.stop()?;

    let history = History { events: Vec::new(), timelines: Vec::new() };
    let rehearsal = Rehearsal::new(&backstay, &installation, &history, &last, &streamed);
    let scratch = Scratch::new()?;
    let here = Stop { target: Target::Name("here".into()), inclusive: true };
    let data = rehearsal.files(&scratch, &here, &["--backup", &streamed.id])?;
    // A newer judge reads the manifests of its elders. As of 17 it reads the control file too, of its own version only.
    if major < 17 {
        run(Installation::postgres_18()?.tool("pg_verifybackup").arg("-n").arg(&data))?;
    }
    compare(&data, &installation, &named).context("streamed, to a name")?;
    let scratch = Scratch::new()?;
    let data = rehearsal.files(&scratch, &Stop::latest(), &["--backup", &read.id])?;
    compare(&data, &installation, &last).context("read from its files, to the end")?;
    backstay.finish()
}

#[test]
fn version_13_comes_back_from_both_methods() -> Result<()> {
    rehearse(13)
}

#[test]
fn version_14_comes_back_from_both_methods() -> Result<()> {
    rehearse(14)
}

#[test]
fn version_16_comes_back_from_both_methods() -> Result<()> {
    rehearse(16)
}

#[test]
fn version_17_comes_back_from_both_methods() -> Result<()> {
    rehearse(17)
}
