//! Checking a repository.
//!
//! Always: every document opens, every pack that the index names is there with the size that its
//! blobs need, every tree can be walked and all its blobs are indexed and add up. With
//! `read_data` also: every byte of every pack.

use crate::aligned::AlignedBuffer;
use crate::index::{Index, IndexFile, load_file};
use crate::limits::{LOADS_MAX, PROBLEMS_MAX};
use crate::lock::LockKind;
use crate::pack::{BlobKind, PackedBlob, pack_bytes, read_header};
use crate::read::fetch::{own, read_blob};
use crate::tree::{NodeKind, Tree};
use crate::{Id, RepoError, RepoErrorKind, Repository, Result, snapshot};
use futures::{StreamExt, TryStreamExt};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Read every pack, not only its size.
    pub read_data: bool,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckProgress {
    /// Packs that were read.
    pub packs_done: u64,
    /// Packs to read; 0 without `read_data`.
    pub packs_total: u64,
    /// Bytes that were read.
    pub bytes_done: u64,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// What is wrong, each naming the object; at most [`PROBLEMS_MAX`].
    pub errors: Vec<String>,
    /// Problems beyond those listed.
    pub errors_unlisted: u64,
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Packs on the store.
    pub packs: u64,
    /// Packs that no index names: harmless, what an interrupted backup leaves.
    pub unreferenced_packs: u64,
    /// Different blobs in the index.
    pub blobs: u64,
    /// Bytes of all packs.
    pub bytes: u64,
    /// Bytes that were read and verified.
    pub bytes_read: u64,
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.errors.is_empty()
    }

    fn problem(&mut self, what: impl std::fmt::Display) {
        if self.errors.len() < PROBLEMS_MAX {
            self.errors.push(what.to_string());
        } else {
            self.errors_unlisted += 1;
        }
    }

    /// Takes an error about stored bytes into the report; others end the check.
    fn note<T>(&mut self, found: Result<T>) -> Result<Option<T>> {
        match found {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == RepoErrorKind::Damaged => {
                self.problem(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

pub(crate) async fn check(
    repository: &Repository,
    options: CheckOptions,
    progress: &(dyn Fn(CheckProgress) + Send + Sync),
) -> Result<CheckReport> {
    let lock = repository.lock(LockKind::Shared).await?;
    let report = check_locked(repository, options, progress).await;
    lock.release().await?;
    report
}

async fn check_locked(
    repository: &Repository,
    options: CheckOptions,
    progress: &(dyn Fn(CheckProgress) + Send + Sync),
) -> Result<CheckReport> {
    let mut report = CheckReport::default();
    let store = repository.store();
    let key = repository.shared_key();
    report.note(crate::key::list(store, None).await)?;
    // Snapshots before the index, the index before the packs: what is named later is there.
    let snapshots: Vec<Id> = ids(repository, "snapshots", &mut report).await?;
    let files = ids(repository, "index", &mut report).await?;
    let loads: Vec<Result<IndexFile>> = futures::stream::iter(files.iter().copied())
        .map(|id| load_file(store, key, id))
        .buffer_unordered(LOADS_MAX)
        .collect()
        .await;
    let mut loaded = Vec::new();
    for file in loads {
        loaded.extend(report.note(file)?);
    }
    let packs = check_packs(repository, &loaded, &mut report).await?;
    let index = Arc::new(Index::from_files(files.into_iter().collect(), &loaded));
    drop(loaded);
    report.blobs = index.len() as u64;
    check_snapshots(repository, &index, snapshots, &mut report).await?;
    if options.read_data {
        read_packs(repository, packs, &mut report, progress).await?;
    }
    Ok(report)
}

/// Names in a folder; other names are a problem of their own.
async fn ids(repository: &Repository, folder: &str, report: &mut CheckReport) -> Result<Vec<Id>> {
    let mut found = Vec::new();
    for object in repository.store().list(folder).await? {
        match Id::from_key(&object.key) {
            Some(id) => found.push(id),
            None => report.problem(format!("{} does not belong there", object.key)),
        }
    }
    Ok(found)
}

type Packs = HashMap<Id, Vec<PackedBlob>>;

/// Compares the index with the packs that are there.
async fn check_packs(repository: &Repository, files: &[IndexFile], report: &mut CheckReport) -> Result<Packs> {
    let mut there: HashMap<Id, u64> = HashMap::new();
    for object in repository.store().list("data").await? {
        report.packs += 1;
        report.bytes += object.bytes;
        match Id::from_key(&object.key) {
            Some(id) if id.pack_key() == object.key => drop(there.insert(id, object.bytes)),
            _ => report.problem(format!("{} does not belong there", object.key)),
        }
    }
    let mut packs = Packs::new();
    for pack in files.iter().flat_map(|file| &file.packs) {
        let blobs = pack.packed();
        let name = pack.id.pack_key();
        match there.get(&pack.id) {
            None => report.problem(RepoError::damaged(&name, "it is missing")),
            Some(bytes) if *bytes != pack_bytes(&blobs) => {
                report.problem(RepoError::damaged(&name, format!("it has {bytes} bytes, not {}", pack_bytes(&blobs))));
            }
            Some(_) => {}
        }
        let gapless = blobs
            .iter()
            .try_fold(0u32, |end, blob| (blob.offset == end).then(|| end.checked_add(blob.length)).flatten());
        if gapless.is_none() {
            report.problem(RepoError::damaged(&name, "its index entry has gaps"));
        }
        if there.contains_key(&pack.id) && packs.insert(pack.id, blobs).is_some() {
            tracing::info!(pack = %pack.id.short(), "named by two index files");
        }
    }
    report.unreferenced_packs = there.keys().filter(|id| !packs.contains_key(*id)).count() as u64;
    Ok(packs)
}

/// Walks all trees, each once.
async fn check_snapshots(
    repository: &Repository,
    index: &Arc<Index>,
    ids: Vec<Id>,
    report: &mut CheckReport,
) -> Result<()> {
    let (store, key) = (repository.store(), repository.master_key());
    let mut seen = HashSet::new();
    let mut ahead = Vec::new();
    let loads: Vec<_> =
        futures::stream::iter(ids).map(|id| snapshot::load(store, key, id)).buffer_unordered(LOADS_MAX).collect().await;
    for load in loads {
        report.snapshots += 1;
        match load {
            // Removed while we look.
            Err(error) if error.kind() == RepoErrorKind::NotFound => report.snapshots -= 1,
            load => {
                let tree = report.note(load)?.map(|snapshot| snapshot.tree);
                ahead.extend(tree.filter(|tree| seen.insert(*tree)));
            }
        }
    }
    while !ahead.is_empty() {
        let some = ahead.split_off(ahead.len().saturating_sub(LOADS_MAX));
        let trees: Vec<_> = futures::stream::iter(some)
            .map(|id| check_tree(repository, index, id))
            .buffer_unordered(LOADS_MAX)
            .collect()
            .await;
        for tree in trees {
            let Some((below, problems)) = report.note(tree)? else { continue };
            problems.into_iter().for_each(|problem| report.problem(problem));
            ahead.extend(below.into_iter().filter(|id| seen.insert(*id)));
        }
    }
    Ok(())
}

/// Checks one tree; yields the trees below it and what is wrong.
async fn check_tree(repository: &Repository, index: &Index, id: Id) -> Result<(Vec<Id>, Vec<String>)> {
    let bytes = read_blob(repository.store(), repository.shared_key(), index, BlobKind::Tree, &id).await?;
    let damaged = |error: RepoError| RepoError::damaged(format!("tree {id}"), error);
    let (mut below, mut problems) = (Vec::new(), Vec::new());
    for node in Tree::from_bytes(&bytes).map_err(damaged)?.nodes {
        let node = node.read(None).map_err(damaged)?;
        match node.kind {
            NodeKind::Directory { subtree } => below.push(subtree),
            NodeKind::File { bytes, content } => {
                let mut sum = 0;
                let mut whole = true;
                for blob in &content {
                    match index.require(BlobKind::Data, blob) {
                        Ok(place) => sum += u64::from(place.blob.plain_length()),
                        Err(error) => {
                            whole = false;
                            problems.push(format!("tree {id} is damaged: {}: {error}", node.path));
                        }
                    }
                }
                if whole && sum != bytes {
                    problems
                        .push(format!("tree {id} is damaged: {} has {sum} bytes of content, not {bytes}", node.path));
                }
            }
            NodeKind::Symlink { .. } | NodeKind::Other { .. } => {}
        }
    }
    Ok((below, problems))
}

/// Reads and verifies every pack.
async fn read_packs(
    repository: &Repository,
    packs: Packs,
    report: &mut CheckReport,
    progress: &(dyn Fn(CheckProgress) + Send + Sync),
) -> Result<()> {
    let packs_total = packs.len() as u64;
    let at_once = std::thread::available_parallelism().map_or(2, std::num::NonZero::get) + 1;
    let mut reads = futures::stream::iter(packs)
        .map(|(id, blobs)| async move { Ok::<_, RepoError>(read_pack(repository, id, blobs).await) })
        .buffer_unordered(at_once);
    let mut packs_done = 0;
    while let Some(read) = reads.try_next().await? {
        if let Some((bytes, problems)) = report.note(read)? {
            report.bytes_read += bytes;
            problems.into_iter().for_each(|problem| report.problem(problem));
        }
        packs_done += 1;
        progress(CheckProgress { packs_done, packs_total, bytes_done: report.bytes_read });
    }
    Ok(())
}

async fn read_pack(repository: &Repository, id: Id, indexed: Vec<PackedBlob>) -> Result<(u64, Vec<String>)> {
    let name = id.pack_key();
    let pack = repository.store().get(&name, u64::from(u32::MAX)).await.map_err(|error| match error.kind() {
        RepoErrorKind::NotFound => RepoError::damaged(&name, "it is missing"),
        _ => error,
    })?;
    let key = Arc::clone(repository.shared_key());
    tokio::task::spawn_blocking(move || {
        let bytes = pack.len() as u64;
        let mut problems = Vec::new();
        if Id::of(&pack) != id {
            problems.push(format!("{name} is damaged: its content does not fit its name"));
        }
        match read_header(&key, &pack) {
            Ok(header) if header == indexed => {}
            Ok(_) => problems.push(format!("{name} is damaged: its header and the index differ")),
            Err(error) => problems.push(format!("{name} is damaged: {error}")),
        }
        let (mut pack, mut plain) = (own(pack), AlignedBuffer::default());
        for blob in indexed {
            let range = blob.offset as usize..blob.offset as usize + blob.length as usize;
            let opened = match pack.get_mut(range) {
                Some(sealed) => blob.open(&key, sealed, &mut plain),
                None => Err(RepoError::new(RepoErrorKind::Damaged, "the pack ends before it")),
            };
            if let Err(error) = opened {
                problems.push(format!("blob {} in {name} is damaged: {error}", blob.id));
            }
        }
        Ok((bytes, problems))
    })
    .await?
}
