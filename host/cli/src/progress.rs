//! How far a job is, on a terminal.

use crate::{limits::PROGRESS_DRAW_HZ, output};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// One line that is drawn again and again, by whoever works. Draws nothing when it is not wanted or nobody watches.
pub(crate) struct Progress {
    bars: MultiProgress,
    line: Mutex<Line>,
}

struct Line {
    bar: Option<ProgressBar>,
    phase: String,
    phase_started: Instant,
}

impl Progress {
    /// `bars` is shared with the log, which writes around it.
    pub(crate) fn new(bars: &MultiProgress) -> Self {
        let line = Line { bar: None, phase: String::new(), phase_started: Instant::now() };
        Self { bars: bars.clone(), line: Mutex::new(line) }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // A drawing that panicked elsewhere is no reason to stop working.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bars of a run: drawn on standard error, when it is a terminal and `wanted`.
    pub(crate) fn bars(wanted: bool) -> MultiProgress {
        MultiProgress::with_draw_target(if wanted {
            // Hides itself when standard error is not a terminal.
            ProgressDrawTarget::stderr_with_hz(PROGRESS_DRAW_HZ)
        } else {
            ProgressDrawTarget::hidden()
        })
    }

    /// `done` of `total` bytes in `phase`.
    pub(crate) fn update(&self, phase: &str, done: u64, total: Option<u64>) {
        let mut line = self.line();
        if line.phase != phase {
            line.finish(&self.bars);
            phase.clone_into(&mut line.phase);
            line.phase_started = Instant::now();
        }
        let (started, phase) = (line.phase_started, line.phase.clone());
        let bar = line.bar.get_or_insert_with(|| self.bars.add(ProgressBar::no_length().with_style(style(false))));
        match total {
            Some(total) if bar.length() != Some(total) => {
                bar.set_style(style(true));
                bar.set_length(total);
            }
            _ => {}
        }
        let seconds = started.elapsed().as_secs_f64().max(0.001);
        bar.set_prefix(phase);
        bar.set_message(format!("{}/s", output::size((done as f64 / seconds) as u64)));
        bar.set_position(done);
    }

    /// Takes the line away.
    pub(crate) fn finish(&self) {
        self.line().finish(&self.bars);
    }
}

impl Line {
    fn finish(&mut self, bars: &MultiProgress) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            bars.remove(&bar);
        }
        self.phase.clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn style(with_total: bool) -> ProgressStyle {
    let template = if with_total {
        "{prefix} [{bar:30}] {binary_bytes}/{binary_total_bytes} {msg} {elapsed}"
    } else {
        "{prefix} {spinner} {binary_bytes} {msg} {elapsed}"
    };
    // A template that does not parse would only cost the looks.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}
