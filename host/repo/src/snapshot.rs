//! Snapshots: one committed backup each, sealed in `snapshots/`.

use crate::limits::LOADS_MAX;
use crate::{Id, MasterKey, Result, Store, document};
use backstay_core::{BackupId, Timestamp};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

/// What a writer says about a backup.
#[derive(Clone, Debug, Default)]
pub struct SnapshotMeta {
    /// When it was taken; now, if not given.
    pub time: Option<Timestamp>,
    /// The machine that made it.
    pub hostname: String,
    /// The user that made it.
    pub username: String,
    /// What was stored, as people call it; stock restic groups by it.
    pub paths: Vec<String>,
    /// For people: `engine=…`, `target=…`, `method=…`.
    pub tags: Vec<String>,
    /// The backup that this one is compared with.
    pub parent: Option<BackupId>,
    /// The program that made it.
    pub program_version: String,
}

/// A committed backup.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its id.
    pub id: BackupId,
    /// When it was taken.
    pub time: Timestamp,
    /// The root tree.
    pub tree: Id,
    /// What was stored.
    pub paths: Vec<String>,
    /// The machine that made it.
    pub hostname: String,
    /// The user that made it.
    pub username: String,
    /// For people.
    pub tags: Vec<String>,
    /// The backup that it was compared with.
    pub parent: Option<BackupId>,
    /// The program that made it; empty when stock restic before 0.15 did.
    pub program_version: String,
}

/// A snapshot as stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotFile {
    pub(crate) time: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<Id>,
    pub(crate) tree: Id,
    #[serde(default)]
    pub(crate) paths: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) hostname: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) username: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tags: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) program_version: String,
}

impl SnapshotFile {
    pub(crate) fn new(tree: Id, meta: SnapshotMeta) -> Self {
        let time = meta.time.unwrap_or_else(|| std::time::SystemTime::now().into());
        Self {
            time: time.to_string(),
            parent: meta.parent.as_ref().map(Id::from),
            tree,
            paths: meta.paths,
            hostname: meta.hostname,
            username: meta.username,
            tags: meta.tags,
            program_version: meta.program_version,
        }
    }

    pub(crate) fn read(self, id: Id) -> Snapshot {
        Snapshot {
            id: id.into(),
            time: self.time.parse().unwrap_or(Timestamp::EPOCH),
            tree: self.tree,
            paths: self.paths,
            hostname: self.hostname,
            username: self.username,
            tags: self.tags,
            parent: self.parent.map(BackupId::from),
            program_version: self.program_version,
        }
    }
}

/// Reads one.
pub(crate) async fn load(store: &Store, key: &MasterKey, id: Id) -> Result<Snapshot> {
    let file: SnapshotFile = document::load(store, key, "snapshots", id).await?;
    Ok(file.read(id))
}

/// Reads all, oldest first.
pub(crate) async fn load_all(store: &Store, key: &MasterKey) -> Result<Vec<Snapshot>> {
    let ids = store.list("snapshots").await?.into_iter().filter_map(|object| Id::from_key(&object.key));
    let mut snapshots: Vec<Snapshot> = futures::stream::iter(ids.collect::<Vec<_>>())
        .map(|id| load(store, key, id))
        .buffer_unordered(LOADS_MAX)
        .try_collect()
        .await?;
    snapshots.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
    Ok(snapshots)
}
