//! A committed backup.

use crate::{BackupId, BackupManifest, Timestamp};
use serde::{Deserialize, Serialize};

/// A committed backup: its id and what it knows about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// The id of its snapshot.
    pub id: BackupId,
    /// What it knows about itself.
    pub manifest: BackupManifest,
}

impl Backup {
    /// The earliest time it can be restored to: no commit inside it is later.
    pub fn time(&self) -> Timestamp {
        self.manifest.consistent_at.unwrap_or(self.manifest.finished)
    }
}
