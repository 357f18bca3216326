//! The header in front of each page of log.

use crate::{Error, ErrorKind, Result};

/// A page of log. Other sizes exist only in servers built specially.
pub const PAGE_BYTES: u64 = 8192;
/// The header of most pages.
pub(super) const SHORT_HEADER_BYTES: usize = 24;
/// The header of a segment's first page.
pub(super) const LONG_HEADER_BYTES: usize = 40;

const FIRST_IS_CONTRECORD: u16 = 0x0001;
const LONG_HEADER: u16 = 0x0002;
const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x0008;
const ALL_FLAGS: u16 = 0x000f;

/// The major version whose servers write pages of that magic number.
#[must_use]
pub fn major_version(magic: u16) -> Option<u16> {
    match magic {
        0xd106 => Some(13),
        0xd10d => Some(14),
        0xd110 => Some(15),
        0xd113 => Some(16),
        0xd116 => Some(17),
        0xd118 => Some(18),
        _ => None,
    }
}

/// A page's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    /// Tells the version of the server: see [`major_version`].
    pub magic: u16,
    /// The timeline of the page's first record.
    pub timeline: u32,
    /// Where the page lies in the log.
    pub address: u64,
    /// How many bytes of a record that began on an earlier page are still to come.
    pub remaining: u32,
    /// Whether the page begins with the rest of a record.
    pub continues: bool,
    /// Whether the rest of the record that the page before began will never come.
    pub overwrites: bool,
    /// On the first page of a segment.
    pub long: Option<LongHeader>,
}

/// What the first page of a segment says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongHeader {
    /// The cluster's identity.
    pub system_identifier: u64,
    /// `wal_segment_size` in bytes.
    pub segment_bytes: u32,
}

/// Little-endian numbers at fixed places; `N` bytes from `at` must exist.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    if let Some(source) = bytes.get(at..at + N) {
        array.copy_from_slice(source);
    }
    array
}

/// How long the header is whose first bytes (at least four) these are.
pub(super) fn header_bytes(first: &[u8]) -> usize {
    if u16::from_le_bytes(array(first, 2)) & LONG_HEADER != 0 { LONG_HEADER_BYTES } else { SHORT_HEADER_BYTES }
}

impl PageHeader {
    /// Reads the header of the page at `address`: 24 bytes, 40 for a long one.
    pub fn parse(bytes: &[u8], address: u64) -> Result<Self> {
        let malformed = |what| Error::malformed(format_args!("the log page at {} {what}", crate::lsn::Lsn(address)));
        if bytes.len() < SHORT_HEADER_BYTES || bytes.len() < header_bytes(bytes) {
            return Err(malformed("is cut short"));
        }
        let magic = u16::from_le_bytes(array(bytes, 0));
        if major_version(magic).is_none() {
            let kind = if magic & 0xff00 == 0xd100 { ErrorKind::Unsupported } else { ErrorKind::Malformed };
            return Err(Error::new(
                kind,
                format_args!("the log page at {} has the unknown magic number {magic:04X}", crate::lsn::Lsn(address)),
            )
            .with_hint("PostgreSQL 13 to 18 are understood"));
        }
        let info = u16::from_le_bytes(array(bytes, 2));
        if info & !ALL_FLAGS != 0 {
            return Err(malformed("has unknown flags"));
        }
        let stored = u64::from_le_bytes(array(bytes, 8));
        if stored != address {
            return Err(Error::malformed(format_args!(
                "the log page at {} says it belongs to {}",
                crate::lsn::Lsn(address),
                crate::lsn::Lsn(stored)
            )));
        }
        let remaining = u32::from_le_bytes(array(bytes, 16));
        let continues = info & FIRST_IS_CONTRECORD != 0;
        if continues != (remaining > 0) {
            return Err(malformed("contradicts itself on how it begins"));
        }
        let long = if info & LONG_HEADER == 0 {
            None
        } else {
            let segment_bytes = u32::from_le_bytes(array(bytes, 32));
            if !crate::wal_file::is_segment_size(u64::from(segment_bytes)) {
                return Err(malformed("has an unlawful segment size"));
            }
            if u64::from(u32::from_le_bytes(array(bytes, 36))) != PAGE_BYTES {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "the server was built with log pages of another size than 8 KiB",
                ));
            }
            if !address.is_multiple_of(u64::from(segment_bytes)) {
                return Err(malformed("has a long header inside a segment"));
            }
            Some(LongHeader { system_identifier: u64::from_le_bytes(array(bytes, 24)), segment_bytes })
        };
        Ok(Self {
            magic,
            timeline: u32::from_le_bytes(array(bytes, 4)),
            address,
            remaining,
            continues,
            overwrites: info & FIRST_IS_OVERWRITE_CONTRECORD != 0,
            long,
        })
    }
}
