//! So many bytes a second and no more.

use std::{num::NonZeroU64, sync::Mutex, sync::PoisonError, time::Duration};
use tokio::time::Instant;

/// A line that lets a bounded number of bytes through each second. First come, first served.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: NonZeroU64,
    /// When whatever was let through so far has passed.
    free: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: NonZeroU64) -> Self {
        Self { bytes_per_second, free: Mutex::new(Instant::now()) }
    }

    /// The moment from which on these bytes may go. They are counted from now on, whether or not they go.
    pub(super) fn reserve(&self, bytes: usize) -> Instant {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.get() as f64);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        // What nobody used is gone: an idle hour does not end in a burst.
        let start = (*free).max(Instant::now());
        *free = start + takes;
        start
    }

    /// Waits until these bytes may go.
    pub(super) async fn pass(&self, bytes: usize) {
        tokio::time::sleep_until(self.reserve(bytes)).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn many_at_once_share_the_line_and_idle_time_is_not_saved_up() {
        let pace = Pace::new(NonZeroU64::new(10_000).unwrap());
        // Enough for half of what follows, if it could be saved up.
        tokio::time::sleep(Duration::from_millis(250)).await;
        let started = Instant::now();
        let all = (0..10).map(|_| async {
            for _ in 0..5 {
                pace.pass(100).await;
            }
        });
        futures::future::join_all(all).await;
        pace.pass(0).await;
        let took = started.elapsed();
        assert!((500..2000).contains(&took.as_millis()), "5000 bytes at 10000 a second took {took:?}");
    }
}
