//! From plaintext to durable packs and index files.
//!
//! ```text
//!   blob ── known? ──► id                         (index, or met before in this session)
//!     └─ new ► compress ► seal ► open pack ── full, two of them ► close ► upload ► index
//! ```
//!
//! Everything before "upload" runs on blocking threads, as many at once as there are cores.

use crate::aligned::AlignedBuffer;
use crate::compression::Compressor;
use crate::crypto::IV_BYTES;
use crate::index::{Index, IndexFile, IndexPack};
use crate::limits::{BATCH_BYTES, INDEX_BLOBS_MAX, PACK_BLOBS_MAX};
use crate::lock::Lock;
use crate::pack::{BlobKind, OpenPack, PackedBlob};
use crate::{Id, MasterKey, RepoError, RepoErrorKind, Result, Store, document};
use bytes::Bytes;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Takes blobs, writes packs.
pub(crate) struct Packer {
    store: Store,
    key: Arc<MasterKey>,
    /// Held as long as anything is under way: an index file written after a prune has removed
    /// its packs would do damage.
    lock: Arc<Lock>,
    index: Arc<Index>,
    pack_bytes: usize,
    /// Packs that may be under way.
    uploads_max: usize,
    uploads: Arc<Semaphore>,
    /// Blobs that this session adds: whoever puts one in first writes it.
    claimed: Mutex<HashSet<(Id, BlobKind)>>,
    data: Mutex<OpenPack>,
    trees: Mutex<OpenPack>,
    /// Packs that are durable and in no index file yet.
    indexable: Mutex<Vec<IndexPack>>,
    /// Buffers of uploaded packs: fresh memory costs a page fault for every 4 KiB.
    spare: Mutex<Vec<AlignedBuffer>>,
    /// A full pack that waits for another.
    waiting: Mutex<Option<FullPack>>,
    workers: Mutex<Vec<Worker>>,
    failure: Mutex<Option<(RepoErrorKind, String)>>,
}

/// A pack and the permit to upload it.
type FullPack = (OpenPack, OwnedSemaphorePermit);

/// A pack's bytes on their way to the store; then the buffer is used again.
struct Lent {
    buffer: AlignedBuffer,
    to: Arc<Packer>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.buffer.bytes()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut spare = held(&self.to.spare);
        if spare.len() < self.to.uploads_max {
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            spare.push(buffer);
        }
    }
}

/// What compressing and sealing reuse.
struct Worker {
    compressor: Compressor,
    plain: AlignedBuffer,
    sealed: Vec<u8>,
}

/// A new blob in a worker's buffer.
struct Sealed {
    id: Id,
    place: Range<usize>,
    raw_length: u32,
}

/// A blob that is stored, or will be when [`Packer::finish`] succeeds.
#[derive(Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) id: Id,
    /// Bytes of plaintext.
    pub(crate) bytes: u64,
    /// Sealed bytes, if it was not there before.
    pub(crate) uploaded: Option<u64>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under one of these locks ends the session through `failure`.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Packer {
    pub(crate) fn new(
        store: Store,
        key: Arc<MasterKey>,
        lock: Arc<Lock>,
        index: Arc<Index>,
        pack_bytes: usize,
    ) -> Self {
        let uploads_max = store.uploads_max();
        Self {
            store,
            key,
            lock,
            index,
            pack_bytes,
            uploads_max,
            uploads: Arc::new(Semaphore::new(uploads_max)),
            claimed: Mutex::default(),
            data: Mutex::default(),
            trees: Mutex::default(),
            indexable: Mutex::default(),
            spare: Mutex::default(),
            waiting: Mutex::default(),
            workers: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    /// Stores blobs; blocks, also on uploads when they lag behind.
    pub(crate) fn store<'a>(
        self: &Arc<Self>,
        runtime: &Handle,
        kind: BlobKind,
        blobs: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<Stored>> {
        self.check()?;
        let mut worker = self.worker()?;
        let stored = self.store_all(runtime, kind, &blobs.collect::<Vec<_>>(), &mut worker);
        self.give_back(worker, &stored);
        stored
    }

    /// The same for bytes that `read` puts into an empty buffer, cut at every multiple of `chunk_bytes`.
    pub(crate) fn store_from(
        self: &Arc<Self>,
        runtime: &Handle,
        kind: BlobKind,
        chunk_bytes: usize,
        read: impl FnOnce(&mut AlignedBuffer) -> Result<()>,
    ) -> Result<Vec<Stored>> {
        self.check()?;
        let mut worker = self.worker()?;
        let mut plain = std::mem::take(&mut worker.plain);
        plain.clear();
        // A source that cannot be read is the caller's matter, not the session's end.
        if let Err(error) = read(&mut plain) {
            worker.plain = plain;
            held(&self.workers).push(worker);
            return Err(error);
        }
        let chunks: Vec<_> = plain.bytes().chunks(chunk_bytes).collect();
        let stored = self.store_all(runtime, kind, &chunks, &mut worker);
        worker.plain = plain;
        self.give_back(worker, &stored);
        stored
    }

    /// Stores blobs that were opened and verified elsewhere: ids, texts, compressed as they were, and lengths of plaintext
    /// where they are. The caller sees to it that none is there, and none comes twice.
    pub(crate) fn store_opened(
        self: &Arc<Self>,
        runtime: &Handle,
        kind: BlobKind,
        blobs: &[(Id, &[u8], u32)],
    ) -> Result<()> {
        self.check()?;
        let mut worker = self.worker()?;
        worker.sealed.clear();
        let mut fresh = Vec::with_capacity(blobs.len());
        for (id, text, raw_length) in blobs {
            let start = worker.sealed.len();
            worker.sealed.resize(start + IV_BYTES, 0);
            worker.sealed.extend_from_slice(text);
            self.key.seal_tail(&mut worker.sealed, start);
            fresh.push(Sealed { id: *id, place: start..worker.sealed.len(), raw_length: *raw_length });
        }
        let pushed = self.push(runtime, kind, &worker.sealed, &fresh);
        held(&self.workers).push(worker);
        pushed.inspect_err(|error| self.fail(error))
    }

    /// Stores blobs that are sealed and verified already, with the first byte of their old pack that is in `sealed`; blocks
    /// like [`Packer::store`]. Old packs of restic hold both kinds, ours one each.
    pub(crate) fn store_sealed(
        self: &Arc<Self>,
        runtime: &Handle,
        sealed: &[u8],
        start: u64,
        blobs: &[PackedBlob],
    ) -> Result<()> {
        self.check()?;
        for kind in [BlobKind::Data, BlobKind::Tree] {
            let fresh: Vec<Sealed> = blobs
                .iter()
                .filter(|blob| blob.kind == kind && self.index.find(kind, &blob.id).is_none())
                .filter(|blob| held(&self.claimed).insert((blob.id, kind)))
                .map(|blob| {
                    let from = (u64::from(blob.offset) - start) as usize;
                    Sealed { id: blob.id, place: from..from + blob.length as usize, raw_length: blob.raw_length }
                })
                .collect();
            let stored = self.push(runtime, kind, sealed, &fresh);
            stored.inspect_err(|error| self.fail(error))?;
        }
        Ok(())
    }

    fn worker(&self) -> Result<Worker> {
        let spare = held(&self.workers).pop();
        match spare {
            Some(worker) => Ok(worker),
            None => Ok(Worker { compressor: Compressor::new()?, plain: AlignedBuffer::default(), sealed: Vec::new() }),
        }
    }

    fn give_back(&self, worker: Worker, stored: &Result<Vec<Stored>>) {
        held(&self.workers).push(worker);
        if let Err(error) = stored {
            self.fail(error);
        }
    }

    fn store_all(
        self: &Arc<Self>,
        runtime: &Handle,
        kind: BlobKind,
        blobs: &[&[u8]],
        worker: &mut Worker,
    ) -> Result<Vec<Stored>> {
        // All ids first: side by side they take a fraction of the time.
        let ids = Id::of_each(blobs);
        worker.sealed.clear();
        let mut fresh = Vec::new();
        let mut stored = Vec::with_capacity(blobs.len());
        for (id, plain) in ids.into_iter().zip(blobs) {
            debug_assert!(!plain.is_empty(), "the format has no empty blobs");
            let bytes = plain.len() as u64;
            if self.index.find(kind, &id).is_some() || !held(&self.claimed).insert((id, kind)) {
                stored.push(Stored { id, bytes, uploaded: None });
                continue;
            }
            let blob = self.seal(id, plain, worker)?;
            stored.push(Stored { id, bytes, uploaded: Some(blob.place.len() as u64) });
            fresh.push(blob);
        }
        self.push(runtime, kind, &worker.sealed, &fresh)?;
        Ok(stored)
    }

    /// Compresses and seals to the end of the worker's buffer.
    fn seal(&self, id: Id, plain: &[u8], worker: &mut Worker) -> Result<Sealed> {
        let Worker { compressor, sealed, .. } = worker;
        let start = sealed.len();
        sealed.resize(start + IV_BYTES, 0);
        let raw_length = match compressor.compress_onto(plain, sealed)? {
            true => plain.len() as u32,
            false => {
                sealed.extend_from_slice(plain);
                0
            }
        };
        self.key.seal_tail(sealed, start);
        Ok(Sealed { id, place: start..sealed.len(), raw_length })
    }

    /// Adds sealed blobs to the open pack, all of them side by side: a restore reads and writes them together.
    fn push(self: &Arc<Self>, runtime: &Handle, kind: BlobKind, sealed: &[u8], blobs: &[Sealed]) -> Result<()> {
        let mut rest = blobs.iter();
        while rest.len() > 0 {
            let mut pack = held(match kind {
                BlobKind::Data => &self.data,
                BlobKind::Tree => &self.trees,
            });
            if pack.blobs.is_empty() {
                let spare = held(&self.spare).pop();
                pack.bytes = spare.unwrap_or_else(|| AlignedBuffer::with_room(self.pack_bytes + BATCH_BYTES));
            }
            let is_full = |pack: &OpenPack| pack.bytes.len() >= self.pack_bytes || pack.blobs.len() >= PACK_BLOBS_MAX;
            while !is_full(&pack)
                && let Some(blob) = rest.next()
            {
                pack.push(blob.id, kind, &sealed[blob.place.clone()], blob.raw_length);
            }
            // Nobody opens another one while this waits for the store: else each thread would fill and hold its own.
            if is_full(&pack) {
                self.submit(runtime, std::mem::take(&mut *pack))?;
            }
        }
        Ok(())
    }

    /// Hands a full pack over to be uploaded, in pairs: two are hashed in less time than one after another. Blocks while
    /// too many are under way.
    fn submit(self: &Arc<Self>, runtime: &Handle, pack: OpenPack) -> Result<()> {
        let permit = runtime
            .block_on(Arc::clone(&self.uploads).acquire_owned())
            .map_err(|error| RepoError::new(RepoErrorKind::Internal, "failed to upload a pack").because(error))?;
        let second = (pack, permit);
        let mut waiting = held(&self.waiting);
        match waiting.take() {
            Some(first) => drop(runtime.spawn(Arc::clone(self).upload(vec![first, second]))),
            None => *waiting = Some(second),
        }
        Ok(())
    }

    /// Uploads a pack that waits for another.
    fn submit_waiting(self: &Arc<Self>, runtime: &Handle) {
        if let Some(alone) = held(&self.waiting).take() {
            drop(runtime.spawn(Arc::clone(self).upload(vec![alone])));
        }
    }

    async fn upload(self: Arc<Self>, packs: Vec<FullPack>) {
        let key = Arc::clone(&self.key);
        let closed = tokio::task::spawn_blocking(move || {
            let mut packs = packs;
            packs.iter_mut().for_each(|(pack, _)| pack.close(&key));
            let bodies: Vec<&[u8]> = packs.iter().map(|(pack, _)| pack.bytes.bytes()).collect();
            let ids = Id::of_each(&bodies);
            ids.into_iter().zip(packs).collect::<Vec<_>>()
        });
        match closed.await {
            Ok(closed) => {
                let stored = closed.into_iter().map(|(id, (pack, permit))| {
                    let packer = Arc::clone(&self);
                    async move {
                        if let Err(error) = packer.store_pack(id, pack).await {
                            packer.fail(&error);
                        }
                        drop(permit);
                    }
                });
                futures::future::join_all(stored).await;
            }
            Err(error) => self.fail(&error.into()),
        }
    }

    async fn store_pack(self: &Arc<Self>, id: Id, pack: OpenPack) -> Result<()> {
        let body = Bytes::from_owner(Lent { buffer: pack.bytes, to: Arc::clone(self) });
        self.store.put_new(&id.pack_key(), body).await?;
        let file = {
            let mut indexable = held(&self.indexable);
            indexable.push(IndexPack::new(id, &pack.blobs));
            let blobs: usize = indexable.iter().map(|pack| pack.blobs.len()).sum();
            (blobs >= INDEX_BLOBS_MAX).then(|| std::mem::take(&mut *indexable))
        };
        match file {
            Some(packs) => self.write_index(packs).await,
            None => Ok(()),
        }
    }

    async fn write_index(&self, packs: Vec<IndexPack>) -> Result<()> {
        self.lock.confirm().await?;
        let file = IndexFile { packs, ..IndexFile::default() };
        document::save(&self.store, &self.key, "index", &file).await.map(drop)
    }

    /// Makes everything stored so far durable and indexed. Nobody may be storing.
    pub(crate) async fn finish(self: &Arc<Self>) -> Result<()> {
        let packer = Arc::clone(self);
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            for pack in [&packer.data, &packer.trees] {
                let pack = std::mem::take(&mut *held(pack));
                if !pack.blobs.is_empty() {
                    packer.submit(&runtime, pack)?;
                }
            }
            packer.submit_waiting(&runtime);
            Ok::<_, RepoError>(())
        })
        .await??;
        let all = self.uploads.acquire_many(self.uploads_max as u32).await;
        let _all =
            all.map_err(|error| RepoError::new(RepoErrorKind::Internal, "failed to wait for uploads").because(error))?;
        self.check()?;
        let rest = std::mem::take(&mut *held(&self.indexable));
        if rest.is_empty() {
            return Ok(());
        }
        self.write_index(rest).await
    }

    /// The lock that all of it is written under.
    pub(crate) fn lock(&self) -> &Lock {
        &self.lock
    }

    /// Fails once anything of this session has failed: blobs it claimed may be missing.
    pub(crate) fn check(&self) -> Result<()> {
        match &*held(&self.failure) {
            Some((kind, what)) => Err(RepoError::new(*kind, what.clone())),
            None => Ok(()),
        }
    }

    /// Remembers the first failure.
    pub(crate) fn fail(&self, error: &RepoError) {
        held(&self.failure).get_or_insert_with(|| (error.kind(), error.to_string()));
    }
}
