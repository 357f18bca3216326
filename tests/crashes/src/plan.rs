//! What happens next: the one place where a run's order, faults and crashes are decided.

use crate::seed::Seed;
use crate::world::{Fault, Glimpse, Medium, Request};
use std::time::Duration;

/// What a plan sees when it is asked.
pub struct View<'a> {
    /// The requests that wait, at least one.
    pub waiting: &'a [Glimpse],
    /// Requests that happened so far.
    pub step: usize,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The request at this place happens.
    Run {
        /// Place among those that wait.
        at: usize,
        /// What goes wrong.
        fault: Fault,
        /// After how many further requests a late one arrives.
        steps_late: usize,
    },
    /// The process ends before its request at this place happens, or while it is on its way.
    Kill {
        /// Place among those that wait.
        at: usize,
        /// After how many further requests it arrives all the same.
        steps_late: Option<usize>,
    },
    /// The request happens, and its process ends before it hears of it.
    RunAndKill {
        /// Place among those that wait.
        at: usize,
    },
    /// The power goes: for everybody.
    CutPower {
        /// The request at this place happens just before.
        run: Option<usize>,
        /// What of that which is not durable stays.
        keeps: Luck,
    },
    /// Time passes.
    Wait(Duration),
    /// It leads nowhere new.
    Abandon,
}

impl Decision {
    /// The request at this place happens, and nothing goes wrong.
    pub fn run(at: usize) -> Self {
        Self::Run { at, fault: Fault::None, steps_late: 0 }
    }
}

/// What a power cut leaves of changes that are not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Luck {
    /// Nothing.
    None,
    /// All.
    All,
    /// The newest alone: what came before it, and should have been durable by then, is lost.
    Newest,
    /// Each by chance.
    Some(u64),
}

/// Decides.
pub trait Plan {
    /// What happens next.
    fn next(&mut self, view: &View<'_>) -> Decision;

    /// Whether the power goes when all are done or dead, and with what luck.
    fn at_end(&self) -> Option<Luck> {
        None
    }
}

/// Whose request comes first, where nothing else decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// In turns.
    Turns,
    /// The first client's until it has ended, then the next one's: nobody else does anything while it waits.
    Alone,
}

impl Order {
    /// All of them.
    pub const ALL: [Order; 2] = [Order::Turns, Order::Alone];

    fn pick(self, waiting: &[Glimpse], last: Option<usize>) -> usize {
        match self {
            Self::Alone => 0,
            Self::Turns => {
                let next = waiting.iter().position(|glimpse| last.is_none_or(|last| glimpse.client > last));
                next.unwrap_or(0)
            }
        }
    }
}

/// How it ends at a crash point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process that asks ends before its request happens; all others go on.
    KillBefore,
    /// It ends after its request happened, before it hears of it.
    KillAfter,
    /// The same, and the power goes when all others are done: they may have relied on what it left.
    KillAfterAndPower(Luck),
    /// It ends, and the request arrives five requests later.
    KillLate,
    /// The power goes before.
    PowerBefore(Luck),
    /// The power goes after.
    PowerAfter(Luck),
}

impl Crash {
    /// Those that make a difference on a medium.
    pub fn all(medium: Medium) -> Vec<Crash> {
        match medium {
            // What was answered is durable, so for one that is alone a power cut is as a kill; for several it ends all.
            Medium::Objects => vec![Self::KillBefore, Self::KillAfter, Self::KillLate, Self::PowerBefore(Luck::None)],
            Medium::Folder => vec![
                Self::KillBefore,
                Self::KillAfter,
                Self::KillAfterAndPower(Luck::None),
                Self::KillAfterAndPower(Luck::Some(1)),
                Self::PowerAfter(Luck::None),
                Self::PowerAfter(Luck::Newest),
                Self::PowerAfter(Luck::Some(1)),
            ],
        }
    }
}

/// A crash at one request of an orderly run.
pub struct CrashAt {
    order: Order,
    crash: Option<(usize, Crash)>,
    last: Option<usize>,
    /// How often to wait for somebody who may only be asleep.
    patience: usize,
    at_end: Option<Luck>,
}

/// One of [`PATIENCE`] looks whether somebody who is alone goes on: together longer than the pause of a lock.
const LOOK: Duration = Duration::from_millis(50);
const PATIENCE: usize = 6;

impl CrashAt {
    /// `crash` names the request by its number; nothing: it runs to its end.
    pub fn new(order: Order, crash: Option<(usize, Crash)>) -> Self {
        Self { order, crash, last: None, patience: PATIENCE, at_end: None }
    }
}

impl Plan for CrashAt {
    fn next(&mut self, view: &View<'_>) -> Decision {
        let at = self.order.pick(view.waiting, self.last);
        let is_another = self.last.is_some_and(|last| last != view.waiting[at].client);
        if self.order == Order::Alone && is_another && self.patience > 0 {
            self.patience -= 1;
            return Decision::Wait(LOOK);
        }
        self.patience = PATIENCE;
        self.last = Some(view.waiting[at].client);
        match self.crash {
            Some((step, crash)) if step <= view.step => {
                self.crash = None;
                match crash {
                    Crash::KillBefore => Decision::Kill { at, steps_late: None },
                    Crash::KillLate => Decision::Kill { at, steps_late: Some(5) },
                    Crash::KillAfter => Decision::RunAndKill { at },
                    Crash::KillAfterAndPower(luck) => {
                        self.at_end = Some(luck);
                        Decision::RunAndKill { at }
                    }
                    Crash::PowerBefore(keeps) => Decision::CutPower { run: None, keeps },
                    Crash::PowerAfter(keeps) => Decision::CutPower { run: Some(at), keeps },
                }
            }
            _ => Decision::run(at),
        }
    }

    fn at_end(&self) -> Option<Luck> {
        self.at_end
    }
}

/// The first client stops at one of its requests and sleeps; meanwhile all others do their work, one after the other,
/// and time passes before the last one does. It does not sleep before a request that promises something: that follows at
/// once the look at its lock which allowed it.
pub struct SleepAt {
    requests_left: usize,
    clients: usize,
    passes: Option<Duration>,
    looks_left: usize,
    patience: usize,
}

impl SleepAt {
    /// It does so many requests before; `passes` is how long it sleeps, and then it waits for `looks` pauses of the others.
    pub fn new(requests: usize, clients: usize, passes: Duration, looks: usize) -> Self {
        Self { requests_left: requests, clients, passes: Some(passes), looks_left: looks, patience: PATIENCE }
    }
}

/// Index files and snapshots say that what they name is there.
fn is_promise(request: &Request) -> bool {
    let of = |folder| request.place().starts_with(folder);
    matches!(request, Request::Put { .. }) && (of("index/") || of("snapshots/"))
}

impl Plan for SleepAt {
    fn next(&mut self, view: &View<'_>) -> Decision {
        let of = |client: usize| view.waiting.iter().position(|glimpse| glimpse.client == client);
        match of(0) {
            Some(at) if self.requests_left > 0 => {
                self.requests_left -= 1;
                self.patience = PATIENCE;
                return Decision::run(at);
            }
            // It pauses for its own lock, unless it has ended.
            None if self.requests_left > 0 && self.patience > 0 => {
                self.patience -= 1;
                return Decision::Wait(LOOK);
            }
            _ => {}
        }
        if let (Some(_), Some(at)) = (self.passes, of(0))
            && is_promise(&view.waiting[at].request)
        {
            return Decision::run(at);
        }
        if let Some(at) = (1..self.clients - 1).find_map(of) {
            return Decision::run(at);
        }
        if let (Some(passes), Some(_)) = (self.passes, of(self.clients - 1)) {
            self.passes = None;
            return Decision::Wait(passes);
        }
        match of(self.clients - 1) {
            Some(at) => Decision::run(at),
            None if self.looks_left > 0 => {
                self.looks_left -= 1;
                Decision::Wait(LOOK)
            }
            None => Decision::run(0),
        }
    }
}

/// What a scenario's store may do to its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Requests may fail, before or after they happened, or happen late.
    pub faults: bool,
    /// Processes may be killed.
    pub kills: bool,
    /// Merged pieces of log may be torn though they are reported as whole: they are read back before anything relies
    /// on them.
    pub tears: bool,
    /// Half an hour may pass between two requests.
    pub naps: bool,
}

/// A run by chance.
pub struct Chance {
    seed: Seed,
    weather: Weather,
    medium: Medium,
    /// Whoever has the highest number goes first; nothing: everybody has the same chance.
    ranks: Option<Vec<u64>>,
    /// When the ranks change: few switches find what many do not.
    switches: Vec<usize>,
    /// One in so many requests goes wrong; 0: none.
    fault_rate: u64,
    /// The store goes away for everybody: from this request on, which happens unheard, for so many more.
    outage: Option<(usize, u64)>,
    crashes: Vec<(usize, bool)>,
    naps_left: usize,
}

impl Chance {
    /// `steps` is about how many requests a run has.
    pub fn new(seed: u64, weather: Weather, medium: Medium, clients: usize, steps: usize) -> Self {
        let mut seed = Seed::new(seed);
        let ranks = seed.one_in(2).then(|| (0..clients).map(|_| seed.next_u64()).collect());
        let switches = (0..seed.below(4)).map(|_| seed.below(steps)).collect();
        let fault_rate = match (weather.faults, seed.below(3)) {
            (false, _) | (_, 0) => 0,
            (_, 1) => 5,
            _ => 20,
        };
        // Long enough that an operation gives up, short enough that the next one does not.
        let outage = (weather.faults && seed.one_in(3)).then(|| (seed.below(steps), 3 + seed.below(4) as u64));
        let mut crashes = Vec::new();
        if weather.kills {
            // One kill, one power cut, a kill and a power cut later, or none.
            let kind = seed.below(4);
            let first = seed.below(steps);
            if kind & 1 == 1 {
                crashes.push((first, false));
            }
            if kind & 2 == 2 {
                crashes.push((first + seed.below(steps / 2 + 1), true));
            }
        }
        let naps_left = if weather.naps { seed.below(3) } else { 0 };
        Self { seed, weather, medium, ranks, switches, fault_rate, outage, crashes, naps_left }
    }

    fn pick(&mut self, view: &View<'_>) -> usize {
        let Some(ranks) = &mut self.ranks else { return self.seed.below(view.waiting.len()) };
        while let Some(at) = self.switches.iter().position(|at| *at <= view.step) {
            self.switches.swap_remove(at);
            let client = self.seed.below(ranks.len());
            ranks[client] = self.seed.next_u64();
        }
        let best = view.waiting.iter().map(|glimpse| glimpse.client).max_by_key(|client| ranks[*client]);
        let theirs: Vec<usize> = (0..view.waiting.len()).filter(|at| Some(view.waiting[*at].client) == best).collect();
        theirs[self.seed.below(theirs.len())]
    }

    fn fault(&mut self, request: &Request, step: usize) -> Fault {
        if let Some((start, left)) = &mut self.outage
            && *start <= step
            && *left > 0
        {
            *left -= 1;
            let first = std::mem::replace(start, 0) > 0;
            return if first { Fault::Unheard } else { Fault::Refused };
        }
        if self.weather.tears && matches!(request, Request::Put { key, .. } if is_merged(key)) && self.seed.one_in(4) {
            return Fault::Torn;
        }
        if self.fault_rate == 0 || !self.seed.one_in(self.fault_rate) {
            return Fault::None;
        }
        let late = self.medium == Medium::Objects && request.is_write();
        match self.seed.below(3) {
            0 => Fault::Refused,
            1 if late => Fault::Late,
            _ => Fault::Unheard,
        }
    }
}

/// Whether a key is that of a merged piece of log.
pub(crate) fn is_merged(key: &str) -> bool {
    key.starts_with("logs/") && key.rsplit('/').next().is_some_and(|name| name.matches('-').count() == 2)
}

impl Plan for Chance {
    fn next(&mut self, view: &View<'_>) -> Decision {
        if self.naps_left > 0 && self.seed.one_in(8) {
            self.naps_left -= 1;
            let long = if self.seed.one_in(2) { 1800 } else { 1 };
            return Decision::Wait(Duration::from_secs(long));
        }
        let at = self.pick(view);
        if let Some(crash) = self.crashes.iter().position(|(step, _)| *step <= view.step) {
            let (_, power) = self.crashes.remove(crash);
            let happens = self.seed.one_in(2);
            let luck = match self.seed.below(4) {
                0 => Luck::None,
                1 => Luck::All,
                _ => Luck::Some(self.seed.next_u64()),
            };
            return match (power, happens) {
                (true, happens) => Decision::CutPower { run: happens.then_some(at), keeps: luck },
                (false, true) => Decision::RunAndKill { at },
                (false, false) => {
                    let late = self.medium == Medium::Objects && self.seed.one_in(2);
                    Decision::Kill { at, steps_late: late.then(|| 1 + self.seed.below(40)) }
                }
            };
        }
        let fault = self.fault(&view.waiting[at].request, view.step);
        Decision::Run { at, fault, steps_late: 1 + self.seed.below(30) }
    }
}
