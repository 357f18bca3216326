//! One durable piece of log.

use crate::{Position, Timestamp};
use serde::{Deserialize, Serialize};

/// Most bytes in one piece; also what compaction aims below.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Longest file name a database may know a piece by.
const FILE_BYTES_MAX: usize = 128;
/// Longest label of a position.
const LABEL_BYTES_MAX: usize = 1024;

/// One durable piece of log, inside one of the database's log files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Segment {
    /// The first byte.
    pub start: Position,
    /// One past the last byte; same epoch as `start`.
    pub end: Position,
    /// Where the branch leaves its predecessor; only on the first piece of an epoch.
    /// `start.offset` may lie before it, where the first file of a branch repeats the end of the old one.
    pub follows: Option<Position>,
    /// First commit that ends inside this piece.
    pub first_commit: Option<Timestamp>,
    /// Last commit that ends inside this piece.
    pub last_commit: Option<Timestamp>,
    /// The name the database knows the file by.
    pub file: String,
    /// Where in the file this piece starts, in bytes.
    pub file_offset: u64,
}

/// A piece that contradicts itself.
#[derive(Debug, thiserror::Error)]
#[error("log piece {start} is not valid: {reason}")]
pub struct InvalidSegment {
    start: String,
    reason: &'static str,
}

impl Segment {
    /// Plaintext bytes in this piece.
    pub fn length(&self) -> u64 {
        self.end.offset.saturating_sub(self.start.offset)
    }

    /// Whether the file name is one the host lets into object names and folders.
    pub fn is_file_name(name: &str) -> bool {
        !name.is_empty()
            && name.len() <= FILE_BYTES_MAX
            && !name.starts_with('.')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    }

    /// Checks everything that one piece can say wrong by itself.
    pub fn validate(&self) -> Result<(), InvalidSegment> {
        let refuse =
            |reason| Err(InvalidSegment { start: format!("{}:{}", self.start.epoch, self.start.offset), reason });
        if self.end.epoch != self.start.epoch {
            return refuse("its end lies in another epoch");
        }
        if self.end.offset <= self.start.offset {
            return refuse("it ends at or before its start");
        }
        if self.length() > SEGMENT_BYTES_MAX {
            return refuse("it is longer than 64 MiB");
        }
        if !Self::is_file_name(&self.file) {
            return refuse("its file name has characters other than letters, digits, `.`, `_` and `-`");
        }
        if self.file_offset.checked_add(self.length()).is_none() {
            return refuse("its place in the file overflows");
        }
        if let Some(follows) = &self.follows {
            if follows.epoch == self.start.epoch {
                return refuse("it follows its own epoch");
            }
            if follows.label.len() > LABEL_BYTES_MAX {
                return refuse("a label is longer than 1 KiB");
            }
        }
        if self.start.label.len() > LABEL_BYTES_MAX || self.end.label.len() > LABEL_BYTES_MAX {
            return refuse("a label is longer than 1 KiB");
        }
        match (self.first_commit, self.last_commit) {
            (None, None) | (Some(_), Some(_)) => Ok(()),
            _ => refuse("it knows only one of its first and last commit"),
        }
    }
}
