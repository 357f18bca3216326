//! What a job is told: everything, once, over its standard input.

use super::LogLevel;
use backstay_core::{BackupId, Secret, TargetName, Timestamp};
use backstay_sandbox::{Grants, Limits};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// One job with all it needs. Travels to the child over a pipe, secrets included,
/// never over the command line or the environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobSpec {
    /// What to do.
    pub job: Job,
    /// For which database.
    pub target: TargetSpec,
    /// With which repository; nothing for [`Job::Inspect`].
    pub repository: Option<RepositorySpec>,
    /// Where compiled plugins are kept, mode 0700; made when absent.
    pub cache: PathBuf,
    /// Log lines that matter less are not even made.
    #[serde(default = "info")]
    pub log_level: LogLevel,
}

fn info() -> LogLevel {
    LogLevel::Info
}

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Job {
    /// Connect, look, report.
    Inspect,
    /// Make a backup.
    Backup {
        /// Nothing: the engine's first.
        method: Option<String>,
        /// Read files again that are as the backup before has them.
        reread: bool,
    },
    /// Follow the log until stopped.
    Archive {
        /// The next piece may leave a gap: the way out once the database has dropped log
        /// that was not archived. No recovery window reaches across it.
        accept_gap: bool,
    },
    /// Put a backup and its log into a folder.
    Restore(RestoreSpec),
}

/// What to restore, and where to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestoreSpec {
    /// The folder, absolute; made when absent.
    pub into: PathBuf,
    /// Up to where.
    pub to: RestoreTo,
    /// Whether what lies at the target is part of the result.
    pub inclusive: bool,
    /// This backup and no other; nothing: the plan picks it.
    pub backup: Option<BackupId>,
    /// Volumes (by name or title) and where each goes, absolute.
    pub volumes: BTreeMap<String, PathBuf>,
    /// The folder may hold an older state that is reused.
    pub delta: bool,
    /// Plan and show only.
    pub dry_run: bool,
}

/// Up to where to restore, as the operator said it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestoreTo {
    /// The end of the log.
    Latest,
    /// As early as the backup is consistent.
    BackupEnd,
    /// The last state at this time.
    Time(Timestamp),
    /// A position as the engine writes it.
    Position(String),
    /// A transaction.
    Transaction(String),
    /// A named restore point.
    Name(String),
}

/// The database a job is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TargetSpec {
    /// Its name in the configuration and in the repository.
    pub name: TargetName,
    /// The engine's name; the plugin must describe itself by it.
    pub engine: String,
    /// The plugin's component file, as [`backstay_sandbox::find`] found it.
    pub plugin: PathBuf,
    /// The settings, valid against the plugin's schema.
    pub settings: serde_json::Value,
    /// What the operator granted.
    pub grants: Grants,
    /// Limits of the plugin.
    #[serde(default)]
    pub limits: Limits,
}

/// The repository a job works with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RepositorySpec {
    /// Its name in the configuration.
    pub name: String,
    /// `file:///…`, `s3://…`, `gs://…`, `az://…` or `https://…`.
    pub url: String,
    /// The store's options (`endpoint`, `region`, keys, …).
    pub options: BTreeMap<String, Secret>,
    /// What opens it.
    pub access: Access,
}

/// What opens a repository.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Access {
    /// Opens one of its key files, in a third of a second: that is what guessing costs.
    Password(Secret),
    /// The master key itself, from whoever opened the repository before: see [`crate::repository::unlocked`].
    MasterKey {
        /// The key file that it came from.
        id: String,
        /// As `restic cat masterkey` prints it.
        key: Secret,
    },
}
