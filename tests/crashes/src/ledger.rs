//! What clients were told: it must be true for ever.

use backstay_core::{BackupId, Gap, Segment};
use backstay_repo::LockKind;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A backup's files by path.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A backup that somebody is making, or has made.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Who makes it; its snapshot carries that as a tag.
    pub maker: u64,
    /// What is in it.
    pub files: Files,
    /// Set once it was acknowledged.
    pub id: Option<BackupId>,
    /// Somebody asked for it to be removed: it may be there or not.
    pub forgotten: bool,
    /// Part of it was lost before anything began: what was whole of it is all that anybody can have. The id that it had.
    pub holed: Option<BackupId>,
}

/// A piece of log that was acknowledged, and whose bytes it has.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    /// The server it came from.
    pub server: u64,
    /// The piece.
    pub piece: Segment,
}

/// What was promised so far.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    /// Backups.
    pub backups: Vec<Kept>,
    /// Log.
    pub log: Vec<Acknowledged>,
    /// By epoch, how far an archiver told its server that the log is kept, as it found it when it started.
    pub told: BTreeMap<u64, u64>,
    /// By epoch, what lies before this may be gone.
    pub cut: BTreeMap<u64, u64>,
    /// They are those of a copy: it may have got no further when log went that nobody needs, and go on behind it.
    pub of_copy: bool,
    /// By maker, the backups that were acknowledged to be in the second repository too.
    pub copied: BTreeMap<u64, BackupId>,
    /// By epoch, how far the log was acknowledged to be there too.
    pub copied_log: BTreeMap<u64, u64>,
    /// There is a repository.
    pub initialised: bool,
    /// Merged pieces of log may be damaged: then their parts are still there.
    pub torn: bool,
    /// What went wrong already while it ran.
    pub violations: Vec<String>,
    holders: Vec<(usize, LockKind)>,
}

/// What was promised, shared by all clients.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Promises>);

impl Promises {
    /// From where on an epoch's log must be there.
    pub fn needed_from(&self, epoch: u64) -> u64 {
        self.cut.get(&epoch).copied().unwrap_or(0)
    }

    /// Whether a gap is one that a copy may have.
    pub fn may_have(&self, gap: &Gap) -> bool {
        self.of_copy && gap.from.epoch == gap.to.epoch && gap.to.offset <= self.needed_from(gap.to.epoch)
    }

    /// What the second repository must hold: what was copied, and nothing that nobody made.
    pub fn of_copies(&self) -> Self {
        let mut copies = self.clone();
        for kept in &mut copies.backups {
            kept.id = self.copied.get(&kept.maker).cloned();
            // Whoever forgets a backup forgets it in the first one.
            kept.forgotten = false;
        }
        let reached = |epoch: u64| self.copied_log.get(&epoch).copied().unwrap_or(0);
        copies.log.retain(|told| told.piece.end.offset <= reached(told.piece.start.epoch));
        copies.told = self.copied_log.clone();
        copies.of_copy = true;
        copies
    }
}

impl Ledger {
    /// One that goes on from what was promised before.
    pub fn new(promises: Promises) -> Self {
        Self(Mutex::new(promises))
    }

    fn promises(&self) -> MutexGuard<'_, Promises> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it is now.
    pub fn snapshot(&self) -> Promises {
        self.promises().clone()
    }

    /// Something that must not be.
    pub fn violated(&self, what: impl Into<String>) {
        self.promises().violations.push(what.into());
    }

    /// `maker` is about to commit a backup of these files.
    pub fn intends(&self, maker: u64, files: Files) {
        self.promises().backups.push(Kept { maker, files, id: None, forgotten: false, holed: None });
    }

    /// It was told that its backup is kept.
    pub fn committed(&self, maker: u64, id: BackupId) {
        if let Some(kept) = self.promises().backups.iter_mut().find(|kept| kept.maker == maker) {
            kept.id = Some(id);
        }
    }

    /// It is about to be removed.
    pub fn forgets(&self, maker: u64) {
        if let Some(kept) = self.promises().backups.iter_mut().find(|kept| kept.maker == maker) {
            kept.forgotten = true;
        }
    }

    /// Part of it is lost.
    pub fn holed(&self, maker: u64) {
        if let Some(kept) = self.promises().backups.iter_mut().find(|kept| kept.maker == maker) {
            kept.holed = kept.id.clone();
        }
    }

    /// A repair was told that what is whole of `backup` lies in another one; nothing where nothing was whole.
    pub fn salvaged(&self, backup: &BackupId, salvaged: Option<BackupId>) {
        let mut promises = self.promises();
        // After a power cut the old one may be there once more.
        match (promises.backups.iter_mut().find(|kept| kept.holed.as_ref() == Some(backup)), salvaged) {
            (Some(kept), Some(id)) => kept.id = Some(id),
            (_, salvaged) => {
                promises.violations.push(format!("{} became {salvaged:?} by a repair", backup.short()));
            }
        }
    }

    /// A piece was acknowledged.
    pub fn acknowledged(&self, server: u64, piece: Segment) {
        self.promises().log.push(Acknowledged { server, piece });
    }

    /// A server was told that the log is kept up to here.
    pub fn told(&self, epoch: u64, end: u64) {
        let mut promises = self.promises();
        let told = promises.told.entry(epoch).or_default();
        *told = end.max(*told);
    }

    /// Log of this epoch before `offset` is about to be removed.
    pub fn trims(&self, epoch: u64, offset: u64) {
        self.promises().cut.insert(epoch, offset);
    }

    /// The second repository has that backup too.
    pub fn copied(&self, maker: u64, id: BackupId) {
        self.promises().copied.insert(maker, id);
    }

    /// It has the log up to here.
    pub fn copied_log(&self, epoch: u64, end: u64) {
        let mut promises = self.promises();
        let reached = promises.copied_log.entry(epoch).or_default();
        *reached = end.max(*reached);
    }

    /// There is a repository now.
    pub fn initialised(&self) {
        self.promises().initialised = true;
    }

    /// A client believes that it holds a lock.
    pub fn enters(&self, client: usize, kind: LockKind) {
        let mut promises = self.promises();
        let excluded = |held: LockKind| kind == LockKind::Exclusive || held == LockKind::Exclusive;
        if let Some((other, held)) = promises.holders.iter().copied().find(|(_, held)| excluded(*held)) {
            let what = format!("client {client} holds a lock ({kind:?}) beside client {other} ({held:?})");
            promises.violations.push(what);
        }
        promises.holders.push((client, kind));
    }

    /// It no longer does.
    pub fn leaves(&self, client: usize) {
        self.promises().holders.retain(|(holder, _)| *holder != client);
    }
}
