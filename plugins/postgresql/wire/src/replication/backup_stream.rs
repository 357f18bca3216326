//! What travels inside the copied data of `BASE_BACKUP`, as of version 15.
//!
//! Up to version 14 each archive is a copy of its own, in the order of the tablespace rows,
//! and the manifest is the last one: there the copied data is the archive's bytes alone.

use crate::protocol::Cursor;
use crate::{Error, Result};

/// One message inside the copied data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupMessage<'a> {
    /// An archive begins.
    Archive {
        /// `base.tar`, or a tablespace's OID with `.tar`.
        name: &'a str,
        /// Where the tablespace lies on the server; empty for the main folder.
        location: &'a str,
    },
    /// The manifest begins.
    Manifest,
    /// Bytes of what began last.
    Data(&'a [u8]),
    /// How many bytes the server has sent of all archives.
    Progress {
        /// Bytes.
        done: u64,
    },
}

impl<'a> BackupMessage<'a> {
    /// Reads one piece of copied data.
    pub fn parse(copied: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor::new("base backup", copied);
        let message = match cursor.u8()? {
            b'd' => Self::Data(cursor.rest()),
            b'n' => Self::Archive { name: cursor.text()?, location: cursor.text()? },
            b'm' => Self::Manifest,
            b'p' => Self::Progress { done: cursor.u64()? },
            other => {
                return Err(Error::malformed(format_args!(
                    "the server sent the unknown base backup message {:?}",
                    char::from(other)
                )));
            }
        };
        cursor.end()?;
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_kind_is_understood() {
        assert_eq!(
            BackupMessage::parse(b"n16384.tar\0/srv/fast\0").unwrap(),
            BackupMessage::Archive { name: "16384.tar", location: "/srv/fast" }
        );
        assert_eq!(
            BackupMessage::parse(b"nbase.tar\0\0").unwrap(),
            BackupMessage::Archive { name: "base.tar", location: "" }
        );
        assert_eq!(BackupMessage::parse(b"m").unwrap(), BackupMessage::Manifest);
        assert_eq!(BackupMessage::parse(b"dxyz").unwrap(), BackupMessage::Data(b"xyz"));
        assert_eq!(BackupMessage::parse(b"p\0\0\0\0\0\0\x01\0").unwrap(), BackupMessage::Progress { done: 256 });
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_malformed() {
        for bad in [b"".as_slice(), b"nbase.tar\0", b"mx", b"p\0", b"z"] {
            assert!(BackupMessage::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_copied_data_is_a_message_or_an_error(copied in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = BackupMessage::parse(&copied);
        }
    }
}
