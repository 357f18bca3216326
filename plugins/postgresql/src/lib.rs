//! Backstay's PostgreSQL engine plugin: versions 13 to 18, over a granted endpoint.
//!
//! ```text
//!   inspect ─┐                    ┌─ connection: dial, TLS, log in, ask
//!   backup  ─┼─▶ Session ─────────┤
//!   archive ─┘                    └─ backstay-postgresql-wire: the codecs, no I/O
//!
//!   locate, restore ─▶ stored log and backups: no session
//! ```
//!
//! | word | meaning |
//! |---|---|
//! | epoch | a timeline |
//! | offset, label | an LSN, as a number and as PostgreSQL writes it |
//! | identity | the system identifier |
//! | volume | a tablespace |
#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod archive;
pub mod backup;
pub mod connection;
pub mod inspect;
pub mod limits;
pub mod locate;
mod log_scan;
pub mod position;
pub mod refusal;
pub mod restore;
pub mod settings;

use backstay_sdk::{
    BackupJob, BackupReader, BackupReport, BackupWriter, Description, Directory, Engine, Facts, FilePart, Finding,
    GrantKind, GrantRequest, LogReader, LogWriter, Method, Place, RecoveryTarget, ReplayKind, RestoreJob,
    RestoreReport, Result,
};
use settings::Settings;

/// The engine.
pub struct PostgreSql;

impl Engine for PostgreSql {
    fn describe() -> Description {
        let grant = |kind, name: &str, purpose: &str, required| GrantRequest {
            kind,
            name: name.to_owned(),
            purpose: purpose.to_owned(),
            required,
        };
        Description {
            name: "postgresql".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "PostgreSQL 13 to 18: base backups and log, restores to any point".to_owned(),
            methods: vec![
                Method {
                    name: backup::STREAM.to_owned(),
                    summary: "BASE_BACKUP over a replication session, every file's checksum verified".to_owned(),
                    grants: Vec::new(),
                    builds_on: Vec::new(),
                },
                Method {
                    name: backup::FILES.to_owned(),
                    summary: "the data folder, read on all cores in backup mode, every page's checksum verified"
                        .to_owned(),
                    grants: vec![backup::DATA.to_owned()],
                    builds_on: Vec::new(),
                },
                Method {
                    name: backup::INCREMENTAL.to_owned(),
                    summary: "as stream, but only blocks that changed since the backup before (17 and later)"
                        .to_owned(),
                    grants: Vec::new(),
                    builds_on: vec![backup::STREAM.to_owned()],
                },
            ],
            replay: ReplayKind::AtStart,
            grants: vec![
                grant(GrantKind::Endpoint, connection::PRIMARY, "the server's address, such as 127.0.0.1:5432", true),
                grant(GrantKind::Credential, connection::PRIMARY, "a role with LOGIN and REPLICATION", true),
                grant(GrantKind::DirectoryRead, backup::DATA, "the data folder, for the method files", false),
                grant(
                    GrantKind::DirectoryRead,
                    backup::WAL,
                    "where pg_wal leads when it is a link, for the method files",
                    false,
                ),
                grant(
                    GrantKind::DirectoryRead,
                    &format!("{}*", backup::TABLESPACE_GRANT),
                    "a tablespace's folder, by its OID, for the method files",
                    false,
                ),
            ],
            config_schema: settings::schema(),
        }
    }

    async fn inspect() -> Result<Facts> {
        inspect::inspect(&Settings::read()?).await
    }

    async fn backup(job: BackupJob, into: BackupWriter) -> Result<BackupReport> {
        backup::backup(&Settings::read()?, &job, &into).await
    }

    fn inspect_part(part: &FilePart, bytes: &[u8]) -> Result<Vec<Finding>> {
        backup::inspect_part(part, bytes)
    }

    async fn archive(into: LogWriter) -> Result<()> {
        archive::archive(&Settings::read()?, &into).await
    }

    async fn locate(target: RecoveryTarget, logs: Option<LogReader>) -> Result<Option<Place>> {
        locate::locate(&target, logs.as_ref()).await
    }

    async fn restore(
        job: RestoreJob,
        from: BackupReader,
        logs: Option<LogReader>,
        into: Directory,
    ) -> Result<RestoreReport> {
        restore::restore(&job, &from, logs.as_ref(), &into).await
    }
}

backstay_sdk::export_engine!(PostgreSql);
