//! Names of log files: a timeline and the number of a segment.
//!
//! `000000010000000000000003` is timeline 1, and the segment that starts at byte
//! 3 × `wal_segment_size`. The number is split where a segment's start leaves 32 bits, so a
//! name means nothing without the segment size.
//!
//! Follows `XLogFileName` and its kin in `access/xlog_internal.h`.

use std::fmt;

use crate::{Error, ErrorKind, Result, setting};

/// Smallest `wal_segment_size`.
pub const SEGMENT_BYTES_MIN: u64 = 1 << 20;
/// Largest `wal_segment_size`.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Whether a server can have segments of that size: a power of two from 1 MiB to 1 GiB.
#[must_use]
pub fn is_segment_size(bytes: u64) -> bool {
    bytes.is_power_of_two() && (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes)
}

/// Reads what `SHOW wal_segment_size` answers: `16MB`, `1GB`.
pub fn parse_segment_size(text: &str) -> Result<u64> {
    setting::bytes(text)
        .filter(|&bytes| is_segment_size(bytes))
        .ok_or_else(|| Error::malformed(format_args!("{text:?} is not a size of log segments")))
}

/// One log file: a segment on a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WalFile {
    /// The timeline.
    pub timeline: u32,
    /// The segment's number, counted from byte 0 of the log.
    pub segment: u64,
    segment_bytes: u64,
}

impl WalFile {
    /// The file that holds the byte at `lsn`.
    ///
    /// `segment_bytes` must be lawful, see [`is_segment_size`].
    pub fn containing(timeline: u32, lsn: u64, segment_bytes: u64) -> Result<Self> {
        if !is_segment_size(segment_bytes) {
            return Err(Error::new(
                ErrorKind::BadArgument,
                format_args!("{segment_bytes} is not a size of log segments"),
            ));
        }
        Ok(Self { timeline, segment: lsn / segment_bytes, segment_bytes })
    }

    /// Reads a file's name, without any suffix.
    pub fn parse(name: &str, segment_bytes: u64) -> Result<Self> {
        let malformed = || Error::malformed(format_args!("{name:?} is not the name of a log file"));
        let lawful = name.len() == 24
            && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
            && is_segment_size(segment_bytes);
        if !lawful {
            return Err(malformed());
        }
        let part =
            |range| name.get(range).and_then(|digits| u32::from_str_radix(digits, 16).ok()).ok_or_else(malformed);
        let (timeline, high, low) = (part(0..8)?, part(8..16)?, part(16..24)?);
        let per_high = (1 << 32) / segment_bytes;
        if timeline == 0 || u64::from(low) >= per_high {
            return Err(malformed());
        }
        Ok(Self { timeline, segment: u64::from(high) * per_high + u64::from(low), segment_bytes })
    }

    /// Where its first byte lies in the log.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.segment * self.segment_bytes
    }

    /// Where the next file's first byte lies in the log; the end of all log for the last one.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start().saturating_add(self.segment_bytes)
    }
}

impl fmt::Display for WalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_high = (1 << 32) / self.segment_bytes;
        write!(f, "{:08X}{:08X}{:08X}", self.timeline, self.segment / per_high, self.segment % per_high)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_those_of_the_server() {
        let name = |lsn, size| WalFile::containing(3, lsn, size).unwrap().to_string();
        assert_eq!(name(0x16_B374_D848, 16 << 20), "0000000300000016000000B3");
        assert_eq!(name(0x16_B374_D848, 1 << 30), "000000030000001600000002");
        assert_eq!(name(0x16_B374_D848, 1 << 20), "000000030000001600000B37");
    }

    #[test]
    fn sizes_are_read_as_the_server_shows_them() {
        assert_eq!(parse_segment_size("16MB").unwrap(), 16 << 20);
        assert_eq!(parse_segment_size("1GB").unwrap(), 1 << 30);
        for bad in ["", "16", "3MB", "2GB", "512kB", "MB", "16 MB", "99999999999999999999GB"] {
            assert!(parse_segment_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        for bad in [
            "",
            "00000001000000000000000",
            "00000001000000000000000g",
            "00000001000000000000000a",
            "000000000000000000000001",
            "000000010000000000000100",
            "00000001000000000000001é",
        ] {
            assert!(WalFile::parse(bad, 16 << 20).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn names_go_there_and_back(timeline in 1u32.., lsn: u64, shift in 20u32..=30) {
            let file = WalFile::containing(timeline, lsn, 1 << shift).unwrap();
            prop_assert!(file.start() <= lsn && lsn <= file.end());
            prop_assert_eq!(WalFile::parse(&file.to_string(), 1 << shift).unwrap(), file);
        }

        #[test]
        fn any_text_is_a_name_or_an_error(text in "\\PC{0,24}") {
            let _ = WalFile::parse(&text, 16 << 20);
            let _ = parse_segment_size(&text);
        }
    }
}
