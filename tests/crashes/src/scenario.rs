//! Who does what on which store: the table that everything is run from.

use crate::job::{Job, LATER_SERVER, Surroundings};
use crate::plan::Weather;
use crate::rules;
use crate::stage::Before;
use backstay_repo::{LockKind, Password, Repository};
use std::time::Duration;

/// One row of the table.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What is there.
    pub before: Before,
    /// Who does what, each at once with all others.
    pub jobs: &'static [Job],
    /// What may go wrong when it runs by chance.
    pub weather: Weather,
    /// Names in one answer to a listing.
    pub page: usize,
    /// How long a new name may be missing in listings.
    pub lag: Duration,
    /// Whether every order of its requests is tried.
    pub every_order: bool,
    /// Whether the first one sleeps at each of its requests.
    pub sleeps: bool,
    /// How much of what runs by chance it gets.
    pub share: usize,
}

const CALM: Weather = Weather { faults: false, kills: false, tears: false, naps: false };
const ROUGH: Weather = Weather { faults: true, kills: true, tears: false, naps: false };

const PLAIN: Scenario = Scenario {
    name: "",
    before: Before::Used,
    jobs: &[],
    weather: ROUGH,
    page: usize::MAX,
    lag: Duration::ZERO,
    every_order: false,
    sleeps: false,
    share: 2,
};

/// Longest that a listing may miss a name: the pause of a lock outlasts it.
const LAG_MAX: Duration = Duration::from_millis(190);

/// The table.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "init", before: Before::Nothing, jobs: &[Job::Init], share: 3, ..PLAIN },
    Scenario { name: "two-inits", before: Before::Nothing, jobs: &[Job::Init, Job::Init], share: 1, ..PLAIN },
    Scenario { name: "backup", jobs: &[Job::Backup], share: 1, ..PLAIN },
    Scenario { name: "first-backup", before: Before::Fresh, jobs: &[Job::Backup], share: 1, ..PLAIN },
    Scenario { name: "two-backups", jobs: &[Job::Backup, Job::Backup], share: 3, ..PLAIN },
    // The second one finds all it needs as soon as the first one's index is there.
    Scenario { name: "backup-and-repeat", jobs: &[Job::Backup, Job::Repeat], share: 3, ..PLAIN },
    // Nothing is left to be put, so nothing but a look makes durable what it relies on.
    Scenario { name: "two-repeats", jobs: &[Job::Repeat, Job::Repeat], share: 1, ..PLAIN },
    Scenario { name: "backup-and-readers", jobs: &[Job::Backup, Job::Read, Job::Check], page: 2, ..PLAIN },
    Scenario { name: "prune", before: Before::Littered, jobs: &[Job::Prune], share: 2, ..PLAIN },
    Scenario { name: "forget-and-prune", before: Before::Littered, jobs: &[Job::Forget, Job::Prune], ..PLAIN },
    Scenario {
        name: "backup-and-prune",
        before: Before::Littered,
        jobs: &[Job::Backup, Job::Prune],
        share: 3,
        ..PLAIN
    },
    // A person removes the lock of a backup that is still at work: it must notice before it promises anything. How soon
    // it notices is bound by the pause of the other one's lock, so nothing may take longer once it has looked.
    Scenario {
        name: "backup-whose-lock-is-removed",
        before: Before::Littered,
        jobs: &[Job::Backup, Job::UnlockAndPrune],
        weather: CALM,
        sleeps: true,
        share: 4,
        ..PLAIN
    },
    Scenario {
        name: "two-backups-and-prune",
        before: Before::Littered,
        jobs: &[Job::Backup, Job::Repeat, Job::Prune],
        share: 4,
        ..PLAIN
    },
    Scenario { name: "two-prunes", before: Before::Littered, jobs: &[Job::Prune, Job::Prune], share: 1, ..PLAIN },
    Scenario {
        name: "backup-and-forget",
        before: Before::Littered,
        jobs: &[Job::Backup, Job::Forget],
        share: 1,
        ..PLAIN
    },
    Scenario {
        name: "archive-backup-and-prune",
        before: Before::Littered,
        jobs: &[Job::Archive { server: 0, pieces: 2 }, Job::Backup, Job::Prune],
        ..PLAIN
    },
    Scenario {
        name: "archive-and-prune",
        before: Before::Littered,
        jobs: &[Job::Archive { server: 0, pieces: 2 }, Job::Prune],
        share: 1,
        ..PLAIN
    },
    Scenario { name: "copy", before: Before::Paired, jobs: &[Job::Copy], ..PLAIN },
    Scenario { name: "two-copies", before: Before::Paired, jobs: &[Job::Copy, Job::Copy], ..PLAIN },
    Scenario { name: "backup-and-copy", before: Before::Paired, jobs: &[Job::Backup, Job::Copy], ..PLAIN },
    Scenario {
        name: "two-backups-and-copy",
        before: Before::Paired,
        jobs: &[Job::Backup, Job::Repeat, Job::Copy],
        ..PLAIN
    },
    Scenario {
        name: "archive-backup-and-copy",
        before: Before::Paired,
        jobs: &[Job::Archive { server: 0, pieces: 2 }, Job::Backup, Job::Copy],
        share: 1,
        ..PLAIN
    },
    Scenario { name: "forget-and-copy", before: Before::Paired, jobs: &[Job::Copy, Job::Forget], share: 1, ..PLAIN },
    Scenario { name: "prune-and-copy", before: Before::Paired, jobs: &[Job::Prune, Job::Copy], share: 1, ..PLAIN },
    Scenario {
        name: "archive-compaction-and-copy",
        before: Before::Paired,
        jobs: &[Job::Archive { server: 0, pieces: 3 }, Job::Compact, Job::Copy],
        share: 3,
        ..PLAIN
    },
    Scenario { name: "repair", before: Before::Unindexed, jobs: &[Job::RepairIndex], share: 1, ..PLAIN },
    Scenario { name: "two-repairs", before: Before::Unindexed, jobs: &[Job::RepairIndex, Job::RepairIndex], ..PLAIN },
    Scenario { name: "backup-and-repair", before: Before::Unindexed, jobs: &[Job::Backup, Job::RepairIndex], ..PLAIN },
    Scenario {
        name: "two-backups-and-repair",
        before: Before::Unindexed,
        jobs: &[Job::Backup, Job::Repeat, Job::RepairIndex],
        share: 1,
        ..PLAIN
    },
    Scenario {
        name: "archive-backup-and-repair",
        before: Before::Unindexed,
        jobs: &[Job::Archive { server: 0, pieces: 2 }, Job::Backup, Job::RepairIndex],
        share: 1,
        ..PLAIN
    },
    Scenario {
        name: "archive-and-repair",
        before: Before::Unindexed,
        jobs: &[Job::Archive { server: 0, pieces: 2 }, Job::RepairIndex],
        share: 1,
        ..PLAIN
    },
    Scenario { name: "prune-and-repair", before: Before::Littered, jobs: &[Job::Prune, Job::RepairIndex], ..PLAIN },
    Scenario {
        name: "copy-and-repair",
        before: Before::Paired,
        jobs: &[Job::Copy, Job::RepairIndex],
        share: 1,
        ..PLAIN
    },
    Scenario { name: "rot-repair", before: Before::Rotten, jobs: &[Job::RepairRotten], share: 1, ..PLAIN },
    Scenario {
        name: "two-rot-repairs",
        before: Before::Rotten,
        jobs: &[Job::RepairRotten, Job::RepairRotten],
        share: 1,
        ..PLAIN
    },
    Scenario {
        name: "backup-and-rot-repair",
        before: Before::Rotten,
        jobs: &[Job::Backup, Job::RepairRotten],
        share: 1,
        ..PLAIN
    },
    Scenario {
        name: "prune-and-rot-repair",
        before: Before::Rotten,
        jobs: &[Job::Prune, Job::RepairRotten],
        share: 1,
        ..PLAIN
    },
    Scenario { name: "snapshot-repair", before: Before::Holed, jobs: &[Job::RepairSnapshots], share: 1, ..PLAIN },
    Scenario {
        name: "two-snapshot-repairs",
        before: Before::Holed,
        jobs: &[Job::RepairSnapshots, Job::RepairSnapshots],
        ..PLAIN
    },
    Scenario {
        name: "backup-and-snapshot-repair",
        before: Before::Holed,
        jobs: &[Job::Backup, Job::RepairSnapshots],
        ..PLAIN
    },
    Scenario {
        name: "index-and-snapshot-repair",
        before: Before::Holed,
        jobs: &[Job::RepairIndex, Job::RepairSnapshots],
        share: 1,
        ..PLAIN
    },
    Scenario {
        name: "prune-and-snapshot-repair",
        before: Before::Holed,
        jobs: &[Job::Prune, Job::RepairSnapshots],
        share: 1,
        ..PLAIN
    },
    Scenario {
        name: "archive-and-snapshot-repair",
        before: Before::Holed,
        jobs: &[Job::Archive { server: 0, pieces: 2 }, Job::RepairSnapshots],
        share: 1,
        ..PLAIN
    },
    Scenario { name: "archive", jobs: &[Job::Archive { server: 0, pieces: 4 }], share: 1, ..PLAIN },
    Scenario {
        name: "first-archive",
        before: Before::Fresh,
        jobs: &[Job::Archive { server: 0, pieces: 3 }],
        share: 1,
        ..PLAIN
    },
    Scenario { name: "archive-and-backup", jobs: &[Job::Archive { server: 0, pieces: 3 }, Job::Backup], ..PLAIN },
    // It looks how far the log is kept, and tells its server.
    Scenario {
        name: "archive-and-look",
        jobs: &[Job::Archive { server: 0, pieces: 2 }, Job::Archive { server: 0, pieces: 0 }],
        share: 1,
        ..PLAIN
    },
    // The same server's archiver, started again while the old one still runs.
    Scenario {
        name: "archive-again",
        jobs: &[Job::Archive { server: 0, pieces: 3 }, Job::Archive { server: 0, pieces: 3 }],
        ..PLAIN
    },
    Scenario {
        name: "two-archivers",
        jobs: &[Job::Archive { server: 0, pieces: 2 }, Job::Archive { server: 7, pieces: 2 }],
        ..PLAIN
    },
    Scenario {
        name: "two-promoted",
        jobs: &[Job::Promote { server: 0, start: 1000 }, Job::Promote { server: 7, start: 930 }],
        share: 4,
        ..PLAIN
    },
    Scenario { name: "archive-and-compaction", jobs: &[Job::Archive { server: 0, pieces: 3 }, Job::Compact], ..PLAIN },
    Scenario { name: "two-compactions", jobs: &[Job::Compact, Job::Compact], ..PLAIN },
    // Merged pieces are read back before their parts go, so damage is found and nothing is lost.
    Scenario {
        name: "torn-compactions",
        jobs: &[Job::Compact, Job::Compact, Job::Archive { server: 0, pieces: 1 }],
        weather: Weather { tears: true, ..ROUGH },
        ..PLAIN
    },
    Scenario {
        name: "compaction-and-readers",
        jobs: &[Job::Compact, Job::Read, Job::Archive { server: 0, pieces: 2 }],
        page: 3,
        share: 3,
        ..PLAIN
    },
    Scenario {
        name: "pages-while-merging",
        jobs: &[Job::Compact, Job::Read],
        weather: CALM,
        page: 3,
        share: 4,
        ..PLAIN
    },
    Scenario {
        name: "archivers-that-sleep",
        jobs: &[
            Job::Archive { server: 0, pieces: 3 },
            Job::Archive { server: 7, pieces: 3 },
            Job::Compact,
            Job::Compact,
        ],
        weather: Weather { naps: true, ..ROUGH },
        sleeps: true,
        share: 4,
        ..PLAIN
    },
    // Whoever sleeps finds its place free: another one's piece was there, and was merged.
    Scenario {
        name: "archiver-that-sleeps",
        jobs: &[Job::Archive { server: 0, pieces: 2 }, Job::Archive { server: 7, pieces: 3 }, Job::Compact],
        weather: Weather { naps: true, ..ROUGH },
        sleeps: true,
        share: 1,
        ..PLAIN
    },
    Scenario {
        name: "writer-and-pruner-lock",
        before: Before::Fresh,
        weather: Weather { naps: true, ..ROUGH },
        sleeps: true,
        jobs: &[Job::Hold(LockKind::Shared), Job::Hold(LockKind::Exclusive)],
        every_order: true,
        ..PLAIN
    },
    Scenario {
        name: "two-pruners-lock",
        before: Before::Fresh,
        jobs: &[Job::Hold(LockKind::Exclusive), Job::Hold(LockKind::Exclusive)],
        every_order: true,
        ..PLAIN
    },
    Scenario {
        name: "two-writers-and-pruner-lock",
        before: Before::Fresh,
        jobs: &[Job::Hold(LockKind::Shared), Job::Hold(LockKind::Exclusive), Job::Hold(LockKind::Shared)],
        ..PLAIN
    },
    Scenario {
        name: "locks-in-late-listings",
        before: Before::Fresh,
        jobs: &[Job::Hold(LockKind::Exclusive), Job::Hold(LockKind::Exclusive), Job::Hold(LockKind::Shared)],
        weather: CALM,
        lag: LAG_MAX,
        ..PLAIN
    },
    Scenario {
        name: "two-archivers-in-every-order",
        jobs: &[Job::Archive { server: 0, pieces: 1 }, Job::Archive { server: 7, pieces: 1 }],
        every_order: true,
        share: 0,
        ..PLAIN
    },
    Scenario {
        name: "two-promoted-in-every-order",
        jobs: &[Job::Promote { server: 0, start: 1000 }, Job::Promote { server: 7, start: 930 }],
        every_order: true,
        share: 0,
        ..PLAIN
    },
];

/// What somebody does afterwards, and what must hold then: they look, and may work on and look again.
pub async fn aftermath(scenario: &Scenario, auditor: &Surroundings, works_on: bool) -> Vec<String> {
    if scenario.before == Before::Nothing {
        return after_init(auditor).await;
    }
    let mut broken = Vec::new();
    if scenario.before == Before::Rotten {
        // Before anybody repairs anything, and whatever a repair left half done.
        broken = rules::nothing_is_missing(auditor).await;
    }
    // Whoever comes next repairs what may be half repaired.
    let repairs: &[Job] = match scenario.before {
        Before::Unindexed => &[Job::RepairIndex],
        Before::Holed => &[Job::RepairIndex, Job::RepairSnapshots],
        Before::Rotten => &[Job::RepairRotten],
        _ => &[],
    };
    for repair in repairs {
        rules::unlock(auditor).await;
        auditor.clone().run(*repair, false).await;
    }
    broken.extend(rules::all_hold(auditor).await);
    if !broken.is_empty() || !works_on {
        return broken;
    }
    let mut next = auditor.clone();
    next.maker = 2_000;
    let copy = next.second.as_ref().map(|_| Job::Copy);
    let jobs = [Job::Prune, Job::Backup, Job::Archive { server: LATER_SERVER, pieces: 2 }];
    for job in jobs.into_iter().chain(copy) {
        next.clone().run(job, false).await;
    }
    broken.extend(rules::all_hold(&next).await.into_iter().map(|what| format!("after working on: {what}")));
    broken
}

/// A repository that somebody was told of opens with its password; where there is none one can be made, be it ten
/// minutes later.
async fn after_init(auditor: &Surroundings) -> Vec<String> {
    let password = Password::new(crate::job::PASSWORD);
    let promised = auditor.ledger.snapshot();
    let repository = match Repository::open(auditor.store(), &password).await {
        Ok(repository) => repository,
        Err(error) if promised.initialised => return vec![format!("the new repository does not open: {error}")],
        Err(_) => {
            auditor.world.age(Duration::from_secs(700));
            match Repository::init(
                auditor.store(),
                &password,
                backstay_repo::InitOptions { kdf: backstay_repo::KdfCost::TRIVIAL },
            )
            .await
            {
                Ok(repository) => repository,
                Err(error) => return vec![format!("no repository, and none can be made: {error}")],
            }
        }
    };
    let mut keys = auditor.clone();
    keys.keys = crate::stage::Keys::of(&repository);
    keys.clone().run(Job::Backup, false).await;
    rules::all_hold(&keys).await
}
