//! Files of tables and indexes: their names, and which block lies where.
//!
//! ```text
//!   base/5/16384        blocks       0 ..  131071     16384: the table; 5: its database
//!   base/5/16384.1      blocks  131072 ..  262143     the next segment
//!   base/5/16384_fsm    blocks       0 ..             its free space map, counted on its own
//!   ─┬──── ──┬── ─┬──
//!    │       │    └ fork: nothing, `_fsm`, `_vm`, `_init`
//!    │       └ file node, then `.segment` for all but the first
//!    └ also `global`, and `PG_15_202209061/5` in a tablespace's folder
//! ```
//!
//! A relation is cut into files of [`Layout::segment_blocks`], each a row of pages without a header.
//! Follows `parse_filename_for_nontemp_relation` in `storage/file/reinit.c` and the chapter "Database
//! File Layout".

use crate::limits::SEGMENT_BLOCKS_MAX;
use crate::{Error, Result, setting};

/// Smallest `--with-blocksize`.
pub const BLOCK_BYTES_MIN: u32 = 1 << 10;
/// Largest `--with-blocksize`.
pub const BLOCK_BYTES_MAX: u32 = 32 << 10;

/// How a cluster lays relations out in files: chosen when its server was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    block_bytes: u32,
    segment_blocks: u32,
}

impl Default for Layout {
    /// What nearly all servers are built with: files of 1 GiB in blocks of 8 KiB.
    fn default() -> Self {
        Self { block_bytes: 8 << 10, segment_blocks: 131_072 }
    }
}

impl Layout {
    /// `BLCKSZ` and `RELSEG_SIZE`.
    ///
    /// # Errors
    /// `Malformed` where no server can be built so, `TooLarge` above [`SEGMENT_BLOCKS_MAX`].
    pub fn new(block_bytes: u32, segment_blocks: u32) -> Result<Self> {
        if !block_bytes.is_power_of_two() || !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block_bytes) {
            return Err(Error::malformed(format_args!("{block_bytes} is not a size of data blocks")));
        }
        if segment_blocks == 0 {
            return Err(Error::malformed("the server has data files without blocks"));
        }
        if segment_blocks > SEGMENT_BLOCKS_MAX {
            return Err(Error::too_large(format_args!("the server has data files of {segment_blocks} blocks")));
        }
        Ok(Self { block_bytes, segment_blocks })
    }

    /// From what `SHOW block_size` and `SHOW segment_size` answer: `8192` and `1GB`.
    pub fn from_settings(block_size: &str, segment_size: &str) -> Result<Self> {
        let malformed =
            || Error::malformed(format_args!("{block_size:?} and {segment_size:?} are not a layout of data files"));
        let block_bytes = setting::bytes(block_size).filter(|&bytes| bytes > 0).ok_or_else(malformed)?;
        let segment_bytes = setting::bytes(segment_size).ok_or_else(malformed)?;
        if !segment_bytes.is_multiple_of(block_bytes) {
            return Err(malformed());
        }
        let narrow = |number: u64| u32::try_from(number).map_err(|_wide| malformed());
        Self::new(narrow(block_bytes)?, narrow(segment_bytes / block_bytes)?)
    }

    /// Bytes of a block, a power of two.
    #[must_use]
    pub fn block_bytes(self) -> u32 {
        self.block_bytes
    }

    /// Most blocks of one file; files before the last have as many.
    #[must_use]
    pub fn segment_blocks(self) -> u32 {
        self.segment_blocks
    }

    /// The number, in the relation, of the block that lies `offset` bytes into file `segment`.
    /// Nothing where no relation reaches so far.
    #[must_use]
    pub fn block(self, segment: u32, offset: u64) -> Option<u32> {
        let before = u64::from(segment) * u64::from(self.segment_blocks);
        u32::try_from(before + offset / u64::from(self.block_bytes)).ok()
    }
}

/// The segment's number, if `path` is a file of pages; pages carry a checksum where the cluster has
/// them. `path` is relative to the data folder or to a tablespace's folder.
///
/// Temporary relations (`t3_16384`) are not: no backup has them. Nor are `pg_control`,
/// `pg_filenode.map` and whatever else lies in the same folders.
///
/// ```
/// use backstay_postgresql_wire::relation_file::segment_number;
/// assert_eq!(segment_number("base/5/16384_vm"), Some(0));
/// assert_eq!(segment_number("PG_15_202209061/5/16384.3"), Some(3));
/// assert_eq!(segment_number("global/pg_control"), None);
/// ```
#[must_use]
pub fn segment_number(path: &str) -> Option<u32> {
    let parts: Vec<&str> = path.split('/').collect();
    let name = match *parts.as_slice() {
        ["global", name] => name,
        ["base", database, name] if positive(database).is_some() => name,
        [version, database, name] if is_version_folder(version) && positive(database).is_some() => name,
        ["pg_tblspc", space, version, database, name]
            if positive(space).is_some() && is_version_folder(version) && positive(database).is_some() =>
        {
            name
        }
        _ => return None,
    };
    let (stem, segment) = match name.split_once('.') {
        Some((stem, segment)) => (stem, positive(segment)?),
        None => (name, 0),
    };
    let node = match stem.split_once('_') {
        Some((node, "fsm" | "vm" | "init")) => node,
        Some(_) => return None,
        None => stem,
    };
    positive(node).map(|_node| segment)
}

/// `PG_15_202209061`: the major version and that of its catalogs.
fn is_version_folder(name: &str) -> bool {
    name.strip_prefix("PG_")
        .and_then(|name| name.split_once('_'))
        .is_some_and(|(major, catalog)| positive(major).is_some() && positive(catalog).is_some())
}

/// A number as servers write them in names: without a sign, a leading zero, or being 0.
fn positive(digits: &str) -> Option<u32> {
    if !digits.starts_with(|first: char| matches!(first, '1'..='9')) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::ErrorKind;

    #[test]
    fn files_of_relations_are_told_from_their_neighbours() {
        for (path, segment) in [
            ("global/1262", 0),
            ("global/1262_fsm", 0),
            ("base/5/16384", 0),
            ("base/5/16384.1", 1),
            ("base/5/16384_fsm.12", 12),
            ("base/5/16384_init", 0),
            ("base/4294967295/4294967295_vm.4294967295", u32::MAX),
            ("PG_18_202506291/5/16384.2", 2),
            ("pg_tblspc/16999/PG_13_202007201/16385/2619", 0),
        ] {
            assert_eq!(segment_number(path), Some(segment), "{path}");
        }
        for path in [
            "",
            "1262",
            "PG_VERSION",
            "global/pg_control",
            "global/pg_filenode.map",
            "global/pg_internal.init",
            "global/1262.",
            "base/5/PG_VERSION",
            "base/5/pg_internal.init.123",
            "base/5/t3_16384",
            "base/5/t3_16384_vm.1",
            "base/5/016384",
            "base/5/0",
            "base/5/16384.0",
            "base/5/16384.01",
            "base/5/16384.+1",
            "base/5/16384.1.2",
            "base/5/16384_",
            "base/5/16384_xyz",
            "base/5/16384_vm_fsm",
            "base/5/16384_vm.",
            "base/5/4294967296",
            "base/5/ 16384",
            "base/5/INCREMENTAL.16384",
            "base/05/16384",
            "base/x/16384",
            "base//16384",
            "base/16384",
            "base/5/6/16384",
            "base/pgsql_tmp/pgsql_tmp123.0",
            "/global/1262",
            "./global/1262",
            "pg_xact/0000",
            "pg_xact/1000",
            "pg_tblspc/16999/global/1262",
            "pg_tblspc/16999/PG_18/5/16384",
            "PG_18_/5/16384",
            "pg_wal/000000010000000000000001",
        ] {
            assert_eq!(segment_number(path), None, "{path}");
        }
    }

    #[test]
    fn a_layout_is_read_from_settings_and_bounded() {
        assert_eq!(Layout::from_settings("8192", "1GB").unwrap(), Layout::default());
        assert_eq!(Layout::from_settings("32768", "16GB").unwrap(), Layout::new(32 << 10, 1 << 19).unwrap());
        assert_eq!(Layout::from_settings("1024", "48kB").unwrap(), Layout::new(1024, 48).unwrap());
        for (block, segment) in [
            ("", "1GB"),
            ("8192", ""),
            ("0", "1GB"),
            ("8191", "1GB"),
            ("8192", "9kB"),
            ("65536", "1GB"),
            ("512", "1GB"),
        ] {
            let error = Layout::from_settings(block, segment).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Malformed, "{block} {segment}");
        }
        assert!(Layout::new(8192, 0).is_err());
        assert_eq!(Layout::new(8192, SEGMENT_BLOCKS_MAX + 1).unwrap_err().kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn blocks_are_counted_through_all_segments() {
        let layout = Layout::default();
        assert_eq!(layout.block(0, 0), Some(0));
        assert_eq!(layout.block(0, 8191), Some(0));
        assert_eq!(layout.block(1, 8192), Some(131_073));
        assert_eq!(layout.block(32_767, (1 << 30) - 1), Some(u32::MAX));
        assert_eq!(layout.block(32_768, 0), None);
        assert_eq!(layout.block(u32::MAX, u64::MAX), None);
    }

    proptest! {
        #[test]
        fn any_text_is_a_file_of_a_relation_or_not(text in "\\PC{0,30}", name in "[0-9_.a-z]{0,12}") {
            let _ = segment_number(&text);
            let _ = segment_number(&format!("base/1/{name}"));
            let _ = Layout::from_settings(&text, &name);
        }
    }
}
