//! `global/pg_control`: which cluster a data folder is, and how its data files are laid out.
//!
//! ```text
//!   0    system identifier        204  alignment, 8 on 64-bit machines   252  checksums of pages
//!   8    format                   208  1234567.0, in the machine's way   …
//!   …                             216  bytes of a block                  …    checksum of all that
//!                                 220  blocks of a file
//! ```
//!
//! Follows `ControlFileData` in `catalog/pg_control.h`. Its length differs between versions; the
//! checksum behind it tells where it ends. The places above are the same in the versions 13 to 18.

use crate::relation_file::Layout;
use crate::{Error, Result};

/// How long the file is, whatever it holds: `PG_CONTROL_FILE_SIZE`.
pub const CONTROL_FILE_BYTES: usize = 8192;

/// Where the checksum may lie: behind the fields of the oldest version, inside one disk sector.
const CHECKSUM_AT: std::ops::Range<usize> = 128..512;

/// The formats whose fields lie where this module looks: those of the versions 13 to 17, and of 18.
const FORMATS: [u32; 2] = [1300, 1800];

/// Where `maxAlign` and `floatFormat` lie, and what they are on a 64-bit little-endian machine. On
/// others the fields lie elsewhere.
const MACHINE_AT: usize = 204;
const ALIGNMENT: u32 = 8;
const FLOAT: f64 = 1_234_567.0;

/// Where `blcksz`, `relseg_size` and `data_checksum_version` lie.
const BLOCK_BYTES_AT: usize = 216;
const SEGMENT_BLOCKS_AT: usize = 220;
const CHECKSUM_VERSION_AT: usize = 252;

/// What a control file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlFile {
    /// The cluster's system identifier.
    pub system_identifier: u64,
    /// The format's version, `PG_CONTROL_VERSION`: 1300 for the versions 13 to 17, 1800 for 18.
    pub format: u32,
    /// The data files. Nothing where the format is unknown, the machine a 32-bit one, or the layout
    /// beyond [`limits`](crate::limits).
    pub data: Option<DataFormat>,
}

/// What a cluster's data files look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataFormat {
    /// How blocks are laid out in files.
    pub layout: Layout,
    /// How pages are checked: 0 not at all, 1 as [`page`](crate::page) does.
    pub checksum_version: u32,
}

impl DataFormat {
    /// Whether every page has a checksum that [`page`](crate::page) can judge.
    #[must_use]
    pub fn has_page_checksums(self) -> bool {
        self.checksum_version == 1
    }

    /// `bytes` are those before the checksum.
    fn read(bytes: &[u8], format: u32) -> Option<Self> {
        let number = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
        let float = bytes.get(MACHINE_AT + 4..)?.first_chunk().copied().map(f64::from_le_bytes)?;
        if !FORMATS.contains(&format) || number(MACHINE_AT)? != ALIGNMENT || float.to_bits() != FLOAT.to_bits() {
            return None;
        }
        Some(Self {
            layout: Layout::new(number(BLOCK_BYTES_AT)?, number(SEGMENT_BLOCKS_AT)?).ok()?,
            checksum_version: number(CHECKSUM_VERSION_AT)?,
        })
    }
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
                let format = number(8).ok_or_else(torn)?;
                return Ok(Self {
                    system_identifier: identifier.ok_or_else(torn)?,
                    format,
                    data: DataFormat::read(bytes.get(..at).ok_or_else(torn)?, format),
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
        seal(&mut bytes, fields);
        bytes
    }

    fn seal(bytes: &mut [u8], fields: usize) {
        let sum = crc32c::crc32c(&bytes[..fields]);
        bytes[fields..fields + 4].copy_from_slice(&sum.to_le_bytes());
    }

    /// A file of a 64-bit server of that format, with one word put in place of what lies there.
    fn file_with(format: u32, at: usize, word: u32) -> Vec<u8> {
        let mut bytes = file(288);
        bytes[208..216].copy_from_slice(&1_234_567.0_f64.to_le_bytes());
        for (at, word) in [(8, format), (204, 8), (216, 8192), (220, 131_072), (252, 1), (at, word)] {
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        seal(&mut bytes, 288);
        bytes
    }

    #[test]
    fn the_checksum_tells_where_the_fields_end() {
        for fields in [288, 292, 296, 304] {
            let control = ControlFile::parse(&file(fields)).unwrap();
            let system_identifier = 7_345_678_901_234_567_890;
            assert_eq!(control, ControlFile { system_identifier, format: 1300, data: None });
        }
    }

    #[test]
    fn the_data_files_are_told_of_formats_that_are_known() {
        let data = |bytes: &[u8]| ControlFile::parse(bytes).unwrap().data;
        for format in [1300, 1800] {
            let told = data(&file_with(format, 252, 1)).unwrap();
            assert_eq!(told, DataFormat { layout: Layout::default(), checksum_version: 1 });
            assert!(told.has_page_checksums());
        }
        assert!(!data(&file_with(1300, 252, 0)).unwrap().has_page_checksums());
        assert_eq!(data(&file_with(1300, 216, 32_768)).unwrap().layout.block_bytes(), 32_768);
        for (format, at, word) in
            [(1201, 252, 1), (1900, 252, 1), (1300, 204, 4), (1300, 208, 1), (1300, 216, 8191), (1300, 220, 0)]
        {
            assert_eq!(data(&file_with(format, at, word)), None, "{format} {at} {word}");
        }
    }

    #[test]
    fn a_format_that_ends_before_its_fields_tells_nothing_of_them() {
        let mut bytes = file_with(1300, 252, 1);
        bytes[200..204].fill(9);
        seal(&mut bytes, 200);
        assert_eq!(ControlFile::parse(&bytes).unwrap().data, None);
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
            for format in FORMATS {
                let _ = DataFormat::read(&bytes, format);
            }
        }
    }
}
