//! What a backup knows about itself.

use crate::{Position, TargetName, Timestamp};
use serde::{Deserialize, Serialize};

/// Where the manifest lies in a backup's tree. It is the authority: stock restic
/// drops unknown snapshot fields when it re-tags, so tags are only a convenience.
pub const MANIFEST_PATH: &str = ".backstay/manifest.json";

/// The authoritative description of a backup, stored in its tree at [`MANIFEST_PATH`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BackupManifest {
    /// Version of this format: 1.
    pub format: u32,
    /// The target it was made for.
    pub target: TargetName,
    /// The engine that made it.
    pub engine: String,
    /// The engine plugin's version.
    pub engine_version: String,
    /// The database's version.
    pub database_version: String,
    /// Which database it is, for its whole life.
    pub identity: String,
    /// `stream`, `files`, ...
    pub method: String,
    /// When the job started, by the host's clock.
    pub started: Timestamp,
    /// When the engine had reported, by the host's clock.
    pub finished: Timestamp,
    /// Where in the log the backup starts.
    pub start: Position,
    /// The restored database is consistent from here on.
    pub end: Position,
    /// Log from here on is needed to go beyond `end`.
    pub log_from: Position,
    /// No commit inside the backup is later than this, by the database's clock.
    pub consistent_at: Option<Timestamp>,
    /// The folder in the tree that holds the database's main folder.
    pub main: String,
    /// Folders in the tree that live outside the main folder (tablespaces).
    pub volumes: Vec<Volume>,
    /// Bytes of all files.
    pub bytes: u64,
    /// Number of files.
    pub files: u64,
    /// What the engine found wrong in files of the database when they were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// How many more findings there were than `findings` names.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_findings: u64,
    /// The engine's own JSON.
    pub notes: String,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the shape serde asks for
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Something wrong in a file of the database, such as a page whose checksum does not fit. The file is in the backup
/// as it was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// The file, in the tree.
    pub path: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// In the engine's words, one line.
    pub what: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.what)
    }
}

/// Bytes that live outside the database's main folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The folder in the tree that holds them.
    pub name: String,
    /// What people call it.
    pub title: String,
    /// Where it lay at the source, or goes in a restore.
    pub location: String,
}
