//! What a job says, one JSON line each.

use super::Failure;
use backstay_core::{BackupId, BackupManifest, Position, RestorePlan, Timestamp, Volume};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// One line from a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// How far it is.
    Progress {
        /// A short noun.
        phase: String,
        /// Units are bytes.
        done: u64,
        /// Nothing while unknown.
        total: Option<u64>,
    },
    /// A line for the operator's log.
    Log {
        /// How much it matters.
        level: LogLevel,
        /// `plugin` or a module of the host.
        source: String,
        /// Printable, one line.
        message: String,
        /// What else the line carries: `plugin`, `database`, `job`, ...
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        fields: BTreeMap<String, String>,
    },
    /// What a restore is going to do.
    Plan(Box<RestorePlan>),
    /// The job is through.
    Done(Box<JobResult>),
    /// The job failed.
    Failed(Failure),
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// Every step.
    Trace,
    /// For authors.
    Debug,
    /// For operators.
    Info,
    /// Will need attention.
    Warn,
    /// Failed.
    Error,
}

/// What a finished job answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "kebab-case")]
pub enum JobResult {
    /// Of [`super::Job::Inspect`].
    Inspect(InspectSummary),
    /// Of [`super::Job::Backup`].
    Backup(BackupSummary),
    /// Of [`super::Job::Archive`].
    Archive(ArchiveSummary),
    /// Of [`super::Job::Restore`].
    Restore(RestoreSummary),
}

/// What an inspection saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct InspectSummary {
    /// Which database it is.
    pub identity: String,
    /// Its version.
    pub version: String,
    /// `primary`, `standby`.
    pub role: String,
    /// The end of its log.
    pub tail: Option<Position>,
    /// What will not work as configured.
    pub warnings: Vec<String>,
}

/// A committed backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BackupSummary {
    /// Its id.
    pub id: BackupId,
    /// What it knows about itself.
    pub manifest: BackupManifest,
    /// Bytes that went to the store.
    pub uploaded: u64,
    /// Bytes of files that were not read, because they are as the backup before has them.
    pub unread: u64,
}

/// What an archiver did before it was stopped.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ArchiveSummary {
    /// The end of the last durable piece.
    pub tail: Option<Position>,
    /// Pieces appended by this run.
    pub pieces: u64,
    /// Their plaintext bytes.
    pub bytes: u64,
}

/// What a restore did, or with `dry-run` would do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RestoreSummary {
    /// What was planned.
    pub plan: RestorePlan,
    /// Nothing was written.
    pub dry_run: bool,
    /// The backup's volumes and where they go.
    pub volumes: Vec<Volume>,
    /// Folders that held something: what is not in the backup is removed from them.
    pub swept: Vec<PathBuf>,
    /// Files placed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were already right.
    pub kept_bytes: u64,
    /// Bytes of log laid out.
    pub log_bytes: u64,
    /// When it was done, by the host's clock.
    pub finished: Timestamp,
    /// What the operator does next.
    pub next_steps: Vec<String>,
}
