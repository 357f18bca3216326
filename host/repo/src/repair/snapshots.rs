//! Repairing snapshots: what is whole of those with holes becomes a snapshot of its own.
//!
//! A backup of a database with a hole is no backup. What is left of it has no manifest, so no restore, no window and
//! no retention takes it for one; stock restic lists it, with the tags `salvaged` and `original=<id>`.

use super::packs::{Sorted, Verdict};
use super::rot::{self, Rotten};
use super::survey::Survey;
use super::{BrokenSnapshot, DamagedFile, is_refused};
use crate::index::Index;
use crate::limits::{LOADS_MAX, PACK_BYTES};
use crate::lock::{Lock, LockKind};
use crate::pack::BlobKind;
use crate::read::fetch::read_blob;
use crate::snapshot::{self, Snapshot};
use crate::write::Packer;
use crate::{Id, RepoError, RepoErrorKind, Repository, Result, document};
use backstay_core::{BackupId, MANIFEST_PATH, Timestamp};
use futures::StreamExt;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// How snapshots are looked at, and what may be removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct SnapshotRepairOptions {
    /// Read every byte, and count what does not open as missing.
    pub read_data: bool,
    /// Remove snapshot files that cannot be read.
    pub remove_damaged: bool,
}

/// What a repair of snapshots is going to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SnapshotsPlan {
    /// Snapshots that were looked at.
    pub snapshots: u64,
    /// Those with holes, oldest first: what is whole of each becomes a snapshot of its own, and it is removed.
    pub broken: Vec<BrokenSnapshot>,
    /// Snapshot files that cannot be read.
    pub damaged_files: Vec<DamagedFile>,
    /// Whether those are removed.
    pub remove_damaged: bool,
}

impl SnapshotsPlan {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.broken.is_empty() && (!self.remove_damaged || self.damaged_files.is_empty())
    }
}

/// What became of a broken snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Repaired {
    /// The one that was removed, or is to be.
    pub removed: BackupId,
    /// What holds what was whole of it; nothing where nothing was.
    pub salvaged: Option<BackupId>,
    /// The store keeps it for now: it goes with a repair after its retention.
    pub refused: bool,
}

/// A repair of snapshots, planned, with the lock it was planned under.
pub struct SnapshotRepair {
    repository: Repository,
    lock: Lock,
    options: SnapshotRepairOptions,
    planned: Planned,
}

impl SnapshotRepair {
    /// Plans under a lock of `kind`: an exclusive one if it is to be performed. `progress` hears of bytes read and
    /// to be read.
    ///
    /// # Errors
    /// [`RepoErrorKind::Locked`]; [`RepoErrorKind::Damaged`] when the index is to be repaired first, because one of its files
    /// is damaged or lacks what is missing elsewhere; whatever the store reports.
    pub async fn plan(
        repository: &Repository,
        kind: LockKind,
        options: SnapshotRepairOptions,
        progress: impl Fn(u64, u64) + Send + Sync,
    ) -> Result<Self> {
        let lock = repository.lock(kind).await?;
        match plan(repository, options, &progress).await {
            Ok(planned) => Ok(Self { repository: repository.clone(), lock, options, planned }),
            Err(error) => {
                lock.give_back().await?;
                Err(error)
            }
        }
    }

    /// What it is going to do.
    pub fn summary(&self) -> &SnapshotsPlan {
        &self.planned.plan
    }

    /// Does it, if a second look sees the same: what is salvaged is durable before a snapshot is removed.
    ///
    /// # Errors
    /// [`RepoErrorKind::LockLost`]; [`RepoErrorKind::Damaged`] when something reads otherwise than before, and nothing is
    /// removed; whatever the store reports.
    pub async fn perform(self) -> Result<Vec<Repaired>> {
        let Self { repository, lock, options, planned } = self;
        let (store, key) = (repository.store().clone(), Arc::clone(repository.shared_key()));
        let packer = Arc::new(Packer::new(store, key, Arc::new(lock), Arc::clone(&planned.index), PACK_BYTES));
        let survey = Survey::new(&repository, &planned.index);
        let salvage = Salvage { repository: &repository, planned: &planned, packer: &packer, survey };
        let done = salvage.perform(options).await;
        packer.lock().give_back().await?;
        done
    }

    /// Leaves all as it is.
    ///
    /// # Errors
    /// Whatever the store reports; the lock is stale after 30 minutes then.
    pub async fn release(self) -> Result<()> {
        self.lock.give_back().await
    }
}

/// A plan, and what it rests on.
struct Planned {
    /// Of what can be read.
    index: Arc<Index>,
    /// What cannot, though it is there.
    rotten: Vec<Rotten>,
    /// What was seen before whole packs were read.
    verdict: Verdict,
    /// What earlier repairs made of snapshots that the store kept, by time and tree.
    salvaged: HashMap<(Timestamp, Id), BackupId>,
    plan: SnapshotsPlan,
}

async fn plan(
    repository: &Repository,
    options: SnapshotRepairOptions,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<Planned> {
    let mut plan = SnapshotsPlan { remove_damaged: options.remove_damaged, ..SnapshotsPlan::default() };
    let (store, key) = (repository.store(), repository.master_key());
    let ids = store.list("snapshots").await?.into_iter().filter_map(|object| Id::from_key(&object.key));
    let mut loads = futures::stream::iter(ids.collect::<Vec<_>>())
        .map(|id| async move { (id, snapshot::load(store, key, id).await) })
        .buffer_unordered(LOADS_MAX);
    let mut snapshots: Vec<Snapshot> = Vec::new();
    while let Some((id, load)) = loads.next().await {
        plan.snapshots += 1;
        match load {
            Ok(snapshot) => snapshots.push(snapshot),
            Err(error) if error.kind() == RepoErrorKind::Damaged => {
                plan.damaged_files.push(DamagedFile { object: id.key("snapshots"), why: error.to_string() });
            }
            Err(error) if error.kind() == RepoErrorKind::NotFound => plan.snapshots -= 1,
            Err(error) => return Err(error),
        }
    }
    drop(loads);
    snapshots.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
    plan.damaged_files.sort_by(|a, b| a.object.cmp(&b.object));
    let mut sorted = Sorted::load(repository).await?;
    if let Some(damaged) = sorted.damaged_files.first() {
        let what = format!("{} cannot be read: {}", damaged.object, damaged.why);
        return Err(RepoError::new(RepoErrorKind::Damaged, what).advise(INDEX_FIRST));
    }
    let verdict = sorted.verdict();
    if options.read_data {
        sorted.read(repository, progress).await?;
    }
    let index = sorted.index(false);
    let mut survey = Survey::new(repository, &index);
    for snapshot in &snapshots {
        if !survey.is_whole(snapshot.tree).await? {
            plan.broken.push(survey.broken(snapshot).await?);
        }
    }
    check_index(repository, &sorted, &snapshots, &plan.broken).await?;
    let salvaged = snapshots.iter().filter(|snapshot| snapshot.tags.iter().any(|tag| tag == SALVAGED));
    let salvaged = salvaged.map(|snapshot| ((snapshot.time, snapshot.tree), snapshot.id.clone())).collect();
    Ok(Planned { index: Arc::new(index), rotten: sorted.rotten, verdict, salvaged, plan })
}

/// Nothing may go for what only the index lacks: refuses when packs that it does not describe as they are hold some of what
/// is missing.
async fn check_index(
    repository: &Repository,
    sorted: &Sorted,
    snapshots: &[Snapshot],
    broken: &[BrokenSnapshot],
) -> Result<()> {
    if broken.is_empty() || sorted.undescribed.is_empty() {
        return Ok(());
    }
    let index = sorted.index(true);
    let mut survey = Survey::new(repository, &index);
    for broken in broken {
        let Some(snapshot) = snapshots.iter().find(|snapshot| snapshot.id == broken.id) else { continue };
        if survey.is_whole(snapshot.tree).await? || survey.broken(snapshot).await? != *broken {
            let what = format!("backup {} lacks what lies in packs that no index file describes", broken.id.short());
            return Err(RepoError::new(RepoErrorKind::Damaged, what).advise(INDEX_FIRST));
        }
    }
    Ok(())
}

const INDEX_FIRST: &str = "repair the index first, with `repo repair index`; nothing was removed";

/// What such a snapshot is tagged with.
const SALVAGED: &str = "salvaged";
/// Before the id of the snapshot that something was salvaged from, in a tag.
const ORIGINAL: &str = "original=";

/// Makes snapshots of what is whole.
struct Salvage<'a> {
    repository: &'a Repository,
    planned: &'a Planned,
    packer: &'a Arc<Packer>,
    survey: Survey<'a>,
}

impl Salvage<'_> {
    async fn perform(mut self, options: SnapshotRepairOptions) -> Result<Vec<Repaired>> {
        let Planned { rotten, verdict, plan, .. } = self.planned;
        let (store, key) = (self.repository.store(), self.repository.master_key());
        // Memory and lines garble what they carry, too: nothing goes for what was seen once.
        if Sorted::load(self.repository).await?.verdict() != *verdict {
            return Err(rot::otherwise());
        }
        for rotten in rotten.iter().filter(|rotten| !plan.broken.is_empty() && !rotten.lost.is_empty()) {
            rotten.confirm(self.repository).await?;
        }
        let removed = plan.damaged_files.iter().filter(|_| options.remove_damaged);
        for id in removed.clone().filter_map(|file| Id::from_key(&file.object)) {
            match snapshot::load(store, key, id).await {
                Err(error) if error.kind() == RepoErrorKind::Damaged => {}
                Err(error) => return Err(error),
                Ok(_) => return Err(rot::otherwise()),
            }
        }
        let mut work: Vec<(&BrokenSnapshot, Option<Id>)> = Vec::new();
        for broken in &plan.broken {
            let snapshot = snapshot::load(store, key, Id::from(&broken.id)).await?;
            if self.survey.is_whole(snapshot.tree).await? || self.survey.broken(&snapshot).await? != *broken {
                return Err(rot::otherwise());
            }
            let tree = match broken.whole_files {
                0 => None,
                _ => Some(self.rebuild(snapshot.tree).await?.ok_or_else(rot::otherwise)?),
            };
            work.push((broken, tree));
        }
        self.packer.finish().await?;
        let mut repaired = Vec::new();
        for (broken, tree) in work {
            self.packer.lock().confirm().await?;
            let salvaged = match tree.map(|tree| (tree, self.planned.salvaged.get(&(broken.time, tree)))) {
                Some((_, Some(before))) => Some(before.clone()),
                Some((tree, None)) => Some(self.save(broken, tree).await?),
                None => None,
            };
            self.packer.lock().check_valid().await?;
            let refused = is_refused(store.delete(&Id::from(&broken.id).key("snapshots")).await)?;
            repaired.push(Repaired { removed: broken.id.clone(), salvaged, refused });
        }
        if options.remove_damaged {
            self.packer.lock().confirm().await?;
            for file in removed {
                self.packer.lock().check_valid().await?;
                is_refused(store.delete(&file.object).await)?;
            }
        }
        Ok(repaired)
    }

    /// The snapshot as it was, but for what it holds.
    async fn save(&self, broken: &BrokenSnapshot, tree: Id) -> Result<BackupId> {
        let (store, key) = (self.repository.store(), self.repository.master_key());
        let mut file: Value = document::load(store, key, "snapshots", Id::from(&broken.id)).await?;
        let fields = file.as_object_mut().ok_or_else(|| RepoError::damaged(&broken.id, "it is no object"))?;
        // A parent to compare with and sums of what was stored are the old one's.
        fields.remove("parent");
        fields.remove("summary");
        fields.insert("tree".into(), json!(tree));
        let mut tags = broken.tags.clone();
        if !tags.iter().any(|tag| tag.starts_with(ORIGINAL)) {
            tags.extend([SALVAGED.to_owned(), format!("{ORIGINAL}{}", broken.id)]);
        }
        fields.insert("tags".into(), json!(tags));
        Ok(document::save(store, key, "snapshots", &file).await?.into())
    }

    /// The root tree without what has holes, and without the manifest.
    async fn rebuild(&self, root: Id) -> Result<Option<Id>> {
        let (folder, file) = MANIFEST_PATH.split_once('/').unwrap_or((MANIFEST_PATH, ""));
        let mut order = self.survey.broken_trees(root);
        let Some(_) = order.last() else { return Ok(None) };
        let mut top = self.load(root).await?;
        let hidden = nodes(&mut top, root)?.iter().find(|node| node["name"] == folder && node["type"] == "dir");
        let hidden: Option<Id> = hidden.and_then(|node| node["subtree"].as_str()?.parse().ok());
        drop(order.splice(0..0, hidden.filter(|hidden| self.survey.was_whole(hidden))));
        // Nothing: left empty by what was taken out.
        let mut rebuilt: HashMap<Id, Option<Id>> = HashMap::new();
        for id in order {
            let mut tree = self.load(id).await?;
            let left = nodes(&mut tree, id)?;
            left.retain_mut(|node| self.keep(node, &rebuilt));
            let is_hidden = hidden == Some(id);
            left.retain(|node| !is_hidden || node["name"] != file);
            let gone = is_hidden && left.is_empty();
            rebuilt.insert(id, if gone { None } else { Some(self.store(&tree).await?) });
        }
        Ok(rebuilt.get(&root).copied().flatten())
    }

    /// Whether a node stays; its tree is replaced where that was rebuilt.
    fn keep(&self, node: &mut Value, rebuilt: &HashMap<Id, Option<Id>>) -> bool {
        let id = |value: &Value| value.as_str().and_then(|id| id.parse::<Id>().ok());
        match node["type"].as_str() {
            Some("file") => {
                let content = node["content"].as_array().map(Vec::as_slice).unwrap_or_default();
                content.iter().all(|blob| id(blob).is_some_and(|blob| self.survey.has(BlobKind::Data, &blob)))
            }
            Some("dir") => {
                let Some(subtree) = id(&node["subtree"]) else { return false };
                match rebuilt.get(&subtree) {
                    Some(Some(new)) => node["subtree"] = json!(new),
                    Some(None) => return false,
                    None => return self.survey.was_whole(&subtree),
                }
                true
            }
            _ => true,
        }
    }

    async fn load(&self, id: Id) -> Result<Value> {
        let (store, key) = (self.repository.store(), self.repository.shared_key());
        let bytes = read_blob(store, key, &self.planned.index, BlobKind::Tree, &id).await?;
        document::from_json(&bytes).map_err(|error| RepoError::damaged(format!("tree {id}"), error))
    }

    async fn store(&self, tree: &Value) -> Result<Id> {
        let mut bytes = document::to_json(tree)?;
        bytes.push(b'\n');
        let (packer, runtime) = (Arc::clone(self.packer), tokio::runtime::Handle::current());
        let stored = tokio::task::spawn_blocking(move || {
            packer.store(&runtime, BlobKind::Tree, std::iter::once(bytes.as_slice()))
        });
        Ok(stored.await??[0].id)
    }
}

fn nodes(tree: &mut Value, id: Id) -> Result<&mut Vec<Value>> {
    let found = tree.get_mut("nodes").and_then(Value::as_array_mut);
    found.ok_or_else(|| RepoError::damaged(format!("tree {id}"), "it has no nodes"))
}
