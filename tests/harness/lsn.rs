//! A place in the WAL.

use std::{fmt, str::FromStr};

/// A byte position in the WAL, written `16/B374D848`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The number of the WAL file that holds this position.
    pub fn segment(self, segment_bytes: u64) -> u64 {
        self.0 / segment_bytes
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (high, low) = text.split_once('/').ok_or_else(|| anyhow::anyhow!("`{text}` is not an LSN"))?;
        Ok(Self(u64::from_str_radix(high, 16)? << 32 | u64::from_str_radix(low, 16)?))
    }
}
