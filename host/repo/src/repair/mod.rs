//! Repairs: what can be made right again from what is still there.
//!
//! ```text
//!   Sorted           index files ► held against the packs that are there, and their own headers
//!   IndexRepair      Sorted ► new index files, durable ► old ones go
//!                    rotten packs ► what opens of them in new packs ► the index without them ► they go
//!   SnapshotRepair   Sorted ► snapshots with holes ► Survey ► what is whole as a snapshot of its own, durable ► the old
//!                    one goes
//! ```
//!
//! Each is planned first. The plan holds the lock that it was made under, so what was shown is what is done.

mod index;
mod packs;
mod rot;
mod snapshots;
mod survey;

pub use index::{IndexPlan, IndexRepair, IndexRepairOptions, RottenPack};
pub use snapshots::{Repaired, SnapshotRepair, SnapshotRepairOptions, SnapshotsPlan};

use crate::{RepoErrorKind, Result};
use backstay_core::{BackupId, Timestamp};
use serde::Serialize;

/// An object whose bytes are not what was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DamagedFile {
    /// Its name in the repository.
    pub object: String,
    /// What is wrong.
    pub why: String,
}

/// A snapshot that cannot be restored whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BrokenSnapshot {
    /// Its id.
    pub id: BackupId,
    /// When it was taken.
    pub time: Timestamp,
    /// What it says about itself.
    pub tags: Vec<String>,
    /// What was stored, as people call it.
    pub paths: Vec<String>,
    /// Files and folders with holes, each with what is missing.
    pub missing: Vec<String>,
    /// Files and folders with holes beyond those named.
    pub missing_unlisted: u64,
    /// Files that are still whole.
    pub whole_files: u64,
    /// Their bytes.
    pub whole_bytes: u64,
}

/// Whether the store keeps what was to be removed; it is told.
fn is_refused(removed: Result<()>) -> Result<bool> {
    match removed {
        Err(error) if error.kind() == RepoErrorKind::Retained => {
            tracing::warn!(%error, "an object stays for now");
            Ok(true)
        }
        removed => removed.map(|()| false),
    }
}
