//! What tells that a file of this machine was not written to since it was last looked at.

use backstay_core::Timestamp;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// Number and times of a file, as stock restic stores them too: `inode`, `mtime`, `ctime`.
///
/// A write moves both times, and nothing but the clock sets the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    /// Its number in the file system; never 0.
    pub inode: u64,
    /// When its content last changed.
    pub modified: jiff::Timestamp,
    /// When anything about it last changed.
    pub changed: jiff::Timestamp,
}

impl FileStamp {
    /// Of an open file; nothing where the file system has no lawful answer.
    pub(crate) fn of(metadata: &Metadata) -> Option<Self> {
        let time = |seconds, nanoseconds| {
            i32::try_from(nanoseconds).ok().and_then(|nanoseconds| jiff::Timestamp::new(seconds, nanoseconds).ok())
        };
        Some(Self {
            inode: Some(metadata.ino()).filter(|inode| *inode != 0)?,
            modified: time(metadata.mtime(), metadata.mtime_nsec())?,
            changed: time(metadata.ctime(), metadata.ctime_nsec())?,
        })
    }

    /// Whether the last write lies so far before `moment` that a later one would show: file systems
    /// tell time in steps of up to two seconds.
    pub(crate) fn is_settled_at(&self, moment: Timestamp) -> bool {
        const STEP: jiff::SignedDuration = jiff::SignedDuration::from_secs(2);
        let Some(moment) =
            i64::try_from(moment.as_micros()).ok().and_then(|at| jiff::Timestamp::from_microsecond(at).ok())
        else {
            return false;
        };
        self.modified.max(self.changed).checked_add(STEP).is_ok_and(|settled| settled < moment)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_stamp_is_believed_once_a_later_write_would_show() {
        let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
        let stamp = FileStamp { inode: 1, modified: at("2026-11-22T03:00:00Z"), changed: at("2026-11-22T03:00:10.5Z") };
        assert!(!stamp.is_settled_at("2026-11-22T03:00:05Z".parse().unwrap()));
        assert!(!stamp.is_settled_at("2026-11-22T03:00:12.5Z".parse().unwrap()));
        assert!(stamp.is_settled_at("2026-11-22T03:00:12.500001Z".parse().unwrap()));
    }
}
