//! Looks for a record in stored log, along one line of history.
//!
//! ```text
//!   timeline 1   [══════════════════╪───)            read up to where it was left
//!   timeline 2             [ repeats╪══════════)     read from there on
//! ```

use backstay_postgresql_wire::lsn::Lsn;
use backstay_postgresql_wire::wal::{Record, Scanner};
use backstay_postgresql_wire::wal_file::SEGMENT_BYTES_MIN;
use backstay_sdk::{Error, ErrorKind, Level, LogReader, Position, Result, Segment, Timestamp, host};

/// Most timelines on one line of history: each is a failover or a restore.
const RUNS_MAX: usize = 65_536;

/// How much log passes between two signs of progress.
const PROGRESS_BYTES: u64 = 64 << 20;

/// Stored log of one timeline, without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first byte.
    pub(crate) start: Position,
    /// One past the last byte.
    pub(crate) end: u64,
    /// Where the timeline leaves its predecessor, where that is known.
    pub(crate) follows: Option<u64>,
    /// The latest commit inside, where one is known.
    pub(crate) last_commit: Option<Timestamp>,
}

/// The log of one line of history, oldest timeline first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Line {
    runs: Vec<Run>,
}

impl Line {
    /// Reads what there is.
    pub(crate) async fn read(logs: &LogReader) -> Result<Self> {
        let mut line = Self::default();
        let mut segments = logs.segments();
        while let Some(segment) = segments.next().await? {
            line.push(segment)?;
        }
        Ok(line)
    }

    fn push(&mut self, segment: Segment) -> Result<()> {
        if let Some(run) = self.runs.last_mut()
            && run.start.epoch == segment.start.epoch
        {
            if segment.start.offset > run.end {
                return Err(Error::new(
                    ErrorKind::Gap,
                    format!("the log has a gap from {} to {}", Lsn(run.end), Lsn(segment.start.offset)),
                ));
            }
            run.end = run.end.max(segment.end.offset);
            run.last_commit = run.last_commit.max(segment.last_commit);
            return Ok(());
        }
        if self.runs.len() == RUNS_MAX {
            return Err(Error::new(ErrorKind::Corrupt, "the log has too many timelines"));
        }
        self.runs.push(Run {
            start: segment.start,
            end: segment.end.offset,
            follows: segment.follows.map(|at| at.offset),
            last_commit: segment.last_commit,
        });
        Ok(())
    }

    /// The latest commit on the line. A timeline's pieces behind the place where it was left
    /// count too, so this may be later than the truth.
    pub(crate) fn last_commit(&self) -> Option<Timestamp> {
        self.runs.iter().filter_map(|run| run.last_commit).max()
    }

    /// The stretch of run number `at` that belongs to the line.
    fn bounds(&self, at: usize) -> (u64, u64) {
        let run = &self.runs[at];
        let from = run.follows.unwrap_or(run.start.offset).max(run.start.offset);
        let left = self.runs.get(at + 1).and_then(|next| next.follows);
        (from, left.map_or(run.end, |left| left.min(run.end)))
    }

    /// The first record on the line, from the log file of `from` on, that `wanted` says yes
    /// to. Answers its timeline and the record.
    pub(crate) async fn find(
        &self,
        logs: &LogReader,
        from: u64,
        mut wanted: impl FnMut(&Record) -> bool,
    ) -> Result<Option<(u64, Record)>> {
        let total: u64 = self.runs.iter().map(|run| run.end - run.start.offset).sum();
        let mut done = 0;
        for (at, run) in self.runs.iter().enumerate() {
            let (begin, end) = self.bounds(at);
            if end <= from {
                continue;
            }
            // Every segment size is a multiple of the smallest, so a record can be cut there,
            // but a page begins there.
            let start = from.saturating_sub(from % SEGMENT_BYTES_MIN).max(run.start.offset);
            let place = crate::position::position(timeline(run)?, start);
            let mut scanner = Scanner::new(start);
            let mut bytes = logs.read(place);
            let mut troubled = false;
            while scanner.position() < end {
                let Some(chunk) = bytes.next().await? else { break };
                let mut input = chunk;
                while !input.is_empty() {
                    match scanner.next(&mut input) {
                        Ok(Some(record)) if record.end <= begin || record.start >= end => {}
                        Ok(Some(record)) if wanted(&record) => {
                            return Ok(Some((run.start.epoch, record)));
                        }
                        Ok(_) => {}
                        Err(error) if !troubled => {
                            troubled = true;
                            host::log(Level::Warn, &format!("a piece of log is not understood: {error}"));
                        }
                        Err(_) => {}
                    }
                }
                let before = done;
                done += chunk.len() as u64;
                if before / PROGRESS_BYTES != done / PROGRESS_BYTES {
                    host::progress("search", done, Some(total.max(done)));
                }
            }
        }
        Ok(None)
    }
}

fn timeline(run: &Run) -> Result<u32> {
    u32::try_from(run.start.epoch)
        .map_err(|_| Error::new(ErrorKind::Corrupt, "the log has an epoch that is no timeline"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::position;

    fn piece(timeline: u32, start: u64, end: u64, follows: Option<Position>) -> Segment {
        Segment {
            start: position(timeline, start),
            end: position(timeline, end),
            follows,
            first_commit: None,
            last_commit: None,
            file: "x".to_owned(),
            file_offset: 0,
        }
    }

    #[test]
    fn a_timeline_counts_from_where_it_leaves_its_predecessor_to_where_it_is_left() {
        let mut line = Line::default();
        for segment in [piece(1, 100, 200, None), piece(1, 200, 300, None), piece(2, 200, 400, Some(position(1, 250)))]
        {
            line.push(segment).unwrap();
        }
        assert_eq!(line.runs.len(), 2);
        assert_eq!(line.bounds(0), (100, 250));
        assert_eq!(line.bounds(1), (250, 400));
        assert_eq!(line.push(piece(2, 401, 500, None)).unwrap_err().kind, ErrorKind::Gap);
    }
}
