//! Locks: writers share, pruning is alone.
//!
//! To take one: list, write ours, wait, list again, and remove ours when another excludes it. Of two who come at the same
//! moment the one who writes later sees the other, wherever a listing shows all that was written before it; the wait is
//! for stores that show it later. It is refreshed (a new file, then the old one removed) every five minutes and belongs to
//! nobody after thirty. Stock restic follows the same protocol, so both may work side by side.

use crate::limits::{LOCK_REFRESH, LOCK_SETTLE, LOCK_STALE, LOCK_VALID};
use crate::{Id, MasterKey, RepoError, RepoErrorKind, Result, Store, document, origin::Origin};
use backstay_core::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::OnceCell;

/// What a lock excludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// For reading and adding: excludes exclusive locks alone.
    Shared,
    /// For removing: excludes every other lock.
    Exclusive,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LockFile {
    time: String,
    exclusive: bool,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
}

impl LockFile {
    pub(crate) fn now(kind: LockKind) -> Self {
        let origin = Origin::here();
        Self {
            time: Timestamp::from(SystemTime::now()).to_string(),
            exclusive: kind == LockKind::Exclusive,
            hostname: origin.hostname,
            username: origin.username,
            pid: origin.pid,
            uid: origin.uid,
            gid: origin.gid,
        }
    }

    pub(crate) fn holder(&self) -> String {
        format!("{}@{} (process {}) since {}", self.username, self.hostname, self.pid, self.time)
    }

    fn age(&self) -> Duration {
        let time = self.time.parse().unwrap_or(Timestamp::EPOCH);
        let now = Timestamp::from(SystemTime::now());
        Duration::from_micros(now.as_micros().saturating_sub(time.as_micros()))
    }

    /// Whether its holder is gone for certain, or for long enough.
    pub(crate) fn is_stale(&self) -> bool {
        self.age() > LOCK_STALE || (self.hostname == Origin::here().hostname && !is_alive(self.pid))
    }
}

fn is_alive(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return false };
    // Anything else, such as another user's process, is alive.
    rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
}

/// A lock that we hold.
///
/// [`Lock::release`] gives it back; dropping tries to, as far as the runtime still lives.
pub struct Lock {
    held: Arc<Held>,
    refresher: tokio::task::JoinHandle<()>,
    /// Set once we have looked whether another came at the same moment.
    settled: OnceCell<()>,
}

struct Held {
    store: Store,
    key: Arc<MasterKey>,
    kind: LockKind,
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
struct State {
    /// Our file; nothing once it is released.
    id: Option<Id>,
    /// When that file was written, by the wall clock: a machine that slept must notice.
    written: SystemTime,
    /// Somebody removed it.
    lost: bool,
}

impl Lock {
    /// Takes a lock, removing stale ones in its way.
    pub(crate) async fn take(store: &Store, key: &Arc<MasterKey>, kind: LockKind) -> Result<Lock> {
        let lock = Self::begin(store, key, kind).await?;
        lock.settle().await?;
        Ok(lock)
    }

    /// The same without the pause that tells whether another came at the same moment. Nothing may be committed or
    /// removed before [`Lock::settle`] has answered; objects that nothing refers to yet may be written.
    pub(crate) async fn begin(store: &Store, key: &Arc<MasterKey>, kind: LockKind) -> Result<Lock> {
        refuse_conflicts(store, key, kind, None).await?;
        let written = SystemTime::now();
        let id = document::save(store, key, "locks", &LockFile::now(kind)).await?;
        let state = Mutex::new(State { id: Some(id), written, lost: false });
        let held = Arc::new(Held { store: store.clone(), key: Arc::clone(key), kind, state });
        let refresher = tokio::spawn(Arc::clone(&held).refresh_forever());
        Ok(Lock { held, refresher, settled: OnceCell::new() })
    }

    /// Waits until whoever came at the same moment can be seen, and looks.
    ///
    /// # Errors
    /// [`RepoErrorKind::Locked`]: our lock is given back then.
    pub async fn settle(&self) -> Result<()> {
        let look = || async {
            let Held { store, key, kind, .. } = &*self.held;
            // To be alone always takes its time: so has whoever lost a lock unheard, to end what the last look allowed.
            if *kind == LockKind::Exclusive || !store.shows_at_once().await {
                tokio::time::sleep(LOCK_SETTLE).await;
            }
            let own = self.held.state().id;
            if let Err(conflict) = refuse_conflicts(store, key, *kind, own).await {
                self.give_back().await?;
                return Err(conflict);
            }
            Ok(())
        };
        self.settled.get_or_try_init(look).await.copied()
    }

    /// What it excludes.
    pub fn kind(&self) -> LockKind {
        self.held.kind
    }

    /// Whether nobody can have taken it from us, as far as we know without asking the store.
    pub fn is_valid(&self) -> bool {
        self.held.valid().is_some()
    }

    /// Asks the store whether we still hold it when so much time went by that another may have taken it. To be called
    /// before each of many objects is removed: whoever slept must notice.
    ///
    /// # Errors
    /// [`RepoErrorKind::LockLost`].
    pub(crate) async fn check_valid(&self) -> Result<()> {
        if self.is_valid() { Ok(()) } else { self.confirm().await }
    }

    /// Asks the store whether we still hold it. To be called before anything is committed.
    ///
    /// # Errors
    /// [`RepoErrorKind::LockLost`].
    pub async fn confirm(&self) -> Result<()> {
        self.settle().await?;
        // A refresh may replace the file while we ask: then ask for the new one.
        for _ in 0..3 {
            let Some(id) = self.held.valid() else { break };
            if self.held.store.exists(&id.key("locks")).await? {
                return Ok(());
            }
            let mut state = self.held.state();
            state.lost |= state.id == Some(id);
        }
        Err(RepoError::new(RepoErrorKind::LockLost, "our lock on the repository was lost")
            .advise("nothing was committed; start again"))
    }

    /// Gives it back.
    ///
    /// # Errors
    /// Whatever the store reports; the lock is stale after 30 minutes then.
    pub async fn release(self) -> Result<()> {
        self.give_back().await
    }

    /// As [`Lock::release`], where several hold on to it.
    ///
    /// # Errors
    /// As [`Lock::release`].
    pub async fn give_back(&self) -> Result<()> {
        self.refresher.abort();
        let id = self.held.state().id.take();
        match id {
            Some(id) => self.held.store.delete(&id.key("locks")).await,
            None => Ok(()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.refresher.abort();
        let id = self.held.state().id.take();
        if let (Some(id), Ok(runtime)) = (id, tokio::runtime::Handle::try_current()) {
            let store = self.held.store.clone();
            runtime.spawn(async move { store.delete(&id.key("locks")).await });
        }
    }
}

impl Held {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is plain data, whole whatever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Our file, as long as nobody can have taken the lock from us.
    fn valid(&self) -> Option<Id> {
        let state = self.state();
        let young = state.written.elapsed().is_ok_and(|age| age < LOCK_VALID);
        state.id.filter(|_| young && !state.lost)
    }

    async fn refresh_forever(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOCK_REFRESH).await;
            match self.refresh().await {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!("our lock on the repository was removed by somebody else");
                    return;
                }
                // The next turn tries again; LOCK_VALID ends it.
                Err(error) => tracing::warn!(%error, "failed to refresh our lock on the repository"),
            }
        }
    }

    /// Replaces our file by a fresh one; whether we still held it.
    async fn refresh(&self) -> Result<bool> {
        let Some(old) = self.state().id else { return Ok(false) };
        if !self.store.exists(&old.key("locks")).await? {
            self.state().lost = true;
            return Ok(false);
        }
        let written = SystemTime::now();
        let new = document::save(&self.store, &self.key, "locks", &LockFile::now(self.kind)).await?;
        let released = {
            let mut state = self.state();
            let released = state.id.is_none();
            if !released {
                (state.id, state.written) = (Some(new), written);
            }
            released
        };
        self.store.delete(&if released { new } else { old }.key("locks")).await?;
        Ok(!released)
    }
}

/// Fails when a lock that is not stale excludes `kind`.
async fn refuse_conflicts(store: &Store, key: &MasterKey, kind: LockKind, ours: Option<Id>) -> Result<()> {
    for (id, lock) in load_all(store, key).await? {
        if Some(id) == ours || (kind == LockKind::Shared && !lock.exclusive) {
            continue;
        }
        if lock.is_stale() {
            tracing::info!(lock = %id.short(), host = lock.hostname, pid = lock.pid, "removing a stale lock");
            store.delete(&id.key("locks")).await?;
            continue;
        }
        let word = if lock.exclusive { "exclusively " } else { "" };
        let what = format!("the repository is locked {word}by {}", lock.holder());
        return Err(RepoError::new(RepoErrorKind::Locked, what)
            .advise("wait for it, or when you know that it is gone: backstay repo unlock NAME --remove-all"));
    }
    Ok(())
}

/// A lock, as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockInfo {
    /// Its name.
    pub id: Id,
    /// Who holds it, on which machine, in which process, since when: nothing where it cannot be read.
    pub holder: Option<String>,
}

/// The locks that [`unlock`] removes: stale ones, or all, also those that cannot be read.
pub(crate) async fn removable(store: &Store, key: &MasterKey, all: bool) -> Result<Vec<LockInfo>> {
    let mut found = Vec::new();
    for id in store.list("locks").await?.iter().filter_map(|object| Id::from_key(&object.key)) {
        let holder = match document::load::<LockFile>(store, key, "locks", id).await {
            Ok(lock) if all || lock.is_stale() => Some(lock.holder()),
            Err(error) if all && error.kind() != RepoErrorKind::NotFound => None,
            Ok(_) => continue,
            Err(error) if error.kind() == RepoErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        found.push(LockInfo { id, holder });
    }
    Ok(found)
}

/// Removes stale locks, or all; yields which.
pub(crate) async fn unlock(store: &Store, key: &MasterKey, all: bool) -> Result<Vec<LockInfo>> {
    let found = removable(store, key, all).await?;
    for lock in &found {
        store.delete(&lock.id.key("locks")).await?;
    }
    Ok(found)
}

/// All locks. One that vanishes while we look is given back or refreshed: a refreshed one is in the next listing. What a
/// store goes on listing though it is gone is asked for once.
async fn load_all(store: &Store, key: &MasterKey) -> Result<Vec<(Id, LockFile)>> {
    let mut known = BTreeMap::new();
    loop {
        let listed: Vec<Id> =
            store.list("locks").await?.iter().filter_map(|object| Id::from_key(&object.key)).collect();
        if load_missing(store, key, &listed, &mut known).await? {
            return Ok(listed.iter().filter_map(|id| Some((*id, known.remove(id)??))).collect());
        }
    }
}

/// Reads those of `listed` that are not `known` yet, nothing where one is gone; whether all these were still there.
async fn load_missing(
    store: &Store,
    key: &MasterKey,
    listed: &[Id],
    known: &mut BTreeMap<Id, Option<LockFile>>,
) -> Result<bool> {
    let mut all = true;
    for id in listed {
        if known.contains_key(id) {
            continue;
        }
        let lock = match document::load(store, key, "locks", *id).await {
            Ok(lock) => Some(lock),
            Err(error) if error.kind() == RepoErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        all &= lock.is_some();
        known.insert(*id, lock);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn store() -> (Store, Arc<MasterKey>) {
        let objects = Arc::new(object_store::memory::InMemory::new());
        (Store::from_object_store(objects, "memory"), Arc::new(MasterKey::random()))
    }

    #[tokio::test]
    async fn writers_share_and_pruning_is_alone() {
        let (store, key) = store();
        let one = Lock::take(&store, &key, LockKind::Shared).await.unwrap();
        let two = Lock::take(&store, &key, LockKind::Shared).await.unwrap();
        let error = Lock::take(&store, &key, LockKind::Exclusive).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), RepoErrorKind::Locked);
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        one.release().await.unwrap();
        two.release().await.unwrap();
        let alone = Lock::take(&store, &key, LockKind::Exclusive).await.unwrap();
        assert!(Lock::take(&store, &key, LockKind::Shared).await.is_err());
        alone.release().await.unwrap();
        assert_eq!(store.list("locks").await.unwrap(), []);
    }

    #[tokio::test]
    async fn stale_locks_do_not_stand_in_the_way() {
        let (store, key) = store();
        let mut old = LockFile::now(LockKind::Exclusive);
        old.hostname = "elsewhere".into();
        old.time = Timestamp::from(SystemTime::now() - LOCK_STALE - Duration::from_secs(5)).to_string();
        document::save(&store, &key, "locks", &old).await.unwrap();
        let mut dead = LockFile::now(LockKind::Exclusive);
        dead.pid = 0x7fff_fff0;
        document::save(&store, &key, "locks", &dead).await.unwrap();
        Lock::take(&store, &key, LockKind::Exclusive).await.unwrap().release().await.unwrap();
        let mut fresh = dead;
        fresh.hostname = "elsewhere".into();
        document::save(&store, &key, "locks", &fresh).await.unwrap();
        assert!(Lock::take(&store, &key, LockKind::Shared).await.is_err());
        assert_eq!(unlock(&store, &key, false).await.unwrap(), []);
        assert_eq!(removable(&store, &key, true).await.unwrap().len(), 1);
        assert_eq!(unlock(&store, &key, true).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_refreshed_lock_stays_ours_and_a_removed_one_is_noticed() {
        let (store, key) = store();
        let lock = Lock::take(&store, &key, LockKind::Shared).await.unwrap();
        let before = lock.held.state().id;
        assert!(lock.held.refresh().await.unwrap());
        assert_ne!(lock.held.state().id, before);
        assert_eq!(store.list("locks").await.unwrap().len(), 1);
        lock.confirm().await.unwrap();
        unlock(&store, &key, true).await.unwrap();
        assert_eq!(lock.confirm().await.unwrap_err().kind(), RepoErrorKind::LockLost);
        assert!(!lock.is_valid());
        assert!(!lock.held.refresh().await.unwrap());
    }

    #[tokio::test]
    async fn a_lock_that_was_refreshed_after_the_listing_is_looked_for_again() {
        let (store, key) = store();
        let lock = Lock::take(&store, &key, LockKind::Exclusive).await.unwrap();
        let before = lock.held.state().id.unwrap();
        let other = document::save(&store, &key, "locks", &LockFile::now(LockKind::Shared)).await.unwrap();
        lock.held.refresh().await.unwrap();
        let mut known = BTreeMap::new();
        assert!(!load_missing(&store, &key, &[before, other], &mut known).await.unwrap());
        assert!(known[&other].is_some());
        let after = lock.held.state().id.unwrap();
        // Though the store lists late that one is gone, there is an end.
        assert!(load_missing(&store, &key, &[before, other, after], &mut known).await.unwrap());
        assert!(known[&after].as_ref().unwrap().exclusive);
        assert!(known[&before].is_none());
        // One that was given back is not there.
        store.delete(&other.key("locks")).await.unwrap();
        assert_eq!(load_all(&store, &key).await.unwrap().len(), 1);
    }
}
