//! A compiled plugin, and a job's one instance of it.

use crate::{
    backup::BackupWriter,
    bindings::{Plugin as Bound, PluginPre, exports::backstay::engine::engine as wit},
    clock::Clock,
    confine::{Rights, confine},
    directory::{Directory, DirectoryInner},
    engine::{Ticker, engine},
    error::{EngineError, SandboxError},
    header::{Header, read_component},
    inspection::Inspectors,
    limits,
    log::{LogReader, LogWriter},
    ports::{BackupSink, BackupSource, LogSink, LogSource},
    report::{BackupReport, Description, Facts, RestoreReport},
    restore::BackupReader,
    state::{HasState, JobContext, State},
};
use backstay_audited::precompiled;
use backstay_core::{Timestamp, Volume};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use wasmtime::{
    Engine, Store, UpdateDeadline,
    component::{Accessor, Linker},
};

/// A plugin, ready to run.
pub struct Plugin {
    name: String,
    path: PathBuf,
    header: Header,
    pre: PluginPre<State>,
}

/// Where to restore to, in the engine's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryTarget {
    /// As early as the backup is consistent.
    BackupEnd,
    /// The end of the log.
    Latest,
    /// The last state at this time.
    Time(Timestamp),
    /// A position as the engine writes it.
    Position(String),
    /// A transaction.
    Transaction(String),
    /// A named restore point.
    Name(String),
}

/// A place that a plugin found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Nothing: whichever branch the restore follows.
    pub epoch: Option<u64>,
    /// Bytes into it.
    pub offset: u64,
}

/// What to restore.
#[derive(Clone, Debug)]
pub struct RestoreJob {
    /// Where to.
    pub target: RecoveryTarget,
    /// Whether what lies at the target is part of the result.
    pub inclusive: bool,
    /// The branch of history to follow.
    pub epoch: Option<u64>,
    /// The backup's volumes, at the chosen locations.
    pub volumes: Vec<Volume>,
    /// The folder holds an older state that may be reused.
    pub delta: bool,
}

/// Compiles a plugin and keeps the result. Runs in a process of its own, under limits on
/// memory and CPU; from the first step behind the header on it reaches nothing but the cache:
/// the compiler sees bytes that nobody has vouched for.
pub fn compile(path: &Path, cache: &Path) -> Result<(), SandboxError> {
    let failed = |reason: String| SandboxError::Compile { path: path.to_owned(), reason };
    let limit = |resource, max| {
        let both = rustix::process::Rlimit { current: Some(max), maximum: Some(max) };
        rustix::process::setrlimit(resource, both).map_err(|error| failed(error.to_string()))
    };
    limit(rustix::process::Resource::As, limits::COMPILE_ADDRESS_BYTES_MAX)?;
    limit(rustix::process::Resource::Cpu, limits::COMPILE_CPU_SECONDS_MAX)?;
    let bytes = read_component(path)?;
    Header::parse(path, &bytes)?;
    // Made first: only to what is there a right can be given.
    precompiled::private_folder(cache)
        .map_err(|error| failed(format!("failed to keep the result in {}: {error}", cache.display())))?;
    confine(&Rights { write: vec![cache.to_owned()], ..Rights::default() }).map_err(failed)?;
    let engine = engine().map_err(|error| failed(error.to_string()))?;
    let compiled = engine.precompile_component(&bytes).map_err(|error| failed(format!("{error:#}")))?;
    precompiled::keep(&precompiled::kept_at(cache, &engine, &bytes), &compiled)
        .map_err(|error| failed(format!("failed to keep the result in {}: {error}", cache.display())))
}

/// The engine that a component file is for: its name without the ending.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

/// How long [`compile`] may take.
pub const COMPILE_WALL: Duration = limits::COMPILE_WALL;

impl Plugin {
    /// Loads a plugin that [`compile`] has kept; nothing when it has to be compiled first.
    pub fn load(path: &Path, cache: &Path) -> Result<Option<Self>, SandboxError> {
        let failed =
            |error: wasmtime::Error| SandboxError::Compile { path: path.to_owned(), reason: format!("{error:#}") };
        let bytes = read_component(path)?;
        let header = Header::parse(path, &bytes)?;
        let engine = engine().map_err(failed)?;
        let Some(component) = precompiled::load(&precompiled::kept_at(cache, &engine, &bytes), &engine) else {
            return Ok(None);
        };
        if let Some(needed) = component.resources_required()
            && (needed.num_memories as usize > limits::MEMORIES_MAX || needed.num_tables as usize > limits::TABLES_MAX)
        {
            return Err(SandboxError::NotAPlugin {
                path: path.to_owned(),
                reason: "it wants more memories or tables than a plugin may have".to_owned(),
            });
        }
        let mut linker = Linker::new(&engine);
        Bound::add_to_linker::<State, HasState>(&mut linker, |state| state).map_err(failed)?;
        let pre = linker.instantiate_pre(&component).and_then(PluginPre::new).map_err(failed)?;
        Ok(Some(Self { name: name_of(path), path: path.to_owned(), header, pre }))
    }

    /// What the component file says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The component file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who the plugin says it is.
    pub async fn describe(&self, context: JobContext) -> Result<Description, SandboxError> {
        let description = self
            .run(context, Clock::Wall(limits::DESCRIBE_WALL), async |accessor, bound| {
                bound.backstay_engine_engine().call_describe(accessor).await
            })
            .await?;
        Description::checked(description, &self.name).map_err(|reason| self.misbehaved(reason))
    }

    /// Connects and looks.
    pub async fn inspect(&self, context: JobContext) -> Result<Facts, SandboxError> {
        let facts = self
            .run(context, Clock::Wall(limits::INSPECT_WALL), async |accessor, bound| {
                bound.backstay_engine_engine().call_inspect(accessor).await
            })
            .await?;
        Facts::checked(facts.map_err(EngineError::from)?).map_err(|reason| self.misbehaved(reason))
    }

    /// Makes a backup.
    pub async fn backup(
        &self,
        context: JobContext,
        method: &str,
        label: &str,
        sink: Arc<dyn BackupSink>,
    ) -> Result<BackupReport, SandboxError> {
        let job = wit::BackupJob { method: method.to_owned(), label: label.to_owned() };
        let without_grants = context.without_grants("inspect-part");
        let inspectors = Inspectors::new(&self.name, self.pre.clone(), without_grants);
        let clock = idle(&context);
        let report = self
            .run(context, clock, async |accessor, bound| {
                let writer = BackupWriter::new(sink, inspectors);
                let writer = accessor.with(|mut access| access.get().table.push(writer))?;
                bound.backstay_engine_engine().call_backup(accessor, job, writer).await
            })
            .await?;
        BackupReport::checked(report.map_err(EngineError::from)?).map_err(|reason| self.misbehaved(reason))
    }

    /// Follows the log until the job's stop is set.
    pub async fn archive(&self, context: JobContext, sink: Arc<dyn LogSink>) -> Result<(), SandboxError> {
        let drain = Duration::from_secs(u64::from(context.limits.drain_seconds));
        let clock = Clock::Drain(context.stop.clone(), drain);
        let done = self
            .run(context, clock, async |accessor, bound| {
                let writer = accessor.with(|mut access| access.get().table.push(LogWriter::new(sink)))?;
                bound.backstay_engine_engine().call_archive(accessor, writer).await
            })
            .await?;
        Ok(done.map_err(EngineError::from)?)
    }

    /// Finds a position, transaction or name.
    pub async fn locate(
        &self,
        context: JobContext,
        target: RecoveryTarget,
        logs: Option<Arc<dyn LogSource>>,
    ) -> Result<Option<Place>, SandboxError> {
        let clock = idle(&context);
        let found = self
            .run(context, clock, async |accessor, bound| {
                let logs = push_logs(accessor, logs)?;
                bound.backstay_engine_engine().call_locate(accessor, target.into(), logs).await
            })
            .await?;
        let place = found.map_err(EngineError::from)?;
        Ok(place.map(|place| Place { epoch: place.epoch, offset: place.offset }))
    }

    /// Puts a backup and its log into a folder.
    pub async fn restore(
        &self,
        context: JobContext,
        job: RestoreJob,
        from: Arc<dyn BackupSource>,
        logs: Option<Arc<dyn LogSource>>,
        into: Arc<DirectoryInner>,
    ) -> Result<RestoreReport, SandboxError> {
        let clock = idle(&context);
        let report = self
            .run(context, clock, async |accessor, bound| {
                let logs = push_logs(accessor, logs)?;
                let from = accessor.with(|mut access| access.get().table.push(BackupReader(from)))?;
                let into = accessor.with(|mut access| access.get().table.push(Directory(into)))?;
                bound.backstay_engine_engine().call_restore(accessor, job.into(), from, logs, into).await
            })
            .await?;
        RestoreReport::checked(report.map_err(EngineError::from)?).map_err(|reason| self.misbehaved(reason))
    }

    fn misbehaved(&self, reason: String) -> SandboxError {
        SandboxError::Misbehaved { plugin: self.name.clone(), reason }
    }

    /// One store, one instance, one call. Dropping the store at the end, whatever the
    /// end, is the hard cancel.
    async fn run<R>(
        &self,
        context: JobContext,
        clock: Clock,
        call: impl AsyncFnOnce(&Accessor<State>, &Bound) -> wasmtime::Result<R>,
    ) -> Result<R, SandboxError> {
        let trapped = |reason: String| SandboxError::Trapped { plugin: self.name.clone(), reason };
        let state = State::new(context, &self.name);
        let run_out = clock.run_out(state.activity.clone());
        let mut store = store(self.pre.engine(), state);
        let _ticker = Ticker::start(self.pre.engine()).map_err(|error| trapped(error.to_string()))?;
        let whole = async {
            let bound = self.pre.instantiate_async(&mut store).await?;
            store.run_concurrent(async |accessor| call(accessor, &bound).await).await?
        };
        let result = tokio::select! {
            result = whole => result,
            reason = run_out => Err(wasmtime::Error::msg(reason)),
        };
        result.map_err(|error| {
            let reason = store.data().limiter.refused.clone();
            trapped(reason.unwrap_or_else(|| trap_words(&error)))
        })
    }
}

fn idle(context: &JobContext) -> Clock {
    Clock::Idle(Duration::from_secs(u64::from(context.limits.idle_seconds)))
}

/// A store with every limit on it. The engine's epoch must move while it runs.
pub(crate) fn store(engine: &Engine, state: State) -> Store<State> {
    let stall = Duration::from_secs(u64::from(state.context.limits.stall_seconds));
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(limits::HOSTCALL_BYTES_MAX);
    store.set_max_component_handles(limits::HANDLES_MAX);
    if let Some(table) = store.concurrent_resource_table() {
        table.set_max_capacity(limits::HANDLES_MAX);
    }
    watch_for_stalls(&mut store, stall);
    store
}

fn push_logs(
    accessor: &Accessor<State>,
    logs: Option<Arc<dyn LogSource>>,
) -> wasmtime::Result<Option<wasmtime::component::Resource<LogReader>>> {
    let Some(logs) = logs else { return Ok(None) };
    accessor.with(|mut access| Ok(Some(access.get().table.push(LogReader(logs))?)))
}

/// Ends a plugin that only computes: each epoch tick looks whether anything moved since.
fn watch_for_stalls(store: &mut Store<State>, stall: Duration) {
    store.set_epoch_deadline(1);
    let mut seen = (u64::MAX, Instant::now());
    let mut previous = Instant::now();
    let mut computed = Duration::ZERO;
    store.epoch_deadline_callback(move |context| {
        let now = Instant::now();
        let moved = context.data().activity.count();
        if moved != seen.0 {
            seen = (moved, now);
            computed = Duration::ZERO;
        } else {
            // Between two ticks the plugin ran at most for one; waiting does not count.
            computed += now.duration_since(previous).min(2 * limits::EPOCH_TICK);
        }
        previous = now;
        if computed > stall {
            return Err(wasmtime::format_err!("it computed for {} seconds without moving a byte", stall.as_secs()));
        }
        Ok(UpdateDeadline::Yield(1))
    });
}

/// The first line that tells people something: a wasm backtrace does not.
pub(crate) fn trap_words(error: &wasmtime::Error) -> String {
    let words = match error.downcast_ref::<wasmtime::Trap>() {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    crate::log_gate::printable(words.lines().next().unwrap_or("unknown"), 500)
}

impl From<RecoveryTarget> for wit::RecoveryTarget {
    fn from(target: RecoveryTarget) -> Self {
        match target {
            RecoveryTarget::BackupEnd => Self::BackupEnd,
            RecoveryTarget::Latest => Self::Latest,
            RecoveryTarget::Time(time) => Self::Time(time.as_micros()),
            RecoveryTarget::Position(label) => Self::Position(label),
            RecoveryTarget::Transaction(id) => Self::Transaction(id),
            RecoveryTarget::Name(name) => Self::Name(name),
        }
    }
}

impl From<RestoreJob> for wit::RestoreJob {
    fn from(job: RestoreJob) -> Self {
        Self {
            target: job.target.into(),
            inclusive: job.inclusive,
            epoch: job.epoch,
            volumes: job
                .volumes
                .into_iter()
                .map(|volume| wit::Volume { name: volume.name, title: volume.title, location: volume.location })
                .collect(),
            delta: job.delta,
        }
    }
}
