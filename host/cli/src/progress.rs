//! How far a job is, on a terminal.

use crate::{limits::PROGRESS_DRAW_HZ, output};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Instant;

/// One line that is drawn again and again. Draws nothing when it is not wanted or nobody watches.
pub(crate) struct Progress {
    bars: MultiProgress,
    bar: Option<ProgressBar>,
    phase: String,
    phase_started: Instant,
}

impl Progress {
    /// `bars` is shared with the log, which writes around it.
    pub(crate) fn new(bars: &MultiProgress) -> Self {
        Self { bars: bars.clone(), bar: None, phase: String::new(), phase_started: Instant::now() }
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
    pub(crate) fn update(&mut self, phase: &str, done: u64, total: Option<u64>) {
        if self.phase != phase {
            self.finish();
            phase.clone_into(&mut self.phase);
            self.phase_started = Instant::now();
        }
        let bar = self.bar.get_or_insert_with(|| self.bars.add(ProgressBar::no_length().with_style(style(false))));
        match total {
            Some(total) if bar.length() != Some(total) => {
                bar.set_style(style(true));
                bar.set_length(total);
            }
            _ => {}
        }
        let seconds = self.phase_started.elapsed().as_secs_f64().max(0.001);
        bar.set_prefix(self.phase.clone());
        bar.set_message(format!("{}/s", output::size((done as f64 / seconds) as u64)));
        bar.set_position(done);
    }

    /// Takes the line away.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            self.bars.remove(&bar);
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
