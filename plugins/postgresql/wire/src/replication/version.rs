//! A server's version.

use std::fmt;

use crate::{Error, ErrorKind, Result};

/// A server's version, as its `server_version` setting tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerVersion {
    /// `15` of `15.14`.
    pub major: u32,
    /// `14` of `15.14`; 0 for a version in development (`18beta1`).
    pub minor: u32,
}

impl ServerVersion {
    /// The oldest major version that is spoken here.
    pub const MAJOR_MIN: u32 = 13;

    /// Reads `15.14 (Debian 15.14-0+deb12u1)`, `18beta1`, `9.6.24`.
    pub fn parse(text: &str) -> Result<Self> {
        let number = |text: &str| -> Option<u32> {
            let digits = text.find(|c: char| !c.is_ascii_digit()).map_or(text, |end| &text[..end]);
            digits.parse().ok()
        };
        let mut parts = text.splitn(3, '.');
        let major = parts.next().and_then(number).ok_or_else(|| {
            let shown: String = text.chars().filter(|c| !c.is_control()).take(40).collect();
            Error::malformed(format_args!("the server's version {shown:?} is unreadable"))
        })?;
        let minor = parts.next().and_then(number).unwrap_or(0);
        Ok(Self { major, minor })
    }

    /// Refuses servers that are too old for what a backup needs.
    pub fn supported(self) -> Result<Self> {
        if self.major < Self::MAJOR_MIN {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format_args!("the server is PostgreSQL {self}; {} or later is needed", Self::MAJOR_MIN),
            )
            .with_hint("upgrade the server: backups are verified against the manifest that PostgreSQL 13 introduced"));
        }
        Ok(self)
    }

    /// Replication commands take their options in brackets as of 15.
    #[must_use]
    pub fn has_bracketed_options(self) -> bool {
        self.major >= 15
    }

    /// Servers summarise their log, and send only what changed, as of 17.
    #[must_use]
    pub fn has_incremental_backups(self) -> bool {
        self.major >= 17
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn versions_are_read_as_servers_write_them() {
        for (text, major, minor) in [
            ("15.14 (Debian 15.14-0+deb12u1)", 15, 14),
            ("18beta1", 18, 0),
            ("18.6", 18, 6),
            ("9.6.24", 9, 6),
            ("17devel", 17, 0),
        ] {
            let version = ServerVersion::parse(text).unwrap();
            assert_eq!((version.major, version.minor), (major, minor), "{text}");
        }
        assert!(ServerVersion::parse("devel").is_err());
        assert!(ServerVersion::parse("").is_err());
        assert!(ServerVersion::parse("99999999999").is_err());
    }

    #[test]
    fn twelve_is_too_old_and_thirteen_is_not() {
        assert!(ServerVersion { major: 12, minor: 20 }.supported().is_err());
        assert!(ServerVersion { major: 13, minor: 0 }.supported().is_ok());
    }
}
