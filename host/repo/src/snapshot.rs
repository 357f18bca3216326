//! Snapshots: one committed backup each, sealed in `snapshots/`.

use crate::limits::LOADS_MAX;
use crate::{Id, MasterKey, RepoErrorKind, Result, Store, Totals, document};
use backstay_core::{BackupId, Timestamp};
use futures::StreamExt;
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
    /// When the job started; [`SnapshotMeta::time`], if not given.
    pub started: Option<Timestamp>,
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
    /// Bytes it added to the store; nothing when a program did not say, or dropped it when re-tagging.
    pub uploaded: Option<u64>,
}

impl Snapshot {
    /// What it keeps when it is copied into another repository, where its id is another one.
    pub fn identity(&self) -> (Timestamp, Id) {
        (self.time, self.tree)
    }
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) summary: Option<Summary>,
}

/// What restic from 0.17 on notes about a backup, as far as it has a meaning here. Field names are restic's.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Summary {
    backup_start: String,
    backup_end: String,
    /// Plaintext bytes that were new.
    data_added: u64,
    /// What they take on the store.
    data_added_packed: u64,
    total_files_processed: u64,
    total_bytes_processed: u64,
}

impl SnapshotFile {
    pub(crate) fn new(tree: Id, meta: SnapshotMeta, totals: &Totals) -> Self {
        let time = meta.time.unwrap_or_else(|| std::time::SystemTime::now().into());
        let summary = Summary {
            backup_start: meta.started.unwrap_or(time).to_string(),
            backup_end: time.to_string(),
            data_added: totals.new_bytes,
            data_added_packed: totals.uploaded,
            total_files_processed: totals.files,
            total_bytes_processed: totals.bytes,
        };
        Self {
            time: time.to_string(),
            parent: meta.parent.as_ref().map(Id::from),
            tree,
            paths: meta.paths,
            hostname: meta.hostname,
            username: meta.username,
            tags: meta.tags,
            program_version: meta.program_version,
            summary: Some(summary),
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
            uploaded: self.summary.map(|summary| summary.data_added_packed),
        }
    }
}

/// Reads one.
pub(crate) async fn load(store: &Store, key: &MasterKey, id: Id) -> Result<Snapshot> {
    let file: SnapshotFile = document::load(store, key, "snapshots", id).await?;
    Ok(file.read(id))
}

/// Reads all, oldest first; those that are forgotten while we look are not there.
pub(crate) async fn load_all(store: &Store, key: &MasterKey) -> Result<Vec<Snapshot>> {
    Ok(sorted(load_each(store, key).await?.into_iter().map(|(_, load)| load).collect::<Result<_>>()?))
}

/// Reads each, in no order, or says what keeps it from being read; those that are forgotten while we look are not there.
pub(crate) async fn load_each(store: &Store, key: &MasterKey) -> Result<Vec<(BackupId, Result<Snapshot>)>> {
    let mut loads = load_listed(store, key).await?;
    loads.retain(|(_, load)| !matches!(load, Err(error) if error.kind() == RepoErrorKind::NotFound));
    Ok(loads)
}

/// Reads all that are listed: nothing may be removed for what a snapshot says that cannot be read.
pub(crate) async fn load_every(store: &Store, key: &MasterKey) -> Result<Vec<Snapshot>> {
    Ok(sorted(load_listed(store, key).await?.into_iter().map(|(_, load)| load).collect::<Result<_>>()?))
}

async fn load_listed(store: &Store, key: &MasterKey) -> Result<Vec<(BackupId, Result<Snapshot>)>> {
    let ids = store.list("snapshots").await?.into_iter().filter_map(|object| Id::from_key(&object.key));
    let loads = futures::stream::iter(ids.collect::<Vec<_>>())
        .map(|id| async move { (BackupId::from(id), load(store, key, id).await) });
    Ok(loads.buffer_unordered(LOADS_MAX).collect().await)
}

fn sorted(mut snapshots: Vec<Snapshot>) -> Vec<Snapshot> {
    snapshots.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
    snapshots
}
