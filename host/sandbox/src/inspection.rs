//! Showing parts of files to a plugin while they are stored.
//!
//! ```text
//!   threads that read ─► look ─► an idle instance ─► engine.inspect-part ─► findings
//! ```
//!
//! Every thread takes an instance for itself: there are as many as there are threads that read. They have no grant.

use crate::{
    bindings::{Plugin as Bound, PluginPre, exports::backstay::engine::engine as wit},
    error::{EngineError, EngineErrorKind},
    limits::{self, FINDINGS_MAX, INSPECTED_BYTES_MAX, TEXT_BYTES_MAX},
    log_gate::printable,
    plugin,
    ports::Witness,
    state::{JobContext, State},
};
use backstay_core::{Finding, RelativePath};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use wasmtime::Store;

/// Instances of one plugin that look at parts of files.
pub(crate) struct Inspectors {
    plugin: String,
    pre: PluginPre<State>,
    context: Box<dyn Fn() -> JobContext + Send + Sync>,
    idle: Mutex<Vec<Inspector>>,
}

struct Inspector {
    store: Store<State>,
    bound: Bound,
}

impl Inspectors {
    /// `context` answers what each instance gets: no grant among it.
    pub(crate) fn new(
        plugin: &str,
        pre: PluginPre<State>,
        context: impl Fn() -> JobContext + Send + Sync + 'static,
    ) -> Self {
        Self { plugin: plugin.to_owned(), pre, context: Box::new(context), idle: Mutex::default() }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Inspector>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks. An instance that trapped is not used again.
    fn inspect(&self, part: &wit::FilePart, bytes: &[u8]) -> Result<Vec<wit::Finding>, EngineError> {
        let runtime = Handle::current();
        let trapped = |error: &wasmtime::Error| {
            let words = plugin::trap_words(error);
            EngineError::new(EngineErrorKind::Internal, format!("plugin `{}` failed: {words}", self.plugin))
        };
        let waiting = self.idle().pop();
        let mut inspector = match waiting {
            Some(inspector) => inspector,
            None => runtime.block_on(self.instantiate()).map_err(|error| trapped(&error))?,
        };
        let Inspector { store, bound } = &mut inspector;
        store.data().activity.note();
        store.set_hostcall_fuel(limits::HOSTCALL_BYTES_MAX);
        let call = bound.backstay_engine_engine().call_inspect_part(&mut *store, part, bytes);
        let found = runtime.block_on(call).map_err(|error| match store.data().limiter.refused.clone() {
            Some(reason) => {
                EngineError::new(EngineErrorKind::Internal, format!("plugin `{}` failed: {reason}", self.plugin))
            }
            None => trapped(&error),
        })?;
        self.idle().push(inspector);
        found.map_err(EngineError::from)
    }

    async fn instantiate(&self) -> wasmtime::Result<Inspector> {
        let mut store = plugin::store(self.pre.engine(), State::new((self.context)(), &self.plugin));
        let bound = self.pre.instantiate_async(&mut store).await?;
        Ok(Inspector { store, bound })
    }
}

/// What was found so far.
#[derive(Default)]
pub(crate) struct Findings(Mutex<Found>);

/// What was found in a folder.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// By file, in no order.
    pub named: Vec<Finding>,
    /// How many more there were than can be kept.
    pub more: u64,
}

impl Findings {
    fn held(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, path: &RelativePath, finding: &wit::Finding) {
        let mut found = self.held();
        if found.named.len() == FINDINGS_MAX {
            found.more += 1;
            return;
        }
        let what = printable(&finding.what, TEXT_BYTES_MAX);
        found.named.push(Finding { path: path.as_str().to_owned(), offset: finding.offset, what });
    }

    pub(crate) fn take(&self) -> Found {
        std::mem::take(&mut self.held())
    }
}

/// One file's parts.
pub(crate) struct Inspection {
    pub(crate) inspectors: Arc<Inspectors>,
    /// For the plugin: below the folder that it gave.
    pub(crate) path: RelativePath,
    /// In the backup.
    pub(crate) stored: RelativePath,
    pub(crate) context: Arc<str>,
    pub(crate) findings: Arc<Findings>,
}

impl Witness for Inspection {
    fn look(&self, offset: u64, bytes: &[u8], last: bool) -> Result<bool, EngineError> {
        let mut fine = true;
        let starts = (offset..).step_by(INSPECTED_BYTES_MAX);
        for (offset, bytes) in starts.zip(bytes.chunks(INSPECTED_BYTES_MAX)) {
            let part = wit::FilePart {
                path: self.path.as_str().to_owned(),
                offset,
                context: self.context.as_ref().to_owned(),
            };
            let found = self.inspectors.inspect(&part, bytes)?;
            fine &= found.is_empty();
            if last {
                found.iter().for_each(|finding| self.findings.add(&self.stored, finding));
            }
        }
        Ok(fine)
    }
}
