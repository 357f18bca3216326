//! What clients do: each is one process of ours with one job.

use crate::front::Front;
use crate::ledger::{Files, Ledger, Promises};
use crate::seed::noise;
use crate::stage::{Keys, LITTER_MAKER};
use crate::world::{Client, World};
use backstay_core::{BackupId, LogNeed, Position, RelativePath, Segment, Timestamp};
use backstay_repo::log::{CompactPolicy, LogChain, LogCopyOptions, LogError};
use backstay_repo::store::Names;
use backstay_repo::{
    BackupOptions, CheckOptions, FileAttributes, IndexRepair, IndexRepairOptions, InitOptions, KdfCost, Lock, LockKind,
    Password, PruneOptions, RepoError, RepoErrorKind, Repository, RetryPolicy, SnapshotCopy, SnapshotMeta,
    SnapshotRepair, SnapshotRepairOptions, Store, StoreConfig,
};
use object_store::prefix::PrefixStore;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Stored size of a pack: two or three blobs, so that every backup has several packs.
const PACK_BYTES: usize = 1 << 10;
/// Bytes of a piece of log.
pub const PIECE_BYTES: u64 = 100;
/// The log of the first epoch is needed from here on.
const LOG_NEEDED: u64 = 350;
/// Bytes of a log file of the made-up database.
pub const FILE_BYTES: u64 = 500;
/// The server of whoever works on afterwards.
pub const LATER_SERVER: u64 = 9;
/// The target whose log it is.
pub const TARGET: &str = "shop";
/// How long a lock is held: longer than another one takes to be taken.
const HELD: Duration = Duration::from_millis(300);
/// The password of repositories that are made while it runs.
pub const PASSWORD: &str = "correct horse";

/// A job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Makes a repository.
    Init,
    /// Makes a backup of one file.
    First,
    /// Makes a backup: files that an older backup has, files that other clients put too, and its own.
    Backup,
    /// Makes a backup of nothing but what an older backup, or another client, has.
    Repeat,
    /// Makes a backup so large that its pack goes past the page cache.
    Large,
    /// Follows the log of a server for so many pieces.
    Archive {
        /// Whose bytes.
        server: u64,
        /// How many.
        pieces: u64,
    },
    /// Begins the log's next epoch here, and goes on for three pieces: a server that was promoted.
    Promote {
        /// Whose bytes.
        server: u64,
        /// Where its epoch begins.
        start: u64,
    },
    /// Merges pieces of log.
    Compact,
    /// Removes the backup of the maker [`crate::stage::LITTER_MAKER`].
    Forget,
    /// Removes all that nothing refers to, and log before [`LOG_NEEDED`].
    Prune,
    /// Takes everybody's locks away, and does that.
    UnlockAndPrune,
    /// Copies all there is into the second repository, log too: what a mirror and `repo copy` do.
    Copy,
    /// Makes an index of what packs say about themselves.
    RepairIndex,
    /// The same by every byte: writes rotten packs anew.
    RepairRotten,
    /// Makes a snapshot of what is whole of each that has holes.
    RepairSnapshots,
    /// Reads all there is, as a restore does.
    Read,
    /// Checks all there is.
    Check,
    /// Takes a lock, and holds it for a while.
    Hold(LockKind),
}

/// Where a repository lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the root of the world.
    First,
    /// In the world's folder [`SECOND`].
    Second,
    /// In a folder of this machine.
    Folder(PathBuf),
}

/// Where the second repository lies.
pub const SECOND: &str = "second";

/// A client's surroundings.
#[derive(Clone)]
pub struct Surroundings {
    /// Its number.
    pub client: Client,
    /// What its backup's snapshot is tagged with.
    pub maker: u64,
    /// The store.
    pub world: Arc<World>,
    /// Which repository is meant.
    pub place: Place,
    /// What opens it.
    pub keys: Keys,
    /// What opens the second one, where there are two.
    pub second: Option<Keys>,
    /// What it was told.
    pub ledger: Arc<Ledger>,
}

/// How a job fails.
#[derive(Debug)]
pub enum Trouble {
    /// The repository's.
    Repo(RepoError),
    /// The log's.
    Log(LogError),
}

impl From<RepoError> for Trouble {
    fn from(error: RepoError) -> Self {
        Self::Repo(error)
    }
}

impl From<LogError> for Trouble {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Repo(error) => write!(f, "{error}"),
            Self::Log(error) => write!(f, "{error}"),
        }
    }
}

impl Trouble {
    /// Whether a job may end like this though nothing is wrong: it was refused before anything was promised.
    fn is_lawful(&self, job: Job, faults: bool, promised: &Promises) -> bool {
        let kind = match self {
            Self::Log(LogError::Conflict { .. }) => return true,
            // Whoever comes second to an epoch that begins elsewhere cannot go on.
            Self::Log(LogError::Gap(_)) => return matches!(job, Job::Promote { .. }),
            Self::Log(LogError::Repo(error)) | Self::Repo(error) => error.kind(),
            Self::Log(_) => return false,
        };
        match kind {
            RepoErrorKind::Locked | RepoErrorKind::LockLost | RepoErrorKind::AlreadyExists => true,
            // A sync that fails is not tried again: nobody knows what it left.
            RepoErrorKind::Unreachable | RepoErrorKind::Store => faults,
            RepoErrorKind::Damaged => match job {
                Job::Compact => promised.torn,
                // What is used is not known before the snapshots are repaired; and what they miss may lie in packs that a dead
                // backup left, which only a repair of the index finds.
                Job::Prune | Job::RepairSnapshots => promised.backups.iter().any(|kept| kept.holed.is_some()),
                _ => false,
            },
            // Somebody else's key is there, and not yet its config.
            RepoErrorKind::Conflict => job == Job::Init,
            _ => false,
        }
    }
}

impl Surroundings {
    /// The store as this client has it.
    pub fn store(&self) -> Store {
        if let Place::Folder(folder) = &self.place {
            let config = StoreConfig::new(format!("file://{}", folder.display()));
            return Store::connect(&config).expect("it is the path of a folder");
        }
        let front = Front::new(Arc::clone(&self.world), self.client);
        // Pauses between attempts have a random length, which would make a run differ from its replay.
        let retry = RetryPolicy {
            attempts_max: 4,
            backoff_min: Duration::ZERO,
            backoff_max: Duration::ZERO,
            ..RetryPolicy::default()
        };
        let store = match self.place {
            Place::Second => {
                let below = PrefixStore::new(front.clone(), SECOND);
                Store::from_object_store(Arc::new(below), "simulated/second").with_names(Arc::new(Below(front)))
            }
            _ => Store::from_object_store(Arc::new(front.clone()), "simulated").with_names(Arc::new(front)),
        };
        store.with_retry(retry)
    }

    /// The same client, which means the second repository.
    pub fn second(&self) -> Option<Self> {
        Some(Self { place: Place::Second, keys: self.second.clone()?, second: None, ..self.clone() })
    }

    /// Opens the repository.
    pub async fn repository(&self) -> Result<Repository, RepoError> {
        Repository::open_unlocked(self.store(), &self.keys.unlocked()).await
    }

    /// Opens the log.
    pub async fn log(&self) -> Result<LogChain, Trouble> {
        let repository = self.repository().await?;
        let target = TARGET.parse().expect("it is a target's name");
        let key = Arc::clone(repository.shared_key());
        Ok(LogChain::open(self.store(), key, &repository.id().to_string(), target).await?)
    }

    /// Does a job to its end; what must not be is noted in the ledger.
    pub async fn run(self, job: Job, faults: bool) {
        let done = match job {
            Job::Init => self.init().await,
            Job::First => self.backup(files_of_first(), PACK_BYTES).await,
            Job::Backup => self.backup(files_of(self.maker), PACK_BYTES).await,
            Job::Repeat => self.backup(files_of_all(), PACK_BYTES).await,
            Job::Large => self.backup(files_large(), 32 << 20).await,
            Job::Archive { server, pieces } => self.archive(server, pieces).await,
            Job::Promote { server, start } => self.promote(server, start).await,
            Job::Compact => self.compact().await,
            Job::Forget => self.forget().await,
            Job::Prune => self.prune().await,
            Job::UnlockAndPrune => self.unlock_and_prune().await,
            Job::Copy => self.copy().await,
            Job::RepairIndex => self.repair_index(false).await,
            Job::RepairRotten => self.repair_index(true).await,
            Job::RepairSnapshots => self.repair_snapshots().await,
            Job::Read => self.read().await,
            Job::Check => self.check().await,
            Job::Hold(kind) => self.hold(kind).await,
        };
        match done {
            Err(trouble) if trouble.is_lawful(job, faults, &self.ledger.snapshot()) => {
                self.world.note(format!("{}: {trouble}", self.client))
            }
            Err(trouble) => self.ledger.violated(format!("client {} failed to {job:?}: {trouble}", self.client)),
            Ok(()) => self.world.note(format!("{}: done", self.client)),
        }
    }

    async fn init(&self) -> Result<(), Trouble> {
        let options = InitOptions { kdf: KdfCost::TRIVIAL };
        Repository::init(self.store(), &Password::new(PASSWORD), options).await?;
        self.ledger.initialised();
        Ok(())
    }

    async fn backup(&self, files: Files, pack_bytes: usize) -> Result<(), Trouble> {
        let repository = self.repository().await?;
        let options = BackupOptions { pack_bytes, ..BackupOptions::default() };
        let session = repository.backup(options).await?;
        for (path, content) in &files {
            let path = RelativePath::new(path).expect("it is a path");
            let attributes = FileAttributes { mode: 0o640, modified: Timestamp::EPOCH };
            let body = futures::stream::iter([Ok(content.clone().into())]);
            session.put_file(&path, attributes, body).await?;
        }
        self.ledger.intends(self.maker, files);
        let meta =
            SnapshotMeta { tags: vec![maker_tag(self.maker)], paths: vec!["/shop".into()], ..Default::default() };
        let committed = session.commit(meta).await?;
        self.ledger.committed(self.maker, committed.id);
        Ok(())
    }

    /// Follows a server's log from where the repository has it.
    async fn archive(&self, server: u64, pieces: u64) -> Result<(), Trouble> {
        let mut log = self.log().await?;
        log.settle().await?;
        let tail = log.tail().cloned();
        let (epoch, start) = tail.map_or((1, 0), |tail| (tail.epoch, tail.offset));
        // As a standby's position is: the server may throw away what lies before it.
        self.ledger.told(epoch, start);
        self.append(&mut log, server, epoch, start, pieces, None).await
    }

    async fn promote(&self, server: u64, start: u64) -> Result<(), Trouble> {
        let mut log = self.log().await?;
        log.settle().await?;
        let Some(tail) = log.tail().cloned() else { return Ok(()) };
        self.append(&mut log, server, tail.epoch + 1, start, 3, Some(tail)).await
    }

    async fn append(
        &self,
        log: &mut LogChain,
        server: u64,
        epoch: u64,
        mut start: u64,
        pieces: u64,
        mut follows: Option<Position>,
    ) -> Result<(), Trouble> {
        for _ in 0..pieces {
            let mut piece = piece(epoch, start);
            piece.follows = follows.take();
            let body: bytes::Bytes = log_bytes(server, epoch, start, piece.end.offset).into();
            match log.append(&piece, body.clone()).await {
                // As plugins do.
                Err(error) if error.is_retryable() => log.append(&piece, body).await?,
                other => other?,
            }
            start = piece.end.offset;
            self.ledger.acknowledged(server, piece);
        }
        Ok(())
    }

    async fn compact(&self) -> Result<(), Trouble> {
        let log = self.log().await?;
        let policy = CompactPolicy { small_pieces_max: 2, index_pieces_min: 1, ..CompactPolicy::default() };
        log.compact(&policy, self.world.now().into()).await?;
        Ok(())
    }

    async fn forget(&self) -> Result<(), Trouble> {
        let repository = self.repository().await?;
        let tag = maker_tag(LITTER_MAKER);
        let snapshots = repository.snapshots().await?;
        let ids: Vec<_> = snapshots.into_iter().filter(|one| one.tags.contains(&tag)).map(|one| one.id).collect();
        self.ledger.forgets(LITTER_MAKER);
        repository.forget(&ids, &[]).await?;
        Ok(())
    }

    async fn prune(&self) -> Result<(), Trouble> {
        let repository = self.repository().await?;
        let lock = Arc::new(repository.lock(LockKind::Exclusive).await?);
        self.ledger.enters(self.client, LockKind::Exclusive);
        let done = async {
            let options = PruneOptions { unused_percent_max: 0.0, ..PruneOptions::default() };
            let plan = repository.plan_prune(&options, &|_| {}).await?;
            repository.prune(&lock, plan, &|_| {}).await?;
            self.trim(&lock).await
        };
        let done = done.await;
        self.ledger.leaves(self.client);
        lock.give_back().await?;
        done
    }

    async fn trim(&self, lock: &Lock) -> Result<(), Trouble> {
        let log = self.log().await?;
        let from = Position { epoch: 1, offset: LOG_NEEDED, label: format!("0/{LOG_NEEDED:X}") };
        let plan = log.plan_trim(&LogNeed { from: Some(from), ..LogNeed::default() }).await?;
        self.ledger.trims(1, LOG_NEEDED);
        log.trim(lock, &plan).await?;
        Ok(())
    }

    async fn unlock_and_prune(&self) -> Result<(), Trouble> {
        self.repository().await?.unlock(true).await?;
        self.prune().await
    }

    async fn copy(&self) -> Result<(), Trouble> {
        let second = self.second().expect("a scenario with a copy has two repositories");
        let (from, to) = (self.repository().await?, second.repository().await?);
        let snapshots = from.snapshots().await?;
        let makers: BTreeMap<BackupId, u64> =
            snapshots.iter().filter_map(|one| Some((one.id.clone(), maker_of(&one.tags)?))).collect();
        let copy = SnapshotCopy::plan(&from, &to, snapshots).await?;
        let there = copy.summary().there.clone();
        let report = copy.perform(|_, _| {}).await?;
        if !report.damaged.is_empty() {
            self.ledger.violated(format!("client {} copies while others work: {:?}", self.client, report.damaged));
        }
        for copied in there.into_iter().chain(report.copied) {
            if let Some(maker) = makers.get(&copied.from) {
                self.ledger.copied(*maker, copied.to);
            }
        }
        let (ours, mut theirs) = (self.log().await?, second.log().await?);
        ours.copy_to(&mut theirs, LogCopyOptions::default(), &|_| ()).await?;
        // Told only of what was there when it began.
        for epoch in ours.chain().epochs() {
            if let Some(end) = ours.chain().end_of(epoch) {
                self.ledger.copied_log(epoch, end.offset);
            }
        }
        Ok(())
    }

    async fn repair_index(&self, read_data: bool) -> Result<(), Trouble> {
        let repository = self.repository().await?;
        let options = IndexRepairOptions { read_data };
        let repair = IndexRepair::plan(&repository, LockKind::Exclusive, options, |_, _| {}).await?;
        Ok(repair.perform().await.map(drop)?)
    }

    async fn repair_snapshots(&self) -> Result<(), Trouble> {
        let repository = self.repository().await?;
        let options = SnapshotRepairOptions::default();
        let repair = SnapshotRepair::plan(&repository, LockKind::Exclusive, options, |_, _| {}).await?;
        for repaired in repair.perform().await? {
            self.ledger.salvaged(&repaired.removed, repaired.salvaged);
        }
        Ok(())
    }

    /// All that was promised before it began must be there while others work.
    async fn read(&self) -> Result<(), Trouble> {
        let promised = self.ledger.snapshot();
        let repository = self.repository().await?;
        for what in crate::rules::backups_are_whole(&repository, &promised, || self.ledger.snapshot()).await? {
            self.ledger.violated(format!("client {} reads while others work: {what}", self.client));
        }
        let promised = self.ledger.snapshot();
        let log = self.log().await?;
        for what in crate::rules::log_is_whole(&log, &promised).await? {
            self.ledger.violated(format!("client {} reads while others work: {what}", self.client));
        }
        Ok(())
    }

    async fn check(&self) -> Result<(), Trouble> {
        let report = self.repository().await?.check(CheckOptions::everything(), |_| {}).await?;
        if !report.is_sound() {
            self.ledger.violated(format!("client {} checks while others work: {:?}", self.client, report.errors));
        }
        Ok(())
    }

    async fn hold(&self, kind: LockKind) -> Result<(), Trouble> {
        let repository = self.repository().await?;
        let lock = repository.lock(kind).await?;
        self.ledger.enters(self.client, kind);
        tokio::time::sleep(HELD).await;
        let confirmed = lock.confirm().await;
        self.ledger.leaves(self.client);
        lock.release().await?;
        Ok(confirmed?)
    }
}

/// The names below the second repository's folder.
struct Below(Front);

#[async_trait::async_trait]
impl Names for Below {
    async fn settle(&self, folder: &str) -> std::io::Result<()> {
        self.0.settle(&format!("{SECOND}/{folder}")).await
    }

    async fn show_at_once(&self) -> bool {
        self.0.show_at_once().await
    }
}

fn maker_of(tags: &[String]) -> Option<u64> {
    tags.iter().find_map(|tag| tag.strip_prefix("maker=")?.parse().ok())
}

/// The tag that says whose snapshot it is.
pub fn maker_tag(maker: u64) -> String {
    format!("maker={maker}")
}

/// The files of the client with this number: one that the first backup has, one that all have, one of its own.
pub fn files_of(maker: u64) -> Files {
    let mut files = files_of_all();
    files.insert("own/file".into(), noise(100 + maker, 900));
    files
}

/// What every client puts.
pub fn files_of_all() -> Files {
    let mut files = files_of_first();
    files.insert("shared/file".into(), noise(2, 1300));
    files
}

/// What the first backup has.
pub fn files_of_first() -> Files {
    [("base/file".into(), noise(1, 600))].into()
}

/// More than is written through the page cache.
pub fn files_large() -> Files {
    [("large/file".into(), noise(3, 5 << 20))].into()
}

fn at(epoch: u64, offset: u64) -> Position {
    Position { epoch, offset, label: format!("0/{offset:X}") }
}

/// The piece that starts here.
pub fn piece(epoch: u64, start: u64) -> Segment {
    let end = (start / PIECE_BYTES + 1) * PIECE_BYTES;
    Segment {
        start: at(epoch, start),
        end: at(epoch, end),
        follows: None,
        first_commit: None,
        last_commit: None,
        file: format!("{epoch:08X}{:016X}", start / FILE_BYTES),
        file_offset: start % FILE_BYTES,
    }
}

/// What a server's log has from `from` to `to`: another one has other bytes.
pub fn log_bytes(server: u64, epoch: u64, from: u64, to: u64) -> Vec<u8> {
    let byte = |offset: u64| {
        let word = (server << 32 ^ epoch << 16 ^ (offset / 8)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        word.to_le_bytes()[(offset % 8) as usize]
    };
    (from..to).map(byte).collect()
}
