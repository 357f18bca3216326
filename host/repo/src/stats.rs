//! What a repository holds, and what of it is used by whom.
//!
//! ```text
//!   snapshot ► trees ► blobs ─► a mark for each blob and group ─► bytes, each counted once
//! ```
//!
//! Memory: beside the index a bit for each blob and group, and 40 bytes for each tree.

use crate::crypto::SEAL_OVERHEAD;
use crate::index::Index;
use crate::limits::LOADS_MAX;
use crate::marks::Marks;
use crate::pack::BlobKind;
use crate::references::{self, References};
use crate::snapshot::Snapshot;
use crate::{Id, Repository, Result};
use backstay_core::BackupId;
use futures::StreamExt;
use serde::Serialize;
use std::collections::{HashMap, HashSet};

/// What a pack takes beside its blobs and their entries: the sealed header's overhead and its length.
const PACK_FRAME_BYTES: u64 = SEAL_OVERHEAD as u64 + 4;

/// What some snapshots use together: whatever several of them share is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Usage {
    /// Snapshots.
    pub snapshots: u64,
    /// Bytes of all files of all snapshots: what restoring each of them would write.
    pub restore_bytes: u64,
    /// Different blobs.
    pub blobs: u64,
    /// Their plaintext.
    pub plain_bytes: u64,
    /// What they take on the store.
    pub stored_bytes: u64,
}

/// What one snapshot brought: blobs that no older one refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Added {
    /// The snapshot.
    pub id: BackupId,
    /// Bytes of its files.
    pub restore_bytes: u64,
    /// Files.
    pub files: u64,
    /// Plaintext of what it brought.
    pub plain_bytes: u64,
    /// What that takes on the store.
    pub stored_bytes: u64,
}

/// What a repository holds beside its logs.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Stats {
    /// Everything that snapshots use.
    pub all: Usage,
    /// The same for each group, in the order of their numbers.
    pub groups: Vec<Usage>,
    /// Each snapshot, in the order they were given.
    pub added: Vec<Added>,
    /// Packs on the store.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Packs that no index names, as an interrupted backup leaves them.
    pub unindexed_packs: u64,
    /// Index files.
    pub index_files: u64,
    /// Different blobs that they name.
    pub indexed_blobs: u64,
    /// Bytes of packs that no snapshot needs: what a prune could free.
    pub unreferenced_bytes: u64,
}

/// How far counting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatsProgress {
    /// Snapshots that were counted.
    pub done: u64,
    /// All of them.
    pub total: u64,
}

/// A tree's own files, and the trees below.
struct Counted {
    bytes: u64,
    files: u64,
    below: Box<[Id]>,
}

struct Counter<'a> {
    repository: &'a Repository,
    index: &'a Index,
    trees: HashMap<Id, Counted>,
    used: Marks,
    /// Blobs of each group.
    marks: Vec<Marks>,
    stats: Stats,
}

/// `snapshots` with the number of the group each belongs to, oldest first.
pub(crate) async fn stats(
    repository: &Repository,
    snapshots: &[(Snapshot, usize)],
    progress: &(dyn Fn(StatsProgress) + Send + Sync),
) -> Result<Stats> {
    let index = repository.load_index().await?;
    let groups = snapshots.iter().map(|(_, group)| group + 1).max().unwrap_or(0);
    let mut counter = Counter {
        repository,
        index: &index,
        trees: HashMap::new(),
        used: Marks::none(index.len()),
        marks: vec![Marks::none(index.len()); groups],
        stats: Stats { groups: vec![Usage::default(); groups], ..Stats::default() },
    };
    let total = snapshots.len() as u64;
    for (done, (snapshot, group)) in (1..).zip(snapshots) {
        counter.count(snapshot, *group).await?;
        progress(StatsProgress { done, total });
    }
    counter.count_store().await?;
    Ok(counter.stats)
}

impl Counter<'_> {
    async fn count(&mut self, snapshot: &Snapshot, group: usize) -> Result<()> {
        let before = self.stats.all;
        let mut ahead = vec![snapshot.tree];
        while !ahead.is_empty() {
            let some = ahead.split_off(ahead.len().saturating_sub(LOADS_MAX));
            // What the group has counted before is counted with all below it.
            let mut fresh = Vec::new();
            for tree in some {
                if self.mark(group, BlobKind::Tree, &tree)? {
                    fresh.push(tree);
                }
            }
            let (repository, index) = (self.repository, self.index);
            let mut loaded = std::pin::pin!(references::load_each(repository, index, fresh));
            while let Some((id, references)) = loaded.next().await {
                let references = references?;
                for blob in references.files.iter().flat_map(|file| &file.content) {
                    self.mark(group, BlobKind::Data, blob)?;
                }
                ahead.extend(references.folders.iter().map(|folder| folder.subtree));
                self.trees.entry(id).or_insert_with(|| Counted::new(&references));
            }
        }
        let (restore_bytes, files) = self.size(snapshot.tree);
        for usage in [&mut self.stats.all, &mut self.stats.groups[group]] {
            usage.snapshots += 1;
            usage.restore_bytes = usage.restore_bytes.saturating_add(restore_bytes);
        }
        let after = self.stats.all;
        self.stats.added.push(Added {
            id: snapshot.id.clone(),
            restore_bytes,
            files,
            plain_bytes: after.plain_bytes - before.plain_bytes,
            stored_bytes: after.stored_bytes - before.stored_bytes,
        });
        Ok(())
    }

    /// Counts a blob where it was not counted yet; answers whether it is new to the group.
    fn mark(&mut self, group: usize, kind: BlobKind, id: &Id) -> Result<bool> {
        let number = self.index.number_of(kind, id)?;
        let place = self.index.place(number);
        let count = |usage: &mut Usage| {
            usage.blobs += 1;
            usage.plain_bytes += u64::from(place.blob.plain_length());
            usage.stored_bytes += u64::from(place.blob.length);
        };
        if self.used.mark(number as usize) {
            count(&mut self.stats.all);
        }
        let fresh = self.marks[group].mark(number as usize);
        if fresh {
            count(&mut self.stats.groups[group]);
        }
        Ok(fresh)
    }

    /// Bytes and files of a tree and all below it, as often as they are there.
    fn size(&self, tree: Id) -> (u64, u64) {
        let (mut bytes, mut files) = (0, 0);
        let mut ahead = vec![tree];
        while let Some(tree) = ahead.pop().and_then(|id| self.trees.get(&id)) {
            bytes = tree.bytes.saturating_add(bytes);
            files += tree.files;
            ahead.extend(tree.below.iter().copied());
        }
        (bytes, files)
    }

    /// Compares what lies on the store with what is used of it.
    async fn count_store(&mut self) -> Result<()> {
        let index = self.index;
        let mut indexed: HashSet<Id> = HashSet::new();
        let mut needed = 0;
        let mut packs_used = Marks::none(index.packs());
        for number in 0..index.packs() as u32 {
            indexed.insert(index.pack(number));
        }
        for number in (0..index.len() as u32).filter(|number| self.used.has(*number as usize)) {
            let place = index.place(number);
            needed += u64::from(place.blob.length) + place.blob.header_bytes() as u64;
            if packs_used.mark(place.pack as usize) {
                needed += PACK_FRAME_BYTES;
            }
        }
        let stats = &mut self.stats;
        let store = self.repository.store();
        for object in store.list("data").await? {
            stats.packs += 1;
            stats.pack_bytes += object.bytes;
            stats.unindexed_packs += u64::from(Id::from_key(&object.key).is_none_or(|id| !indexed.contains(&id)));
        }
        stats.index_files = store.list("index").await?.len() as u64;
        stats.indexed_blobs = index.len() as u64;
        stats.unreferenced_bytes = stats.pack_bytes.saturating_sub(needed);
        Ok(())
    }
}

impl Counted {
    fn new(references: &References) -> Self {
        Self {
            bytes: references.bytes(),
            files: references.files.len() as u64,
            below: references.folders.iter().map(|folder| folder.subtree).collect(),
        }
    }
}
