//! How much memory jobs take.

use crate::{kill::descendants, limits::POLL};
use std::{
    fs::read_to_string,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Looks at the jobs that this test started, as long as it lives.
pub struct Watch {
    peak_kib: Arc<AtomicU64>,
}

impl Watch {
    /// Begins.
    pub fn start() -> Self {
        let peak_kib = Arc::new(AtomicU64::new(0));
        let watched = Arc::downgrade(&peak_kib);
        std::thread::spawn(move || {
            while let Some(peak) = watched.upgrade() {
                peak.fetch_max(descendants(std::process::id()).into_iter().filter_map(of_job).sum(), Ordering::Relaxed);
                drop(peak);
                std::thread::sleep(POLL);
            }
        });
        Self { peak_kib }
    }

    /// The most that all of them together had at a moment, in MiB: their own memory, without what files lie behind.
    pub fn peak_mebibytes(self) -> u64 {
        self.peak_kib.load(Ordering::Relaxed) >> 10
    }
}

/// KiB of a process, if it does a job.
fn of_job(pid: u32) -> Option<u64> {
    let told = read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    if told.split('\0').nth(1) != Some("job") {
        return None;
    }
    let status = read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.split_whitespace().next()?.parse().ok()
}
