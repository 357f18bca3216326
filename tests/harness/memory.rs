//! How much memory jobs take.

use crate::{kill::descendants, limits::POLL};
use std::{
    fs::read_to_string,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

/// Looks at the jobs that this test started, until it is asked or dropped.
pub struct Watch {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Watch {
    /// Begins.
    pub fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut peak = 0;
            while !until.load(Ordering::Relaxed) {
                peak = peak.max(descendants(std::process::id()).into_iter().filter_map(of_job).sum());
                std::thread::sleep(POLL);
            }
            peak
        });
        Self { over, thread: Some(thread) }
    }

    /// The most that all of them together had at a moment, in MiB: their own memory, without what files lie behind.
    pub fn peak_mebibytes(mut self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or(u64::MAX) >> 10
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
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
