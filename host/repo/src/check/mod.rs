//! Checking a repository.
//!
//! ```text
//!   keys ► snapshots ► index ► packs there? ► packs read ► trees ► which backups need what is damaged
//! ```
//!
//! Always: every document opens, every pack that the index names is there with the size that its
//! blobs need, every tree can be walked and all its blobs are indexed and add up. With
//! [`ReadData`] also: every byte of every pack, or of some of them.
//!
//! What is damaged is told together with the backups that need it. For that the trees of the backups are walked once
//! more, each backup by itself; memory does not grow with what they hold: a few bits for each blob of the index.

mod damage;
mod needed;
mod packs;
mod report;
mod subset;
mod trees;

pub use report::{Affected, CheckReport, Problem};
pub use subset::{InvalidSubset, Subset};

use crate::index::{Index, IndexFile, load_file};
use crate::limits::{KEYS_MAX, LOADS_MAX};
use crate::lock::LockKind;
use crate::snapshot::Snapshot;
use crate::{Id, RepoError, RepoErrorKind, Repository, Result, snapshot};
use damage::Damage;
use futures::StreamExt;
use std::sync::Arc;

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CheckOptions {
    /// Which packs are read, not only looked at.
    pub read_data: ReadData,
}

/// Which packs a check reads.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ReadData {
    /// None but those that are longer or shorter than they must be.
    #[default]
    Nothing,
    /// Some of them.
    Subset(Subset),
    /// All.
    Everything,
}

impl CheckOptions {
    /// Every byte.
    pub fn everything() -> Self {
        Self { read_data: ReadData::Everything }
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckProgress {
    /// Packs that were read.
    pub packs_done: u64,
    /// Packs to read.
    pub packs_total: u64,
    /// Bytes that were read.
    pub bytes_done: u64,
}

pub(crate) async fn check(
    repository: &Repository,
    options: CheckOptions,
    progress: &(dyn Fn(CheckProgress) + Send + Sync),
) -> Result<CheckReport> {
    let lock = repository.begin_lock(LockKind::Shared).await?;
    // Whoever came at the same moment is seen beside the work: nothing is written.
    let checked = futures::future::try_join(check_locked(repository, options, progress), lock.settle()).await;
    lock.release().await?;
    Ok(checked?.0)
}

async fn check_locked(
    repository: &Repository,
    options: CheckOptions,
    progress: &(dyn Fn(CheckProgress) + Send + Sync),
) -> Result<CheckReport> {
    let mut report = CheckReport::default();
    check_keys(repository, &mut report).await?;
    // Snapshots before the index, the index before the packs: what is named later is there.
    let snapshots = load_snapshots(repository, &mut report).await?;
    let (index, loaded) = load_index(repository, &snapshots, &mut report).await?;
    let mut damage = Damage::new(Arc::clone(&index));
    let packs = packs::compare(repository, &loaded, &mut report, &mut damage).await?;
    drop(loaded);
    report.blobs = index.len() as u64;
    packs::read(repository, packs, options.read_data, &mut report, &mut damage, progress).await?;
    trees::check(repository, &index, &snapshots, &mut report, &mut damage).await?;
    needed::tell(repository, &index, &snapshots, &mut report, &damage).await?;
    Ok(report)
}

async fn check_keys(repository: &Repository, report: &mut CheckReport) -> Result<()> {
    let ids = ids(repository, "keys", report).await?;
    for id in ids.into_iter().take(KEYS_MAX) {
        let (key, loaded) = (id.key("keys"), crate::key::load(repository.store(), id).await);
        report.note(
            &key,
            None,
            loaded.and_then(|file| file.parts().map_err(|error| RepoError::damaged(&key, error))),
        )?;
    }
    Ok(())
}

/// All that can be read, the newest first.
async fn load_snapshots(repository: &Repository, report: &mut CheckReport) -> Result<Vec<Snapshot>> {
    let (store, key) = (repository.store(), repository.master_key());
    let ids = ids(repository, "snapshots", report).await?;
    let loads: Vec<_> = futures::stream::iter(ids)
        .map(|id| async move { (id, snapshot::load(store, key, id).await) })
        .buffered(LOADS_MAX)
        .collect()
        .await;
    let mut snapshots = Vec::new();
    for (id, load) in loads {
        match load {
            // Removed while we look.
            Err(error) if error.kind() == RepoErrorKind::NotFound => {}
            load => {
                report.snapshots += 1;
                // It is what is damaged, and what needs it.
                snapshots.extend(report.note(&id.key("snapshots"), Some(Affected::one(id.into())), load)?);
            }
        }
    }
    snapshots.sort_by(|a, b| (b.time, &b.id).cmp(&(a.time, &a.id)));
    Ok(snapshots)
}

/// The index as far as it can be read. Without all of it no backup can be opened, so all of them need every file.
async fn load_index(
    repository: &Repository,
    snapshots: &[Snapshot],
    report: &mut CheckReport,
) -> Result<(Arc<Index>, Vec<IndexFile>)> {
    let (store, key) = (repository.store(), repository.shared_key());
    let files = ids(repository, "index", report).await?;
    let loads: Vec<(Id, Result<IndexFile>)> = futures::stream::iter(files.iter().copied())
        .map(|id| async move { (id, load_file(store, key, id).await) })
        .buffered(LOADS_MAX)
        .collect()
        .await;
    let mut loaded = Vec::new();
    for (id, file) in loads {
        let mut affected = Affected::default();
        snapshots.iter().for_each(|snapshot| affected.add(&snapshot.id));
        loaded.extend(report.note(&id.key("index"), Some(affected), file)?);
    }
    Ok((Arc::new(Index::from_files(files.into_iter().collect(), &loaded)), loaded))
}

/// Names in a folder, sorted; other names are a problem of their own.
async fn ids(repository: &Repository, folder: &str, report: &mut CheckReport) -> Result<Vec<Id>> {
    let mut found = Vec::new();
    for object in repository.store().list(folder).await? {
        match Id::from_key(&object.key).filter(|id| id.key(folder) == object.key) {
            Some(id) => found.push(id),
            None => report.stranger(&object.key),
        }
    }
    Ok(found)
}
