//! Places in PostgreSQL's log: a timeline is the epoch, an LSN the offset.

use backstay_postgresql_wire::lsn::Lsn;
use backstay_sdk::{Error, ErrorKind, Position, Result};

/// The place `lsn` on `timeline`.
pub fn position(timeline: u32, lsn: u64) -> Position {
    Position { epoch: timeline.into(), offset: lsn, label: Lsn(lsn).to_string() }
}

/// Reads an LSN that the server sent.
pub fn parse_lsn(text: &str) -> Result<u64> {
    match text.parse::<Lsn>() {
        Ok(lsn) => Ok(lsn.0),
        Err(_) => Err(Error::new(ErrorKind::Corrupt, "the server sent a log position that cannot be read")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_go_there_and_back() {
        for lsn in [0, 0x300_0028, 0x16_b374_d848, u64::MAX] {
            assert_eq!(parse_lsn(&position(1, lsn).label).unwrap(), lsn);
        }
        assert_eq!(position(1, 0x16_b374_d848).label, "16/B374D848");
        for bad in ["", "/", "0", "0/", "/0", "0/123456789", "x/0", "+1/0", "0/0/0"] {
            assert!(parse_lsn(bad).is_err(), "{bad}");
        }
    }
}
