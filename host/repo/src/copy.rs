//! Copying snapshots into another repository, sealed anew with its key.
//!
//! ```text
//!   snapshot ► trees ► blobs the other lacks ► read, opened, verified ► sealed with the other's key ► its packs
//!            all of them durable and indexed there ► the snapshot
//! ```
//!
//! Pins come along. What is compressed stays as it was compressed. What was sent is indexed every [`COPY_ROUND_BYTES`], so a copy that was
//! interrupted goes on where it stopped. Memory: beside both indexes two bits and four bytes for each blob.

use crate::aligned::AlignedBuffer;
use crate::crypto::{IV_BYTES, SEAL_OVERHEAD};
use crate::index::Index;
use crate::limits::{BATCH_BYTES, COPY_ROUND_BYTES, LOADS_MAX, PACK_BYTES, READS_MAX};
use crate::lock::{Lock, LockKind};
use crate::marks::Marks;
use crate::pack::{BlobKind, PackedBlob};
use crate::pin::Pin;
use crate::read::fetch::{self, Read, Reads};
use crate::references;
use crate::repair::DamagedFile;
use crate::snapshot::{self, Snapshot};
use crate::write::Packer;
use crate::{Id, MasterKey, RepoError, RepoErrorKind, Repository, Result, document};
use backstay_core::{BackupId, Timestamp};
use futures::StreamExt;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;
use tokio::runtime::Handle;

/// The same snapshot in both repositories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Copied {
    /// Its id where it was.
    pub from: BackupId,
    /// Its id in the other one.
    pub to: BackupId,
}

/// A snapshot that is going to be copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ToCopy {
    /// Its id where it is.
    pub id: BackupId,
    /// When it was taken.
    pub time: Timestamp,
    /// What it says about itself.
    pub tags: Vec<String>,
    /// Blobs that the other repository lacks, and that none of the snapshots before needs.
    pub blobs: u64,
    /// Their stored bytes.
    pub bytes: u64,
}

/// What a copy is going to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CopyPlan {
    /// Snapshots that are copied, oldest first.
    pub snapshots: Vec<ToCopy>,
    /// Snapshots that are there already: same root tree, time and tags.
    pub there: Vec<Copied>,
    /// Snapshots that cannot be copied, as they are not whole.
    pub damaged: Vec<DamagedFile>,
    /// Stored bytes to be sent.
    pub bytes: u64,
}

/// What a copy did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CopyReport {
    /// Snapshots that were copied, oldest first.
    pub copied: Vec<Copied>,
    /// Snapshots that could not be, as what they need did not open.
    pub damaged: Vec<DamagedFile>,
    /// Blobs that were sent.
    pub blobs: u64,
    /// Stored bytes that were sent.
    pub bytes: u64,
}

/// A copy, planned, with the locks it was planned under.
pub struct SnapshotCopy {
    from: Repository,
    to: Repository,
    from_lock: Lock,
    to_lock: Lock,
    from_index: Arc<Index>,
    to_index: Arc<Index>,
    /// With the numbers of blobs to be sent for each, in the index of `from`.
    work: Vec<(Snapshot, Vec<u32>)>,
    /// Snapshot files of `to` that were compared.
    known: HashSet<Id>,
    same: Same,
    plan: CopyPlan,
}

/// What makes two snapshots the same: root tree, time, tags.
type Same = BTreeMap<(Id, Timestamp, BTreeSet<String>), BackupId>;

fn sameness(snapshot: &Snapshot) -> (Id, Timestamp, BTreeSet<String>) {
    (snapshot.tree, snapshot.time, snapshot.tags.iter().cloned().collect())
}

impl SnapshotCopy {
    /// Plans to copy `snapshots` of `from`, under shared locks on both.
    ///
    /// # Errors
    /// [`RepoErrorKind::Conflict`] when both are the same repository, [`RepoErrorKind::Locked`], whatever the stores
    /// report. Snapshots that are not whole are in the plan.
    pub async fn plan(from: &Repository, to: &Repository, snapshots: Vec<Snapshot>) -> Result<Self> {
        if from.id() == to.id() {
            return Err(RepoError::new(
                RepoErrorKind::Conflict,
                format!(
                    "failed to copy: {} and {} are the same repository",
                    from.store().address(),
                    to.store().address()
                ),
            )
            .advise("name two"));
        }
        let from_lock = from.lock(LockKind::Shared).await?;
        let to_lock = match to.lock(LockKind::Shared).await {
            Ok(lock) => lock,
            Err(error) => {
                from_lock.give_back().await?;
                return Err(error);
            }
        };
        let planned = async { Planning::start(from, to).await?.plan(snapshots).await };
        match planned.await {
            Ok(Planning { from_index, to_index, work, known, same, plan, .. }) => {
                let (from, to) = (from.clone(), to.clone());
                Ok(Self { from, to, from_lock, to_lock, from_index, to_index, work, known, same, plan })
            }
            Err(error) => {
                let given_back = (from_lock.give_back().await, to_lock.give_back().await);
                given_back.0.and(given_back.1)?;
                Err(error)
            }
        }
    }

    /// What it is going to do.
    pub fn summary(&self) -> &CopyPlan {
        &self.plan
    }

    /// Leaves all as it is.
    ///
    /// # Errors
    /// Whatever the stores report; the locks are stale after 30 minutes then.
    pub async fn release(self) -> Result<()> {
        let given_back = (self.from_lock.give_back().await, self.to_lock.give_back().await);
        given_back.0.and(given_back.1)
    }

    /// Does it. `progress` hears of stored bytes sent and to be sent.
    ///
    /// # Errors
    /// [`RepoErrorKind::LockLost`], whatever the stores report. What was copied until then counts; snapshots that are
    /// not whole are in the report.
    pub async fn perform(self, progress: impl Fn(u64, u64) + Send + Sync) -> Result<CopyReport> {
        let Self { from, to, from_lock, to_lock, from_index, to_index, work, known, same, plan } = self;
        let (store, key) = (to.store().clone(), Arc::clone(to.shared_key()));
        let packer = Arc::new(Packer::new(store, key, Arc::new(to_lock), Arc::clone(&to_index), PACK_BYTES));
        let mut copying = Copying {
            sent: Marks::none(from_index.len()),
            from: &from,
            to: &to,
            from_lock: &from_lock,
            from_index: &from_index,
            to_index: &to_index,
            packer: &packer,
            known,
            same,
            report: CopyReport { damaged: plan.damaged, ..CopyReport::default() },
            progress: &progress,
            total: plan.bytes,
        };
        let done = copying.perform(work, plan.there).await;
        let report = std::mem::take(&mut copying.report);
        drop(copying);
        let given_back = (from_lock.give_back().await, packer.lock().give_back().await);
        done?;
        given_back.0.and(given_back.1)?;
        Ok(report)
    }
}

/// A plan in the making.
#[derive(Default)]
struct Planning<'a> {
    repositories: Option<(&'a Repository, &'a Repository)>,
    from_index: Arc<Index>,
    to_index: Arc<Index>,
    /// Trees that were followed.
    seen: Marks,
    /// Blobs that some snapshot before sends.
    taken: Marks,
    work: Vec<(Snapshot, Vec<u32>)>,
    known: HashSet<Id>,
    same: Same,
    plan: CopyPlan,
}

impl<'a> Planning<'a> {
    async fn start(from: &'a Repository, to: &'a Repository) -> Result<Self> {
        let there = to.snapshots().await?;
        let (from_index, to_index) = tokio::try_join!(from.load_index(), to.load_index())?;
        Ok(Self {
            repositories: Some((from, to)),
            seen: Marks::none(from_index.len()),
            taken: Marks::none(from_index.len()),
            from_index,
            to_index,
            known: there.iter().map(|snapshot| Id::from(&snapshot.id)).collect(),
            same: there.iter().map(|snapshot| (sameness(snapshot), snapshot.id.clone())).collect(),
            ..Self::default()
        })
    }

    async fn plan(mut self, mut snapshots: Vec<Snapshot>) -> Result<Self> {
        snapshots.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
        for snapshot in snapshots {
            if let Some(to) = self.same.get(&sameness(&snapshot)) {
                self.plan.there.push(Copied { from: snapshot.id, to: to.clone() });
                continue;
            }
            let (mut blobs, mut trees) = (Vec::new(), Vec::new());
            match self.follow(snapshot.tree, &mut blobs, &mut trees).await {
                Ok(()) => {}
                Err(error) if error.kind() == RepoErrorKind::Damaged => {
                    // Others may need the same.
                    blobs.iter().for_each(|number| self.taken.clear(*number as usize));
                    trees.iter().for_each(|number| self.seen.clear(*number as usize));
                    self.plan.damaged.push(DamagedFile { object: snapshot.id.to_string(), why: error.to_string() });
                    continue;
                }
                Err(error) => return Err(error),
            }
            let bytes = blobs.iter().map(|number| u64::from(self.from_index.place(*number).blob.length)).sum();
            self.plan.bytes += bytes;
            let Snapshot { id, time, tags, .. } = snapshot.clone();
            self.plan.snapshots.push(ToCopy { id, time, tags, blobs: blobs.len() as u64, bytes });
            self.work.push((snapshot, blobs));
        }
        Ok(self)
    }

    /// Collects what the other repository lacks of a tree.
    async fn follow(&mut self, root: Id, blobs: &mut Vec<u32>, trees: &mut Vec<u32>) -> Result<()> {
        let Some((from, _)) = self.repositories else { return Ok(()) };
        let index = Arc::clone(&self.from_index);
        let mut ahead = vec![root];
        while !ahead.is_empty() {
            let mut some = Vec::new();
            for id in ahead.split_off(ahead.len().saturating_sub(LOADS_MAX)) {
                let number = index.number_of(BlobKind::Tree, &id)?;
                if self.seen.mark(number as usize) {
                    trees.push(number);
                    some.push(id);
                    self.take(BlobKind::Tree, &id, number, blobs);
                }
            }
            let mut loaded = std::pin::pin!(references::load_each(from, &index, some));
            while let Some((_, references)) = loaded.next().await {
                let references = references?;
                for blob in references.files.iter().flat_map(|file| &file.content) {
                    let number = index.number(blob)?;
                    self.take(BlobKind::Data, blob, number, blobs);
                }
                ahead.extend(references.folders.iter().map(|folder| folder.subtree));
            }
        }
        Ok(())
    }

    fn take(&mut self, kind: BlobKind, id: &Id, number: u32, blobs: &mut Vec<u32>) {
        if !self.taken.has(number as usize) && self.to_index.find(kind, id).is_none() {
            self.taken.mark(number as usize);
            blobs.push(number);
        }
    }
}

/// A copy under way.
struct Copying<'a> {
    from: &'a Repository,
    to: &'a Repository,
    from_lock: &'a Lock,
    from_index: &'a Arc<Index>,
    to_index: &'a Index,
    packer: &'a Arc<Packer>,
    /// Blobs that this run sent.
    sent: Marks,
    known: HashSet<Id>,
    same: Same,
    report: CopyReport,
    progress: &'a (dyn Fn(u64, u64) + Send + Sync),
    total: u64,
}

impl Copying<'_> {
    async fn perform(&mut self, work: Vec<(Snapshot, Vec<u32>)>, there: Vec<Copied>) -> Result<()> {
        let mut ids: BTreeMap<BackupId, BackupId> = there.into_iter().map(|same| (same.from, same.to)).collect();
        let mut torn = false;
        // Of what others put there: the backups that need no copy, and the index files that name what is not sent.
        self.to.store().settle("snapshots").await?;
        self.to.store().settle("index").await?;
        for (snapshot, blobs) in work {
            let sent = async {
                self.send(blobs).await?;
                match torn {
                    // Something that this one shares may not have come.
                    true => self.expect_all(snapshot.tree).await,
                    false => Ok(()),
                }
            };
            match sent.await {
                Ok(()) => {}
                Err(error) if error.kind() == RepoErrorKind::Damaged => {
                    torn = true;
                    self.report.damaged.push(DamagedFile { object: snapshot.id.to_string(), why: error.to_string() });
                    continue;
                }
                Err(error) => return Err(error),
            }
            self.packer.finish().await?;
            let to = self.commit(&snapshot, &ids).await?;
            ids.insert(snapshot.id.clone(), to.clone());
            self.report.copied.push(Copied { from: snapshot.id, to });
        }
        self.carry_pins(&ids).await
    }

    /// Pins what is pinned where it came from. One that was taken away stays where it was carried to: too much is kept
    /// then, and not too little.
    async fn carry_pins(&self, ids: &BTreeMap<BackupId, BackupId>) -> Result<()> {
        let (ours, theirs) = tokio::try_join!(self.from.pins(), self.to.pins())?;
        for (from, pin) in ours {
            let Some(to) = ids.get(&from).filter(|to| !theirs.contains_key(to)) else { continue };
            self.to.put_pin(&Pin { backup: to.clone(), ..pin }).await?;
        }
        Ok(())
    }

    /// Sends blobs, neighbours in one request.
    async fn send(&mut self, mut blobs: Vec<u32>) -> Result<()> {
        let index = Arc::clone(self.from_index);
        let place = |number: &u32| index.place(*number);
        blobs.sort_unstable_by_key(|number| (place(number).pack, place(number).blob.offset));
        let mut reads = Reads::new(blobs.iter().map(|number| (index.place(*number), *number))).peekable();
        while reads.peek().is_some() {
            let mut bytes = 0;
            let round = std::iter::from_fn(|| {
                let read = reads.next_if(|_| bytes < COPY_ROUND_BYTES)?;
                bytes += read.range.end - read.range.start;
                Some(read)
            });
            let (from, packer) = (self.from, self.packer);
            let sent = futures::stream::iter(round).map(|read| send_read(from, &index, packer, read));
            let mut sent = std::pin::pin!(sent.buffer_unordered(READS_MAX));
            let mut failed = None;
            // All of them: what is under way on another thread counts, whatever failed beside it.
            while let Some(read) = sent.next().await {
                match read {
                    Ok(Sent { numbers, bytes, failed: lost }) => {
                        self.report.blobs += numbers.len() as u64;
                        self.report.bytes += bytes;
                        for number in numbers {
                            self.sent.mark(number as usize);
                        }
                        (self.progress)(self.report.bytes, self.total);
                        failed = failed.or(lost);
                    }
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
            self.packer.finish().await?;
        }
        Ok(())
    }

    /// Whether all that a tree needs is there now.
    async fn expect_all(&self, root: Id) -> Result<()> {
        let expect = |kind, id: &Id| {
            let number = self.from_index.number_of(kind, id)?;
            match self.sent.has(number as usize) || self.to_index.find(kind, id).is_some() {
                true => Ok(()),
                false => Err(RepoError::damaged(format!("blob {id}"), "it could not be read")),
            }
        };
        let (mut ahead, mut seen) = (vec![root], HashSet::from([root]));
        while !ahead.is_empty() {
            let some = ahead.split_off(ahead.len().saturating_sub(LOADS_MAX));
            some.iter().try_for_each(|id| expect(BlobKind::Tree, id))?;
            let mut loaded = std::pin::pin!(references::load_each(self.from, self.from_index, some));
            while let Some((_, references)) = loaded.next().await {
                let references = references?;
                references.files.iter().flat_map(|file| &file.content).try_for_each(|id| expect(BlobKind::Data, id))?;
                ahead.extend(references.folders.iter().map(|folder| folder.subtree).filter(|id| seen.insert(*id)));
            }
        }
        Ok(())
    }

    /// Writes the snapshot, unless somebody else has copied it meanwhile.
    async fn commit(&mut self, snapshot: &Snapshot, ids: &BTreeMap<BackupId, BackupId>) -> Result<BackupId> {
        let (store, key) = (self.to.store(), self.to.master_key());
        let listed = store.list("snapshots").await?;
        for id in listed.iter().filter_map(|object| Id::from_key(&object.key)) {
            if self.known.insert(id) {
                let other = snapshot::load(store, key, id).await?;
                self.same.insert(sameness(&other), other.id);
            }
        }
        if let Some(there) = self.same.get(&sameness(snapshot)) {
            return Ok(there.clone());
        }
        let from = Id::from(&snapshot.id);
        let mut file: Value = document::load(self.from.store(), self.from.master_key(), "snapshots", from).await?;
        let fields =
            file.as_object_mut().ok_or_else(|| RepoError::damaged(from.key("snapshots"), "it is no object"))?;
        match snapshot.parent.as_ref().and_then(|parent| ids.get(parent)) {
            Some(parent) => drop(fields.insert("parent".into(), json!(parent.as_str()))),
            None => drop(fields.remove("parent")),
        }
        // What was read and not what was pruned meanwhile.
        self.from_lock.confirm().await?;
        self.packer.lock().confirm().await?;
        let id = document::save(store, key, "snapshots", &file).await?;
        self.known.insert(id);
        self.same.insert(sameness(snapshot), id.into());
        Ok(id.into())
    }
}

/// What came of one request.
#[derive(Default)]
struct Sent {
    numbers: Vec<u32>,
    /// Stored bytes.
    bytes: u64,
    /// Why a blob was not sent.
    failed: Option<RepoError>,
}

/// Reads a stretch of a pack and hands its blobs on. What does not open leaves its neighbours alone: they are read once
/// more, one by one.
async fn send_read(from: &Repository, index: &Index, packer: &Arc<Packer>, read: Read<u32>) -> Result<Sent> {
    let pack = read.pack;
    let (mut sent, again) = send_stretch(from, index, packer, read).await?;
    for (blob, number) in again {
        let start = u64::from(blob.offset);
        let alone = Read { pack, range: start..start + u64::from(blob.length), wants: vec![(blob, number)] };
        let (one, _) = send_stretch(from, index, packer, alone).await?;
        sent.numbers.extend(one.numbers);
        sent.bytes += one.bytes;
        sent.failed = sent.failed.or(one.failed);
    }
    Ok(sent)
}

/// The same; answers also the blobs that were opened together with one that does not.
async fn send_stretch(
    from: &Repository,
    index: &Index,
    packer: &Arc<Packer>,
    read: Read<u32>,
) -> Result<(Sent, Vec<(PackedBlob, u32)>)> {
    let name = index.pack(read.pack).pack_key();
    let bytes = match fetch::get(from.store(), &name, read.range.clone()).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() != RepoErrorKind::Damaged => return Err(error),
        Err(error) if read.wants.len() == 1 => {
            return Ok((Sent { failed: Some(error), ..Sent::default() }, Vec::new()));
        }
        Err(_) => return Ok((Sent::default(), read.wants)),
    };
    let (key, packer, runtime) = (Arc::clone(from.shared_key()), Arc::clone(packer), Handle::current());
    let sending = tokio::task::spawn_blocking(move || {
        let mut bytes = fetch::own(bytes);
        let mut plain = AlignedBuffer::default();
        let (mut sent, mut again) = (Sent::default(), Vec::new());
        let mut rest = read.wants.as_slice();
        while let Some((first, _)) = rest.first() {
            // As many as are hashed together.
            let mut length = 0;
            let group = rest.iter().take_while(|(blob, _)| {
                length += blob.plain_length() as usize;
                blob.kind == first.kind && (length <= BATCH_BYTES || length == blob.plain_length() as usize)
            });
            let (group, others) = rest.split_at(group.count().max(1));
            rest = others;
            plain.clear();
            let opened = match open(&key, &name, group, read.range.start, &mut bytes, &mut plain) {
                Ok(opened) => opened,
                Err(error) if error.kind() == RepoErrorKind::Damaged && group.len() == 1 => {
                    sent.failed = sent.failed.or(Some(error));
                    continue;
                }
                Err(error) if error.kind() == RepoErrorKind::Damaged => {
                    again.extend_from_slice(group);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let blobs: Vec<(Id, &[u8], u32)> =
                opened.into_iter().map(|(blob, text)| (blob.id, &bytes[text], blob.raw_length)).collect();
            packer.store_opened(&runtime, first.kind, &blobs)?;
            sent.bytes += group.iter().map(|(blob, _)| u64::from(blob.length)).sum::<u64>();
            sent.numbers.extend(group.iter().map(|(_, number)| *number));
        }
        Ok((sent, again))
    });
    sending.await?
}

/// Opens blobs where they lie and verifies them; answers where in `bytes` the text of each is then, compressed as it was.
fn open(
    key: &MasterKey,
    pack: &str,
    group: &[(PackedBlob, u32)],
    start: u64,
    bytes: &mut [u8],
    plain: &mut AlignedBuffer,
) -> Result<Vec<(PackedBlob, Range<usize>)>> {
    let damaged = |blob: &PackedBlob, error| RepoError::damaged(format!("blob {} in {pack}", blob.id), error);
    let (mut opened, mut places) = (Vec::with_capacity(group.len()), Vec::with_capacity(group.len()));
    for (blob, _) in group {
        // The range was made to hold all of them.
        let from = (u64::from(blob.offset) - start) as usize;
        let sealed = &mut bytes[from..from + blob.length as usize];
        let before = plain.len();
        blob.open_unverified(key, sealed, plain).map_err(|error| damaged(blob, error))?;
        let text = from + IV_BYTES..from + IV_BYTES + blob.length as usize - SEAL_OVERHEAD;
        opened.push((*blob, text));
        places.push(before..plain.len());
    }
    let parts: Vec<&[u8]> = places.into_iter().map(|place| &plain.bytes()[place]).collect();
    for ((blob, _), id) in group.iter().zip(Id::of_each(&parts)) {
        blob.verify(id).map_err(|error| damaged(blob, error))?;
    }
    Ok(opened)
}
