//! The backups of a repository, by their manifests.

use crate::job::{Failure, FailureKind};
use backstay_core::{Backup, BackupManifest, MANIFEST_PATH, RelativePath, TargetName};
use backstay_repo::{RepoErrorKind, Repository, Snapshot, SnapshotReader};
use futures::{StreamExt, TryStreamExt, stream};

/// Manifests read at once: each takes three small reads of the store.
const MANIFESTS_AT_ONCE: usize = 8;
/// Longest manifest: notes have 1 MiB, volumes a few KiB.
const MANIFEST_BYTES_MAX: u64 = 8 << 20;

/// A backup with what the repository says about it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its id and manifest.
    pub backup: Backup,
    /// Its snapshot.
    pub snapshot: Snapshot,
}

/// The backups of one target, or of all, oldest first. Snapshots that another program made
/// have no manifest and are left out.
///
/// Takes no lock. A prune may move what is read meanwhile: then it is looked up anew, once.
pub async fn entries(repository: &Repository, target: Option<&TargetName>) -> Result<Vec<Entry>, Failure> {
    match entries_once(repository, target).await {
        Err(failure) if failure.kind == FailureKind::Damaged => entries_once(repository, target).await,
        found => found,
    }
}

async fn entries_once(repository: &Repository, target: Option<&TargetName>) -> Result<Vec<Entry>, Failure> {
    let readers = repository.readers(repository.snapshots().await?).await?;
    let mut entries: Vec<Entry> = stream::iter(readers)
        .map(entry)
        .buffered(MANIFESTS_AT_ONCE)
        .try_filter_map(|entry| async move { Ok(entry) })
        .try_collect()
        .await?;
    if let Some(target) = target {
        entries.retain(|entry| entry.backup.manifest.target == *target);
    }
    entries.sort_by_key(|entry| entry.backup.manifest.finished);
    Ok(entries)
}

/// The same without what the repository says.
pub async fn backups(repository: &Repository, target: &TargetName) -> Result<Vec<Backup>, Failure> {
    Ok(entries(repository, Some(target)).await?.into_iter().map(|entry| entry.backup).collect())
}

async fn entry(reader: SnapshotReader) -> Result<Option<Entry>, Failure> {
    let snapshot = reader.snapshot().clone();
    let damaged = |reason: String| {
        Failure::from(backstay_repo::RepoError::damaged(
            format!("the manifest of backup {}", snapshot.id.short()),
            reason,
        ))
    };
    let path = RelativePath::new(MANIFEST_PATH).map_err(|error| damaged(error.to_string()))?;
    let bytes = match reader.read_all(&path, MANIFEST_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == RepoErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let manifest: BackupManifest = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if manifest.format != 1 {
        return Err(Failure::new(
            FailureKind::Failed,
            format!(
                "backup {} has a manifest of format {}, this backstay reads format 1",
                snapshot.id.short(),
                manifest.format
            ),
        )
        .hint("use a newer backstay"));
    }
    let backup = Backup { id: snapshot.id.clone(), manifest };
    Ok(Some(Entry { backup, snapshot }))
}
