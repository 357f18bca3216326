//! Where to go on: the archive's tail against what the server is.
//!
//! ```text
//!   the archive ends on         the server is on        go on
//!   nothing                     timeline C              C, where the slot keeps log
//!   C                           C                       C, at the tail
//!   E, before E was left        C, which descends       E, at the tail, up to where it was left
//!   E, where E was left         C, which descends       the timeline after E, at its first file
//!   more than the server has    a standby               not yet
//!   anything else                                       not at all: another history
//! ```
//!
//! A standby may still get what it lacks. One that a failover manager has put in the primary's
//! place without promoting it yet may even lack it for good, and says so with a new timeline
//! once it is promoted. So a standby that is behind the archive is worth another look.

use backstay_postgresql_wire::history::History;
use backstay_postgresql_wire::lsn::Lsn;
use backstay_sdk::{Error, ErrorKind, Position, Result};

use crate::position::position;

/// What the server is.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// Whether it was a standby before it told the rest.
    pub(super) is_standby: bool,
    /// Its timeline.
    pub(super) timeline: u32,
    /// The end of its flushed log.
    pub(super) end: u64,
    /// How its timeline came to be; nothing for timeline 1.
    pub(super) history: Option<History>,
    /// From where on it keeps log for us, where it tells.
    pub(super) restart: Option<u64>,
    /// `wal_segment_size` in bytes.
    pub(super) segment_bytes: u64,
}

/// Where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Course {
    /// The timeline to stream.
    pub(super) timeline: u32,
    /// The first byte to append.
    pub(super) append_from: u64,
    /// Where the timeline leaves its predecessor, when it has no piece yet.
    pub(super) follows: Option<Position>,
}

impl Server {
    fn file_start(&self, lsn: u64) -> u64 {
        lsn - lsn % self.segment_bytes
    }

    /// Where the server's own timeline begins.
    fn begin(&self) -> Option<Position> {
        let last = self.history.as_ref()?.ancestors.last()?;
        Some(position(last.timeline, last.end.0))
    }

    /// Where the log of a new chain begins: where the server keeps it, but not before the
    /// first file of the server's timeline.
    pub(super) fn fresh(&self, follows: bool) -> Course {
        let begin = self.begin();
        let kept = self.restart.unwrap_or(self.end);
        let from = kept.max(begin.as_ref().map_or(0, |at| at.offset));
        Course { timeline: self.timeline, append_from: self.file_start(from), follows: begin.filter(|_| follows) }
    }

    /// Where to go on behind `tail`.
    pub(super) fn course(&self, tail: Option<&Position>) -> Result<Course> {
        let Some(tail) = tail else { return Ok(self.fresh(false)) };
        let timeline = u32::try_from(tail.epoch)
            .map_err(|_| Error::new(ErrorKind::Corrupt, "the archive's tail is on no timeline"))?;
        if timeline > self.timeline {
            return Err(self.behind(format!(
                "the archive is on timeline {timeline}, the server on the older timeline {}",
                self.timeline
            )));
        }
        let here = Course { timeline, append_from: tail.offset, follows: None };
        if timeline == self.timeline {
            if self.end < tail.offset {
                return Err(self.behind(format!(
                    "the server's log ends at {}, before the archive's at {}",
                    Lsn(self.end),
                    Lsn(tail.offset)
                )));
            }
            return Ok(here);
        }
        let Some(left) = self.history.as_ref().and_then(|history| history.left(timeline)) else {
            return Err(elsewhere(format!(
                "the server's timeline {} does not descend from the archive's timeline {timeline}",
                self.timeline
            )));
        };
        if tail.offset < left.0 {
            return Ok(here);
        }
        Ok(self.after(timeline, left.0))
    }

    /// The archive has more than the server.
    fn behind(&self, message: String) -> Error {
        if self.is_standby {
            return Error::new(ErrorKind::Unreachable, format!("{message}; it is a standby, which may catch up"));
        }
        elsewhere(message)
    }

    /// The timeline after `timeline`, which was left at `left`.
    fn after(&self, timeline: u32, left: u64) -> Course {
        let ancestors = self.history.iter().flat_map(|history| &history.ancestors);
        let next = ancestors.map(|ancestor| ancestor.timeline).find(|&next| next > timeline);
        Course {
            timeline: next.unwrap_or(self.timeline),
            append_from: self.file_start(left),
            follows: Some(position(timeline, left)),
        }
    }
}

fn elsewhere(message: String) -> Error {
    Error::new(ErrorKind::Conflict, message).hint(
        "this server took another course than the one that was archived: point the target at the \
         right server, or archive this one as a new target",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: u64 = 16 << 20;

    fn server() -> Server {
        Server {
            is_standby: false,
            timeline: 3,
            end: 0x900_0100,
            history: Some(History::parse(3, b"1\t0/5000110\tx\n2\t0/7000028\ty\n").unwrap()),
            restart: Some(0x800_0050),
            segment_bytes: FILE,
        }
    }

    fn on(timeline: u32, append_from: u64) -> Course {
        Course { timeline, append_from, follows: None }
    }

    #[test]
    fn a_new_chain_begins_with_the_file_that_the_slot_keeps() {
        assert_eq!(server().course(None).unwrap(), on(3, 0x800_0000));
        let unknown = Server { restart: None, ..server() };
        assert_eq!(unknown.course(None).unwrap(), on(3, 0x900_0000));
    }

    #[test]
    fn a_new_chain_never_begins_before_its_timeline() {
        let old = Server { restart: Some(0x300_0000), ..server() };
        assert_eq!(old.course(None).unwrap(), on(3, 0x700_0000));
    }

    #[test]
    fn the_same_timeline_goes_on_at_the_tail() {
        assert_eq!(server().course(Some(&position(3, 0x800_1234))).unwrap(), on(3, 0x800_1234));
    }

    #[test]
    fn an_old_timeline_is_finished_first_and_then_left_where_history_left_it() {
        assert_eq!(server().course(Some(&position(1, 0x500_0000))).unwrap(), on(1, 0x500_0000));
        let next = Course { follows: Some(position(1, 0x500_0110)), ..on(2, 0x500_0000) };
        assert_eq!(server().course(Some(&position(1, 0x500_0110))).unwrap(), next);
        // Log that the failover lost lies beyond.
        assert_eq!(server().course(Some(&position(1, 0x600_0000))).unwrap(), next);
        let last = Course { follows: Some(position(2, 0x700_0028)), ..on(3, 0x700_0000) };
        assert_eq!(server().course(Some(&position(2, 0x700_0028))).unwrap(), last);
    }

    #[test]
    fn another_history_is_refused() {
        for tail in [position(4, 0x800_0000), position(3, 0xa00_0000)] {
            assert_eq!(server().course(Some(&tail)).unwrap_err().kind, ErrorKind::Conflict);
        }
        let stranger = Server { history: None, ..server() };
        let error = stranger.course(Some(&position(1, 0))).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict);
    }

    #[test]
    fn a_standby_that_is_behind_is_looked_at_again() {
        let standby = Server { is_standby: true, ..server() };
        for tail in [position(4, 0x800_0000), position(3, 0xa00_0000)] {
            assert_eq!(standby.course(Some(&tail)).unwrap_err().kind, ErrorKind::Unreachable);
        }
        assert_eq!(standby.course(Some(&position(3, 0x800_1234))).unwrap(), on(3, 0x800_1234));
        let stranger = Server { history: None, ..standby };
        assert_eq!(stranger.course(Some(&position(1, 0))).unwrap_err().kind, ErrorKind::Conflict);
    }
}
