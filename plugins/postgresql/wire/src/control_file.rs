//! `global/pg_control`: which cluster a data folder is.
//!
//! Follows `ControlFileData` in `catalog/pg_control.h`. Its length differs between versions; the
//! checksum behind it tells where it ends.

use crate::{Error, Result};

/// How long the file is, whatever it holds: `PG_CONTROL_FILE_SIZE`.
pub const CONTROL_FILE_BYTES: usize = 8192;

/// Where the checksum may lie: behind the fields of the oldest version, inside one disk sector.
const CHECKSUM_AT: std::ops::Range<usize> = 128..512;

/// What a control file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlFile {
    /// The cluster's system identifier.
    pub system_identifier: u64,
    /// The format's version, `PG_CONTROL_VERSION`: 1300 for the versions 13 to 16.
    pub format: u32,
}

impl ControlFile {
    /// Reads the file of a little-endian machine.
    ///
    /// # Errors
    /// `Malformed` when no checksum fits: half-written, or of another architecture.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let torn = || Error::malformed("pg_control's checksum does not fit its content");
        let number = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let mut sum = crc32c::crc32c(bytes.get(..CHECKSUM_AT.start).ok_or_else(torn)?);
        for at in CHECKSUM_AT.step_by(4) {
            let word = number(at).ok_or_else(torn)?;
            if word == sum {
                let identifier = bytes.first_chunk().map(|first| u64::from_le_bytes(*first));
                return Ok(Self {
                    system_identifier: identifier.ok_or_else(torn)?,
                    format: number(8).ok_or_else(torn)?,
                });
            }
            sum = crc32c::crc32c_append(sum, &word.to_le_bytes());
        }
        Err(torn())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn file(fields: usize) -> Vec<u8> {
        let mut bytes = vec![0; CONTROL_FILE_BYTES];
        bytes[..8].copy_from_slice(&7_345_678_901_234_567_890_u64.to_le_bytes());
        bytes[8..12].copy_from_slice(&1300_u32.to_le_bytes());
        bytes[fields - 1] = 7;
        let sum = crc32c::crc32c(&bytes[..fields]);
        bytes[fields..fields + 4].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    #[test]
    fn the_checksum_tells_where_the_fields_end() {
        for fields in [288, 292, 296, 304] {
            let control = ControlFile::parse(&file(fields)).unwrap();
            assert_eq!(control, ControlFile { system_identifier: 7_345_678_901_234_567_890, format: 1300 });
        }
    }

    #[test]
    fn one_wrong_bit_and_a_short_file_are_told() {
        let whole = file(288);
        for bit in 0..288 * 8 {
            let mut torn = whole.clone();
            torn[bit / 8] ^= 1 << (bit % 8);
            assert!(ControlFile::parse(&torn).is_err(), "{bit}");
        }
        assert!(ControlFile::parse(&whole[..290]).is_err());
        assert!(ControlFile::parse(&[]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = ControlFile::parse(&bytes);
        }
    }
}
