//! What ends a call that does not end by itself.
//!
//! The stall rule of the store sees a plugin that computes; these see one that waits. What a plugin
//! may wait for differs: a description for nothing, a backup for a server that has a long
//! checkpoint to write, an archiver for log until the end of time, unless it was asked to stop.

use crate::state::Activity;
use std::time::Duration;
use tokio::{sync::watch, time::Instant};

/// How often a plugin's activity is looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long a call may take.
pub(crate) enum Clock {
    /// So long, whatever happens.
    Wall(Duration),
    /// As long as something moves at least this often.
    Idle(Duration),
    /// Until it is asked to stop, and then so long.
    Drain(watch::Receiver<bool>, Duration),
}

impl Clock {
    /// Ends when the call's time is up, with words for the operator.
    pub(crate) async fn run_out(self, activity: Activity) -> String {
        match self {
            Self::Wall(limit) => {
                tokio::time::sleep(limit).await;
                format!("it did not answer within {} seconds", limit.as_secs())
            }
            Self::Idle(limit) => {
                idle(&activity, limit).await;
                format!("it moved nothing for {} seconds", limit.as_secs())
            }
            Self::Drain(mut stop, limit) => {
                // A gone sender means that nobody can ask any more; then there is no end.
                if stop.wait_for(|stop| *stop).await.is_err() {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(limit).await;
                format!("it did not end within {} seconds after it was asked to stop", limit.as_secs())
            }
        }
    }
}

async fn idle(activity: &Activity, limit: Duration) {
    let mut seen = (activity.count(), Instant::now());
    while seen.1.elapsed() < limit {
        tokio::time::sleep((limit / 10).min(LOOK_EVERY)).await;
        let count = activity.count();
        // What the host itself does for the plugin has bounds of its own.
        if count != seen.0 || activity.is_busy() {
            seen = (count, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(100);

    #[tokio::test(start_paused = true)]
    async fn who_moves_nothing_is_idle_and_who_moves_a_little_is_not() {
        let activity = Activity::default();
        let started = Instant::now();
        let moving = async {
            for _ in 0..5 {
                tokio::time::sleep(LIMIT / 2).await;
                activity.note();
            }
            std::future::pending::<()>().await;
        };
        let words = tokio::select! {
            words = Clock::Idle(LIMIT).run_out(activity.clone()) => words,
            () = moving => unreachable!(),
        };
        assert_eq!(words, "it moved nothing for 100 seconds");
        let took = started.elapsed();
        assert!(took >= LIMIT * 5 / 2 + LIMIT && took < LIMIT * 4, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_host_does_for_a_plugin_is_not_its_idleness() {
        let activity = Activity::default();
        let started = Instant::now();
        let busy = activity.busy();
        let working = async {
            tokio::time::sleep(LIMIT * 50).await;
            drop(busy);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = Clock::Idle(LIMIT).run_out(activity.clone()) => {}
            () = working => unreachable!(),
        }
        // Its end is seen at the look before, or at that very moment.
        assert!(started.elapsed() >= LIMIT * 51 - LIMIT / 10);
    }

    #[tokio::test(start_paused = true)]
    async fn an_archiver_has_for_ever_until_it_is_asked_to_stop() {
        let (stop, asked) = watch::channel(false);
        let started = Instant::now();
        let asking = async {
            tokio::time::sleep(LIMIT * 1000).await;
            stop.send_replace(true);
            std::future::pending::<()>().await;
        };
        let words = tokio::select! {
            words = Clock::Drain(asked, LIMIT).run_out(Activity::default()) => words,
            () = asking => unreachable!(),
        };
        assert_eq!(words, "it did not end within 100 seconds after it was asked to stop");
        assert_eq!(started.elapsed().as_secs(), (LIMIT * 1001).as_secs());
    }
}
