//! Plugin log lines: rate-limited, printable, labelled.

use crate::limits::{LOG_LINE_BYTES_MAX, LOG_LINES_BURST, LOG_LINES_PER_SECOND};
use std::time::Instant;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// A token bucket in front of `tracing`.
pub(crate) struct LogGate {
    plugin: String,
    target: String,
    job: &'static str,
    tokens: f64,
    refilled: Instant,
    dropped: u64,
}

impl LogGate {
    pub(crate) fn new(plugin: &str, target: &str, job: &'static str) -> Self {
        Self {
            plugin: plugin.to_owned(),
            target: target.to_owned(),
            job,
            tokens: f64::from(LOG_LINES_BURST),
            refilled: Instant::now(),
            dropped: 0,
        }
    }

    fn tell_dropped(&mut self) {
        if self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            tracing::warn!(target: "plugin", plugin = %self.plugin, database = %self.target, job = self.job,
                "{dropped} log lines were dropped: the plugin writes too many");
        }
    }

    /// Passes a line on, or counts it as dropped.
    pub(crate) fn line(&mut self, level: Level, message: &str) {
        let now = Instant::now();
        let gained = now.duration_since(self.refilled).as_secs_f64() * f64::from(LOG_LINES_PER_SECOND);
        self.tokens = (self.tokens + gained).min(f64::from(LOG_LINES_BURST));
        self.refilled = now;
        if self.tokens < 1.0 {
            self.dropped += 1;
            return;
        }
        self.tokens -= 1.0;
        self.tell_dropped();
        let message = printable(message, LOG_LINE_BYTES_MAX);
        macro_rules! emit {
            ($level:ident) => {
                tracing::$level!(target: "plugin", plugin = %self.plugin, database = %self.target, job = self.job, "{message}")
            };
        }
        match level {
            Level::Trace => emit!(trace),
            Level::Debug => emit!(debug),
            Level::Info => emit!(info),
            Level::Warn => emit!(warn),
            Level::Error => emit!(error),
        }
    }
}

/// Lines that were dropped last are told at the end.
impl Drop for LogGate {
    fn drop(&mut self) {
        self.tell_dropped();
    }
}

/// Stands for what was cut off.
const CUT: char = '…';

/// One printable line of at most `max` bytes: what a plugin says may reach a terminal.
pub(crate) fn printable(text: &str, max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(max));
    for c in text.trim_end().chars() {
        // Besides controls: characters that reorder what a person reads.
        let hidden =
            c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let c = if c == '\n' || c == '\t' {
            ' '
        } else if hidden {
            '\u{fffd}'
        } else {
            c
        };
        if line.len() + c.len_utf8() > max {
            while line.len() + CUT.len_utf8() > max && line.pop().is_some() {}
            line.push(CUT);
            break;
        }
        line.push(c);
    }
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(printable("a\x1b[31mb\nc\u{202e}d", 100), "a\u{fffd}[31mb c\u{fffd}d");
        assert_eq!(printable(&"x".repeat(50), 10), format!("{}…", "x".repeat(7)));
    }

    #[test]
    fn a_flood_of_lines_is_cut_off() {
        let mut gate = LogGate::new("p", "t", "backup");
        for _ in 0..LOG_LINES_BURST * 3 {
            gate.line(Level::Info, "x");
        }
        assert!(gate.dropped > u64::from(LOG_LINES_BURST));
    }
}
