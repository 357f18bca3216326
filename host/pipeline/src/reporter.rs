//! What a job says on its way: progress and log lines, as events.

use crate::job::{Event, LogLevel};
use backstay_core::Timestamp;
use backstay_sandbox::Reporter;
use std::{
    collections::BTreeMap,
    fmt,
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};
use tracing::{Level, Subscriber, field::Field};
use tracing_subscriber::{Layer, filter::LevelFilter, layer::Context, prelude::*};

/// Progress more often than this only makes a parent busy.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

type Emit = fn(Event);

/// Turns progress into events, not too many of them.
pub(crate) struct JobReporter {
    emit: Emit,
    last: Mutex<Option<(String, Instant)>>,
}

impl JobReporter {
    pub(crate) fn new(emit: Emit) -> Self {
        Self { emit, last: Mutex::new(None) }
    }

    /// Passes an event on.
    pub(crate) fn event(&self, event: Event) {
        (self.emit)(event);
    }
}

impl Reporter for JobReporter {
    fn progress(&self, phase: &str, done: u64, total: Option<u64>) {
        let finished = total == Some(done);
        if let Ok(mut last) = self.last.lock() {
            let recent = last.as_ref().is_some_and(|(name, at)| name == phase && at.elapsed() < PROGRESS_EVERY);
            if recent && !finished {
                return;
            }
            *last = Some((phase.to_owned(), Instant::now()));
        }
        (self.emit)(Event::Progress { phase: phase.to_owned(), done, total });
    }

    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}

/// Sends this process's log lines to the parent.
pub(crate) fn install_log(level: LogLevel, emit: Emit) {
    let layer = EventLayer { emit }.with_filter(LevelFilter::from(level));
    // Only a second call in one process could fail, and the first one's log goes on.
    let _ = tracing_subscriber::registry().with(layer).try_init();
}

struct EventLayer {
    emit: Emit,
}

impl<S: Subscriber> Layer<S> for EventLayer {
    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let level = match *metadata.level() {
            Level::TRACE => LogLevel::Trace,
            Level::DEBUG => LogLevel::Debug,
            Level::INFO => LogLevel::Info,
            Level::WARN => LogLevel::Warn,
            Level::ERROR => LogLevel::Error,
        };
        (self.emit)(Event::Log {
            level,
            source: metadata.target().to_owned(),
            message: fields.message,
            fields: fields.others,
        });
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: BTreeMap<String, String>,
}

impl tracing::field::Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.others.insert(field.name().to_owned(), text);
        }
    }
}
