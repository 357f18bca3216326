//! Making, opening and using a repository.

use crate::check::{CheckOptions, CheckProgress, CheckReport};
use crate::index::Index;
use crate::key::{self, KdfCost, KeyInfo};
use crate::lock::{self, Lock, LockInfo, LockKind};
use crate::read::SnapshotReader;
use crate::snapshot::{self, Snapshot};
use crate::stats::{Stats, StatsProgress};
use crate::write::{BackupOptions, BackupSession};
use crate::{Id, MasterKey, Password, RepoError, RepoErrorKind, Result, Store, document, polynomial};
use backstay_core::BackupId;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// Largest `config` that makes sense.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// How a new repository is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct InitOptions {
    /// What guessing its password costs.
    pub kdf: KdfCost,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ConfigFile {
    version: u32,
    id: Id,
    #[serde(default)]
    chunker_polynomial: String,
}

/// An open repository. Cheap to clone.
#[derive(Clone)]
pub struct Repository {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    key: Arc<MasterKey>,
    key_id: Id,
    id: Id,
    /// The index read last: most of it is the same next time.
    index: Mutex<Option<Arc<Index>>>,
}

/// What opens a repository again without its password. As secret as that; wiped when dropped, never shown.
pub struct Unlocked {
    /// Which of its keys the password opened.
    pub key_id: Id,
    /// The master key, as `restic cat masterkey` prints it.
    pub master_key: Zeroizing<String>,
}

impl std::fmt::Debug for Unlocked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Unlocked({}, …)", self.key_id.short())
    }
}

impl Repository {
    /// Makes a repository where there is none.
    ///
    /// # Errors
    /// [`RepoErrorKind::AlreadyExists`].
    pub async fn init(store: Store, password: &Password, options: InitOptions) -> Result<Self> {
        let exists = || {
            RepoError::new(
                RepoErrorKind::AlreadyExists,
                format!("failed to make a repository: {} holds one already", store.address()),
            )
        };
        if store.first_contact().exists("config").await? {
            return Err(exists());
        }
        key::clear_abandoned(&store).await?;
        if let Some(folder) = store.folder().cloned() {
            tokio::task::spawn_blocking(move || make_folders(&folder)).await??;
        }
        let key = Arc::new(MasterKey::random());
        let key_id = key::add(&store, &key, password, options.kdf).await?;
        let mut id = [0; 32];
        crate::crypto::random_bytes(&mut id);
        let config = ConfigFile {
            version: 2,
            id: Id::from_bytes(id),
            chunker_polynomial: format!("{:x}", polynomial::random()),
        };
        // The config makes it a repository, so it comes last; and only one config wins.
        let sealed = key.seal(&document::to_json(&config)?);
        if let Err(error) = store.put_new("config", sealed).await {
            if error.kind() == RepoErrorKind::AlreadyExists {
                store.delete(&key_id.key("keys")).await?;
                return Err(exists());
            }
            // It may have arrived all the same, and would be worth nothing without its key.
            return Err(error);
        }
        Ok(Self::new(store, key, key_id, config.id))
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// [`RepoErrorKind::NotFound`] when there is none, [`RepoErrorKind::WrongPassword`].
    pub async fn open(store: Store, password: &Password) -> Result<Self> {
        let sealed = read_config(&store).await?;
        let (key_id, key) = key::open(&store, password, &sealed).await?;
        Self::with_key(store, key, key_id, &sealed)
    }

    /// Opens a repository that was open before, elsewhere: without its password, and without the work that a password
    /// takes.
    ///
    /// # Errors
    /// As [`Repository::open`]; [`RepoErrorKind::Damaged`] when the key is not of this repository.
    pub async fn open_unlocked(store: Store, unlocked: &Unlocked) -> Result<Self> {
        let sealed = read_config(&store).await?;
        let key = MasterKey::from_json(unlocked.master_key.as_bytes())
            .ok_or_else(|| RepoError::new(RepoErrorKind::Internal, "failed to read the key handed over"))?;
        Self::with_key(store, key, unlocked.key_id, &sealed)
    }

    /// What opens it again.
    pub fn unlocked(&self) -> Unlocked {
        // JSON is UTF-8.
        let master_key = String::from_utf8_lossy(&self.shared.key.to_json()).into_owned();
        Unlocked { key_id: self.shared.key_id, master_key: Zeroizing::new(master_key) }
    }

    fn with_key(store: Store, key: MasterKey, key_id: Id, sealed: &[u8]) -> Result<Self> {
        let config: ConfigFile = key
            .open(sealed)
            .and_then(|json| document::from_json(&json))
            .map_err(|error| RepoError::damaged("config", error))?;
        if config.version != 2 {
            return Err(RepoError::new(
                RepoErrorKind::InvalidConfig,
                format!("failed to open {}: its format has version {}, not 2", store.address(), config.version),
            )
            .advise("convert it with `restic migrate upgrade_repo_v2`"));
        }
        Ok(Self::new(store, Arc::new(key), key_id, config.id))
    }

    fn new(store: Store, key: Arc<MasterKey>, key_id: Id, id: Id) -> Self {
        let store = store.holding_repository();
        Self { shared: Arc::new(Shared { store, key, key_id, id, index: Mutex::new(None) }) }
    }

    /// The repository's own id, for its whole life.
    pub fn id(&self) -> Id {
        self.shared.id
    }

    /// Where it lies.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// The key that everything in it is sealed with.
    pub fn master_key(&self) -> &MasterKey {
        &self.shared.key
    }

    /// The same, to be kept by what outlives this handle.
    pub fn shared_key(&self) -> &Arc<MasterKey> {
        &self.shared.key
    }

    /// Adds a password; yields its key's id.
    ///
    /// # Errors
    /// Whatever the store reports.
    pub async fn key_add(&self, password: &Password, kdf: KdfCost) -> Result<Id> {
        key::add(self.store(), self.master_key(), password, kdf).await
    }

    /// All keys, oldest first.
    ///
    /// # Errors
    /// Whatever the store reports.
    pub async fn key_list(&self) -> Result<Vec<KeyInfo>> {
        key::list(self.store(), Some(self.shared.key_id)).await
    }

    /// The key that [`Repository::key_remove`] removes.
    ///
    /// # Errors
    /// As there.
    pub async fn key_removable(&self, id_start: &str) -> Result<KeyInfo> {
        let keys = self.key_list().await?;
        let mut found = keys.iter().filter(|key| !id_start.is_empty() && key.id.to_string().starts_with(id_start));
        let refuse = |kind, why: &str| Err(RepoError::new(kind, format!("failed to remove key `{id_start}`: {why}")));
        let Some(key) = found.next() else { return refuse(RepoErrorKind::NotFound, "there is none") };
        if found.next().is_some() {
            return refuse(RepoErrorKind::Conflict, "several start like this");
        }
        if keys.len() == 1 {
            return refuse(RepoErrorKind::Conflict, "it is the last one");
        }
        if key.current {
            return refuse(RepoErrorKind::Conflict, "the repository was opened with it");
        }
        Ok(key.clone())
    }

    /// Removes a password by its key's id, or the start of one.
    ///
    /// # Errors
    /// [`RepoErrorKind::NotFound`]; [`RepoErrorKind::Conflict`] when several keys start so, or it
    /// is the one this session was opened with (so the last one always stays).
    pub async fn key_remove(&self, id_start: &str) -> Result<Id> {
        let key = self.key_removable(id_start).await?;
        self.store().delete(&key.id.key("keys")).await?;
        // Nor may a power cut bring it back.
        self.store().settle("keys").await?;
        Ok(key.id)
    }

    /// Takes a lock without the pause that tells whether another came at the same moment. To be followed by
    /// [`Lock::settle`] before anything is committed or removed; meanwhile one may read.
    ///
    /// # Errors
    /// As [`Repository::lock`].
    pub async fn begin_lock(&self, kind: LockKind) -> Result<Lock> {
        Lock::begin(self.store(), self.shared_key(), kind).await
    }

    /// Takes a lock.
    ///
    /// # Errors
    /// [`RepoErrorKind::Locked`], naming who holds one.
    pub async fn lock(&self, kind: LockKind) -> Result<Lock> {
        Lock::take(self.store(), self.shared_key(), kind).await
    }

    /// The locks that [`Repository::unlock`] removes.
    ///
    /// # Errors
    /// Whatever the store reports.
    pub async fn removable_locks(&self, all: bool) -> Result<Vec<LockInfo>> {
        lock::removable(self.store(), self.master_key(), all).await
    }

    /// Removes stale locks, or all, also those that cannot be read; yields which.
    ///
    /// # Errors
    /// Whatever the store reports.
    pub async fn unlock(&self, all: bool) -> Result<Vec<LockInfo>> {
        lock::unlock(self.store(), self.master_key(), all).await
    }

    /// All snapshots, oldest first.
    ///
    /// # Errors
    /// Whatever the store reports, [`RepoErrorKind::Damaged`].
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>> {
        snapshot::load_all(self.store(), self.master_key()).await
    }

    /// Each snapshot, in no order, or what keeps it from being read: one that is damaged hides no other.
    ///
    /// # Errors
    /// Whatever the store reports when it is asked which there are.
    pub async fn each_snapshot(&self) -> Result<Vec<(BackupId, Result<Snapshot>)>> {
        snapshot::load_each(self.store(), self.master_key()).await
    }

    /// Starts a backup: takes a shared lock and reads the index.
    ///
    /// # Errors
    /// [`RepoErrorKind::Locked`], whatever the store reports.
    pub async fn backup(&self, options: BackupOptions) -> Result<BackupSession> {
        self.backup_under(self.begin_lock(LockKind::Shared).await?, options).await
    }

    /// The same under a shared lock that was begun before.
    ///
    /// # Errors
    /// Whatever the store reports.
    pub async fn backup_under(&self, lock: Lock, options: BackupOptions) -> Result<BackupSession> {
        BackupSession::start(self, lock, options).await
    }

    /// Opens a snapshot for reading.
    ///
    /// # Errors
    /// [`RepoErrorKind::NotFound`].
    pub async fn open_snapshot(&self, id: &BackupId) -> Result<SnapshotReader> {
        // Before the index: what a snapshot needs was indexed before it was written.
        let snapshot = snapshot::load(self.store(), self.master_key(), Id::from(id)).await.map_err(|error| {
            if error.kind() == RepoErrorKind::NotFound {
                RepoError::new(RepoErrorKind::NotFound, format!("there is no backup {}", id.short()))
            } else {
                error
            }
        })?;
        let index = self.load_index().await?;
        Ok(SnapshotReader::new(self.clone(), index, snapshot))
    }

    /// Opens snapshots that [`Repository::snapshots`] listed, with one look at the index for all of them.
    ///
    /// # Errors
    /// Whatever the store reports.
    pub async fn readers(&self, snapshots: Vec<Snapshot>) -> Result<Vec<SnapshotReader>> {
        let index = self.load_index().await?;
        Ok(snapshots.into_iter().map(|snapshot| SnapshotReader::new(self.clone(), index.clone(), snapshot)).collect())
    }

    /// Checks that all there must be is there, and with `read_data` that every byte is right.
    ///
    /// # Errors
    /// Whatever keeps it from looking; what it finds is in the report.
    pub async fn check(
        &self,
        options: CheckOptions,
        progress: impl Fn(CheckProgress) + Send + Sync,
    ) -> Result<CheckReport> {
        crate::check::check(self, options, &progress).await
    }

    /// Counts what `snapshots` use, each with the number of the group it belongs to, oldest first.
    ///
    /// # Errors
    /// [`RepoErrorKind::Damaged`] when a snapshot is not whole, whatever the store reports.
    pub async fn stats(
        &self,
        snapshots: &[(Snapshot, usize)],
        progress: impl Fn(StatsProgress) + Send + Sync,
    ) -> Result<Stats> {
        crate::stats::stats(self, snapshots, &progress).await
    }

    /// The index as it is now.
    pub(crate) async fn load_index(&self) -> Result<Arc<Index>> {
        let loaded = self.kept_index().clone();
        let index = Index::load(self.store(), self.shared_key(), loaded.as_ref()).await?;
        *self.kept_index() = Some(Arc::clone(&index));
        Ok(index)
    }

    fn kept_index(&self) -> std::sync::MutexGuard<'_, Option<Arc<Index>>> {
        self.shared.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repository({} at {})", self.id().short(), self.store().address())
    }
}

async fn read_config(store: &Store) -> Result<Bytes> {
    store.first_contact().get("config", CONFIG_BYTES_MAX).await.map_err(|error| match error.kind() {
        RepoErrorKind::NotFound => {
            RepoError::new(RepoErrorKind::NotFound, format!("there is no repository at {}", store.address()))
                .advise("check the address, or make one with `repo init`")
        }
        _ => error,
    })
}

/// All folders of a local repository, for our user alone, so that no later write has to make one.
fn make_folders(root: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let failed = |error| RepoError::io(format!("failed to make the folder {}", root.display()), error);
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    let occupied = |root| std::fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some());
    if occupied(root) && !root.join("keys").is_dir() {
        return Err(RepoError::new(
            RepoErrorKind::AlreadyExists,
            format!("failed to make a repository: {} is not empty", root.display()),
        )
        .advise("name an empty folder"));
    }
    let new: Vec<&std::path::Path> = root.ancestors().take_while(|folder| !folder.exists()).collect();
    builder.create(root).map_err(failed)?;
    for folder in new {
        // The name of a new folder is durable once the one around it is synced.
        let around = folder.parent().unwrap_or(folder);
        std::fs::File::open(around).and_then(|around| around.sync_all()).map_err(failed)?;
    }
    for folder in ["keys", "locks", "snapshots", "index", "data", "logs"] {
        builder.create(root.join(folder)).map_err(failed)?;
    }
    for first in 0..=255u8 {
        builder.create(root.join("data").join(format!("{first:02x}"))).map_err(failed)?;
    }
    for folder in ["data", "."] {
        std::fs::File::open(root.join(folder)).and_then(|folder| folder.sync_all()).map_err(failed)?;
    }
    Ok(())
}
