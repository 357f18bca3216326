//! What is on the store before a scenario begins.

use crate::job::{Job, Place, Surroundings};
use crate::ledger::{Ledger, Promises};
use crate::world::{AUDITOR, Medium, Objects, World};
use backstay_repo::{Id, InitOptions, KdfCost, Password, Repository, Unlocked};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

/// What opens a repository.
#[derive(Clone, Debug)]
pub struct Keys {
    key_id: Id,
    master_key: Arc<str>,
}

impl Keys {
    /// In the form that a job gets it.
    pub fn unlocked(&self) -> Unlocked {
        Unlocked { key_id: self.key_id, master_key: self.master_key.to_string().into() }
    }

    /// Those of an open repository.
    pub fn of(repository: &Repository) -> Self {
        let unlocked = repository.unlocked();
        Self { key_id: unlocked.key_id, master_key: unlocked.master_key.as_str().into() }
    }
}

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Nothing at all.
    Nothing,
    /// A repository without a log.
    Fresh,
    /// The same, a backup that may go, and what is left of one that was forgotten.
    Littered,
    /// A backup, and ten pieces of log from two hours ago.
    Used,
    /// The same, without its index.
    Unindexed,
    /// The same, and a second backup of which a pack was lost; the index knows of it.
    Holed,
    /// A backup, ten pieces of log, and a pack whose header is not what was written: nothing is lost.
    Rotten,
    /// A backup, four pieces of log, and a second repository, below [`crate::job::SECOND`].
    Paired,
}

/// A store as a scenario finds it.
#[derive(Clone)]
pub struct Stage {
    /// What lies there.
    pub objects: Objects,
    /// What opens it.
    pub keys: Keys,
    /// What opens the second one.
    pub second: Option<Keys>,
    /// What was promised.
    pub promises: Promises,
    /// When the scenario begins.
    pub now: SystemTime,
}

/// Makers of the backups that are there before.
pub const BASE_MAKER: u64 = 1_000;

/// The maker of the backup that may go.
pub const LITTER_MAKER: u64 = 1_001;

/// The store that a scenario begins with. Made once.
pub fn stage(before: Before) -> &'static Stage {
    static STAGES: OnceLock<Vec<Stage>> = OnceLock::new();
    let all = [
        Before::Nothing,
        Before::Fresh,
        Before::Littered,
        Before::Used,
        Before::Unindexed,
        Before::Holed,
        Before::Rotten,
        Before::Paired,
    ];
    &STAGES.get_or_init(|| all.into_iter().map(make).collect())[before as usize]
}

fn make(before: Before) -> Stage {
    let runtime = runtime();
    runtime.block_on(async {
        let now = SystemTime::now();
        let world = Arc::new(World::new(Medium::Objects, Objects::new(), 0, now));
        let front = crate::front::Front::new(Arc::clone(&world), AUDITOR);
        let store = backstay_repo::Store::from_object_store(Arc::new(front), "simulated");
        let options = InitOptions { kdf: KdfCost::TRIVIAL };
        let repository = Repository::init(store, &Password::new(crate::job::PASSWORD), options).await;
        let keys = Keys::of(&repository.expect("a repository is made where nothing is"));
        let ledger = Arc::new(Ledger::default());
        let mut client = Surroundings {
            client: AUDITOR,
            maker: BASE_MAKER,
            world: Arc::clone(&world),
            place: Place::First,
            keys: keys.clone(),
            second: None,
            ledger: Arc::clone(&ledger),
        };
        if before == Before::Paired {
            let place = Surroundings { place: Place::Second, ..client.clone() };
            let second = Repository::init(place.store(), &Password::new(crate::job::PASSWORD), options).await;
            client.second = Some(Keys::of(&second.expect("a repository is made where nothing is")));
        }
        let second = client.second.clone();
        if !matches!(before, Before::Nothing | Before::Fresh) {
            if before == Before::Littered {
                // Forgotten twice: the first one leaves packs that are used in part, or not at all.
                for job in [Job::Backup, Job::Forget, Job::Backup] {
                    Surroundings { maker: LITTER_MAKER, ..client.clone() }.run(job, false).await;
                }
            }
            client.clone().run(Job::First, false).await;
            // What a copy takes long for adds crash points that are all alike.
            let pieces = if before == Before::Paired { 4 } else { 10 };
            client.clone().run(Job::Archive { server: 0, pieces }, false).await;
            if before == Before::Holed {
                lose_a_pack(&client).await;
            }
        }
        let promises = ledger.snapshot();
        assert!(promises.violations.is_empty(), "{:?}", promises.violations);
        let mut objects = if before == Before::Nothing { Objects::new() } else { world.objects() };
        if before == Before::Unindexed {
            objects.retain(|key, _| !key.starts_with("index/"));
        }
        if before == Before::Rotten {
            let packs = objects.iter_mut().filter(|(key, _)| key.starts_with("data/"));
            let (_, pack) = packs.max_by_key(|(_, pack)| pack.bytes.len()).expect("a backup has packs");
            let mut rotten = pack.bytes.to_vec();
            let in_the_header = rotten.len() - 20;
            rotten[in_the_header] ^= 1;
            pack.bytes = rotten.into();
        }
        for object in objects.values_mut() {
            object.modified = now - Duration::from_secs(7200);
        }
        Stage { objects, keys, second, promises, now }
    })
}

/// Makes a backup, and loses what only it has: the largest of its packs, which holds no tree.
async fn lose_a_pack(client: &Surroundings) {
    let packs = |objects: Objects| objects.into_iter().filter(|(key, _)| key.starts_with("data/"));
    let before = client.world.objects();
    Surroundings { maker: LITTER_MAKER, ..client.clone() }.run(Job::Backup, false).await;
    let added = packs(client.world.objects()).filter(|(key, _)| !before.contains_key(key));
    let (lost, _) = added.max_by_key(|(_, pack)| pack.bytes.len()).expect("a backup has packs");
    client.store().delete(&lost).await.expect("nothing goes wrong before a scenario");
    client.clone().run(Job::RepairIndex, false).await;
    client.ledger.holed(LITTER_MAKER);
}

/// A runtime on one thread whose clock moves only when there is nothing else to do.
pub fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime without I/O needs nothing")
}
