//! Log between its arrival and its append: what is pending, and when it is due.
//!
//! No I/O and no clock: times are handed in.

use backstay_postgresql_wire::lsn::Lsn;
use backstay_postgresql_wire::wal::{Detail, Scanner};
use backstay_postgresql_wire::wal_file::WalFile;
use backstay_sdk::{Error, ErrorKind, Position, Result, Segment, Timestamp};

use super::limits::{PENDING_BYTES_MAX, PIECE_BYTES};
use crate::position::position;
use crate::refusal::from_wire;

/// Where a stream of log begins and how it is cut.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// The timeline that is streamed.
    pub(super) timeline: u32,
    /// The first byte asked for: the beginning of a log file.
    pub(super) from: u64,
    /// The first byte that is not durable yet. What comes before is only scanned, so that
    /// records are known from their beginning.
    pub(super) append_from: u64,
    /// Where the timeline leaves its predecessor, while it has no piece yet.
    pub(super) follows: Option<Position>,
    /// `wal_segment_size` in bytes.
    pub(super) segment_bytes: u64,
    /// Commits wait for us.
    pub(super) synchronous: bool,
    /// How long log may wait where no commit waits for it.
    pub(super) interval_us: u64,
}

/// When the next piece is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Now.
    Now,
    /// After that many microseconds, or when more came.
    In(u64),
    /// When something came.
    Later,
    /// All that came is cut, and no more will come.
    Never,
}

/// One piece, ready to be appended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) segment: Segment,
    pub(super) bytes: Vec<u8>,
}

/// Log between its arrival and its append.
#[derive(Debug)]
pub(super) struct Flow {
    plan: Plan,
    scanner: Scanner,
    pending: Vec<u8>,
    /// Where `pending` starts.
    start: u64,
    /// When the first byte of `pending` came.
    since: Timestamp,
    /// The end of what is durable.
    flushed: u64,
    hurry: bool,
    ended: bool,
    /// What the scanner could not make sense of, to be told once.
    trouble: Option<String>,
}

impl Flow {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            scanner: Scanner::new(plan.from),
            pending: Vec::new(),
            start: plan.from,
            since: 0,
            flushed: plan.append_from,
            hurry: false,
            ended: false,
            trouble: None,
            plan,
        }
    }

    /// The end of what came.
    pub(super) fn received(&self) -> u64 {
        self.start + self.pending.len() as u64
    }

    /// The end of what is durable.
    pub(super) fn flushed(&self) -> u64 {
        self.flushed
    }

    /// A place on the timeline that is streamed.
    pub(super) fn position(&self, lsn: u64) -> Position {
        position(self.plan.timeline, lsn)
    }

    /// Whether so much is pending that nothing more should be taken in.
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= PENDING_BYTES_MAX
    }

    /// Whether all that came is durable.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.flushed >= self.start
    }

    /// What the scanner could not make sense of since this was last asked.
    pub(super) fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    /// What is pending shall not wait any longer.
    pub(super) fn hurry(&mut self) {
        self.hurry = !self.pending.is_empty();
    }

    /// Nothing more will come.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Takes in log that lies at `start`.
    pub(super) fn push(&mut self, start: u64, mut data: &[u8], now: Timestamp) -> Result<()> {
        if start != self.received() {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("the server sent log from {}, expected {}", Lsn(start), Lsn(self.received())),
            ));
        }
        if self.start < self.plan.append_from {
            let known = self.plan.append_from - self.start;
            let known = usize::try_from(known).unwrap_or(usize::MAX).min(data.len());
            let (before, rest) = data.split_at(known);
            self.scan(before);
            self.start += known as u64;
            data = rest;
        }
        if self.pending.is_empty() {
            self.since = now;
        }
        self.pending.extend_from_slice(data);
        Ok(())
    }

    /// When the next piece is due.
    pub(super) fn due(&self, now: Timestamp) -> Due {
        if self.pending.is_empty() {
            return if self.ended { Due::Never } else { Due::Later };
        }
        let at_once = self.plan.synchronous
            || self.hurry
            || self.ended
            || self.pending.len() >= PIECE_BYTES
            || self.received() >= self.file_end();
        let waited = now.saturating_sub(self.since);
        if at_once || waited >= self.plan.interval_us {
            return Due::Now;
        }
        Due::In(self.plan.interval_us - waited)
    }

    /// Where the log file that holds `start` ends.
    fn file_end(&self) -> u64 {
        let within = self.start % self.plan.segment_bytes;
        self.start.saturating_add(self.plan.segment_bytes - within)
    }

    /// Cuts the next piece off what is pending: at most to the end of its file. Nothing when
    /// nothing is pending.
    pub(super) fn cut(&mut self, now: Timestamp) -> Result<Option<Piece>> {
        let room = usize::try_from(self.file_end() - self.start).unwrap_or(usize::MAX);
        let length = self.pending.len().min(PIECE_BYTES).min(room);
        if length == 0 {
            return Ok(None);
        }
        let rest = self.pending.split_off(length);
        let bytes = std::mem::replace(&mut self.pending, rest);
        let commits = self.scan(&bytes);
        let start = self.start;
        let end = start + length as u64;
        let file = WalFile::containing(self.plan.timeline, start, self.plan.segment_bytes).map_err(from_wire)?;
        self.start = end;
        if self.pending.is_empty() {
            self.hurry = false;
        } else {
            self.since = now;
        }
        let segment = Segment {
            start: self.position(start),
            end: self.position(end),
            follows: self.plan.follows.take(),
            first_commit: commits.map(|(first, _)| first),
            last_commit: commits.map(|(_, last)| last),
            file: file.to_string(),
            file_offset: start - file.start(),
        };
        Ok(Some(Piece { segment, bytes }))
    }

    /// Log up to `end` is durable.
    pub(super) fn appended(&mut self, end: u64) {
        self.flushed = self.flushed.max(end);
    }

    /// The earliest and the latest commit that end in these bytes, the next of the log. What a
    /// timeline repeats of the one before does not count again.
    fn scan(&mut self, mut bytes: &[u8]) -> Option<(Timestamp, Timestamp)> {
        let counted_from = self.plan.follows.as_ref().map_or(0, |at| at.offset);
        let mut commits: Option<(Timestamp, Timestamp)> = None;
        while !bytes.is_empty() {
            match self.scanner.next(&mut bytes) {
                Ok(Some(record)) if record.end > counted_from => {
                    if let Some(Detail::Commit { time, .. }) = record.detail {
                        commits = Some(match commits {
                            None => (time, time),
                            Some((first, last)) => (first.min(time), last.max(time)),
                        });
                    }
                }
                Ok(_) => {}
                Err(error) => self.trouble = Some(error.to_string()),
            }
        }
        commits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: u64 = 1 << 20;

    fn plan() -> Plan {
        Plan {
            timeline: 1,
            from: 3 * FILE,
            append_from: 3 * FILE,
            follows: None,
            segment_bytes: FILE,
            synchronous: false,
            interval_us: 1000,
        }
    }

    #[test]
    fn a_piece_waits_for_the_interval_and_no_longer() {
        let mut flow = Flow::new(plan());
        assert_eq!(flow.due(0), Due::Later);
        flow.push(3 * FILE, &[0; 100], 5000).unwrap();
        assert_eq!(flow.due(5000), Due::In(1000));
        assert_eq!(flow.due(5400), Due::In(600));
        assert_eq!(flow.due(6000), Due::Now);
        let piece = flow.cut(6000).unwrap().unwrap();
        assert_eq!(piece.segment.end.offset, 3 * FILE + 100);
        assert!(!flow.is_settled());
        flow.appended(piece.segment.end.offset);
        assert!(flow.is_settled());
        assert_eq!(flow.due(9000), Due::Later);
        flow.end();
        assert_eq!(flow.due(9000), Due::Never);
    }

    #[test]
    fn synchronous_commits_and_the_end_wait_for_nothing() {
        let mut flow = Flow::new(Plan { synchronous: true, ..plan() });
        flow.push(3 * FILE, &[0; 1], 5000).unwrap();
        assert_eq!(flow.due(5000), Due::Now);
        let mut flow = Flow::new(plan());
        flow.push(3 * FILE, &[0; 1], 5000).unwrap();
        flow.end();
        assert_eq!(flow.due(5000), Due::Now);
    }

    #[test]
    fn pieces_end_where_their_files_end() {
        let mut flow = Flow::new(plan());
        flow.push(3 * FILE, &vec![0; FILE as usize - 10], 0).unwrap();
        assert_eq!(flow.due(0), Due::In(1000));
        flow.push(4 * FILE - 10, &[0; 30], 0).unwrap();
        assert_eq!(flow.due(0), Due::Now);
        let piece = flow.cut(0).unwrap().unwrap();
        assert_eq!(piece.segment.file, "000000010000000000000003");
        assert_eq!(piece.segment.end.offset, 4 * FILE);
        assert_eq!(piece.bytes.len() as u64, FILE);
        assert_eq!(flow.due(0), Due::In(1000));
        let piece = flow.cut(0).unwrap().unwrap();
        assert_eq!(piece.segment.file, "000000010000000000000004");
        assert_eq!((piece.segment.file_offset, piece.bytes.len()), (0, 20));
    }

    #[test]
    fn what_is_durable_already_is_not_appended_again() {
        let mut flow = Flow::new(Plan { append_from: 3 * FILE + 150, ..plan() });
        assert_eq!(flow.flushed(), 3 * FILE + 150);
        flow.push(3 * FILE, &[1; 100], 0).unwrap();
        assert_eq!(flow.due(9999), Due::Later);
        flow.push(3 * FILE + 100, &[2; 100], 0).unwrap();
        let piece = flow.cut(0).unwrap().unwrap();
        assert_eq!(piece.segment.start.offset, 3 * FILE + 150);
        assert_eq!(piece.segment.file_offset, 150);
        assert_eq!(piece.bytes, [2; 50]);
    }

    #[test]
    fn only_the_first_piece_of_a_timeline_says_what_it_follows() {
        let follows = position(1, 3 * FILE + 8);
        let mut flow = Flow::new(Plan { timeline: 2, follows: Some(follows.clone()), ..plan() });
        flow.push(3 * FILE, &vec![0; FILE as usize + 1], 0).unwrap();
        let first = flow.cut(0).unwrap().unwrap();
        assert_eq!(first.segment.follows, Some(follows));
        assert_eq!(first.segment.start, position(2, 3 * FILE));
        assert_eq!(flow.cut(0).unwrap().unwrap().segment.follows, None);
        assert!(flow.cut(0).unwrap().is_none());
    }

    #[test]
    fn log_that_skips_a_byte_is_refused() {
        let mut flow = Flow::new(plan());
        assert_eq!(flow.push(3 * FILE + 1, &[0], 0).unwrap_err().kind, ErrorKind::Corrupt);
    }
}
