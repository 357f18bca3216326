//! Backups of a real server into a folder, as a stock restore would leave it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod native_host;

use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use backstay_postgresql::PostgreSql;
use backstay_sdk::native::BackupSink;
use backstay_sdk::{BackupJob, BackupReport, Engine as _, ErrorKind, Result};
use cluster::{Cluster, Setup, as_postgres, bin};
use native_host::{FolderSink, Grants, NativeHost, block_on};

fn grants(cluster: &Cluster) -> Grants {
    Grants {
        config: "{}".to_owned(),
        endpoint: cluster.endpoint(),
        user: "backup".to_owned(),
        password: "secret".to_owned(),
    }
}

fn job() -> BackupJob {
    BackupJob { method: "stream".to_owned(), label: "it's a test".to_owned() }
}

fn back_up(grants: Grants, into: &Path) -> Result<BackupReport> {
    NativeHost::install(grants);
    let sink = FolderSink::new(into.to_owned());
    let writer = (sink.clone() as Rc<dyn BackupSink>).into();
    let report = block_on(PostgreSql::backup(job(), writer))?;
    assert!(sink.identity.borrow().is_some());
    assert_eq!(sink.finished.get(), sink.begun.get(), "every file was finished");
    Ok(report)
}

fn verify(data: &Path) {
    let program = bin().join("pg_verifybackup");
    if !program.exists() {
        return;
    }
    let output = Command::new(program).arg(data).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Starts a server on a folder and asks it one thing over its socket.
fn ask_restored(data: &Path, sql: &str) -> String {
    let folder = data.parent().unwrap();
    Command::new("chown").args(["-R", "postgres"]).arg(folder).status().unwrap();
    let options = format!("-c listen_addresses= -c unix_socket_directories={} -p 5432", folder.display());
    let pg_ctl = |arguments: &[&str]| {
        let mut command = as_postgres(&bin().join("pg_ctl"));
        command.args(arguments).args(["-w", "-s", "-D"]).arg(data);
        command.arg("-l").arg(folder.join("log")).stdout(std::process::Stdio::null());
        command.status().unwrap().success()
    };
    let started = pg_ctl(&["start", "-o", &options]);
    let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    assert!(started, "{log}");
    let psql = if bin().join("psql").exists() { bin().join("psql") } else { "psql".into() };
    let output = Command::new(psql)
        .args(["-XAtq", "-U", "postgres", "-d", "postgres", "-p", "5432", "-h"])
        .arg(folder)
        .args(["-c", sql])
        .output()
        .unwrap();
    assert!(pg_ctl(&["stop", "-m", "immediate"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_backup_is_a_folder_that_verifies_and_starts_by_itself() {
    let cluster = Cluster::start(&Setup::default());
    cluster.sql("CREATE TABLE t AS SELECT n, repeat(md5(n::text), 10) AS text FROM generate_series(1, 50000) n");
    let target = tempfile::tempdir_in("/tmp").unwrap();
    let folder = target.path().join("backup");
    let before = cluster.sql("SELECT (extract(epoch FROM clock_timestamp()) * 1e6)::bigint");
    cluster.sql("INSERT INTO t VALUES (0, 'last')");
    let report = back_up(grants(&cluster), &folder).unwrap();
    let after = cluster.sql("SELECT (extract(epoch FROM clock_timestamp()) * 1e6)::bigint");

    assert_eq!(report.start.epoch, 1);
    assert!(report.start.offset < report.end.offset);
    assert!(report.log_from.offset <= report.end.offset);
    assert_eq!(report.log_from.offset % (16 << 20), 0);
    assert_eq!(report.main, "data");
    assert_eq!(report.volumes, []);
    let consistent = report.consistent_at.unwrap();
    assert!(consistent >= before.parse().unwrap(), "{before} {consistent} {after}");
    assert!(consistent <= after.parse::<u64>().unwrap() + 1_000_000, "{before} {consistent} {after}");

    let data = folder.join("data");
    let label = std::fs::read_to_string(data.join("backup_label")).unwrap();
    assert!(label.contains("LABEL: it's a test"), "{label}");
    assert!(label.contains(&format!("START WAL LOCATION: {}", report.start.label)), "{label}");
    verify(&data);
    assert_eq!(ask_restored(&data, "SELECT count(*) FROM t"), "50001");
    // The slot went with the session.
    assert_eq!(cluster.sql("SELECT count(*) FROM pg_replication_slots"), "0");
}

#[test]
fn tablespaces_lie_beside_the_main_folder_and_are_verified_too() {
    let cluster = Cluster::start(&Setup::default());
    let location = cluster.tablespace("fast");
    cluster.sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", location.display()));
    cluster.sql("CREATE TABLE f TABLESPACE fast AS SELECT generate_series(1, 20000) n");
    let oid = cluster.sql("SELECT oid FROM pg_tablespace WHERE spcname = 'fast'");
    let target = tempfile::tempdir_in("/tmp").unwrap();
    let folder = target.path().join("backup");
    let report = back_up(grants(&cluster), &folder).unwrap();
    assert_eq!(report.volumes.len(), 1);
    let volume = &report.volumes[0];
    assert_eq!(volume.name, format!("tablespaces/{oid}"));
    assert_eq!(volume.title, "fast");
    assert_eq!(Path::new(&volume.location), location);
    assert!(report.notes.contains(&oid), "{}", report.notes);
    let data = folder.join("data");
    assert!(!data.join("pg_tblspc").join(&oid).exists());
    let map = std::fs::read_to_string(data.join("tablespace_map")).unwrap();
    assert_eq!(map.trim(), format!("{oid} {}", location.display()));
    // Linked to its new place, it verifies.
    let place = folder.join(&volume.name);
    std::os::unix::fs::symlink(&place, data.join("pg_tblspc").join(&oid)).unwrap();
    verify(&data);
    // And starts there, once the map says so too.
    std::fs::write(data.join("tablespace_map"), format!("{oid} {}\n", place.display())).unwrap();
    assert_eq!(ask_restored(&data, "SELECT count(*) FROM f"), "20000");
}

#[test]
fn a_backup_under_load_is_consistent_and_the_log_inside_is_enough() {
    let cluster = Cluster::start(&Setup::default());
    cluster.sql("CREATE TABLE a (n bigint); CREATE TABLE b (n bigint)");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let target = tempfile::tempdir_in("/tmp").unwrap();
    let folder = target.path().join("backup");
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                cluster.sql(
                    "BEGIN; INSERT INTO a SELECT generate_series(1, 1000); \
                             INSERT INTO b SELECT generate_series(1, 1000); COMMIT",
                );
                cluster.sql("CHECKPOINT; SELECT pg_switch_wal()");
            }
        });
        let report = back_up(grants(&cluster), &folder);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        report
    })
    .unwrap();
    assert!(report.consistent_at.is_some());
    verify(&folder.join("data"));
    let answer = ask_restored(&folder.join("data"), "SELECT (SELECT count(*) FROM a) = (SELECT count(*) FROM b)");
    assert_eq!(answer, "t");
}

#[test]
fn tablespaces_that_the_server_itself_leaves_out_are_told() {
    if !cluster::version_is_at_least(15) {
        return;
    }
    let settings = "allow_in_place_tablespaces = on".to_owned();
    let cluster = Cluster::start(&Setup { settings, ..Setup::default() });
    let target = tempfile::tempdir_in("/tmp").unwrap();
    let host = NativeHost::install(grants(&cluster));
    let sink = FolderSink::new(target.path().to_owned()) as Rc<dyn BackupSink>;
    block_on(PostgreSql::backup(job(), sink.into())).unwrap();
    let logged = host.logged.borrow();
    assert!(logged.iter().any(|line| line.contains("allow_in_place_tablespaces")), "{logged:?}");
}

#[test]
fn a_standby_can_be_backed_up_too() {
    let primary = Cluster::start(&Setup::default());
    primary.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) n");
    let target = tempfile::tempdir_in("/tmp").unwrap();
    let first = target.path().join("first");
    let from_primary = back_up(grants(&primary), &first).unwrap();
    let standby = primary.standby(&first.join("data"));
    primary.sql("INSERT INTO t SELECT generate_series(1, 500)");
    // A base backup of a standby starts at its last restart point.
    primary.sql("CHECKPOINT");
    standby.wait_for(&primary);

    NativeHost::install(grants(&standby));
    let facts = block_on(PostgreSql::inspect()).unwrap();
    assert_eq!(facts.role, "standby");

    let second = target.path().join("second");
    let report = back_up(grants(&standby), &second).unwrap();
    assert!(report.end.offset >= report.start.offset);
    assert!(report.start.offset >= from_primary.start.offset);
    assert!(report.consistent_at.is_some());
    verify(&second.join("data"));
    for file in ["standby.signal", "postgresql.auto.conf"] {
        let _ = std::fs::remove_file(second.join("data").join(file));
    }
    assert_eq!(ask_restored(&second.join("data"), "SELECT count(*) FROM t"), "1500");
}

#[test]
fn what_the_server_cannot_do_is_told_with_a_way_out() {
    let minimal = Setup { settings: "wal_level = minimal\nmax_wal_senders = 0".to_owned(), ..Setup::default() };
    let target = tempfile::tempdir_in("/tmp").unwrap();
    let cluster = Cluster::start(&minimal);
    let error = back_up(grants(&cluster), target.path()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadConfig);
    assert!(error.message.contains("wal_level"), "{error}");

    let no_senders = Setup { settings: "max_wal_senders = 0".to_owned(), ..Setup::default() };
    let cluster = Cluster::start(&no_senders);
    let error = back_up(grants(&cluster), target.path()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied);
    assert!(error.hint.unwrap().contains("max_wal_senders"));

    let no_slots = Setup { settings: "max_replication_slots = 0".to_owned(), ..Setup::default() };
    let cluster = Cluster::start(&no_slots);
    let error = back_up(grants(&cluster), target.path()).unwrap_err();
    assert!(error.hint.unwrap().contains("max_replication_slots"), "{}", error.message);

    let mut plain = grants(&cluster);
    plain.user = "plain".to_owned();
    let error = back_up(plain, target.path()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied);
    assert!(error.hint.unwrap().contains("REPLICATION"), "{}", error.message);

    let mut wrong = grants(&cluster);
    wrong.password = "wrong".to_owned();
    let error = back_up(wrong, target.path()).unwrap_err();
    assert_eq!((error.kind, error.message.contains("password")), (ErrorKind::Denied, true));
}

#[test]
fn a_damaged_page_fails_the_backup() {
    let cluster = Cluster::start(&Setup::default());
    cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 10000) n; CHECKPOINT");
    let file = cluster.data().join(cluster.sql("SELECT pg_relation_filepath('t')"));
    cluster.pg_ctl(&["stop", "-m", "fast"]);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[9000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    cluster.pg_ctl(&["start"]);
    let target = tempfile::tempdir_in("/tmp").unwrap();
    let error = back_up(grants(&cluster), target.path()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
    assert!(error.message.contains("checksum"), "{error}");
}

#[test]
fn a_backup_that_is_asked_to_stop_stops() {
    let cluster = Cluster::start(&Setup::default());
    cluster.sql("CREATE TABLE t AS SELECT n, repeat('x', 500) FROM generate_series(1, 40000) n");
    let mut slow = grants(&cluster);
    slow.config = r#"{"max-rate": 1024}"#.to_owned();
    let host = NativeHost::install(slow);
    let target = tempfile::tempdir_in("/tmp").unwrap();
    let sink = FolderSink::new(target.path().to_owned()) as Rc<dyn BackupSink>;
    let error = block_on(async {
        let stop = async {
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            host.stop.send_replace(true);
        };
        futures::future::join(PostgreSql::backup(job(), sink.into()), stop).await.0
    })
    .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cancelled);
}
