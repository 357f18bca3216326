//! What one store holds: one job's grants, ports and counters.

use crate::{
    directory::DirectoryInner,
    error::{EngineError, EngineErrorKind},
    grants::Grants,
    limits::{self, Limits},
    log_gate::LogGate,
    ports::{Body, Reporter},
};
use backstay_core::Timestamp;
use futures::StreamExt;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::watch;
use wasmtime::{ResourceLimiter, component::HasData, component::ResourceTable};

/// What a job gives to the plugin it runs.
pub struct JobContext {
    /// The target's settings, JSON.
    pub config: String,
    /// What the operator granted.
    pub grants: Grants,
    /// Folders by name, opened before the process confined itself.
    pub directories: BTreeMap<String, Arc<DirectoryInner>>,
    /// Where progress goes, and the time.
    pub reporter: Arc<dyn Reporter>,
    /// Turns true when the job shall wind down.
    pub stop: watch::Receiver<bool>,
    /// Limits of this target.
    pub limits: Limits,
    /// For the log: the target's name.
    pub target: String,
    /// For the log: the job's kind.
    pub job: &'static str,
}

impl JobContext {
    /// Makes contexts of the same job that grant nothing.
    pub(crate) fn without_grants(&self, job: &'static str) -> impl Fn() -> JobContext + Send + Sync + 'static {
        let (reporter, stop, limits, target) =
            (self.reporter.clone(), self.stop.clone(), self.limits, self.target.clone());
        move || JobContext {
            config: "{}".to_owned(),
            grants: Grants::default(),
            directories: BTreeMap::new(),
            reporter: reporter.clone(),
            stop: stop.clone(),
            limits,
            target: target.clone(),
            job,
        }
    }
}

/// The store's data.
pub(crate) struct State {
    pub(crate) table: ResourceTable,
    pub(crate) limiter: Limiter,
    pub(crate) context: JobContext,
    pub(crate) log: LogGate,
    pub(crate) connections: Arc<()>,
    pub(crate) processes: Arc<()>,
    pub(crate) activity: Activity,
}

/// Tells a plugin that works from one that only computes or waits: counts everything that moved.
#[derive(Clone, Default)]
pub(crate) struct Activity(Arc<Moved>);

#[derive(Default)]
struct Moved {
    count: AtomicU64,
    /// Held once more for each thing the host is doing.
    busy: Arc<()>,
}

impl Activity {
    pub(crate) fn note(&self) {
        self.0.count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    /// While this is held the host is at work for the plugin, with nothing passing through it.
    pub(crate) fn busy(&self) -> Arc<()> {
        self.0.busy.clone()
    }

    pub(crate) fn is_busy(&self) -> bool {
        Arc::strong_count(&self.0.busy) > 1
    }

    /// The same body; every chunk of it counts.
    pub(crate) fn watch(&self, body: Body) -> Body {
        let activity = self.clone();
        body.inspect(move |_| activity.note()).boxed()
    }
}

/// How the generated code finds the state.
pub(crate) struct HasState;

impl HasData for HasState {
    type Data<'a> = &'a mut State;
}

impl State {
    pub(crate) fn new(context: JobContext, plugin: &str) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits::HANDLES_MAX);
        Self {
            table,
            limiter: Limiter::new(context.limits),
            log: LogGate::new(plugin, &context.target, context.job),
            context,
            connections: Arc::new(()),
            processes: Arc::new(()),
            activity: Activity::default(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.context.reporter.now()
    }
}

/// Refuses what exceeds the limits, summed over the whole store, and remembers why.
pub(crate) struct Limiter {
    memory_bytes: usize,
    memory_bytes_max: usize,
    table_elements: usize,
    pub(crate) refused: Option<String>,
}

impl Limiter {
    fn new(limits: Limits) -> Self {
        Self { memory_bytes: 0, memory_bytes_max: (limits.memory_mib as usize) << 20, table_elements: 0, refused: None }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        let sum = self.memory_bytes.saturating_sub(current).saturating_add(desired);
        if sum > self.memory_bytes_max {
            self.refused = Some(format!("it asked for more than {} MiB of memory", self.memory_bytes_max >> 20));
            return Ok(false);
        }
        self.memory_bytes = sum;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        let sum = self.table_elements.saturating_sub(current).saturating_add(desired);
        if sum > limits::TABLE_ELEMENTS_MAX {
            self.refused = Some(format!("it asked for more than {} table elements", limits::TABLE_ELEMENTS_MAX));
            return Ok(false);
        }
        self.table_elements = sum;
        Ok(true)
    }

    fn instances(&self) -> usize {
        limits::INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        limits::TABLES_MAX
    }

    fn memories(&self) -> usize {
        limits::MEMORIES_MAX
    }
}

/// The answer for a grant that is not there.
pub(crate) fn not_granted(kind: &str, table: &str, name: &str) -> EngineError {
    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    EngineError::new(EngineErrorKind::BadConfig, format!("the plugin asks for {kind} `{name}`, which is not granted"))
        .hint(format!("grant it in the configuration: {table}.{name}"))
}
