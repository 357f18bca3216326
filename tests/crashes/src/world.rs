//! The store that everybody shares: what is seen, what is durable, and the requests that wait.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Number of a client. [`AUDITOR`] is nobody's.
pub type Client = usize;

/// Whoever looks afterwards: its requests wait for nothing.
pub const AUDITOR: Client = usize::MAX;

/// How a store keeps things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// What it answered for is durable: S3, GCS, Azure.
    Objects,
    /// A local folder: a name is seen as soon as it is there and durable once the folder was synced. A removed name may
    /// come back with a power cut until then. Contents are synced before they get their name.
    Folder,
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its content.
    pub bytes: Bytes,
    /// When it was written, by the store's clock.
    pub modified: SystemTime,
}

/// Objects by key.
pub type Objects = BTreeMap<String, Object>;

/// What a client asks for.
#[derive(Clone, Debug)]
pub enum Request {
    /// Writes; with `create` only where nothing is.
    Put {
        /// Where.
        key: String,
        /// What.
        body: Bytes,
        /// Whether it must not be there.
        create: bool,
    },
    /// Makes the names in a folder durable.
    Sync {
        /// Without a slash at its end.
        folder: String,
    },
    /// Reads, or only looks.
    Get {
        /// What.
        key: String,
    },
    /// Some of the names below a folder.
    List {
        /// Without a slash at its end; empty for all.
        folder: String,
        /// Only names after this one.
        after: String,
        /// At most so many.
        most: usize,
    },
    /// Removes.
    Delete {
        /// What.
        key: String,
    },
}

impl Request {
    /// Whether it changes anything.
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Delete { .. } | Self::Sync { .. })
    }

    /// The key or folder.
    pub fn place(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Get { key } | Self::Delete { key } => key,
            Self::Sync { folder } | Self::List { folder, .. } => folder,
        }
    }

    /// What it does, without what differs from run to run: names that are digests of sealed bytes.
    pub fn label(&self) -> String {
        let verb = match self {
            Self::Put { create: true, .. } => "create",
            Self::Put { .. } => "write",
            Self::Sync { .. } => "sync",
            Self::Get { .. } => "read",
            Self::List { .. } => "list",
            Self::Delete { .. } => "remove",
        };
        format!("{verb} {}", class_of(self.place()))
    }

    /// Whether the order of two requests can make a difference.
    pub fn meets(&self, other: &Self) -> bool {
        if !self.is_write() && !other.is_write() {
            return false;
        }
        match (self, other) {
            (Self::List { folder, .. }, other) | (other, Self::List { folder, .. }) => is_below(other.place(), folder),
            (Self::Sync { folder }, other) | (other, Self::Sync { folder }) => {
                other.is_write() && folder_of(other.place()) == folder
            }
            _ => self.place() == other.place(),
        }
    }
}

/// The folder of a key.
pub fn folder_of(key: &str) -> &str {
    key.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn is_below(key: &str, folder: &str) -> bool {
    folder.is_empty() || key.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// A key without a digest in it.
pub fn class_of(key: &str) -> String {
    let (folder, name) = key.rsplit_once('/').unwrap_or(("", key));
    if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return format!("{}/*", folder.split('/').next().unwrap_or_default());
    }
    match key.strip_prefix("data/") {
        Some(two) if two.len() == 2 => "data/*".into(),
        _ => key.into(),
    }
}

/// What comes back.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Done.
    Done,
    /// An object.
    Object(Object),
    /// Names with sizes, and whether these were all.
    Names(Vec<(String, Object)>, bool),
}

/// Why nothing comes back.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// It is there already.
    Exists,
    /// It is not there.
    Absent,
    /// Something that may pass; whether it was done is not said.
    Passing,
}

/// What comes of a request.
pub type Outcome = Result<Answer, Refusal>;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It fails, and was not done.
    Refused,
    /// It was done, and is reported as failed.
    Unheard,
    /// It is reported as failed, and is done later all the same.
    Late,
    /// It is reported as done, and half of it is.
    Torn,
}

/// A request that waits.
pub struct Waiting {
    /// Whose.
    pub client: Client,
    /// What.
    pub request: Request,
    label: String,
    ticket: u64,
    answer: oneshot::Sender<Outcome>,
}

/// A request that waits, as a plan sees it.
#[derive(Clone, Debug)]
pub struct Glimpse {
    /// Whose.
    pub client: Client,
    /// What.
    pub request: Request,
    /// [`Request::label`].
    pub label: String,
}

/// A change of names that a power cut may undo.
#[derive(Clone)]
struct Unsynced {
    key: String,
    before: Option<Object>,
}

/// A write that is still on its way.
struct Straggler {
    request: Request,
    steps_left: usize,
}

/// The store.
pub struct World {
    /// How it keeps things.
    pub medium: Medium,
    /// Names in one answer to a listing.
    pub page: usize,
    /// How long a new name may be missing in listings.
    pub lag: Duration,
    epoch: (Instant, SystemTime),
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: Objects,
    /// When a name was last put, for listings that lag.
    put_at: BTreeMap<String, Instant>,
    unsynced: Vec<Unsynced>,
    waiting: Vec<Waiting>,
    stragglers: Vec<Straggler>,
    dead: Vec<bool>,
    tickets: u64,
    steps: Vec<String>,
}

impl World {
    /// A store that holds `objects`, all of them durable.
    pub fn new(medium: Medium, objects: Objects, clients: usize, now: SystemTime) -> Self {
        let state = State { objects, dead: vec![false; clients], ..State::default() };
        Self { medium, page: usize::MAX, lag: Duration::ZERO, epoch: (Instant::now(), now), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store's clock.
    pub fn now(&self) -> SystemTime {
        self.epoch.1 + self.epoch.0.elapsed()
    }

    /// What a client asks for; nothing will come where the client is dead.
    pub fn ask(&self, client: Client, request: Request) -> oneshot::Receiver<Outcome> {
        let (answer, outcome) = oneshot::channel();
        let mut state = self.state();
        if client == AUDITOR {
            // Whoever looks afterwards comes late enough to see everything.
            state.put_at.clear();
            let done = self.apply(&mut state, &request);
            state.put_at.clear();
            drop(answer.send(done));
        } else if !state.dead[client] {
            state.tickets += 1;
            let (label, ticket) = (request.label(), state.tickets);
            state.waiting.push(Waiting { client, request, label, ticket, answer });
        }
        outcome
    }

    /// The requests that wait, in an order that does not depend on chance where their labels differ.
    pub fn waiting(&self) -> Vec<Glimpse> {
        let mut state = self.state();
        let size = |request: &Request| match request {
            Request::Put { body, .. } => body.len(),
            _ => 0,
        };
        state.waiting.sort_by(|a, b| {
            let order = |waiting: &Waiting| (waiting.client, size(&waiting.request), waiting.ticket);
            (a.client, &a.label).cmp(&(b.client, &b.label)).then_with(|| order(a).cmp(&order(b)))
        });
        let glimpse = |waiting: &Waiting| Glimpse {
            client: waiting.client,
            request: waiting.request.clone(),
            label: waiting.label.clone(),
        };
        state.waiting.iter().map(glimpse).collect()
    }

    /// Lets the request at this place of [`World::waiting`] happen.
    pub fn release(&self, at: usize, fault: Fault, steps_late: usize) {
        let mut state = self.state();
        let waiting = state.waiting.remove(at);
        let suffix = if fault == Fault::None { String::new() } else { format!(" ({fault:?})") };
        state.steps.push(format!("{}: {}{suffix}", waiting.client, waiting.label));
        let outcome = match fault {
            Fault::None => self.apply(&mut state, &waiting.request),
            Fault::Refused => Err(Refusal::Passing),
            Fault::Unheard => self.apply(&mut state, &waiting.request).and(Err(Refusal::Passing)),
            Fault::Late => {
                state.stragglers.push(Straggler { request: waiting.request.clone(), steps_left: steps_late });
                Err(Refusal::Passing)
            }
            Fault::Torn => self.apply(&mut state, &torn(&waiting.request)),
        };
        // Whoever gave up waiting does not hear it.
        drop(waiting.answer.send(outcome));
        self.settle_stragglers(&mut state);
    }

    fn settle_stragglers(&self, state: &mut State) {
        for straggler in &mut state.stragglers {
            straggler.steps_left = straggler.steps_left.saturating_sub(1);
        }
        let (arrived, on_their_way) =
            std::mem::take(&mut state.stragglers).into_iter().partition::<Vec<_>, _>(|late| late.steps_left == 0);
        state.stragglers = on_their_way;
        for late in arrived {
            state.steps.push(format!("late: {}", late.request.label()));
            drop(self.apply(state, &late.request));
        }
    }

    /// Lets everything that is on its way arrive.
    pub fn let_stragglers_arrive(&self) {
        let mut state = self.state();
        for straggler in &mut state.stragglers {
            straggler.steps_left = 0;
        }
        self.settle_stragglers(&mut state);
    }

    /// A process ends: nothing it asks for from now on happens. What it waits for is not answered; with `steps_late` it
    /// is on its way, and arrives.
    pub fn kill(&self, client: Client, steps_late: Option<usize>) {
        let mut state = self.state();
        state.dead[client] = true;
        let (theirs, others) =
            std::mem::take(&mut state.waiting).into_iter().partition::<Vec<_>, _>(|waiting| waiting.client == client);
        state.waiting = others;
        if let Some(steps_left) = steps_late {
            let writes = theirs.into_iter().map(|waiting| waiting.request).filter(Request::is_write);
            state.stragglers.extend(writes.map(|request| Straggler { request, steps_left }));
        }
        state.steps.push(format!("{client}: killed"));
    }

    /// All processes end.
    pub fn kill_all(&self) {
        let mut state = self.state();
        state.dead.fill(true);
        state.waiting.clear();
    }

    /// Whether it lives.
    pub fn is_alive(&self, client: Client) -> bool {
        !self.state().dead[client]
    }

    /// How many changes of names a power cut may undo.
    pub fn unsynced(&self) -> usize {
        self.state().unsynced.len()
    }

    /// The power goes. Of the changes that are not durable `keeps` says for each, by how many are newer, whether it is lucky.
    /// Changes of one name keep their order: what comes after a lost one is lost.
    pub fn cut_power(&self, mut keeps: impl FnMut(usize) -> bool) {
        let mut state = self.state();
        let mut lost: BTreeMap<String, Option<Object>> = BTreeMap::new();
        let changes = std::mem::take(&mut state.unsynced);
        let newer = (0..changes.len()).rev();
        for (change, newer) in changes.into_iter().zip(newer) {
            if !lost.contains_key(&change.key) && !keeps(newer) {
                lost.insert(change.key, change.before);
            }
        }
        let undone: Vec<String> = lost.keys().map(|key| class_of(key)).collect();
        for (key, before) in lost {
            match before {
                Some(object) => drop(state.objects.insert(key, object)),
                None => drop(state.objects.remove(&key)),
            }
        }
        state.stragglers.clear();
        state.steps.push(format!("power cut, undone: {undone:?}"));
    }

    /// Everything is so much older: time that passed by the store's clock, while ours is the machine's.
    pub fn age(&self, by: Duration) {
        for object in self.state().objects.values_mut() {
            object.modified -= by;
        }
    }

    /// What is seen.
    pub fn objects(&self) -> Objects {
        self.state().objects.clone()
    }

    /// All that happened, for people.
    pub fn steps(&self) -> Vec<String> {
        self.state().steps.clone()
    }

    /// Notes something for people.
    pub fn note(&self, what: String) {
        self.state().steps.push(what);
    }

    fn apply(&self, state: &mut State, request: &Request) -> Outcome {
        match request {
            Request::Put { key, create, .. } if *create && state.objects.contains_key(key) => Err(Refusal::Exists),
            Request::Put { key, body, .. } => {
                let object = Object { bytes: body.clone(), modified: self.now() };
                let before = state.objects.insert(key.clone(), object);
                state.put_at.insert(key.clone(), Instant::now());
                self.changed(state, key, before);
                Ok(Answer::Done)
            }
            Request::Delete { key } => {
                if let Some(before) = state.objects.remove(key) {
                    self.changed(state, key, Some(before));
                }
                Ok(Answer::Done)
            }
            Request::Sync { folder } => {
                state.unsynced.retain(|change| folder_of(&change.key) != folder);
                Ok(Answer::Done)
            }
            Request::Get { key } => state.objects.get(key).cloned().map(Answer::Object).ok_or(Refusal::Absent),
            Request::List { folder, after, most } => {
                let from = if after.is_empty() { folder } else { after };
                let visible = |key: &str| {
                    let age = state.put_at.get(key).map(Instant::elapsed);
                    age.is_none_or(|age| age >= self.lag)
                };
                let mut names = state.objects.range(from.clone()..).filter(|(key, _)| {
                    is_below(key, folder) && (after.is_empty() || key.as_str() > after.as_str()) && visible(key)
                });
                let page: Vec<_> =
                    names.by_ref().take(*most).map(|(key, object)| (key.clone(), object.clone())).collect();
                let all = names.next().is_none();
                Ok(Answer::Names(page, all))
            }
        }
    }

    fn changed(&self, state: &mut State, key: &str, before: Option<Object>) {
        if self.medium == Medium::Folder {
            state.unsynced.push(Unsynced { key: key.into(), before });
        }
    }
}

/// The same with half a body.
fn torn(request: &Request) -> Request {
    match request {
        Request::Put { key, body, create } => {
            Request::Put { key: key.clone(), body: body.slice(..body.len() / 2), create: *create }
        }
        other => other.clone(),
    }
}

/// Part of an object's bytes, as far as it has them.
pub fn part(object: &Object, range: &Range<u64>) -> Bytes {
    let end = (range.end as usize).min(object.bytes.len());
    object.bytes.slice((range.start as usize).min(end)..end)
}
