//! Sessions and `inspect` against a real server.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod native_host;

use backstay_postgresql::PostgreSql;
use backstay_postgresql::connection::Session;
use backstay_postgresql::settings::Settings;
use backstay_postgresql_wire::protocol::frontend::Purpose;
use backstay_sdk::{Engine as _, ErrorKind, Result};
use cluster::{Cluster, Setup};
use native_host::{Grants, NativeHost, block_on};

fn grants(cluster: &Cluster, config: &str) -> Grants {
    Grants {
        config: config.to_owned(),
        endpoint: cluster.endpoint(),
        user: "backup".to_owned(),
        password: "secret".to_owned(),
    }
}

/// Opens a session both ways and asks something; answers whether TLS was up.
fn open(grants: Grants) -> Result<bool> {
    NativeHost::install(grants);
    block_on(async {
        let settings = Settings::read()?;
        let mut session = Session::open(&settings, Purpose::Replication).await?;
        assert_eq!(session.query("IDENTIFY_SYSTEM").await?.len(), 1);
        session.close().await;
        let mut session = Session::open(&settings, Purpose::Sql).await?;
        let results = session.query("SELECT 1 AS a; SELECT NULL AS b, '' AS c").await?;
        assert_eq!(results[0].get(0, "a"), Some("1"));
        assert_eq!((results[1].get(0, "b"), results[1].get(0, "c")), (None, Some("")));
        let encrypted = session.is_encrypted();
        session.close().await;
        Ok(encrypted)
    })
}

#[test]
fn every_method_of_login_works_without_tls_but_cleartext() {
    for (method, encryption) in
        [("trust", "scram-sha-256"), ("md5", "md5"), ("md5", "scram-sha-256"), ("scram-sha-256", "scram-sha-256")]
    {
        let cluster = Cluster::start(&Setup { method, encryption, ..Setup::default() });
        for sslmode in ["disable", "prefer", "allow"] {
            let config = format!(r#"{{"sslmode": "{sslmode}"}}"#);
            assert!(!open(grants(&cluster, &config)).unwrap(), "{method} {sslmode}");
        }
        if method != "trust" {
            let mut wrong = grants(&cluster, "{}");
            wrong.password = "wrong".to_owned();
            let error = open(wrong).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Denied);
            assert_eq!(error.message, "FATAL:  password authentication failed for user \"backup\"");
        }
        let error = open(grants(&cluster, r#"{"sslmode": "require"}"#)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied);
        assert!(error.message.contains("does not speak TLS"));
        let error = open(grants(&cluster, r#"{"channel-binding": "require"}"#)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied);
    }
    let cluster = Cluster::start(&Setup { method: "password", ..Setup::default() });
    let error = open(grants(&cluster, "{}")).unwrap_err();
    assert!(error.message.contains("cleartext password"), "{error}");
}

#[test]
fn under_tls_the_login_is_bound_to_the_channel() {
    if !cluster::has_tls() {
        return;
    }
    let cluster = Cluster::start(&Setup { tls: true, ..Setup::default() });
    for channel in ["require", "prefer", "disable"] {
        let config = format!(r#"{{"sslmode": "require", "channel-binding": "{channel}"}}"#);
        assert!(open(grants(&cluster, &config)).unwrap(), "{channel}");
    }
    assert!(open(grants(&cluster, r#"{"sslmode": "prefer"}"#)).unwrap());
    assert!(!open(grants(&cluster, r#"{"sslmode": "disable"}"#)).unwrap());
    assert!(!open(grants(&cluster, r#"{"sslmode": "allow"}"#)).unwrap());
    let cleartext = Cluster::start(&Setup { tls: true, method: "password", ..Setup::default() });
    assert!(open(grants(&cleartext, r#"{"sslmode": "require"}"#)).unwrap());
}

#[test]
fn prefer_and_allow_find_the_kind_of_connection_that_the_server_wants() {
    if !cluster::has_tls() {
        return;
    }
    let without = Setup { tls: true, host_kind: "hostnossl", ..Setup::default() };
    let without = Cluster::start(&without);
    assert!(!open(grants(&without, r#"{"sslmode": "prefer"}"#)).unwrap());
    assert!(open(grants(&without, r#"{"sslmode": "require"}"#)).is_err());
    let with = Cluster::start(&Setup { tls: true, host_kind: "hostssl", ..Setup::default() });
    assert!(open(grants(&with, r#"{"sslmode": "allow"}"#)).unwrap());
    let error = open(grants(&with, r#"{"sslmode": "disable"}"#)).unwrap_err();
    assert!(error.message.contains("no pg_hba.conf entry"), "{error}");
    assert!(error.hint.unwrap().contains("pg_hba.conf"));
}

#[test]
fn inspect_tells_who_the_server_is_and_what_will_not_work() {
    let cluster = Cluster::start(&Setup::default());
    NativeHost::install(grants(&cluster, "{}"));
    let facts = block_on(PostgreSql::inspect()).unwrap();
    assert_eq!(facts.identity, cluster.sql("SELECT system_identifier FROM pg_control_system()"));
    assert_eq!(facts.role, "primary");
    assert!(cluster.sql("SHOW server_version").starts_with(&facts.version));
    let tail = facts.tail.unwrap();
    assert_eq!(tail.epoch, 1);
    assert_eq!(cluster.sql(&format!("SELECT '{}'::pg_lsn - '0/0'", tail.label)), tail.offset.to_string());
    assert!(facts.warnings.iter().any(|w| w.contains("fsync is off")), "{:?}", facts.warnings);
    assert!(facts.warnings.iter().any(|w| w.contains("backstay_archive")), "{:?}", facts.warnings);
    assert_eq!(facts.warnings.len(), 2, "{:?}", facts.warnings);

    // A role without the right still learns what the server is.
    let mut plain = grants(&cluster, "{}");
    plain.user = "plain".to_owned();
    NativeHost::install(plain);
    let seen = block_on(PostgreSql::inspect()).unwrap();
    assert_eq!(seen.identity, facts.identity);
    assert!(seen.warnings.iter().any(|w| w.contains("ALTER ROLE")), "{:?}", seen.warnings);
}

#[test]
fn a_minimal_wal_level_is_a_warning_with_a_way_out() {
    let settings = "wal_level = minimal\nmax_wal_senders = 0".to_owned();
    let cluster = Cluster::start(&Setup { settings, ..Setup::default() });
    NativeHost::install(grants(&cluster, "{}"));
    let facts = block_on(PostgreSql::inspect()).unwrap();
    assert!(facts.warnings.iter().any(|w| w.contains("wal_level")), "{:?}", facts.warnings);
    assert!(facts.warnings.iter().any(|w| w.contains("max_wal_senders is 0")), "{:?}", facts.warnings);
}

#[test]
fn a_server_that_is_not_there_is_unreachable() {
    let cluster = Cluster::start(&Setup::default());
    let grants = grants(&cluster, "{}");
    drop(cluster);
    NativeHost::install(grants);
    assert_eq!(block_on(PostgreSql::inspect()).unwrap_err().kind, ErrorKind::Unreachable);
}
