//! Repairing the index: what the packs' own headers say, and nothing that does not open.

use super::packs::{Sorted, Verdict};
use super::rot::{self, Rotten};
use super::survey::Survey;
use super::{BrokenSnapshot, DamagedFile, is_refused};
use crate::index::{Index, IndexFile, IndexPack, load_file};
use crate::limits::{INDEX_BLOBS_MAX, PACK_BYTES};
use crate::lock::{Lock, LockKind};
use crate::pack::{BlobKind, PackedBlob};
use crate::read::fetch::read_blob;
use crate::store::folder_of;
use crate::write::Packer;
use crate::{Id, RepoError, RepoErrorKind, Repository, Result, document, snapshot};
use serde::Serialize;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use tokio::runtime::Handle;

/// How packs are looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct IndexRepairOptions {
    /// Read every byte, and take out what does not open: the next backup stores it again, where the database still
    /// has it. As long as it is in the index, every new backup relies on it.
    pub read_data: bool,
}

/// A pack whose bytes are not what was written: what opens of it goes into new packs, and it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RottenPack {
    /// The pack.
    pub pack: Id,
    /// Blobs in it that open.
    pub whole_blobs: u64,
    /// Blobs in it that do not. None: its header is rotten, or its end is missing.
    pub lost_blobs: u64,
}

impl From<&Rotten> for RottenPack {
    fn from(rotten: &Rotten) -> Self {
        let (whole_blobs, lost_blobs) = (rotten.whole.len() as u64, rotten.lost.len() as u64);
        Self { pack: rotten.pack, whole_blobs, lost_blobs }
    }
}

/// What a repair of the index is going to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct IndexPlan {
    /// Index files there are.
    pub index_files: u64,
    /// Those that cannot be read. They are removed.
    pub damaged_files: Vec<DamagedFile>,
    /// Packs that no index file names: they are added.
    pub added_packs: Vec<Id>,
    /// Packs that an index file describes wrongly: their own header counts. Without reading every byte those are seen whose size
    /// does not fit.
    pub corrected_packs: Vec<Id>,
    /// Packs that index files name and that are not there: they are dropped.
    pub gone_packs: Vec<Id>,
    /// Packs of which neither their header nor an index file says what is in them. They stay where they are.
    pub unreadable_packs: Vec<DamagedFile>,
    /// Packs whose bytes are not what was written.
    pub rotten_packs: Vec<RottenPack>,
    /// Packs that more than one index file names: one entry stays.
    pub repeated_packs: u64,
    /// Blobs that can be found again.
    pub added_blobs: u64,
    /// Blobs that were indexed and are nowhere.
    pub lost_blobs: u64,
    /// Index files that are written anew without what is wrong, or removed.
    pub replaced_files: u64,
    /// Snapshots that cannot be restored whole afterwards. Nothing: not looked at, as nothing is lost.
    pub broken: Vec<BrokenSnapshot>,
}

impl IndexPlan {
    /// Whether the index is right as it is.
    pub fn is_empty(&self) -> bool {
        let packs = [&self.added_packs, &self.corrected_packs];
        self.replaced_files == 0 && self.rotten_packs.is_empty() && packs.iter().all(|packs| packs.is_empty())
    }
}

/// A repair of the index, planned, with the lock it was planned under.
pub struct IndexRepair {
    repository: Repository,
    lock: Arc<Lock>,
    plan: IndexPlan,
    changes: Changes,
}

/// What a plan comes to.
struct Changes {
    /// What is to be written.
    write: Vec<IndexPack>,
    /// What opens of them gets a new place.
    rotten: Vec<Rotten>,
    /// What has one already, where it opens.
    elsewhere: HashSet<(Id, BlobKind)>,
    /// What the plan saw before it read whole packs.
    verdict: Verdict,
    /// Index files that are removed then.
    remove: Vec<Id>,
}

impl IndexRepair {
    /// Plans under a lock of `kind`: an exclusive one if it is to be performed. `progress` hears of bytes read and to
    /// be read.
    ///
    /// # Errors
    /// [`RepoErrorKind::Locked`]; [`RepoErrorKind::InvalidConfig`] when a pack is too long to be read whole; whatever the
    /// store reports.
    pub async fn plan(
        repository: &Repository,
        kind: LockKind,
        options: IndexRepairOptions,
        progress: impl Fn(u64, u64) + Send + Sync,
    ) -> Result<Self> {
        let lock = Arc::new(repository.lock(kind).await?);
        match plan(repository, options, &progress).await {
            Ok((plan, changes)) => Ok(Self { repository: repository.clone(), lock, plan, changes }),
            Err(error) => {
                lock.give_back().await?;
                Err(error)
            }
        }
    }

    /// What it is going to do.
    pub fn summary(&self) -> &IndexPlan {
        &self.plan
    }

    /// Does it, if a second look sees the same: what is salvaged and the new index are durable, and the index was read back,
    /// before old files go. Answers how many objects the store kept for now.
    ///
    /// # Errors
    /// [`RepoErrorKind::LockLost`]; [`RepoErrorKind::Damaged`] when something reads otherwise than before; whatever the store
    /// reports. What was indexed before still is then.
    pub async fn perform(self) -> Result<u64> {
        let done = self.write_and_remove().await;
        self.lock.give_back().await?;
        done
    }

    /// Leaves all as it is.
    ///
    /// # Errors
    /// Whatever the store reports; the lock is stale after 30 minutes then.
    pub async fn release(self) -> Result<()> {
        self.lock.give_back().await
    }

    async fn write_and_remove(&self) -> Result<u64> {
        let (store, key) = (self.repository.store(), self.repository.shared_key());
        if Sorted::load(&self.repository).await?.verdict() != self.changes.verdict {
            return Err(rot::otherwise());
        }
        self.settle().await?;
        let salvaged = self.salvage().await?;
        self.lock.confirm().await?;
        for packs in files_of(&self.changes.write) {
            let file = IndexFile {
                packs: packs.iter().map(|pack| IndexPack::new(pack.id, &pack.packed())).collect(),
                ..IndexFile::default()
            };
            let id = document::save(store, key, "index", &file).await?;
            let back = load_file(store, key, id).await?;
            if back.packs.len() != packs.len() {
                return Err(RepoError::damaged(id.key("index"), "it does not hold what was written"));
            }
        }
        self.lock.confirm().await?;
        let mut refused = 0;
        for id in &self.changes.remove {
            self.lock.check_valid().await?;
            refused += u64::from(is_refused(store.delete(&id.key("index")).await)?);
        }
        if refused > 0 || self.changes.rotten.is_empty() {
            return Ok(refused);
        }
        // No index file may come back that names what goes now.
        store.settle("index").await?;
        self.lock.confirm().await?;
        for pack in &salvaged {
            self.lock.check_valid().await?;
            refused += u64::from(is_refused(store.delete(&pack.pack_key()).await)?);
        }
        Ok(refused)
    }

    /// Makes durable what others put there and the index will rely on: whoever wrote a pack that no index names may have
    /// ended before its name was.
    async fn settle(&self) -> Result<()> {
        let store = self.repository.store();
        let keys = self.plan.added_packs.iter().map(Id::pack_key);
        let folders: BTreeSet<String> = keys.map(|key| folder_of(&key).to_owned()).collect();
        for folder in &folders {
            store.settle(folder).await?;
        }
        store.settle("index").await
    }

    /// Puts what opens of rotten packs into new ones, durable and indexed. Answers which packs are needed no more.
    async fn salvage(&self) -> Result<Vec<Id>> {
        let mut salvaged = Vec::new();
        if self.changes.rotten.is_empty() {
            return Ok(salvaged);
        }
        let (store, key) = (self.repository.store().clone(), Arc::clone(self.repository.shared_key()));
        let packer = Arc::new(Packer::new(store, key, Arc::clone(&self.lock), Arc::default(), PACK_BYTES));
        for rotten in &self.changes.rotten {
            let Some(sealed) = rotten.confirm(&self.repository).await? else { continue };
            let mut whole = rotten.whole.clone();
            whole.retain(|blob| !self.changes.elsewhere.contains(&(blob.id, blob.kind)));
            let (packer, runtime) = (Arc::clone(&packer), Handle::current());
            tokio::task::spawn_blocking(move || packer.store_sealed(&runtime, &sealed, 0, &whole)).await??;
            salvaged.push(rotten.pack);
        }
        packer.finish().await?;
        Ok(salvaged)
    }
}

/// The packs of one index file each.
fn files_of(packs: &[IndexPack]) -> Vec<&[IndexPack]> {
    let (mut files, mut from, mut blobs) = (Vec::new(), 0, 0);
    for (at, pack) in packs.iter().enumerate() {
        if blobs > 0 && blobs + pack.blobs.len() > INDEX_BLOBS_MAX {
            files.push(&packs[from..at]);
            (from, blobs) = (at, 0);
        }
        blobs += pack.blobs.len();
    }
    if from < packs.len() {
        files.push(&packs[from..]);
    }
    files
}

async fn plan(
    repository: &Repository,
    options: IndexRepairOptions,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<(IndexPlan, Changes)> {
    let mut sorted = Sorted::load(repository).await?;
    let verdict = sorted.verdict();
    if options.read_data {
        sorted.read(repository, progress).await?;
    }
    finish(repository, sorted, verdict, options).await
}

async fn finish(
    repository: &Repository,
    sorted: Sorted,
    verdict: Verdict,
    options: IndexRepairOptions,
) -> Result<(IndexPlan, Changes)> {
    let Sorted { clean, mut moved, mut rotten, remove, added, dropped, .. } = sorted;
    rotten.sort_by_key(|rotten| rotten.pack);
    let mut plan = IndexPlan {
        index_files: sorted.index_files,
        damaged_files: sorted.damaged_files,
        added_packs: added,
        corrected_packs: sorted.corrected,
        gone_packs: sorted.gone.into_iter().collect(),
        unreadable_packs: sorted.unreadable,
        rotten_packs: rotten.iter().map(RottenPack::from).collect(),
        repeated_packs: sorted.repeated,
        replaced_files: remove.len() as u64,
        ..IndexPlan::default()
    };
    plan.gone_packs.sort();
    let mut clean: Vec<IndexFile> = clean.into_iter().map(|(_, file)| file).collect();
    let added: HashSet<&Id> = plan.added_packs.iter().collect();
    let fresh: Vec<&IndexPack> = moved.iter().filter(|pack| added.contains(&pack.id)).collect();
    let before = Index::from_files(HashSet::new(), &clean);
    let blobs: HashSet<(Id, BlobKind)> =
        fresh.iter().flat_map(|pack| pack.packed()).map(|blob| (blob.id, blob.kind)).collect();
    plan.added_blobs = blobs.iter().filter(|(id, kind)| before.find(*kind, id).is_none()).count() as u64;
    drop((before, blobs, fresh));
    let mut elsewhere = HashSet::new();
    if !rotten.is_empty() {
        let packs = clean.iter().flat_map(|file| &file.packs).chain(&moved);
        let others = Index::from_packs(HashSet::new(), packs);
        for blob in rotten.iter().flat_map(|rotten| &rotten.whole) {
            if opens_elsewhere(repository, &others, blob, options.read_data).await? {
                elsewhere.insert((blob.id, blob.kind));
            }
        }
    }
    // What opens is found again, wherever it is going to lie.
    let stays = moved.len();
    moved.extend(rotten.iter().map(|rotten| IndexPack::new(rotten.pack, &rotten.whole)));
    clean.push(IndexFile { packs: moved, ..IndexFile::default() });
    let index = Index::from_files(HashSet::new(), &clean);
    let lost: HashSet<(Id, BlobKind)> = dropped
        .iter()
        .filter(|blob| index.find(blob.kind, &blob.id).is_none())
        .map(|blob| (blob.id, blob.kind))
        .collect();
    plan.lost_blobs = lost.len() as u64;
    // What a damaged index file named is not known: then everybody is looked at.
    if plan.lost_blobs > 0 || !plan.damaged_files.is_empty() || !plan.unreadable_packs.is_empty() {
        plan.broken = broken(repository, &index).await?;
    }
    let mut write = clean.pop().map(|file| file.packs).unwrap_or_default();
    write.truncate(stays);
    Ok((plan, Changes { write, rotten, elsewhere, verdict, remove }))
}

/// Whether a blob lies in another pack too and opens there. Where every byte `was_read`, `others` names only what does.
async fn opens_elsewhere(repository: &Repository, others: &Index, blob: &PackedBlob, was_read: bool) -> Result<bool> {
    if others.find(blob.kind, &blob.id).is_none() {
        return Ok(false);
    }
    if was_read {
        return Ok(true);
    }
    match read_blob(repository.store(), repository.shared_key(), others, blob.kind, &blob.id).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == RepoErrorKind::Damaged => Ok(false),
        Err(error) => Err(error),
    }
}

/// The snapshots that are not whole by an index.
async fn broken(repository: &Repository, index: &Index) -> Result<Vec<BrokenSnapshot>> {
    let mut survey = Survey::new(repository, index);
    let mut broken = Vec::new();
    for id in repository.store().list("snapshots").await?.iter().filter_map(|object| Id::from_key(&object.key)) {
        let snapshot = match snapshot::load(repository.store(), repository.master_key(), id).await {
            Ok(snapshot) => snapshot,
            // `repair snapshots` tells of those.
            Err(error) if error.kind() == RepoErrorKind::Damaged => continue,
            Err(error) => return Err(error),
        };
        if !survey.is_whole(snapshot.tree).await? {
            broken.push(survey.broken(&snapshot).await?);
        }
    }
    broken.sort_by_key(|snapshot| snapshot.time);
    Ok(broken)
}
