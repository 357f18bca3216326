//! What a prune would do.

use super::PruneProgress;
use super::usage::used;
use crate::index::{Index, IndexFile, load_file};
use crate::limits::{INDEX_BLOBS_MAX, LOADS_MAX, SMALL_INDEX_FILES_MAX, SMALL_PACK_BYTES, SMALL_PACKS_MAX};
use crate::marks::Marks;
use crate::pack::{BlobKind, pack_bytes};
use crate::{Id, RepoError, RepoErrorKind, Repository, Result, snapshot};
use backstay_core::{BackupId, Timestamp};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// How thorough a prune is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PruneOptions {
    /// So much of what stays may be bytes that nothing refers to, in hundredths of the bytes in use: packs that hold
    /// some are copied only until this is reached, those that hold most first.
    pub unused_percent_max: f64,
    /// At most so many stored bytes are read to be copied.
    pub repack_bytes_max: u64,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self { unused_percent_max: 5.0, repack_bytes_max: u64::MAX }
    }
}

/// A pack that is copied without what nothing refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Repack {
    /// The pack.
    pub pack: Id,
    /// Its bytes.
    pub bytes: u64,
    /// Stored bytes of blobs in it that are used.
    pub used_bytes: u64,
    /// Stored bytes of blobs in it that nothing refers to.
    pub unused_bytes: u64,
}

/// Packs that would go if the store did not keep them for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Waiting {
    /// The packs, with their bytes.
    pub packs: BTreeMap<Id, u64>,
    /// When all of them may go.
    pub until: Option<Timestamp>,
}

/// What a prune does.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PrunePlan {
    /// Snapshots whose content stays, all there are.
    pub snapshots: u64,
    /// Packs on the store.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs that no index names: what interrupted writers left. With their bytes.
    pub unreferenced: BTreeMap<Id, u64>,
    /// Packs that nothing in use lies in. With their bytes.
    pub unused: BTreeMap<Id, u64>,
    /// Packs to be copied, in the order in which they are.
    pub repack: Vec<Repack>,
    /// Packs with nothing in use that stay for now.
    pub waiting: Waiting,
    /// Bytes in packs that stay which nothing refers to: copying the rest costs more than they take, or the store keeps
    /// them.
    pub unused_bytes_left: u64,
    /// Those of them that the store keeps.
    pub unused_bytes_kept: u64,
    /// Packs that the index names and that are gone; nothing in them is used.
    pub absent: BTreeSet<Id>,
    /// Index files to be replaced.
    pub index_files: BTreeSet<Id>,
    /// The index that the plan was made from.
    #[serde(skip)]
    pub(super) index: Arc<Index>,
    #[serde(skip)]
    pub(super) used: Arc<Marks>,
    /// Packs that index files name which stay.
    #[serde(skip)]
    pub(super) named: BTreeSet<Id>,
}

impl PrunePlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.unreferenced.is_empty() && self.unused.is_empty() && self.repack.is_empty() && self.index_files.is_empty()
    }

    /// Packs that go.
    pub fn packs_removed(&self) -> u64 {
        (self.unreferenced.len() + self.unused.len() + self.repack.len()) as u64
    }

    /// Stored bytes that are copied.
    pub fn bytes_repacked(&self) -> u64 {
        self.repack.iter().map(|repack| repack.used_bytes).sum()
    }

    /// Bytes that are free afterwards, less what new packs' headers take.
    pub fn bytes_freed(&self) -> u64 {
        let removed: u64 = self.unreferenced.values().chain(self.unused.values()).sum();
        removed + self.repack.iter().map(|repack| repack.unused_bytes).sum::<u64>()
    }

    /// The packs that the new index does not name.
    pub(super) fn gone(&self) -> BTreeSet<Id> {
        let repacked = self.repack.iter().map(|repack| repack.pack);
        self.unused.keys().copied().chain(repacked).chain(self.absent.iter().copied()).collect()
    }
}

/// What is known of a pack that an index file names.
#[derive(Clone, Copy, Default)]
struct PackUse {
    /// On the store, header included; nothing where it is gone.
    bytes: Option<u64>,
    used_bytes: u64,
    unused_bytes: u64,
    is_tree: bool,
    /// Until when the store keeps it, or an index file that names it.
    kept: Option<Timestamp>,
}

/// A pack as the store lists it.
#[derive(Clone, Copy)]
struct Listed {
    bytes: u64,
    kept: Option<Timestamp>,
}

pub(super) async fn plan(
    repository: &Repository,
    options: &PruneOptions,
    forgotten: &BTreeSet<BackupId>,
    progress: &(dyn Fn(PruneProgress) + Send + Sync),
) -> Result<PrunePlan> {
    // Snapshots before the index, the index before the packs: what is named later is there.
    let mut snapshots = snapshot::load_every(repository.store(), repository.master_key()).await?;
    snapshots.retain(|snapshot| !forgotten.contains(&snapshot.id));
    let index = repository.load_index().await?;
    let used = used(repository, &index, &snapshots, progress).await.map_err(|error| match error.kind() {
        RepoErrorKind::Damaged => RepoError::new(RepoErrorKind::Damaged, "failed to tell what may go")
            .because(error)
            .advise("nothing was removed; see `repo check`, then `repo repair index`"),
        _ => error,
    })?;
    let mut plan = PrunePlan { snapshots: snapshots.len() as u64, ..PrunePlan::default() };
    let mut there: HashMap<Id, Listed> = HashMap::new();
    let store = repository.store();
    for object in store.list("data").await? {
        plan.packs += 1;
        plan.bytes += object.bytes;
        if let Some(id) = Id::from_key(&object.key).filter(|id| id.pack_key() == object.key) {
            there.insert(id, Listed { bytes: object.bytes, kept: store.kept_until(&object) });
        }
    }
    let (packs, files) = pack_uses(repository, &index, &used, &there).await?;
    for (id, listed) in there.iter().filter(|(id, _)| !packs.contains_key(id)) {
        match listed.kept {
            None => drop(plan.unreferenced.insert(*id, listed.bytes)),
            Some(until) => plan.waiting.add(*id, listed.bytes, until),
        }
    }
    sort_packs(&mut plan, options, &packs);
    let gone = plan.gone();
    plan.index_files = stale_files(&files, &gone);
    let staying = files.iter().filter(|file| !plan.index_files.contains(&file.id));
    plan.named = staying.flat_map(|file| file.packs.iter().copied()).collect();
    (plan.index, plan.used) = (index, Arc::new(used));
    Ok(plan)
}

/// An index file as the plan sees it.
struct FileUse {
    id: Id,
    packs: Vec<Id>,
    blobs: usize,
    is_kept: bool,
}

impl Waiting {
    fn add(&mut self, pack: Id, bytes: u64, until: Timestamp) {
        self.packs.insert(pack, bytes);
        self.until = self.until.max(Some(until));
    }
}

/// Reads the index files once more, one after another: all of them at once would be twice the index in memory.
async fn pack_uses(
    repository: &Repository,
    index: &Arc<Index>,
    used: &Marks,
    there: &HashMap<Id, Listed>,
) -> Result<(HashMap<Id, PackUse>, Vec<FileUse>)> {
    let (store, key) = (repository.store(), repository.shared_key());
    let mut packs: HashMap<Id, PackUse> = HashMap::new();
    let mut files = Vec::new();
    let kept: HashMap<Id, Timestamp> = match store.retention() {
        None => HashMap::new(),
        Some(_) => {
            let listed = store.list("index").await?;
            listed.iter().filter_map(|object| Some((Id::from_key(&object.key)?, store.kept_until(object)?))).collect()
        }
    };
    let ids: Vec<Id> = index.files().copied().collect();
    let mut loads = futures::stream::iter(ids)
        .map(|id| async move { Ok::<_, RepoError>((id, load_file(store, key, id).await?)) })
        .buffer_unordered(LOADS_MAX);
    while let Some((id, file)) = loads.try_next().await? {
        let blobs = file.packs.iter().map(|pack| pack.blobs.len()).sum();
        let kept = kept.get(&id).copied();
        let named = file.packs.iter().map(|pack| pack.id).collect();
        files.push(FileUse { id, packs: named, blobs, is_kept: kept.is_some() });
        count(&mut packs, (file, kept), index, used, there)?;
    }
    Ok((packs, files))
}

fn count(
    packs: &mut HashMap<Id, PackUse>,
    (file, file_kept): (IndexFile, Option<Timestamp>),
    index: &Index,
    used: &Marks,
    there: &HashMap<Id, Listed>,
) -> Result<()> {
    for pack in file.packs {
        let blobs = pack.packed();
        let listed = there.get(&pack.id).copied();
        let bytes = listed.map(|listed| listed.bytes);
        let in_use = blobs.iter().filter(|blob| {
            let number = index.number_of(blob.kind, &blob.id).ok().filter(|number| used.has(*number as usize));
            // Of a blob that lies in several packs only one counts: the one that readers take.
            number.is_some_and(|number| index.pack(index.place(number).pack) == pack.id)
        });
        let used_bytes: u64 = in_use.map(|blob| u64::from(blob.length)).sum();
        let unused_bytes = blobs.iter().map(|blob| u64::from(blob.length)).sum::<u64>() - used_bytes;
        let problem = match bytes {
            None if used_bytes > 0 => Some("it is missing"),
            Some(bytes) if bytes != pack_bytes(&blobs) && used_bytes > 0 => {
                Some("it has another size than the index says")
            }
            _ => None,
        };
        if let Some(problem) = problem {
            let damage = RepoError::damaged(pack.id.pack_key(), problem);
            return Err(RepoError::new(RepoErrorKind::Damaged, "failed to tell what may go")
                .because(damage)
                .advise("nothing was removed; see `repo check`, then `repo repair index`"));
        }
        let is_tree = blobs.first().is_some_and(|blob| blob.kind == BlobKind::Tree);
        // A pack that two files name has the same blobs in both.
        let before = packs.get(&pack.id).and_then(|before| before.kept);
        let kept = before.max(file_kept).max(listed.and_then(|listed| listed.kept));
        packs.insert(pack.id, PackUse { bytes, used_bytes, unused_bytes, is_tree, kept });
    }
    Ok(())
}

/// Sorts the packs into those that go, those that are copied, and those that stay.
fn sort_packs(plan: &mut PrunePlan, options: &PruneOptions, packs: &HashMap<Id, PackUse>) {
    let mut partly: Vec<Repack> = Vec::new();
    let mut small: Vec<Repack> = Vec::new();
    let (mut used_total, mut kept_unused) = (0, 0);
    for (id, pack) in packs {
        let Some(bytes) = pack.bytes else {
            plan.absent.insert(*id);
            continue;
        };
        used_total += pack.used_bytes;
        let PackUse { used_bytes, unused_bytes, .. } = *pack;
        let repack = Repack { pack: *id, bytes, used_bytes, unused_bytes };
        if let Some(until) = pack.kept {
            if pack.used_bytes == 0 {
                plan.waiting.add(*id, bytes, until);
            } else {
                kept_unused += unused_bytes;
            }
        } else if pack.used_bytes == 0 {
            plan.unused.insert(*id, bytes);
        } else if unused_bytes > 0 {
            partly.push(repack);
        } else if bytes < SMALL_PACK_BYTES {
            small.push(repack);
        }
    }
    // What frees most for a byte copied comes first; ids make the order the same every time. Trees are read by
    // everybody who looks at a backup: they are always kept tight.
    partly.sort_by(|a, b| {
        let ratio = |pack: &Repack| pack.used_bytes as f64 / pack.bytes as f64;
        ratio(a).total_cmp(&ratio(b)).then_with(|| a.pack.cmp(&b.pack))
    });
    let allowed = (used_total as f64 * options.unused_percent_max.max(0.0) / 100.0) as u64;
    let mut left: u64 = partly.iter().map(|pack| pack.unused_bytes).sum();
    let mut read = 0;
    for pack in partly {
        let is_tree = packs.get(&pack.pack).is_some_and(|pack| pack.is_tree);
        let fits = read + pack.used_bytes <= options.repack_bytes_max;
        if fits && (left > allowed || is_tree) {
            left -= pack.unused_bytes;
            read += pack.used_bytes;
            plan.repack.push(pack);
        }
    }
    plan.unused_bytes_left = left + kept_unused;
    plan.unused_bytes_kept = kept_unused;
    if small.len() > SMALL_PACKS_MAX {
        small.sort_by_key(|pack| pack.pack);
        for pack in small {
            if read + pack.used_bytes <= options.repack_bytes_max {
                read += pack.used_bytes;
                plan.repack.push(pack);
            }
        }
    }
}

/// The index files that name packs that go, and the small ones when there are many.
fn stale_files(files: &[FileUse], gone: &BTreeSet<Id>) -> BTreeSet<Id> {
    let mut seen = BTreeSet::new();
    let mut stale = BTreeSet::new();
    // Those that stay first: what they name need not be in another.
    let (kept, free): (Vec<&FileUse>, Vec<&FileUse>) = files.iter().partition(|file| file.is_kept);
    seen.extend(kept.iter().flat_map(|file| file.packs.iter().copied()));
    for file in &free {
        let names_gone = file.packs.iter().any(|pack| gone.contains(pack));
        // A pack belongs into one file.
        let repeats = file.packs.iter().any(|pack| !seen.insert(*pack));
        if names_gone || repeats {
            stale.insert(file.id);
        }
    }
    let small: Vec<Id> = free.iter().filter(|file| file.blobs < INDEX_BLOBS_MAX / 4).map(|file| file.id).collect();
    if !stale.is_empty() || small.len() > SMALL_INDEX_FILES_MAX {
        stale.extend(small);
    }
    stale
}
