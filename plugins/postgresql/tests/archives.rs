//! The log of a real server, archived into memory and restored from there.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod granting_host;
mod log_host;
mod native_host;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use backstay_postgresql::PostgreSql;
use backstay_sdk::native::{BackupSink, BackupSource, LogSink};
use backstay_sdk::{
    BackupJob, BackupReport, Engine as _, Error, ErrorKind, RecoveryTarget, RestoreJob, RestoreReport, Result,
};
use cluster::{Cluster, Setup, as_postgres, bin};
use granting_host::{Folder, GrantingHost};
use log_host::{FolderSource, MemoryLog, Sink};
use native_host::{FolderSink, Grants, NativeHost, block_on};

const SMALL_FILES: &[&str] = &["--wal-segsize=1"];

fn setup() -> Setup {
    Setup {
        settings: "track_commit_timestamp = on\nmax_prepared_transactions = 5\nwal_keep_size = 0\n\
                   min_wal_size = 2MB\nmax_wal_size = 4MB"
            .to_owned(),
        initdb: SMALL_FILES,
        ..Setup::default()
    }
}

fn grants(cluster: &Cluster, config: &str) -> Grants {
    Grants {
        config: config.to_owned(),
        endpoint: cluster.endpoint(),
        user: "backup".to_owned(),
        password: "secret".to_owned(),
    }
}

/// Archives while `work` runs, then asks the archive to stop. `work` runs beside, since psql blocks.
fn archive_during<T: Send>(grants: Grants, log: &Rc<MemoryLog>, work: impl FnOnce() -> T + Send) -> (Result<()>, T) {
    let host = NativeHost::install(grants);
    let sink: Rc<dyn LogSink> = Rc::new(Sink(log.clone()));
    std::thread::scope(|scope| {
        let (done, working) = tokio::sync::oneshot::channel();
        let thread = scope.spawn(move || {
            let result = work();
            let _ = done.send(());
            result
        });
        let archived = block_on(async {
            let stop = async {
                let _ = working.await;
                host.stop.send_replace(true);
            };
            let archive = PostgreSql::archive(sink.into());
            let (archived, ()) = futures::future::join(archive, stop).await;
            archived
        });
        for line in host.logged.borrow().iter() {
            eprintln!("{line}");
        }
        (archived, thread.join().unwrap())
    })
}

fn back_up(cluster: &Cluster, into: &Path) -> BackupReport {
    NativeHost::install(grants(cluster, "{}"));
    let writer = (FolderSink::new(into.to_owned()) as Rc<dyn BackupSink>).into();
    let job = BackupJob { method: "stream".to_owned(), label: "test".to_owned() };
    block_on(PostgreSql::backup(job, writer)).unwrap()
}

/// A backup and where to put it.
struct Restore<'a> {
    report: &'a BackupReport,
    backup: &'a Path,
    log: &'a MemoryLog,
    epoch: u64,
}

impl Restore<'_> {
    fn job(&self, target: RecoveryTarget, inclusive: bool) -> RestoreJob {
        RestoreJob { target, inclusive, epoch: Some(self.epoch), volumes: Vec::new(), delta: false }
    }

    fn try_run(&self, job: RestoreJob, scratch: &Path) -> Result<RestoreReport> {
        let data = scratch.join("data");
        std::fs::create_dir_all(&data).unwrap();
        Command::new("chmod").arg("700").arg(&data).status().unwrap();
        let volumes: BTreeMap<String, PathBuf> =
            job.volumes.iter().map(|v| (v.name.clone(), PathBuf::from(&v.location))).collect();
        let host = NativeHost::install(Grants::default());
        GrantingHost::install(host.clone(), volumes.clone());
        let source = FolderSource { folder: self.backup.to_owned(), notes: self.report.notes.clone() };
        let reader = (Rc::new(source) as Rc<dyn BackupSource>).into();
        let into = Folder { path: data, volumes }.directory();
        let report = block_on(PostgreSql::restore(job, reader, Some(self.log.reader(self.epoch)), into));
        for line in host.logged.borrow().iter() {
            eprintln!("{line}");
        }
        report
    }

    /// Restores, starts the server and asks it for the ledger.
    fn ledger(&self, target: RecoveryTarget, inclusive: bool) -> String {
        let scratch = tempfile::tempdir_in("/tmp").unwrap();
        self.try_run(self.job(target, inclusive), scratch.path()).unwrap();
        ask(&scratch.path().join("data"), LEDGER)
    }
}

const LEDGER: &str = "SELECT coalesce(string_agg(n::text, ',' ORDER BY n), '') FROM ledger";

/// Starts a restored server, waits for its promotion, asks it one thing and stops it.
fn ask(data: &Path, sql: &str) -> String {
    let folder = data.parent().unwrap();
    Command::new("chown").args(["-R", "postgres"]).arg(folder).status().unwrap();
    let options = format!("-c listen_addresses= -c unix_socket_directories={} -p 5432", folder.display());
    let pg_ctl = |arguments: &[&str]| {
        let mut command = as_postgres(&bin().join("pg_ctl"));
        command.args(arguments).args(["-w", "-s", "-D"]).arg(data);
        command.arg("-l").arg(folder.join("log")).stdout(std::process::Stdio::null());
        command.status().unwrap().success()
    };
    let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    assert!(pg_ctl(&["start", "-o", &options]), "{}", log());
    let psql = if bin().join("psql").exists() { bin().join("psql") } else { "psql".into() };
    let query = |sql: &str| {
        let output = Command::new(&psql)
            .args(["-XAtq", "-U", "postgres", "-d", "postgres", "-p", "5432", "-h"])
            .arg(folder)
            .args(["-c", sql])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stderr), log());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    for _ in 0..200 {
        if query("SELECT pg_is_in_recovery()") == "f" {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(query("SELECT pg_is_in_recovery()"), "f", "{}", log());
    let answer = query(sql);
    assert!(pg_ctl(&["stop", "-m", "immediate"]));
    answer
}

/// Commits one row and tells its xid, its commit time and the log's position behind it.
fn commit(cluster: &Cluster, n: u32) -> (String, u64, String) {
    let xid = cluster.sql(&format!("INSERT INTO ledger VALUES ({n}) RETURNING pg_current_xact_id()"));
    let rest = cluster.sql(&format!(
        "SELECT (extract(epoch FROM pg_xact_commit_timestamp('{xid}'::xid)) * 1e6)::bigint, pg_current_wal_lsn()"
    ));
    let (time, lsn) = rest.split_once('|').unwrap();
    (xid, time.parse().unwrap(), lsn.to_owned())
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..400 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("never: {what}");
}

/// Waits until the server knows that all its log is durable at our side.
fn wait_until_archived(cluster: &Cluster) {
    let lsn = cluster.sql("SELECT pg_current_wal_flush_lsn()");
    wait_until("all is archived", || {
        cluster.sql(&format!(
            "SELECT count(*) FROM pg_stat_replication WHERE flush_lsn >= '{lsn}' AND application_name = 'backstay'"
        )) != "0"
    });
}

fn assert_whole(log: &MemoryLog, segment_bytes: u64) {
    let pieces = log.pieces.borrow();
    for (segment, bytes) in pieces.iter() {
        assert_eq!(segment.start.offset / segment_bytes, (segment.end.offset - 1) / segment_bytes, "{segment:?}");
        assert_eq!(segment.file_offset, segment.start.offset % segment_bytes);
        assert!(!bytes.is_empty());
    }
}

#[test]
fn every_kind_of_target_is_restored_to_exactly() {
    let cluster = Cluster::start(&setup());
    cluster.sql("CREATE TABLE ledger (n int)");
    let log = Rc::new(MemoryLog::default());
    let target = tempfile::tempdir_in("/tmp").unwrap();
    let backup = target.path().join("backup");
    // The slot keeps log from before the backup on.
    let (archived, _) = archive_during(grants(&cluster, r#"{"flush-interval-ms": 50}"#), &log, || {
        wait_until_archived(&cluster);
    });
    archived.unwrap();
    commit(&cluster, 1);
    let report = back_up(&cluster, &backup);
    let (archived, commits) = archive_during(grants(&cluster, r#"{"flush-interval-ms": 50}"#), &log, || {
        let mut commits = vec![commit(&cluster, 2), commit(&cluster, 3)];
        cluster
            .sql("CREATE TABLE big AS SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 8000) n; CHECKPOINT");
        cluster.sql("SELECT pg_create_restore_point('it''s \\ here')");
        commits.push(commit(&cluster, 4));
        cluster.sql("BEGIN; INSERT INTO ledger VALUES (5); PREPARE TRANSACTION 'p'");
        cluster.sql("SELECT pg_switch_wal()");
        cluster.sql("COMMIT PREPARED 'p'");
        commits.push(commit(&cluster, 6));
        wait_until_archived(&cluster);
        commits
    });
    archived.unwrap();
    assert_whole(&log, 1 << 20);
    let times: Vec<_> = log.pieces.borrow().iter().filter_map(|(s, _)| s.last_commit).collect();
    assert!(times.contains(&commits[3].1), "the last commit's time is known: {times:?} {commits:?}");

    let restore = Restore { report: &report, backup: &backup, log: &log, epoch: 1 };
    let (xid3, time3, lsn3) = commits[1].clone();
    let name = || RecoveryTarget::Name("it's \\ here".to_owned());
    for (target, inclusive, expected) in [
        (RecoveryTarget::BackupEnd, true, "1"),
        (RecoveryTarget::Latest, true, "1,2,3,4,5,6"),
        (RecoveryTarget::Time(time3), true, "1,2,3"),
        (RecoveryTarget::Time(time3), false, "1,2"),
        (RecoveryTarget::Time(commits[3].1), true, "1,2,3,4,5,6"),
        (RecoveryTarget::Time(commits[3].1), false, "1,2,3,4,5"),
        (RecoveryTarget::Transaction(xid3.clone()), true, "1,2,3"),
        (RecoveryTarget::Transaction(xid3.clone()), false, "1,2"),
        (RecoveryTarget::Position(lsn3.clone()), true, "1,2,3"),
        (RecoveryTarget::Position(format!("1:{lsn3}")), false, "1,2,3"),
        (RecoveryTarget::Position(commits[3].2.clone()), true, "1,2,3,4,5,6"),
        (name(), true, "1,2,3"),
    ] {
        assert_eq!(restore.ledger(target.clone(), inclusive), expected, "{target:?} {inclusive}");
    }

    // What was restored to is found where the server put it.
    NativeHost::install(Grants::default());
    let locate = |target| block_on(PostgreSql::locate(target, Some(log.reader(1)))).unwrap();
    let place = locate(RecoveryTarget::Transaction(xid3)).unwrap();
    assert_eq!(place.epoch, Some(1));
    let lsn3 = locate(RecoveryTarget::Position(lsn3)).unwrap().offset;
    assert!(place.offset <= lsn3 && place.offset + 200 > lsn3, "{place:?} {lsn3}");
    assert!(locate(name()).unwrap().offset > lsn3);
    assert_eq!(locate(RecoveryTarget::Name("nowhere".to_owned())), None);
    assert_eq!(locate(RecoveryTarget::Transaction("4000000000".to_owned())), None);
}

#[test]
fn a_commit_waits_until_its_log_is_durable_here() {
    let cluster = Cluster::start(&setup());
    cluster.sql("CREATE TABLE ledger (n int)");
    cluster.sql("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (other, backstay)'");
    cluster.sql("SELECT pg_reload_conf()");
    let log = Rc::new(MemoryLog::default());
    log.delay.set(Duration::from_millis(30));
    let shared = std::sync::atomic::AtomicU64::new(0);
    // An hour of waiting would not do: commits must not wait for the interval.
    let (archived, took) = archive_during(grants(&cluster, r#"{"flush-interval-ms": 3600000}"#), &log, || {
        let begun = std::time::Instant::now();
        for n in 0..10 {
            cluster.sql(&format!("INSERT INTO ledger VALUES ({n})"));
            shared.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        begun.elapsed()
    });
    archived.unwrap();
    assert!(took > Duration::from_millis(300), "each waited for an append: {took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(log.pieces.borrow().len() >= 10);
}

#[test]
fn an_impatient_server_hears_from_us_while_an_append_takes_long() {
    let mut setup = setup();
    setup.settings.push_str("\nwal_sender_timeout = 1s");
    let cluster = Cluster::start(&setup);
    cluster.sql("CREATE TABLE ledger (n int)");
    let log = Rc::new(MemoryLog::default());
    log.delay.set(Duration::from_secs(3));
    let sender = || cluster.sql("SELECT string_agg(pid::text, ',') FROM pg_stat_replication WHERE state = 'streaming'");
    let (archived, (before, after)) = archive_during(grants(&cluster, r#"{"flush-interval-ms": 50}"#), &log, || {
        wait_until("streaming", || !sender().is_empty());
        let before = sender();
        cluster.sql("INSERT INTO ledger VALUES (1)");
        wait_until_archived(&cluster);
        (before, sender())
    });
    archived.unwrap();
    assert!(!log.pieces.borrow().is_empty());
    assert_eq!(before, after, "the server gave the session up, or we did");
}

#[test]
fn a_server_that_restarts_is_followed_on() {
    let cluster = Cluster::start(&setup());
    cluster.sql("CREATE TABLE ledger (n int)");
    let log = Rc::new(MemoryLog::default());
    let (archived, commits) = archive_during(grants(&cluster, r#"{"flush-interval-ms": 50}"#), &log, || {
        commit(&cluster, 1);
        wait_until_archived(&cluster);
        cluster.pg_ctl(&["restart", "-m", "fast"]);
        commit(&cluster, 2);
        wait_until_archived(&cluster);
        cluster.pg_ctl(&["restart", "-m", "immediate"]);
        let last = commit(&cluster, 3);
        wait_until_archived(&cluster);
        last
    });
    archived.unwrap();
    assert_whole(&log, 1 << 20);
    let last = log.pieces.borrow().iter().filter_map(|(s, _)| s.last_commit).max();
    assert_eq!(last, Some(commits.1));
}

#[test]
fn an_idle_server_confirms_the_end_of_its_log() {
    let cluster = Cluster::start(&setup());
    let log = Rc::new(MemoryLog::default());
    let before = NativeHost::install(Grants::default());
    let before = backstay_sdk::native::HostBackend::now(&*before);
    let (archived, ()) = archive_during(grants(&cluster, "{}"), &log, || {
        std::thread::sleep(Duration::from_secs(9));
    });
    archived.unwrap();
    let (at, when) = log.confirmed.borrow().clone().expect("confirmed");
    assert_eq!(Some(at), log.tail());
    assert!(when >= before, "{when} {before}");
}

/// A standby of `primary`, running.
fn standby_of(primary: &Cluster) -> Cluster {
    let standby = Cluster::start(&setup());
    standby.pg_ctl(&["stop", "-m", "immediate"]);
    let settings = std::fs::read_to_string(standby.data().join("postgresql.auto.conf")).unwrap();
    Command::new("rm").arg("-rf").arg(standby.data()).status().unwrap();
    let copied = as_postgres(&bin().join("pg_basebackup"))
        .args(["-R", "-c", "fast", "-X", "stream", "-U", "postgres", "-h"])
        .arg(primary.path())
        .args(["-p", &primary.port.to_string(), "-D"])
        .arg(standby.data())
        .status()
        .unwrap();
    assert!(copied.success());
    let conninfo = std::fs::read_to_string(standby.data().join("postgresql.auto.conf")).unwrap();
    let conninfo = conninfo.lines().filter(|line| line.starts_with("primary_conninfo"));
    let settings = conninfo.fold(settings, |all, line| format!("{all}{line}\n"));
    std::fs::write(standby.data().join("postgresql.auto.conf"), settings).unwrap();
    standby.pg_ctl(&["start"]);
    standby
}

fn promote(standby: &Cluster) {
    standby.sql("SELECT pg_promote()");
    wait_until("promoted", || standby.sql("SELECT pg_is_in_recovery()") == "f");
}

#[test]
fn a_failover_while_away_is_followed_and_restored_across() {
    let primary = Cluster::start(&setup());
    primary.sql("CREATE TABLE ledger (n int)");
    let log = Rc::new(MemoryLog::default());
    let quick = r#"{"flush-interval-ms": 50}"#;
    let (archived, ()) = archive_during(grants(&primary, quick), &log, || wait_until_archived(&primary));
    archived.unwrap();
    let target = tempfile::tempdir_in("/tmp").unwrap();
    let backup = target.path().join("backup");
    let report = back_up(&primary, &backup);
    let standby = standby_of(&primary);
    let (archived, before) = archive_during(grants(&primary, quick), &log, || {
        let before = commit(&primary, 1);
        wait_until_archived(&primary);
        before
    });
    archived.unwrap();
    // Not archived from the primary any more: the rest of the old timeline comes from the new one.
    let between = commit(&primary, 2);
    let lsn = primary.sql("SELECT pg_current_wal_flush_lsn()");
    wait_until("replayed", || standby.sql(&format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'")) == "t");
    primary.pg_ctl(&["stop", "-m", "immediate"]);
    promote(&standby);
    let (archived, after) = archive_during(grants(&standby, quick), &log, || {
        let after = commit(&standby, 3);
        wait_until_archived(&standby);
        after
    });
    archived.unwrap();
    assert_whole(&log, 1 << 20);
    assert_eq!(log.tail().unwrap().epoch, 2);
    assert!(log.notes.borrow().contains_key("00000002.history"));
    {
        let pieces = log.pieces.borrow();
        let (first, _) = pieces.iter().find(|(segment, _)| segment.start.epoch == 2).unwrap();
        let follows = first.follows.clone().unwrap();
        assert_eq!(follows.epoch, 1);
        assert!(first.start.offset <= follows.offset && first.file_offset == 0);
        let times: Vec<_> = pieces.iter().filter_map(|(s, _)| s.last_commit).collect();
        assert!(times.contains(&between.1) && times.contains(&after.1));
    }
    let restore = Restore { report: &report, backup: &backup, log: &log, epoch: 2 };
    for (target, inclusive, expected) in [
        (RecoveryTarget::Latest, true, "1,2,3"),
        (RecoveryTarget::Transaction(before.0), true, "1"),
        (RecoveryTarget::Time(between.1), true, "1,2"),
        (RecoveryTarget::Transaction(after.0.clone()), false, "1,2"),
        (RecoveryTarget::Transaction(after.0), true, "1,2,3"),
    ] {
        assert_eq!(restore.ledger(target.clone(), inclusive), expected, "{target:?} {inclusive}");
    }
}

#[test]
fn a_standby_that_is_promoted_while_followed_goes_on_on_its_new_timeline() {
    let primary = Cluster::start(&setup());
    primary.sql("CREATE TABLE ledger (n int)");
    let standby = standby_of(&primary);
    let log = Rc::new(MemoryLog::default());
    let (archived, last) = archive_during(grants(&standby, r#"{"flush-interval-ms": 50}"#), &log, || {
        let lsn = commit(&primary, 1).2;
        wait_until("replayed", || standby.sql(&format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'")) == "t");
        std::thread::sleep(Duration::from_millis(500));
        promote(&standby);
        let last = commit(&standby, 2);
        wait_until_archived(&standby);
        last
    });
    archived.unwrap();
    let tail = log.tail().unwrap();
    assert_eq!(tail.epoch, 2);
    let newest = log.pieces.borrow().iter().filter_map(|(s, _)| s.last_commit).max();
    assert_eq!(newest, Some(last.1));
}

#[test]
fn log_that_is_gone_is_a_gap_unless_the_operator_allows_it() {
    let cluster = Cluster::start(&setup());
    cluster.sql("CREATE TABLE ledger (n int)");
    let log = Rc::new(MemoryLog::default());
    let quick = r#"{"flush-interval-ms": 50}"#;
    archive_during(grants(&cluster, quick), &log, || wait_until_archived(&cluster)).0.unwrap();
    wait_until("the slot is free", || cluster.sql("SELECT count(*) FROM pg_replication_slots WHERE active") == "0");
    cluster.sql("SELECT pg_drop_replication_slot('backstay_archive')");
    for _ in 0..12 {
        cluster.sql("INSERT INTO ledger VALUES (1); SELECT pg_switch_wal(); CHECKPOINT");
    }
    let error = archive_during(grants(&cluster, quick), &log, || {
        std::thread::sleep(Duration::from_secs(2));
    });
    let error: Error = error.0.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gap, "{error:?}");
    assert!(error.message.contains("has already been removed"), "{error:?}");
    assert!(error.hint.unwrap().contains("new backup"));

    log.allows_gaps.set(true);
    let (archived, ()) = archive_during(grants(&cluster, quick), &log, || wait_until_archived(&cluster));
    archived.unwrap();
    let lsn = cluster.sql("SELECT pg_current_wal_flush_lsn() - '0/0'");
    assert!(log.tail().unwrap().offset + (1 << 20) > lsn.parse().unwrap());
}

#[test]
fn another_cluster_and_a_taken_slot_are_refused() {
    let cluster = Cluster::start(&setup());
    let log = Rc::new(MemoryLog::default());
    *log.identity.borrow_mut() = Some("1".to_owned());
    let (archived, ()) = archive_during(grants(&cluster, "{}"), &log, || std::thread::sleep(Duration::from_secs(1)));
    assert_eq!(archived.unwrap_err().kind, ErrorKind::Conflict);

    let log = Rc::new(MemoryLog::default());
    cluster.sql("SELECT pg_create_physical_replication_slot('backstay_archive', true)");
    let folder = cluster.tablespace("received");
    let mut other = as_postgres(&bin().join("pg_receivewal"))
        .args(["-S", "backstay_archive", "-U", "postgres", "-h"])
        .arg(cluster.path())
        .args(["-p", &cluster.port.to_string(), "-D"])
        .arg(folder)
        .spawn()
        .unwrap();
    wait_until("taken", || cluster.sql("SELECT count(*) FROM pg_replication_slots WHERE active") == "1");
    let (archived, ()) = archive_during(grants(&cluster, "{}"), &log, || std::thread::sleep(Duration::from_secs(12)));
    other.kill().unwrap();
    other.wait().unwrap();
    let error = archived.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied);
    assert!(error.message.contains("is active for PID"), "{error:?}");

    cluster.sql("SELECT pg_drop_replication_slot('backstay_archive')");
    let lost = grants(&cluster, "{}");
    let (archived, ()) = archive_during(Grants { user: "plain".to_owned(), ..lost }, &log, || ());
    assert!(archived.is_ok() || archived.unwrap_err().kind == ErrorKind::Denied);
}

#[test]
fn what_is_in_the_folder_is_not_destroyed() {
    let cluster = Cluster::start(&setup());
    cluster.sql("CREATE TABLE ledger (n int); INSERT INTO ledger VALUES (7)");
    let log = Rc::new(MemoryLog::default());
    let target = tempfile::tempdir_in("/tmp").unwrap();
    let backup = target.path().join("backup");
    let report = back_up(&cluster, &backup);
    let restore = Restore { report: &report, backup: &backup, log: &log, epoch: 1 };
    let scratch = tempfile::tempdir_in("/tmp").unwrap();
    let data = scratch.path().join("data");
    let run = |delta| {
        let mut job = restore.job(RecoveryTarget::BackupEnd, true);
        job.delta = delta;
        restore.try_run(job, scratch.path())
    };
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("mine"), "x").unwrap();
    assert_eq!(run(false).unwrap_err().kind, ErrorKind::BadConfig);
    assert_eq!(run(true).unwrap_err().kind, ErrorKind::BadConfig);
    std::fs::remove_file(data.join("mine")).unwrap();
    run(false).unwrap();
    assert_eq!(run(false).unwrap_err().kind, ErrorKind::BadConfig);
    std::fs::write(data.join("postmaster.pid"), "1").unwrap();
    assert_eq!(run(true).unwrap_err().kind, ErrorKind::Conflict);
    std::fs::remove_file(data.join("postmaster.pid")).unwrap();
    let mut control = std::fs::read(data.join("global/pg_control")).unwrap();
    control[0] ^= 1;
    std::fs::write(data.join("global/pg_control"), control).unwrap();
    assert_eq!(run(true).unwrap_err().kind, ErrorKind::Conflict);
    let right = std::fs::read(backup.join("data/global/pg_control")).unwrap();
    std::fs::write(data.join("global/pg_control"), right).unwrap();
    run(true).unwrap();
    assert_eq!(ask(&data, LEDGER), "7");
}

#[test]
fn tablespaces_come_up_where_the_operator_wants_them() {
    let cluster = Cluster::start(&setup());
    let location = cluster.tablespace("fast");
    cluster.sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", location.display()));
    cluster.sql("CREATE TABLE ledger (n int) TABLESPACE fast");
    cluster.sql("INSERT INTO ledger VALUES (7)");
    let target = tempfile::tempdir_in("/tmp").unwrap();
    let backup = target.path().join("backup");
    let report = back_up(&cluster, &backup);
    let log = Rc::new(MemoryLog::default());
    let restore = Restore { report: &report, backup: &backup, log: &log, epoch: 1 };
    let scratch = tempfile::tempdir_in("/tmp").unwrap();
    Command::new("chmod").arg("755").arg(scratch.path()).status().unwrap();
    let place = scratch.path().join("elsewhere");
    std::fs::create_dir(&place).unwrap();
    let mut job = restore.job(RecoveryTarget::BackupEnd, true);
    job.volumes = report.volumes.clone();
    assert_eq!(job.volumes.len(), 1);
    job.volumes[0].location = place.to_str().unwrap().to_owned();
    restore.try_run(job, scratch.path()).unwrap();
    let data = scratch.path().join("data");
    let verify = bin().join("pg_verifybackup");
    if verify.exists() {
        let output = Command::new(verify).arg("-n").arg(&data).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let answer = ask(
        &data,
        "SELECT n || ' ' || pg_tablespace_location(t.oid) FROM ledger, pg_tablespace t WHERE spcname = 'fast'",
    );
    assert_eq!(answer, format!("7 {}", place.display()));

    // An older state's tablespace is reused where it lies; nothing else is cleared for it.
    let run = |place: &Path, delta| {
        let mut job = restore.job(RecoveryTarget::BackupEnd, true);
        job.volumes = report.volumes.clone();
        job.volumes[0].location = place.to_str().unwrap().to_owned();
        job.delta = delta;
        restore.try_run(job, scratch.path())
    };
    std::fs::remove_file(data.join("postmaster.pid")).ok();
    run(&place, true).unwrap();
    let mine = scratch.path().join("mine");
    std::fs::create_dir(&mine).unwrap();
    std::fs::write(mine.join("precious"), "x").unwrap();
    let refused = run(&mine, true).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::BadConfig);
    assert!(refused.message.contains("is not where the folder's tablespace fast lies"), "{}", refused.message);
    std::fs::remove_dir_all(&data).unwrap();
    assert_eq!(run(&place, true).unwrap_err().kind, ErrorKind::BadConfig);
    assert_eq!(run(&mine, false).unwrap_err().kind, ErrorKind::BadConfig);
    assert_eq!(std::fs::read(mine.join("precious")).unwrap(), b"x");
}
