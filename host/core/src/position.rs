//! A place in a database's log.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A place in a database's log.
///
/// Order inside an epoch is `offset`; order between epochs comes only from
/// [`crate::Segment::follows`], so this type has no `Ord`. `label` is for people
/// and takes no part in comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Position {
    /// Branch of history: PostgreSQL's timeline, MySQL's binlog file number.
    pub epoch: u64,
    /// Bytes into that branch.
    pub offset: u64,
    /// What people call this place: `0/3000028`.
    pub label: String,
}

impl Position {
    /// Whether this place can be compared with `other` by offset, and lies at or before it.
    pub fn at_or_before(&self, other: &Position) -> bool {
        self.epoch == other.epoch && self.offset <= other.offset
    }
}

impl PartialEq for Position {
    fn eq(&self, other: &Self) -> bool {
        (self.epoch, self.offset) == (other.epoch, other.offset)
    }
}

impl Eq for Position {}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (epoch {})", self.label, self.epoch)
    }
}
