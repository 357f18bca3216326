//! Reads the log inside a backup while it passes by, for the times of its commits.

use backstay_postgresql_wire::wal::{Detail, Scanner};

use crate::limits::COMMITS_MAX;

/// The times of the commits seen.
#[derive(Debug, Default)]
pub(super) struct WalWatch {
    scanner: Option<Scanner>,
    /// The latest time of the commits that are no longer remembered one by one.
    earlier: Option<u64>,
    /// Ends of commits and their times, where a time is later than all before it.
    commits: Vec<(u64, u64)>,
}

impl WalWatch {
    /// A log file begins that starts at `start`.
    pub(super) fn begin_file(&mut self, start: u64) {
        let continues = |scanner: &Scanner| scanner.position() == start;
        if !self.scanner.as_ref().is_some_and(continues) {
            self.scanner = Some(Scanner::new(start));
        }
    }

    /// Bytes of the file that began last.
    pub(super) fn data(&mut self, mut data: &[u8]) {
        let Some(mut scanner) = self.scanner.take() else {
            return;
        };
        while !data.is_empty() {
            let before = data.len();
            match scanner.next(&mut data) {
                Ok(Some(record)) => {
                    if let Some(Detail::Commit { time, .. }) = record.detail {
                        self.note(record.end, time);
                    }
                }
                Ok(None) => break,
                // What a standby has not overwritten yet in its last file looks like this. The
                // server vouches for the log; here only the times of commits are at stake.
                Err(_) if data.len() < before => {}
                Err(_) => return,
            }
        }
        self.scanner = Some(scanner);
    }

    fn note(&mut self, end: u64, time: u64) {
        let latest = self.commits.last().map(|(_, time)| *time).max(self.earlier);
        if latest.is_some_and(|latest| latest >= time) {
            return;
        }
        if self.commits.len() == COMMITS_MAX {
            let last_of_half = self.commits.drain(..COMMITS_MAX / 2).next_back();
            self.earlier = last_of_half.map(|(_, time)| time).max(self.earlier);
        }
        self.commits.push((end, time));
    }

    /// The latest time of the commits that end at or before `end`.
    pub(super) fn last_commit_before(&self, end: u64) -> Option<u64> {
        self.commits.iter().rev().find(|(commit, _)| *commit <= end).map(|(_, time)| *time).or(self.earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_time_up_to_a_place_counts_and_clocks_may_step_back() {
        let mut watch = WalWatch::default();
        for (end, time) in [(10, 100), (20, 300), (30, 200), (40, 400)] {
            watch.note(end, time);
        }
        assert_eq!(watch.last_commit_before(9), None);
        assert_eq!(watch.last_commit_before(10), Some(100));
        assert_eq!(watch.last_commit_before(30), Some(300));
        assert_eq!(watch.last_commit_before(99), Some(400));
    }

    #[test]
    fn very_many_commits_are_remembered_by_their_latest_only() {
        let mut watch = WalWatch::default();
        for n in 0..COMMITS_MAX as u64 + 10 {
            watch.note(n, n);
        }
        assert!(watch.commits.len() <= COMMITS_MAX);
        assert_eq!(watch.last_commit_before(0), Some(COMMITS_MAX as u64 / 2 - 1));
        assert_eq!(watch.last_commit_before(u64::MAX), Some(COMMITS_MAX as u64 + 9));
    }
}
