//! Writing a backup.
//!
//! ```text
//!   put_file ► cut ► [batch] ► packer ► packs      many files at once, in any order
//!   commit   ► trees ► packs durable ► index durable ► lock confirmed ► snapshot
//! ```
//!
//! Memory does not depend on a file's size beyond 32 bytes a chunk: batches in work, packs being
//! filled and uploads under way are all counted.

mod chunking;
mod folder;
mod local;
pub(crate) mod packer;
mod parent;
mod patched;
mod witness;

pub use chunking::Chunking;
pub use folder::FileAttributes;
pub use parent::Parent;
pub use patched::{Patch, PatchedFile};
pub use witness::Witness;

use crate::index::Index;
use crate::limits::{
    BATCHES_MAX, BLOB_BYTES_MAX, FILE_CHUNKS_MAX, PACK_BYTES, PACK_BYTES_MAX, PACK_BYTES_MIN, TREE_DEPTH_MAX,
};
use crate::lock::Lock;
use crate::pack::BlobKind;
use crate::read::SnapshotReader;
use crate::snapshot::{self, SnapshotFile, SnapshotMeta};
use crate::stamp::FileStamp;
use crate::{Id, RepoError, RepoErrorKind, Repository, Result, document};
use backstay_core::{BackupId, RelativePath, Timestamp};
use bytes::Bytes;
use chunking::{Batch, Cutter};
use folder::{Entry, Folder};
use futures::{Stream, StreamExt};
pub(crate) use packer::Packer;
use packer::Stored;
use parent::OpenParent;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

/// How a backup is written.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// How files are cut.
    pub chunking: Chunking,
    /// Stored size a pack is closed at, 1 KiB to 256 MiB.
    pub pack_bytes: usize,
    /// The backup before: files of this machine that are as they were are not read again
    /// ([`BackupSession::put_local`]), others may be patched ([`BackupSession::put_patched`]). One that cannot be
    /// read is as none.
    pub parent: Option<Parent>,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self { chunking: Chunking::default(), pack_bytes: PACK_BYTES, parent: None }
    }
}

/// A backup in the making. Cheap to clone; many files may be put at once.
///
/// Dropping all clones without [`BackupSession::commit`] leaves packs that nothing refers to.
#[derive(Clone)]
pub struct BackupSession {
    shared: Arc<Shared>,
}

struct Shared {
    repository: Repository,
    packer: Arc<Packer>,
    chunking: Chunking,
    /// One permit for each batch being worked on.
    batches: Arc<Semaphore>,
    batches_max: u32,
    root: Mutex<Folder>,
    parent: Option<OpenParent>,
    committing: AtomicBool,
    active: AtomicUsize,
    totals: AtomicTotals,
}

#[derive(Default)]
struct AtomicTotals {
    bytes: AtomicU64,
    files: AtomicU64,
    unread_bytes: AtomicU64,
    new_bytes: AtomicU64,
    uploaded: AtomicU64,
}

/// What a session has stored so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Plaintext bytes of all files.
    pub bytes: u64,
    /// Files.
    pub files: u64,
    /// Bytes of files that were not read, because they are as the parent has them.
    pub unread_bytes: u64,
    /// Plaintext bytes that the repository did not have.
    pub new_bytes: u64,
    /// Bytes they take on the store, trees included.
    pub uploaded: u64,
}

/// A file that was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Plaintext bytes.
    pub bytes: u64,
    /// Bytes that its new chunks take on the store.
    pub uploaded: u64,
    /// Whether it was not read, because it is as the parent has it.
    pub unread: bool,
}

/// A backup that is durable.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its snapshot's id.
    pub id: BackupId,
    /// Its root tree.
    pub tree: Id,
    /// What it holds and what was added for it.
    pub totals: Totals,
}

/// Counts a put that is under way, however it ends.
struct Active<'a>(&'a Shared);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}

type Working = JoinHandle<Result<Vec<Stored>>>;

impl BackupSession {
    /// `lock` is shared; whether another came at the same moment is seen beside the work.
    pub(crate) async fn start(repository: &Repository, lock: Lock, options: BackupOptions) -> Result<Self> {
        options.chunking.validate()?;
        if !(PACK_BYTES_MIN..=PACK_BYTES_MAX).contains(&options.pack_bytes) {
            return Err(RepoError::new(RepoErrorKind::InvalidConfig, "packs have from 1 KiB to 256 MiB"));
        }
        let index = match repository.load_index().await {
            Ok(index) => index,
            Err(error) => {
                lock.give_back().await?;
                return Err(error);
            }
        };
        let key = Arc::clone(repository.shared_key());
        let parent = match options.parent {
            Some(parent) => open_parent(repository, &index, parent).await,
            None => None,
        };
        let packer = Arc::new(Packer::new(repository.store().clone(), key, Arc::new(lock), index, options.pack_bytes));
        // Nothing refers to what is written meanwhile.
        let settling = Arc::clone(&packer);
        tokio::spawn(async move {
            if let Err(error) = settling.lock().settle().await {
                settling.fail(&error);
            }
        });
        // One batch for each core and one that waits for it.
        let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get() as u32);
        let batches_max = (2 * cores).min(BATCHES_MAX);
        Ok(Self {
            shared: Arc::new(Shared {
                repository: repository.clone(),
                packer,
                chunking: options.chunking,
                batches: Arc::new(Semaphore::new(batches_max as usize)),
                batches_max,
                root: Mutex::new(Folder::implied()),
                parent,
                committing: AtomicBool::new(false),
                active: AtomicUsize::new(0),
                totals: AtomicTotals::default(),
            }),
        })
    }

    /// Stores a file from its bytes, cut as the session's options say.
    ///
    /// A future that is dropped before its end leaves no file.
    ///
    /// # Errors
    /// [`RepoErrorKind::Source`] when `body` fails, [`RepoErrorKind::Conflict`] when something
    /// was put there, whatever the store reports. After an error of the store the session is
    /// spent: whatever is put or committed then fails too.
    pub async fn put_file<S>(&self, path: &RelativePath, attributes: FileAttributes, body: S) -> Result<StoredFile>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    {
        self.put_file_cut(path, attributes, self.shared.chunking, body).await
    }

    /// As [`BackupSession::put_file`], with cuts of its own.
    ///
    /// # Errors
    /// As [`BackupSession::put_file`].
    pub async fn put_file_cut<S>(
        &self,
        path: &RelativePath,
        attributes: FileAttributes,
        chunking: Chunking,
        mut body: S,
    ) -> Result<StoredFile>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    {
        chunking.validate()?;
        let _active = self.activate(path)?;
        self.root(|root| root.check_free(path))?;
        let mut cutter = Cutter::new(chunking);
        let mut working = VecDeque::new();
        let mut file = Collected::default();
        let mut bytes = 0;
        while let Some(part) = body.next().await {
            let mut part = part.map_err(|error| {
                RepoError::new(RepoErrorKind::Source, format!("failed to read the source of {path}")).because(error)
            })?;
            bytes += part.len() as u64;
            while !part.is_empty() {
                if let Some(batch) = cutter.fill(&mut part) {
                    working.push_back(self.work_on(batch).await?);
                }
            }
            while working.front().is_some_and(Working::is_finished) {
                self.collect(&mut working, &mut file).await?;
            }
        }
        if let Some(batch) = cutter.finish() {
            working.push_back(self.work_on(batch).await?);
        }
        while !working.is_empty() {
            self.collect(&mut working, &mut file).await?;
        }
        if file.bytes != bytes {
            return Err(RepoError::new(
                RepoErrorKind::Internal,
                format!("failed to store {path}: {} of {bytes} bytes", file.bytes),
            ));
        }
        self.put_collected(path, attributes, file, None)
    }

    /// Enters a file whose every chunk is stored.
    fn put_collected(
        &self,
        path: &RelativePath,
        attributes: FileAttributes,
        mut file: Collected,
        stamp: Option<FileStamp>,
    ) -> Result<StoredFile> {
        if file.content.len() > FILE_CHUNKS_MAX {
            return Err(RepoError::new(
                RepoErrorKind::InvalidConfig,
                format!("failed to store {path}: it has more than {FILE_CHUNKS_MAX} chunks"),
            )
            .advise("use larger chunks"));
        }
        let bytes = file.bytes;
        file.content.shrink_to_fit();
        self.root(|root| root.put(path, Entry::File { attributes, bytes, content: file.content, stamp }))?;
        let totals = &self.shared.totals;
        totals.bytes.fetch_add(bytes, Ordering::Relaxed);
        totals.files.fetch_add(1, Ordering::Relaxed);
        Ok(StoredFile { bytes, uploaded: file.uploaded, unread: false })
    }

    /// Stores a folder, or describes one in which something was put already. Folders that nobody
    /// puts have mode 0700.
    ///
    /// # Errors
    /// [`RepoErrorKind::Conflict`].
    pub async fn put_directory(&self, path: &RelativePath, attributes: FileAttributes) -> Result<()> {
        let _active = self.activate(path)?;
        self.root(|root| root.put_folder(path, attributes))
    }

    /// Stores a symbolic link; `target` is kept as it is.
    ///
    /// # Errors
    /// [`RepoErrorKind::Conflict`].
    pub async fn put_symlink(&self, path: &RelativePath, target: &str, modified: Timestamp) -> Result<()> {
        let _active = self.activate(path)?;
        let attributes = FileAttributes { mode: 0o777, modified };
        self.root(|root| root.put(path, Entry::Symlink { attributes, target: target.to_owned() }))
    }

    /// What was stored so far. Trees are counted at the end.
    pub fn totals(&self) -> Totals {
        let totals = &self.shared.totals;
        Totals {
            bytes: totals.bytes.load(Ordering::Relaxed),
            files: totals.files.load(Ordering::Relaxed),
            unread_bytes: totals.unread_bytes.load(Ordering::Relaxed),
            new_bytes: totals.new_bytes.load(Ordering::Relaxed),
            uploaded: totals.uploaded.load(Ordering::Relaxed),
        }
    }

    /// Makes it a backup: packs, then index, then snapshot, each durable before the next.
    ///
    /// # Errors
    /// [`RepoErrorKind::LockLost`], [`RepoErrorKind::Conflict`] while a file is being put,
    /// whatever the store reports. Nothing is committed then.
    pub async fn commit(self, meta: SnapshotMeta) -> Result<Committed> {
        let shared = &self.shared;
        if shared.committing.swap(true, Ordering::AcqRel) || shared.active.load(Ordering::Acquire) != 0 {
            return Err(RepoError::new(RepoErrorKind::Conflict, "failed to commit: the backup is still being written"));
        }
        // Batches of puts that were given up may still be under way.
        let all = shared.batches.acquire_many(shared.batches_max).await;
        let _all =
            all.map_err(|error| RepoError::new(RepoErrorKind::Internal, "failed to wait for batches").because(error))?;
        let tree = self.store_trees().await?;
        shared.packer.finish().await?;
        let lock = shared.packer.lock();
        let repository = &shared.repository;
        // It may rely on blobs of an index file that somebody else was still writing when it was read.
        repository.store().settle("index").await?;
        lock.confirm().await?;
        let file = SnapshotFile::new(tree, meta, &self.totals());
        let id = document::save(repository.store(), repository.master_key(), "snapshots", &file).await?;
        if let Err(error) = lock.give_back().await {
            tracing::warn!(%error, "failed to release our lock on the repository");
        }
        Ok(Committed { id: id.into(), tree, totals: self.totals() })
    }

    /// Gives the backup up and its lock back. What was stored stays unreferenced until a prune.
    ///
    /// # Errors
    /// Whatever the store reports; the lock is stale after 30 minutes then.
    pub async fn abandon(self) -> Result<()> {
        self.shared.packer.lock().give_back().await
    }

    /// Waits until one more batch may be worked on.
    async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.shared.batches).acquire_owned().await;
        permit.map_err(|error| RepoError::new(RepoErrorKind::Internal, "failed to store a batch").because(error))
    }

    /// Hands a batch to a blocking thread, once one is free for it.
    async fn work_on(&self, batch: Batch) -> Result<Working> {
        let permit = self.permit().await?;
        let packer = Arc::clone(&self.shared.packer);
        let runtime = tokio::runtime::Handle::current();
        Ok(tokio::task::spawn_blocking(move || {
            let stored = packer.store(&runtime, BlobKind::Data, batch.chunks());
            drop(permit);
            stored.inspect(|stored| debug_assert_eq!(stored.len(), batch.ends.len()))
        }))
    }

    async fn collect(&self, working: &mut VecDeque<Working>, file: &mut Collected) -> Result<()> {
        match working.pop_front() {
            Some(job) => self.collect_job(job, file).await,
            None => Ok(()),
        }
    }

    async fn collect_job(&self, job: Working, file: &mut Collected) -> Result<()> {
        let stored = match job.await {
            Ok(stored) => stored?,
            Err(error) => {
                let error = RepoError::from(error);
                self.shared.packer.fail(&error);
                return Err(error);
            }
        };
        file.bytes += stored.iter().map(|blob| blob.bytes).sum::<u64>();
        file.content.extend(stored.iter().map(|blob| blob.id));
        let uploaded: u64 = stored.iter().filter_map(|blob| blob.uploaded).sum();
        file.uploaded += uploaded;
        let new_bytes = stored.iter().filter(|blob| blob.uploaded.is_some()).map(|blob| blob.bytes).sum();
        let totals = &self.shared.totals;
        totals.uploaded.fetch_add(uploaded, Ordering::Relaxed);
        totals.new_bytes.fetch_add(new_bytes, Ordering::Relaxed);
        Ok(())
    }

    async fn store_trees(&self) -> Result<Id> {
        let root = self.root(|root| std::mem::replace(root, Folder::implied()));
        let shared = Arc::clone(&self.shared);
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            root.store(&mut |tree: &[u8]| {
                if tree.len() > BLOB_BYTES_MAX {
                    return Err(RepoError::new(
                        RepoErrorKind::InvalidConfig,
                        "failed to store a folder: its tree is too long",
                    )
                    .advise("use larger chunks"));
                }
                let stored = shared.packer.store(&runtime, BlobKind::Tree, std::iter::once(tree))?;
                shared.totals.uploaded.fetch_add(stored[0].uploaded.unwrap_or(0), Ordering::Relaxed);
                Ok(stored[0].id)
            })
        })
        .await?
    }

    fn root<T>(&self, f: impl FnOnce(&mut Folder) -> T) -> T {
        f(&mut self.shared.root.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn activate(&self, path: &RelativePath) -> Result<Active<'_>> {
        self.shared.active.fetch_add(1, Ordering::AcqRel);
        let active = Active(&self.shared);
        if self.shared.committing.load(Ordering::Acquire) {
            return Err(RepoError::new(
                RepoErrorKind::Conflict,
                format!("failed to store {path}: the backup is being committed"),
            ));
        }
        if path.parts().count() > TREE_DEPTH_MAX {
            return Err(RepoError::new(
                RepoErrorKind::InvalidConfig,
                format!("failed to store {path}: it lies deeper than {TREE_DEPTH_MAX} folders"),
            ));
        }
        self.shared.packer.check()?;
        Ok(active)
    }
}

async fn open_parent(repository: &Repository, index: &Arc<Index>, parent: Parent) -> Option<OpenParent> {
    match snapshot::load(repository.store(), repository.master_key(), Id::from(&parent.id)).await {
        Ok(snapshot) => {
            let reader = SnapshotReader::new(repository.clone(), Arc::clone(index), snapshot);
            Some(OpenParent::new(reader, parent.begun))
        }
        Err(error) => {
            tracing::warn!(%error, "failed to read the backup before: it is as if there were none");
            None
        }
    }
}

/// A file's chunks so far.
#[derive(Default)]
struct Collected {
    bytes: u64,
    uploaded: u64,
    content: Vec<Id>,
}
