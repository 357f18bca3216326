//! Method `files`: the data folder is read while the server writes to it, and restores to random places yield the
//! ledger all the same; from a primary with a tablespace, and from a standby.

use anyhow::{Context, Result, ensure};
use backstay_tests::{
    account,
    backstay::{Backstay, Backup, Outcome, Running},
    history::History,
    kill,
    ledger::{self, Ledger, Workload},
    limits,
    postgres::{self, BACKUP_USER, Installation, Options, Postgres},
    rehearsal::{Rehearsal, adopt_restic_restore, restic_restore},
    scratch::{Scratch, wait_for},
    seed::Seed,
    target::Stop,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::{FileExt, symlink},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// Random places restored to, for each version.
const TARGETS: usize = 5;

const BY_FILES: [&str; 4] = ["backup", "shop", "--method", "files"];

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

/// Grants `name` anew.
fn grant(backstay: &mut Backstay, name: &str, value: &Path) -> Result<()> {
    backstay.reconfigure(|config| {
        config.grants.retain(|line| !line.starts_with(name));
        config.grants.push(format!("{name} = \"{}\"", value.display()));
    })
}

/// What the method needs beside REPLICATION.
fn allow_backup_mode(server: &Postgres) -> Result<()> {
    server.sql(&format!(
        "GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) TO {BACKUP_USER}"
    ))?;
    Ok(())
}

/// What is in a backup, by its path, with its type, as stock restic lists it.
fn nodes(backstay: &Backstay, backup: &Backup) -> Result<BTreeMap<String, String>> {
    let (done, text) = backstay.restic().attempt(&["ls", "--json", &backup.snapshot])?;
    ensure!(done, "{text}");
    let nodes = text.lines().filter_map(|line| {
        let node: Value = serde_json::from_str(line).ok()?;
        Some((node["path"].as_str()?.trim_start_matches('/').to_owned(), node["type"].as_str()?.to_owned()))
    });
    Ok(nodes.collect())
}

/// Where a backup has what the server finds at `path` in its data folder.
fn stored(path: &str) -> String {
    match path.strip_prefix("pg_tblspc/") {
        Some(path) => format!("tablespaces/{path}"),
        None => format!("data/{path}"),
    }
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

    backstay.fails(&BY_FILES, 2, &["directories.data"])?;
    read_from(&mut backstay, source)?;
    let by_files = |backstay: &Backstay| {
        let view = backstay.ok(&BY_FILES)?;
        ensure!(findings(&view).is_empty(), "a false alarm about pages that were being written: {view}");
        Backup::read(&view)
    };
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

    let nodes = nodes(&backstay, &second)?;
    for path in ["backup_label", "global/pg_control", "PG_VERSION", &format!("{unlogged}_init")] {
        ensure!(nodes.contains_key(&stored(path)), "{path} is missing");
    }
    for path in ["postmaster.pid", "postmaster.opts", &unlogged] {
        ensure!(!nodes.contains_key(&stored(path)), "{path} does not belong into a backup");
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
    grant(&mut backstay, "directories.data", another.data())?;
    backstay.fails(&BY_FILES, 2, &["belongs to cluster"])?;
    grant(&mut backstay, "directories.data", ours.data())?;
    let words = ["permission denied for function pg_backup_start"];
    let outcome = backstay.fails(&BY_FILES, 3, &words)?;
    ensure!(outcome.stderr.contains("GRANT EXECUTE ON FUNCTION pg_backup_start"), "{}", outcome.stderr);
    backstay.finish()
}

#[test]
fn another_copy_s_folder_and_a_tablespace_that_is_not_there_are_refused() -> Result<()> {
    let mut primary = Postgres::create(&Installation::postgres_15()?, &Options::default())?;
    allow_backup_mode(&primary)?;
    let location = primary.tablespace("elsewhere")?;
    let mut standby = primary.standby("second")?;
    let mut backstay = Backstay::in_folder(&primary.address())?;
    let not_its_own = |backstay: &Backstay| {
        backstay.fails(&BY_FILES, 2, &["the granted data folder is not the server's own", "another copy"])
    };
    read_from(&mut backstay, &primary)?;
    grant(&mut backstay, "directories.data", standby.data())?;
    not_its_own(&backstay).context("a running standby's folder")?;
    standby.stop(postgres::Stop::Fast)?;
    not_its_own(&backstay).context("a stopped standby's folder")?;

    // What is under a mount point while its disk is not there, or was left by an upgrade.
    let empty = Scratch::new()?;
    empty.folder("PG_14_202107181")?;
    let tablespace =
        format!("tablespace-{}", primary.sql("SELECT oid FROM pg_tablespace WHERE spcname = 'elsewhere'")?);
    grant(&mut backstay, "directories.data", primary.data())?;
    grant(&mut backstay, &format!("directories.{tablespace}"), empty.path())?;
    let words = [&tablespace, "holds no tablespace of PostgreSQL 15"];
    let outcome = backstay.fails(&BY_FILES, 2, &words)?;
    ensure!(outcome.stderr.contains(&location.display().to_string()), "{}", outcome.stderr);
    backstay.reconfigure(|config| config.grants.retain(|line| !line.contains(&tablespace)))?;
    let outcome = backstay.fails(&BY_FILES, 2, &["is not granted"])?;
    ensure!(outcome.stderr.contains(&format!("directories.{tablespace} = ")), "{}", outcome.stderr);

    standby.start()?;
    read_from(&mut backstay, &standby)?;
    grant(&mut backstay, "directories.data", primary.data())?;
    not_its_own(&backstay).context("the folder of a primary that runs")?;
    primary.stop(postgres::Stop::Fast)?;
    not_its_own(&backstay).context("the folder of a primary that was")?;
    backstay.finish()
}

/// A backup that stands still while the host reads, so that its sessions wait.
struct Held(Running);

impl Held {
    fn start(backstay: &Backstay, server: &Postgres) -> Result<Self> {
        // Nothing but holes: read for long enough to be met, and stored in no room.
        let spool = server.data().join("spool");
        std::fs::File::create(&spool)?.set_len(1 << 30)?;
        account::give(&spool)?;
        let mut running = backstay.spawn(&[&BY_FILES[..], &["--json"]].concat())?;
        let reading = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = '{BACKUP_USER}' AND state = 'idle'
             AND query LIKE '%pg_tablespace_location%'"
        );
        wait_for("the host to read", limits::COMMAND, || {
            running.must_run()?;
            Ok((server.sql(&reading)? == "1").then_some(()))
        })?;
        let held = Self(running);
        held.send(Signal::STOP)?;
        Ok(held)
    }

    /// To the job's own process as well: it is the one that reads, and would be done before its sessions have waited.
    fn send(&self, signal: Signal) -> Result<()> {
        for pid in kill::descendants(self.0.pid()).into_iter().chain([self.0.pid()]) {
            kill_process(Pid::from_raw(pid.try_into()?).context("it is running")?, signal)?;
        }
        Ok(())
    }

    fn go_on(self) -> Result<Outcome> {
        self.send(Signal::CONT)?;
        self.0.wait(limits::COMMAND)
    }
}

/// The checkpoint takes longer than statements may, the host reads for longer than sessions may idle.
fn impatient_server(installation: &Installation) -> Result<()> {
    // A spread checkpoint of three seconds.
    let conf =
        ["checkpoint_timeout = '30s'", "checkpoint_completion_target = 0.1", "log_min_duration_statement = '1s'"];
    let conf = conf.map(String::from).to_vec();
    let server = Postgres::create(installation, &Options { conf, ..Options::default() })?;
    allow_backup_mode(&server)?;
    let mut backstay = Backstay::in_folder(&server.address())?;
    read_from(&mut backstay, &server)?;
    backstay.reconfigure(|config| config.settings.push_str(", checkpoint = \"spread\""))?;
    server.sql("CREATE TABLE dirty AS SELECT n, repeat('x', 500) FROM generate_series(1, 5000) n")?;
    let impatience = match installation.major {
        17.. => &["idle_session_timeout", "statement_timeout", "transaction_timeout"][..],
        _ => &["idle_session_timeout", "statement_timeout"],
    };
    for setting in impatience {
        server.configure(&format!("{setting} = '1s'"))?;
    }
    server.sql("SELECT pg_reload_conf()")?;
    let in_force = || Ok((server.sql("SHOW idle_session_timeout")? == "1s").then_some(()));
    wait_for("the server to become impatient", limits::SERVER_START, in_force)?;

    let held = Held::start(&backstay, &server)?;
    std::thread::sleep(Duration::from_millis(1500));
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{BACKUP_USER}' AND state = 'idle'
         AND clock_timestamp() - state_change > '1s'"
    );
    let waiting = server.sql(&waiting)?;
    let outcome = held.go_on()?;
    ensure!(outcome.code == 0, "it ended with {}: {}\n{}", outcome.code, outcome.stderr, server.log_tail());
    ensure!(waiting == "2", "both sessions waited for longer than allowed, not {waiting}");
    let log = server.log()?;
    let slow = log.lines().any(|line| line.contains("duration: ") && line.contains("pg_backup_start"));
    ensure!(slow, "the checkpoint took no longer than allowed:\n{log}");
    backstay.finish()
}

#[test]
fn a_server_that_ends_idle_sessions_and_slow_statements_is_backed_up() -> Result<()> {
    impatient_server(&Installation::postgres_15()?)?;
    impatient_server(&Installation::postgres_18()?)
}

#[test]
fn a_standby_that_goes_over_to_another_timeline_meanwhile_is_refused() -> Result<()> {
    let primary = Postgres::create(&Installation::postgres_15()?, &Options::default())?;
    allow_backup_mode(&primary)?;
    let second = primary.standby("second")?;
    let third = second.standby("third")?;
    let mut backstay = Backstay::in_folder(&third.address())?;
    read_from(&mut backstay, &third)?;
    let held = Held::start(&backstay, &third)?;
    drop(primary);
    second.promote()?;
    second.sql("CHECKPOINT")?;
    let end = second.flushed()?;
    let follows = format!(
        "SELECT count(*) FROM pg_stat_wal_receiver WHERE received_tli = 2 AND pg_last_wal_replay_lsn() >= '{end}'"
    );
    wait_for("the third to follow", limits::RECOVERY, || Ok((third.sql(&follows)? == "1").then_some(())))?;
    held.go_on()?.must_fail(3, &["the server changed its timeline during the backup"])?;
    // As the message says: once more, now all on the new one.
    let backup = Backup::read(&backstay.ok(&BY_FILES)?)?;
    let nodes = nodes(&backstay, &backup)?;
    ensure!(nodes.contains_key(&stored("pg_wal/00000002.history")), "{nodes:?}");
    backstay.finish()
}

/// Folders that a restored server wants to find empty; `pg_wal` gets the backup's own log.
const EMPTIED: [&str; 8] =
    ["pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans", "pg_wal"];

/// What lies below a folder of the server, links not followed, as a backup would name it.
fn on_disk(data: &Path, top: &str) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(data.join(&folder))? {
            let entry = entry?;
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            let path = path.trim_start_matches('/').to_owned();
            if entry.file_type()?.is_dir() {
                folders.push(path.clone());
            }
            found.insert(stored(&path));
        }
    }
    Ok(found)
}

/// Makes and removes folders with a file in each, as sessions and dropped databases do; answers how many.
fn churn(base: &Path, stop: &AtomicBool) -> Result<u32> {
    let mut made = 0;
    while !stop.load(Ordering::Relaxed) {
        let numbers = 90_000..90_010;
        let folders = numbers.flat_map(|n| [base.join(n.to_string()), base.join(format!("pgsql_tmp/{n}.fileset"))]);
        let folders: Vec<_> = folders.collect();
        for folder in &folders {
            std::fs::create_dir_all(folder)?;
            std::fs::write(folder.join("1"), "gone soon")?;
            made += 1;
        }
        for folder in &folders {
            std::fs::remove_dir_all(folder)?;
        }
    }
    Ok(made)
}

#[test]
fn what_belongs_to_the_running_server_or_to_nobody_is_left_out() -> Result<()> {
    let installation = Installation::postgres_15()?;
    let server = Postgres::create(&installation, &Options::default())?;
    allow_backup_mode(&server)?;
    server.tablespace("elsewhere")?;
    let mut forks = Vec::new();
    for (name, place) in [("here", ""), ("there", "TABLESPACE elsewhere")] {
        server.sql(&format!("CREATE UNLOGGED TABLE {name} {place} AS SELECT generate_series(1, 10000) AS number"))?;
        server.sql(&format!("VACUUM {name}"))?;
        let path = server.sql(&format!("SELECT pg_relation_filepath('{name}')"))?;
        forks.extend(["", "_fsm", "_vm"].map(|fork| format!("{path}{fork}")));
    }
    server.sql("CHECKPOINT")?;
    let mut backstay = Backstay::in_folder(&server.address())?;
    read_from(&mut backstay, &server)?;
    backstay.ok(&BY_FILES)?;

    let above = |path: &str| path.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned());
    let (database, outside) = (above(&forks[0]), above(&forks[3]));
    let version = above(&outside);
    // As administrators do with what changes all the time.
    let scratch = server.scratch().join("stats");
    std::fs::rename(server.data().join("pg_stat_tmp"), &scratch)?;
    symlink(&scratch, server.data().join("pg_stat_tmp"))?;
    symlink("/etc", server.data().join("foreign"))?;
    let mut strays: Vec<String> = EMPTIED.map(|folder| format!("{folder}/stray/file")).to_vec();
    strays.extend(["backup_label.old", "tablespace_map.old", "backup_manifest"].map(String::from));
    strays.extend(["postgresql.auto.conf.tmp", "current_logfiles.tmp", "global/pg_internal.init.1"].map(String::from));
    strays.extend(["base/pgsql_tmp/pgsql_tmp1.0".into(), format!("{version}/pgsql_tmp/pgsql_tmp1.sharedfileset/0")]);
    for folder in [&database, &outside] {
        let names =
            ["t3_16384", "t3_16384_fsm", "t3_16384.1", "pg_internal.init", "pg_internal.init.1", "pgsql_tmp2.0"];
        strays.extend(names.map(|name| format!("{folder}/{name}")));
    }
    // Of an older backup; this one has its own.
    let replaced = ["backup_label", "tablespace_map"];
    for path in strays.iter().map(String::as_str).chain(replaced) {
        let file = server.data().join(path);
        let folder = file.parent().context("a file lies in a folder")?;
        if !folder.exists() {
            account::create_dir(folder)?;
        }
        account::write(&file, "stray")?;
    }

    let outcome = backstay.run(&BY_FILES)?;
    ensure!(outcome.code == 0, "{}", outcome.stderr);
    ensure!(outcome.stderr.contains("left out \"foreign\", a link to \"/etc\""), "{}", outcome.stderr);
    let backup = Backup::read(&outcome.json)?;
    let nodes = nodes(&backstay, &backup)?;
    strays.extend(["postmaster.pid", "postmaster.opts", "foreign"].map(String::from));
    for path in strays.iter().chain(&forks) {
        ensure!(std::fs::symlink_metadata(server.data().join(path)).is_ok(), "the server has no {path}");
        ensure!(!nodes.contains_key(&stored(path)), "{path} does not belong into a backup");
    }
    for folder in EMPTIED {
        ensure!(nodes.get(&stored(folder)).is_some_and(|kind| kind == "dir"), "{folder} is no folder: {nodes:?}");
        let inside = nodes.keys().filter_map(|path| path.strip_prefix(&format!("{}/", stored(folder))));
        let of_its_own = |name: &str| folder == "pg_wal" && name.len() == 24;
        let inside: Vec<_> = inside.filter(|name| !of_its_own(name)).collect();
        ensure!(inside.is_empty(), "{folder} holds {inside:?}");
    }
    for (path, words) in replaced.into_iter().zip(["START WAL LOCATION", "elsewhere"]) {
        let (done, text) = backstay.restic().attempt(&["dump", &backup.snapshot, &format!("/{}", stored(path))])?;
        ensure!(done && text.contains(words) && !text.contains("stray"), "{path}: {text}");
    }
    // And nothing else is.
    let left_out: BTreeSet<_> = strays.iter().chain(&forks).map(|path| stored(path)).collect();
    for path in on_disk(server.data(), "")?.union(&on_disk(server.data(), &version)?) {
        let expected = left_out.contains(path)
            || path.ends_with("/pg_internal.init")
            || path.contains("/pgsql_tmp")
            || EMPTIED.iter().any(|folder| path.starts_with(&stored(folder)));
        ensure!(expected || nodes.contains_key(path), "{path} is missing");
    }

    let into = Scratch::new()?;
    let volume = backup.volumes.first().context("a backup with a tablespace")?;
    let map = format!("{volume}={}", into.join("space").display());
    let options = ["--backup", &backup.id, "--map", &map].map(String::from);
    backstay.restore(&into.join("data"), &options)?;
    let mut restored = Postgres::adopt(&installation, &into.join("data"))?;
    restored.start_without_waiting()?;
    restored.wait_recovered()?;
    ensure!(restored.sql("SELECT (SELECT count(*) FROM here) + (SELECT count(*) FROM there)")? == "0");
    drop(restored);

    let (base, stop) = (server.data().join("base"), AtomicBool::new(false));
    let (made, backups) = std::thread::scope(|scope| {
        let churn = scope.spawn(|| churn(&base, &stop));
        let backups = [(); 3].map(|()| backstay.ok(&BY_FILES));
        stop.store(true, Ordering::Relaxed);
        (churn.join(), backups)
    });
    for view in backups {
        let view = view.context("while folders come and go")?;
        ensure!(findings(&view).is_empty(), "{view}");
    }
    let made = made.map_err(|_| anyhow::anyhow!("it panicked"))??;
    ensure!(made > 1000, "only {made} folders came and went");
    backstay.finish()
}

/// The default of the servers that are tested.
const PAGE_BYTES: u64 = 8192;

/// Writes over a page from its byte `at` on, as a disk does: behind the server's back.
fn rot(server: &Postgres, path: &str, block: u64, at: u64, bytes: &[u8]) -> Result<()> {
    let file = std::fs::File::options().write(true).open(server.data().join(path))?;
    Ok(file.write_all_at(bytes, block * PAGE_BYTES + at)?)
}

/// Changes one bit of a page.
fn flip(server: &Postgres, path: &str, block: u64) -> Result<()> {
    let at = 5000;
    let mut byte = [0];
    std::fs::File::open(server.data().join(path))?.read_exact_at(&mut byte, block * PAGE_BYTES + at)?;
    rot(server, path, block, at, &[byte[0] ^ 0x10])
}

fn findings(view: &Value) -> Vec<(String, String)> {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let list = view["findings"].as_array().cloned().unwrap_or_default();
    list.iter().map(|finding| (text(finding, "path"), text(finding, "what"))).collect()
}

fn rotten_pages(installation: &Installation) -> Result<()> {
    let server = Postgres::create(installation, &Options::default())?;
    allow_backup_mode(&server)?;
    server.tablespace("elsewhere")?;
    server.sql("CREATE TABLE victim AS SELECT n, md5(n::text) FROM generate_series(1, 100000) n")?;
    server.sql("CREATE INDEX victim_n ON victim (n)")?;
    server.sql("CREATE TABLE bystander AS SELECT n, md5(n::text) FROM generate_series(1, 100000) n")?;
    server.sql("CREATE TABLE outside TABLESPACE elsewhere AS SELECT n FROM generate_series(1, 10000) n")?;
    // Nothing of it may be written again, nor lie in the log behind the backup's start.
    server.sql("VACUUM (FREEZE, ANALYZE)")?;
    server.sql("CHECKPOINT")?;
    let path = |relation: &str| server.sql(&format!("SELECT pg_relation_filepath('{relation}')"));
    let (victim, index, outside) = (path("victim")?, path("victim_n")?, path("outside")?);
    // Of all databases, and nobody reads it.
    let shared = path("pg_shdescription")?;
    let mut backstay = Backstay::in_folder(&server.address())?;
    read_from(&mut backstay, &server)?;
    let sound = backstay.ok(&BY_FILES)?;
    ensure!(findings(&sound).is_empty(), "{sound}");

    let mut expected = BTreeSet::new();
    for (path, block) in [(&victim, 7), (&victim, 300), (&index, 3), (&outside, 5), (&shared, 0)] {
        flip(&server, path, block)?;
        expected.insert((path.clone(), block));
    }
    // Headers that say: written long after the backup began.
    let mut seed = Seed::new(11);
    let noise: Vec<u8> = std::iter::repeat_with(|| seed.next_u64() as u8).take(PAGE_BYTES as usize).collect();
    for (block, page) in [(11, &[0xff; PAGE_BYTES as usize][..]), (12, &noise)] {
        rot(&server, &victim, block, 0, page)?;
        expected.insert((victim.clone(), block));
    }
    // A second gigabyte, of which the server knows nothing: its first two pages were never written.
    let second = format!("{victim}.1");
    account::write(&server.data().join(&second), "")?;
    rot(&server, &second, 2, 0, &[0xff; PAGE_BYTES as usize])?;
    expected.insert((second.clone(), 131_074));
    let expected: BTreeSet<_> = expected.into_iter().map(|(path, block)| (stored(&path), block.to_string())).collect();

    // Files that were written to just before a backup are read again by the next one.
    std::thread::sleep(Duration::from_millis(2500));
    let marked = backstay.ok(&BY_FILES)?;
    let found = findings(&marked);
    let named: BTreeSet<_> = found
        .iter()
        .filter_map(|(path, what)| {
            let (block, _) = what.strip_prefix("block ")?.split_once(": ")?;
            Some((path.clone(), block.to_owned()))
        })
        .collect();
    ensure!(found.len() == expected.len() && named == expected, "{found:?} in place of {expected:?}");
    // What is kept is marked wherever it is shown, also when the file is not read again.
    let id = marked["id"].as_str().context("a backup without id")?;
    ensure!(findings(&backstay.ok(&["backups", "show", id])?) == found);
    let again = backstay.ok(&BY_FILES)?;
    ensure!(findings(&again) == found, "{again}");
    ensure!(again["unread"].as_u64() > Some(0), "{again}");
    ensure!(findings(&backstay.ok(&[&BY_FILES[..], &["--reread"]].concat())?) == found);

    // More than are named: then files that were not written to are read again, for nobody knows which are bad.
    rot(&server, &second, 3, 0, &vec![0xff; 1001 * PAGE_BYTES as usize])?;
    std::thread::sleep(Duration::from_millis(2500));
    for unread in [true, false] {
        let view = backstay.ok(&BY_FILES)?;
        let unnamed = view["more-findings"].as_u64().context("a number")?;
        let wrong = findings(&view).len() as u64 + unnamed;
        ensure!(wrong == found.len() as u64 + 1001 && unnamed > 0, "{wrong} are wrong, {unnamed} not named");
        ensure!((view["unread"].as_u64() > Some(0)) == unread, "{}", view["unread"]);
    }
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
    let outcome = backstay.run(&BY_FILES)?;
    ensure!(outcome.code == 0, "{}", outcome.stderr);
    ensure!(outcome.stderr.contains("pages are not checked: the cluster has no checksums"), "{}", outcome.stderr);
    backstay.finish()
}
