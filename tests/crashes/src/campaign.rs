//! All cases, on all cores: counted, timed, and played again one by one.

use crate::drive::{Run, run};
use crate::explore::{Choices, Explorer};
use crate::plan::{Chance, Crash, CrashAt, Order, SleepAt};
use crate::scenario::{SCENARIOS, Scenario};
use crate::stage::stage;
use crate::world::{Medium, Objects};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Cases by chance for each share of a scenario on each medium.
const CHANCES: usize = 12;
/// How long somebody sleeps: an archiver trusts its sight for longer than the first, and for less than the second.
const SLEEPS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(1800)];
/// For how many pauses of others it then waits: for none, or until a lock is theirs.
const LOOKS: [usize; 2] = [0, 5];
/// More requests than a client has of those that are put to sleep.
const SLEEPS_MAX: usize = 30;
/// Orders of one scenario that are tried.
const ORDERS_MAX: usize = 20_000;
/// What the whole table comes to at least.
const CASES_MIN: usize = 20_000;
/// In one of so many cases that are no crash at a certain point somebody works on afterwards.
const WORKS_ON_EVERY: usize = 5;
/// How long cases by chance go on being begun. All others are tried however long that takes.
const CHANCES_FOR: Duration = Duration::from_secs(240);
/// Failures that are shown with all that happened.
const SHOWN_MAX: usize = 3;
/// One in so many cases is shown to stock restic too.
const RESTIC_EVERY: usize = 400;
const MEDIA: [Medium; 2] = [Medium::Objects, Medium::Folder];

/// One run of one scenario.
#[derive(Clone, Debug)]
struct Case {
    scenario: &'static str,
    medium: Medium,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Crash { order: usize, step: usize, crash: usize },
    Chance { seed: u64 },
    Order { choices: Vec<usize> },
    Sleep { requests: usize, passes: usize, looks: usize },
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let medium = medium_name(self.medium);
        write!(f, "{}/{medium}/", self.scenario)?;
        match &self.kind {
            Kind::Crash { order, step, crash } => write!(f, "crash/{order}.{step}.{crash}"),
            Kind::Chance { seed } => write!(f, "seed/{seed}"),
            Kind::Sleep { requests, passes, looks } => write!(f, "sleep/{requests}.{passes}.{looks}"),
            Kind::Order { choices } => {
                let choices: Vec<String> = choices.iter().map(usize::to_string).collect();
                write!(f, "order/{}", choices.join("."))
            }
        }
    }
}

impl std::str::FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let why = || format!("`{text}` is no case of this suite: it looks like backup/folder/seed/17");
        let [scenario, medium, kind, rest] = text.split('/').collect::<Vec<_>>()[..] else { return Err(why()) };
        let scenario = SCENARIOS.iter().find(|row| row.name == scenario).ok_or_else(why)?;
        let medium = MEDIA.into_iter().find(|known| medium_name(*known) == medium).ok_or_else(why)?;
        let numbers: Result<Vec<u64>, _> = rest.split('.').map(str::parse).collect();
        let numbers = numbers.map_err(|_| why())?;
        let kind = match (kind, &numbers[..]) {
            ("crash", [order, step, crash]) => {
                Kind::Crash { order: *order as usize, step: *step as usize, crash: *crash as usize }
            }
            ("seed", [seed]) => Kind::Chance { seed: *seed },
            ("sleep", [requests, passes, looks]) => {
                Kind::Sleep { requests: *requests as usize, passes: *passes as usize, looks: *looks as usize }
            }
            ("order", choices) => Kind::Order { choices: choices.iter().map(|choice| *choice as usize).collect() },
            _ => return Err(why()),
        };
        Ok(Self { scenario: scenario.name, medium, kind })
    }
}

fn medium_name(medium: Medium) -> &'static str {
    match medium {
        Medium::Objects => "objects",
        Medium::Folder => "folder",
    }
}

/// What a worker takes at once.
enum Unit {
    /// Every crash point of one orderly run.
    Crashes { row: &'static Scenario, medium: Medium, order: usize },
    /// Runs by chance.
    Chances { row: &'static Scenario, medium: Medium, seeds: Vec<u64>, steps: usize },
    /// The first client asleep at each of its requests.
    Sleeps { row: &'static Scenario, medium: Medium },
    /// Every order.
    Orders { row: &'static Scenario, medium: Medium },
}

/// A case, what must not be in it, and all that happened.
type Failure = (String, Vec<String>, Vec<String>);

/// What came of it.
#[derive(Default)]
struct Tally {
    cases: AtomicUsize,
    /// Of those, orders of requests: how many there are says nothing about crashes.
    orders: AtomicUsize,
    /// Cases by chance for which there was no time.
    left_out: AtomicUsize,
    samples: AtomicUsize,
    failures: Mutex<Vec<Failure>>,
    by_scenario: Mutex<BTreeMap<&'static str, usize>>,
}

impl Tally {
    fn add(&self, case: &Case, run: &Run) {
        if run.abandoned {
            return;
        }
        let number = self.cases.fetch_add(1, Ordering::Relaxed);
        let is_order = matches!(case.kind, Kind::Order { .. });
        self.orders.fetch_add(usize::from(is_order), Ordering::Relaxed);
        *self.by_scenario.lock().unwrap().entry(case.scenario).or_default() += 1;
        let mut broken = run.broken.clone();
        let objects = run.world.objects();
        // A power cut may bring back the key of an `init` that gave way: where two open with one password restic looks at
        // no other than the first.
        let opens =
            objects.contains_key("config") && objects.keys().filter(|key| key.starts_with("keys/")).count() == 1;
        if broken.is_empty() && number.is_multiple_of(RESTIC_EVERY) && opens {
            self.samples.fetch_add(1, Ordering::Relaxed);
            broken.extend(restic_objects(&objects));
        }
        if !broken.is_empty() {
            let mut failures = self.failures.lock().unwrap();
            if failures.len() < SHOWN_MAX {
                eprintln!("{case}: {}", broken[0]);
            }
            failures.push((case.to_string(), broken, run.trace.clone()));
        }
    }
}

/// Runs everything, or what `BACKSTAY_SEED` names; answers whether all went well.
///
/// - nothing: every crash point, every order, and chance from a seed that the clock gives.
/// - a number: the same with that seed.
/// - a case, as a failure prints it: this one alone, with all that happens.
///
/// With `BACKSTAY_HASTY` it ends soon after the first failure.
pub fn main() -> bool {
    let seed = match std::env::var("BACKSTAY_SEED") {
        Ok(text) => match text.parse::<u64>() {
            Ok(seed) => seed,
            Err(_) => return replay(&text),
        },
        Err(_) => SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64),
    };
    // Names on the command line choose scenarios, as with cargo's own tests.
    let names: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let chosen = |row: &&Scenario| names.is_empty() || names.iter().any(|name| row.name.contains(name.as_str()));
    let rows: Vec<&'static Scenario> = SCENARIOS.iter().filter(chosen).collect();
    println!("crashes: {} scenarios, BACKSTAY_SEED={seed}", rows.len());
    let hasty = std::env::var_os("BACKSTAY_HASTY").is_some();
    let began = Instant::now();
    let tally = Tally::default();
    let units = Mutex::new(units(&rows, seed));
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(unit) = { units.lock().unwrap().pop() } {
                    if matches!(unit, Unit::Chances { .. }) && began.elapsed() > CHANCES_FOR {
                        tally.left_out.fetch_add(CHANCES, Ordering::Relaxed);
                        continue;
                    }
                    work(&unit, &tally);
                    if hasty && !tally.failures.lock().unwrap().is_empty() {
                        break;
                    }
                }
            });
        }
    });
    let went_well = report(&tally, began.elapsed(), workers);
    went_well && (!names.is_empty() || hasty || is_ample(&tally))
}

/// Whether all of it was tried.
fn is_ample(tally: &Tally) -> bool {
    let cases = tally.cases.load(Ordering::Relaxed) - tally.orders.load(Ordering::Relaxed);
    if cases < CASES_MIN {
        println!("{cases} cases are too few, {CASES_MIN} are asked for");
    }
    cases >= CASES_MIN
}

fn units(rows: &[&'static Scenario], seed: u64) -> Vec<Unit> {
    let mut seeds = crate::seed::Seed::new(seed);
    let mut units = Vec::new();
    for row in rows {
        for medium in MEDIA {
            let steps = run(row, medium, &mut CrashAt::new(Order::Turns, None), false).steps;
            for _ in 0..row.share {
                let seeds = (0..CHANCES).map(|_| seeds.next_u64() >> 16).collect();
                units.push(Unit::Chances { row, medium, seeds, steps });
            }
            if row.weather.kills {
                // In turns, and two clients one after the other too: the second finds what the first one left.
                let orders: &[usize] = if row.jobs.len() == 2 { &[0, 1] } else { &[0] };
                units.extend(orders.iter().map(|order| Unit::Crashes { row, medium, order: *order }));
            }
        }
        if row.sleeps {
            units.extend(MEDIA.map(|medium| Unit::Sleeps { row, medium }));
        }
        if row.every_order {
            units.extend(MEDIA.map(|medium| Unit::Orders { row, medium }));
        }
    }
    // They are taken from the end: chance comes last.
    units.sort_by_key(|unit| !matches!(unit, Unit::Chances { .. }));
    units
}

fn work(unit: &Unit, tally: &Tally) {
    match unit {
        Unit::Crashes { row, medium, order } => {
            let crashes = Crash::all(*medium);
            let steps = run(row, *medium, &mut CrashAt::new(Order::ALL[*order], None), false).steps;
            for step in 0..=steps {
                for (crash, how) in crashes.iter().enumerate() {
                    // Where nobody goes on, a kill before a power cut adds nothing.
                    if row.jobs.len() == 1 && matches!(how, Crash::KillAfterAndPower(_)) {
                        continue;
                    }
                    let kind = Kind::Crash { order: *order, step, crash };
                    let case = Case { scenario: row.name, medium: *medium, kind };
                    tally.add(&case, &play(row, &case, *medium));
                }
            }
        }
        Unit::Chances { row, medium, seeds, steps } => {
            for seed in seeds {
                // So that the number alone says it all.
                let seed = seed << 12 | *steps as u64 & 0xFFF;
                let case = Case { scenario: row.name, medium: *medium, kind: Kind::Chance { seed } };
                tally.add(&case, &play(row, &case, *medium));
            }
        }
        Unit::Sleeps { row, medium } => {
            for requests in 0..SLEEPS_MAX {
                for (passes, looks) in [(0, 0), (0, 1), (1, 0)] {
                    let kind = Kind::Sleep { requests, passes, looks };
                    let case = Case { scenario: row.name, medium: *medium, kind };
                    tally.add(&case, &play(row, &case, *medium));
                }
            }
        }
        Unit::Orders { row, medium } => {
            let mut explorer = Explorer::new(&stage(row.before).objects);
            let mut walks = 0;
            while let Some(mut walk) = explorer.next_walk() {
                walks += 1;
                if walks > ORDERS_MAX {
                    let what = format!("it has more orders than {ORDERS_MAX}: raise the bound, or make it smaller");
                    tally.failures.lock().unwrap().push((row.name.to_owned(), vec![what], Vec::new()));
                    break;
                }
                let run = run(row, *medium, &mut walk, walks % WORKS_ON_EVERY == 0);
                let kind = Kind::Order { choices: explorer.choices() };
                tally.add(&Case { scenario: row.name, medium: *medium, kind }, &run);
            }
        }
    }
}

fn play(row: &'static Scenario, case: &Case, medium: Medium) -> Run {
    let crashes = Crash::all(medium);
    // After one kind of crash at every crash point, each kind in turn; after some of the others.
    let works_on = match &case.kind {
        Kind::Crash { step, crash, .. } => step % crashes.len() == *crash,
        Kind::Chance { seed } => (seed >> 12).is_multiple_of(WORKS_ON_EVERY as u64),
        Kind::Sleep { requests, .. } => requests.is_multiple_of(WORKS_ON_EVERY),
        Kind::Order { .. } => true,
    };
    match &case.kind {
        Kind::Crash { order, step, crash } => {
            let crash = crashes[*crash % crashes.len()];
            let mut plan = CrashAt::new(Order::ALL[*order % Order::ALL.len()], Some((*step, crash)));
            run(row, medium, &mut plan, works_on)
        }
        Kind::Chance { seed } => {
            let steps = (*seed & 0xFFF) as usize;
            run(row, medium, &mut Chance::new(*seed, row.weather, medium, row.jobs.len(), steps), works_on)
        }
        Kind::Sleep { requests, passes, looks } => {
            let (passes, looks) = (SLEEPS[*passes % SLEEPS.len()], LOOKS[*looks % LOOKS.len()]);
            run(row, medium, &mut SleepAt::new(*requests, row.jobs.len(), passes, looks), works_on)
        }
        Kind::Order { choices } => run(row, medium, &mut Choices(choices.iter().copied().collect()), works_on),
    }
}

fn replay(text: &str) -> bool {
    let case: Case = match text.parse() {
        Ok(case) => case,
        Err(why) => {
            println!("{why}");
            return false;
        }
    };
    let row = SCENARIOS.iter().find(|row| row.name == case.scenario).expect("the case was read from the table");
    let run = play(row, &case, case.medium);
    show(&case.to_string(), &run.broken, &run.trace);
    println!("crashes: {} passed, {} failed", usize::from(run.broken.is_empty()), usize::from(!run.broken.is_empty()));
    run.broken.is_empty()
}

fn show(case: &str, broken: &[String], trace: &[String]) {
    println!("\n{case}");
    for step in trace {
        println!("    {step}");
    }
    for what in broken {
        println!("  broken: {what}");
    }
    println!("  play again with BACKSTAY_SEED={case}");
}

fn report(tally: &Tally, took: Duration, workers: usize) -> bool {
    let failures = tally.failures.lock().unwrap();
    let cases = tally.cases.load(Ordering::Relaxed);
    for (scenario, count) in &*tally.by_scenario.lock().unwrap() {
        println!("  {count:6} {scenario}");
    }
    for (case, broken, trace) in failures.iter().take(SHOWN_MAX) {
        show(case, broken, trace);
    }
    for (case, broken, _) in failures.iter().skip(SHOWN_MAX).take(50) {
        println!("{case}: {}", broken[0]);
    }
    println!(
        "{cases} cases in {:.1} s on {workers} threads, {:.2} ms of a thread each; {} of them shown to stock restic",
        took.as_secs_f64(),
        took.as_secs_f64() * 1000.0 * workers as f64 / cases.max(1) as f64,
        tally.samples.load(Ordering::Relaxed),
    );
    match tally.left_out.load(Ordering::Relaxed) {
        0 => {}
        left_out => println!("{left_out} cases by chance were left out: {CHANCES_FOR:?} were over"),
    }
    println!("crashes: {} passed, {} failed", cases - failures.len(), failures.len());
    failures.is_empty()
}

/// What stock restic says against a repository.
pub fn restic_objects(objects: &Objects) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (key, object) in objects {
        let place = folder.path().join(key);
        std::fs::create_dir_all(place.parent().expect("a key is below the folder")).expect("a folder can be made");
        std::fs::write(&place, &object.bytes).expect("a file can be written");
    }
    restic_folder(folder.path())
}

/// The same of one that lies in a folder.
pub fn restic_folder(folder: &std::path::Path) -> Vec<String> {
    for name in ["keys", "locks", "snapshots", "index", "data"] {
        std::fs::create_dir_all(folder.join(name)).expect("a folder can be made");
    }
    let output = Command::new("restic")
        .args(["--no-cache", "--no-lock", "check", "--read-data", "--repo"])
        .arg(folder)
        .env("RESTIC_PASSWORD", crate::job::PASSWORD)
        .output();
    match output {
        Err(error) => vec![format!("failed to run restic, Debian's package `restic`: {error}")],
        Ok(output) if output.status.success() => Vec::new(),
        Ok(output) => vec![format!(
            "restic check: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )],
    }
}
