//! The local folder under a power cut at every system call.
//!
//! A process of its own does real work on a real folder while `strace` writes down what it asks of the file system. Then
//! the calls are played on a disk in memory, and after each one the power is cut: names whose folder was not synced and
//! bytes that were not synced vanish, stay, or stay in part. What the process was told by then must hold on the rest.

use backstay_crashes::campaign::restic_objects;
use backstay_crashes::disk::Luck;
use backstay_crashes::job::{Job, PASSWORD, Place, Surroundings, files_large, files_of, files_of_all, piece};
use backstay_crashes::ledger::{Ledger, Promises};
use backstay_crashes::seed::Seed;
use backstay_crashes::stage::{Keys, runtime};
use backstay_crashes::trace::{CALLS, Effect, Replay};
use backstay_crashes::world::{AUDITOR, Medium, Objects, World};
use backstay_crashes::{rules, seed};
use backstay_repo::{InitOptions, KdfCost, Password, Repository, Store, StoreConfig};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The folder that the traced process works in.
const TRACED: &str = "BACKSTAY_TRACED";

/// What the traced process does, one after the other, each as a client of its own.
const JOBS: &[(u64, Job)] = &[
    (1, Job::Backup),
    (2, Job::Archive { server: 0, pieces: 4 }),
    (3, Job::Repeat),
    (4, Job::Archive { server: 0, pieces: 3 }),
    (5, Job::Compact),
    (6, Job::Promote { server: 0, start: 700 }),
    (7, Job::Backup),
    (8, Job::Compact),
    (9, Job::Large),
];

fn main() -> ExitCode {
    match std::env::var_os(TRACED) {
        Some(folder) => {
            runtime().block_on(work(Path::new(&folder)));
            ExitCode::SUCCESS
        }
        None => judge(),
    }
}

/// The traced process.
async fn work(scratch: &Path) {
    let folder = scratch.join("repo");
    let mut said = std::fs::File::create(scratch.join("told.said")).unwrap();
    let mut say = move |line: String| said.write_all(line.as_bytes()).unwrap();
    let store = Store::connect(&StoreConfig::new(format!("file://{}", folder.display()))).unwrap();
    let options = InitOptions { kdf: KdfCost::TRIVIAL };
    let repository = Repository::init(store, &Password::new(PASSWORD), options).await.unwrap();
    say("init".into());
    let ledger = Arc::new(Ledger::default());
    // Two hours ahead, so that what is new is old enough to be merged.
    let now = SystemTime::now() + Duration::from_secs(7200);
    let client = Surroundings {
        client: AUDITOR,
        maker: 0,
        world: Arc::new(World::new(Medium::Folder, Objects::new(), 0, now)),
        place: Place::Folder(folder),
        second: None,
        keys: Keys::of(&repository),
        ledger: Arc::clone(&ledger),
    };
    let mut before = Promises::default();
    for (maker, job) in JOBS {
        Surroundings { maker: *maker, ..client.clone() }.run(*job, false).await;
        let after = ledger.snapshot();
        for kept in after.backups.iter().skip(before.backups.len()) {
            say(format!("backup {} {}", kept.maker, kept.id.as_ref().unwrap()));
        }
        for told in after.log.iter().skip(before.log.len()) {
            say(format!("log {} {} {}", told.server, told.piece.start.epoch, told.piece.start.offset));
        }
        assert!(after.violations.is_empty(), "{:?}", after.violations);
        before = after;
    }
}

fn judge() -> ExitCode {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let trace = trace(scratch.path());
    let lines = std::fs::read(&trace).unwrap();
    let mut replay = Replay::new(scratch.path().to_str().unwrap());
    let root = scratch.path().join("repo");
    let mut judge = Judge { root: root.to_str().unwrap().into(), ..Judge::default() };
    let began = std::time::Instant::now();
    for line in lines.split(|byte| *byte == b'\n') {
        match replay.line(&String::from_utf8_lossy(line)) {
            Ok(Effect::None) => {}
            Ok(Effect::Said(text)) => judge.hear(&text),
            Ok(Effect::Disk(what)) => judge.cut_power(&replay, &what),
            Err(why) => judge.broken.push(why),
        }
    }
    let Judge { cuts, calls, seen, broken, promised, .. } = judge;
    assert!(promised.backups.len() == 4 && promised.log.len() == 10, "the traced process did not do all its jobs");
    println!(
        "power cuts: {calls} calls, {cuts} power cuts, {} different states looked at, {:.1} s",
        seen.len(),
        began.elapsed().as_secs_f64()
    );
    for what in broken.iter().take(20) {
        println!("  broken: {what}");
    }
    println!("powercuts: {} passed, {} failed", cuts - broken.len().min(cuts), broken.len());
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the process and answers where its calls were written down.
fn trace(scratch: &Path) -> PathBuf {
    let trace = scratch.join("calls");
    let me = std::env::current_exe().unwrap();
    let status = Command::new("strace")
        .args(["--follow-forks", "-xx", "--string-limit=67108864", "--output"])
        .arg(&trace)
        .arg(format!("--trace={CALLS}"))
        .arg(me)
        .env(TRACED, scratch)
        .status();
    match status {
        Err(error) => panic!("failed to run strace, Debian's package `strace`: {error}"),
        Ok(status) => assert!(status.success(), "the traced process failed"),
    }
    trace
}

#[derive(Default)]
struct Judge {
    root: String,
    promised: Promises,
    calls: usize,
    cuts: usize,
    seen: HashSet<u64>,
    broken: Vec<String>,
}

impl Judge {
    fn hear(&mut self, text: &str) {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let ledger = Ledger::new(std::mem::take(&mut self.promised));
        match words[0] {
            "init" => ledger.initialised(),
            "backup" => {
                let (maker, id) = (number(1), words[2].parse().unwrap());
                let job = JOBS.iter().find(|(of, _)| *of == maker).unwrap().1;
                let files = match job {
                    Job::Large => files_large(),
                    Job::Repeat => files_of_all(),
                    _ => files_of(maker),
                };
                ledger.intends(maker, files);
                ledger.committed(maker, id);
            }
            "log" => ledger.acknowledged(number(1), piece(number(2), number(3))),
            other => panic!("the traced process said `{other}`"),
        }
        self.promised = ledger.snapshot();
    }

    /// Every kind of luck, after this call.
    fn cut_power(&mut self, replay: &Replay, what: &str) {
        if !self.promised.initialised {
            return;
        }
        self.calls += 1;
        let mut seed = Seed::new(self.calls as u64);
        // Whether names stay, and of how many bytes: one in so many; 0 never.
        for (names, bytes) in [(0, 0), (1, 0), (1, 2), (0, 1), (2, 2), (2, 2)] {
            let mut other = seed.clone();
            let mut luck = Luck {
                name: &mut || names > 0 && seed.one_in(names),
                bytes: &mut |length| match bytes {
                    0 => 0,
                    1 => length,
                    _ => other.below(length + 1),
                },
            };
            let objects = replay.disk.after_power_cut(&self.root, &mut luck);
            self.cuts += 1;
            if self.seen.insert(self.number_of(&objects)) {
                self.look(objects, what, (names, bytes));
            }
        }
    }

    fn number_of(&self, objects: &Objects) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (key, object) in objects {
            (key, &object.bytes).hash(&mut hasher);
        }
        (self.promised.backups.len(), self.promised.log.len()).hash(&mut hasher);
        hasher.finish()
    }

    fn look(&mut self, objects: Objects, what: &str, luck: (u64, u64)) {
        let promised = self.promised.clone();
        let sample = self.seen.len().is_multiple_of(40);
        let broken = runtime().block_on(async {
            let mut broken = Vec::new();
            if sample {
                broken.extend(restic_objects(&objects));
            }
            let world = Arc::new(World::new(Medium::Objects, objects, 0, SystemTime::now()));
            let mut ledger = promised;
            // Backups that were being committed: there or not.
            for (maker, job) in JOBS {
                if ledger.backups.iter().all(|kept| kept.maker != *maker) {
                    let ledger_then = Ledger::new(std::mem::take(&mut ledger));
                    let files = match job {
                        Job::Large => files_large(),
                        Job::Repeat => files_of_all(),
                        _ => files_of(*maker),
                    };
                    ledger_then.intends(*maker, files);
                    ledger = ledger_then.snapshot();
                }
            }
            let ledger = Arc::new(Ledger::new(ledger));
            let front = backstay_crashes::front::Front::new(Arc::clone(&world), AUDITOR);
            let store = Store::from_object_store(Arc::new(front), "after the power cut");
            let repository = match Repository::open(store, &Password::new(PASSWORD)).await {
                Ok(repository) => repository,
                Err(error) => return vec![format!("the repository does not open: {error}")],
            };
            let keys = Keys::of(&repository);
            let auditor = Surroundings {
                client: AUDITOR,
                maker: seed::Seed::new(1).next_u64(),
                world,
                place: Place::First,
                second: None,
                keys,
                ledger,
            };
            broken.extend(rules::all_hold(&auditor).await);
            broken
        });
        let call = self.calls;
        self.broken.extend(
            broken.into_iter().map(|why| format!("power cut after call {call} ({what}), luck {luck:?}: {why}")),
        );
    }
}
