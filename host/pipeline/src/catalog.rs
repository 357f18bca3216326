//! The backups of a repository, by their manifests.
//!
//! ```text
//!   entries ─────────── all of them, or a failure: for whoever removes, copies or counts
//!   readable_entries ── those that can be read: for whoever shows, restores or backs up
//! ```
//!
//! What cannot be read may be what keeps something, so nothing is removed beside it; and it is no reason not to restore
//! another one, least of all of another target.

#[cfg(test)]
mod tests;

use crate::job::{Failure, FailureKind};
use backstay_core::{Backup, BackupId, BackupManifest, MANIFEST_PATH, RelativePath, TargetName};
use backstay_repo::{RepoError, RepoErrorKind, Repository, Snapshot, SnapshotReader};
use futures::{StreamExt, stream};
use std::pin::pin;

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
///
/// # Errors
/// [`FailureKind::Damaged`] when there is one that cannot be read, of whichever target; whatever the store reports.
pub async fn entries(repository: &Repository, target: Option<&TargetName>) -> Result<Vec<Entry>, Failure> {
    let Listing { entries, unreadable } = list(repository, target).await?;
    match unreadable.into_iter().next() {
        None => Ok(entries),
        Some(Unreadable { why, .. }) => Err(why),
    }
}

/// The backups of one target, or of all, that can be read, oldest first; of each other one a warning is given. `asked`
/// is the id, or the start of it, of the one that it is all about, if there is such a one.
///
/// # Errors
/// What keeps the one that was asked for from being read; whatever the store reports.
pub async fn readable_entries(
    repository: &Repository,
    target: Option<&TargetName>,
    asked: Option<&str>,
) -> Result<Vec<Entry>, Failure> {
    let Listing { entries, unreadable } = list(repository, target).await?;
    for Unreadable { id, why } in unreadable {
        if asked.is_some_and(|asked| id.as_str().starts_with(asked)) {
            let hint = why.hint.clone().unwrap_or_else(|| "`backstay repo check` tells more".to_owned());
            return Err(Failure::new(why.kind, format!("failed to read backup {}: {why}", id.short())).hint(hint));
        }
        tracing::warn!("left out backup {}: {why}; `backstay repo check` tells more", id.short());
    }
    Ok(entries)
}

/// The same of one target, without what the repository says.
///
/// # Errors
/// As [`readable_entries`].
pub async fn readable_backups(
    repository: &Repository,
    target: &TargetName,
    asked: Option<&BackupId>,
) -> Result<Vec<Backup>, Failure> {
    Ok(bare(readable_entries(repository, Some(target), asked.map(BackupId::as_str)).await?))
}

fn bare(entries: Vec<Entry>) -> Vec<Backup> {
    entries.into_iter().map(|entry| entry.backup).collect()
}

/// A snapshot that may be a backup, of whichever target, and cannot be read.
struct Unreadable {
    id: BackupId,
    why: Failure,
}

#[derive(Default)]
struct Listing {
    entries: Vec<Entry>,
    unreadable: Vec<Unreadable>,
}

async fn list(repository: &Repository, target: Option<&TargetName>) -> Result<Listing, Failure> {
    match list_once(repository, target).await {
        Ok(listing) if listing.unreadable.is_empty() => Ok(listing),
        Err(failure) if failure.kind != FailureKind::Damaged => Err(failure),
        _ => list_once(repository, target).await,
    }
}

async fn list_once(repository: &Repository, target: Option<&TargetName>) -> Result<Listing, Failure> {
    let (mut listing, mut snapshots) = (Listing::default(), Vec::new());
    for (id, snapshot) in repository.each_snapshot().await? {
        match snapshot {
            Ok(snapshot) => snapshots.push(snapshot),
            Err(error) => listing.unreadable.push(Unreadable { id, why: of_one_object(error)? }),
        }
    }
    let readers = repository.readers(snapshots).await?;
    let mut found = pin!(stream::iter(readers).map(look).buffered(MANIFESTS_AT_ONCE));
    while let Some(found) = found.next().await {
        match found? {
            Found::Backup(entry) => listing.entries.push(*entry),
            Found::Foreign => {}
            Found::Unreadable(unreadable) => listing.unreadable.push(unreadable),
        }
    }
    if let Some(target) = target {
        listing.entries.retain(|entry| entry.backup.manifest.target == *target);
    }
    let order = |entry: &Entry| (entry.backup.manifest.finished, entry.backup.id.clone());
    listing.entries.sort_by_cached_key(order);
    listing.unreadable.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(listing)
}

/// What a snapshot turned out to be.
enum Found {
    Backup(Box<Entry>),
    /// Made by another program.
    Foreign,
    Unreadable(Unreadable),
}

async fn look(reader: SnapshotReader) -> Result<Found, Failure> {
    let snapshot = reader.snapshot().clone();
    let unreadable = |why| Found::Unreadable(Unreadable { id: snapshot.id.clone(), why });
    let damaged =
        |reason: String| RepoError::damaged(format!("the manifest of backup {}", snapshot.id.short()), reason).into();
    let path = RelativePath::new(MANIFEST_PATH).map_err(|error| damaged(error.to_string()))?;
    let bytes = match reader.read_all(&path, MANIFEST_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == RepoErrorKind::NotFound => return Ok(Found::Foreign),
        Err(error) => return Ok(unreadable(of_one_object(error)?)),
    };
    let manifest: BackupManifest = match serde_json::from_slice(&bytes) {
        Ok(manifest) => manifest,
        Err(error) => return Ok(unreadable(damaged(error.to_string()))),
    };
    if manifest.format != 1 {
        let why = Failure::new(
            FailureKind::Failed,
            format!(
                "backup {} has a manifest of format {}, this backstay reads format 1",
                snapshot.id.short(),
                manifest.format
            ),
        );
        return Ok(unreadable(why.hint("use a newer backstay")));
    }
    let backup = Backup { id: snapshot.id.clone(), manifest };
    Ok(Found::Backup(Box::new(Entry { backup, snapshot })))
}

/// What is wrong with one object; trouble of the whole store is the error. A disk may refuse one object, and give the
/// others.
fn of_one_object(error: RepoError) -> Result<Failure, Failure> {
    match error.kind() {
        RepoErrorKind::Damaged | RepoErrorKind::Store => Ok(error.into()),
        _ => Err(error.into()),
    }
}
