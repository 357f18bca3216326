//! What the plugin keeps about a backup for its restore.

use backstay_sdk::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// The engine's own JSON in a backup's report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Notes {
    /// The server's version, `15.14`.
    pub version: String,
    /// The cluster's system identifier.
    pub system_identifier: String,
    /// `wal_segment_size` in bytes.
    pub segment_bytes: u64,
    /// Tablespaces that lie outside the main folder.
    #[serde(default)]
    pub tablespaces: Vec<Tablespace>,
    /// Whether the log that makes the backup consistent is inside, in `pg_wal`.
    #[serde(default)]
    pub includes_wal: bool,
}

/// A tablespace outside the main folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tablespace {
    /// Its OID: the name of its link in `pg_tblspc`, and of its folder in the backup.
    pub oid: u32,
    /// Where it lies on the server.
    pub location: String,
}

impl Notes {
    /// As the report carries them.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|error| Error::new(ErrorKind::Internal, format!("failed to write the backup's notes: {error}")))
    }

    /// As a restore gets them back.
    pub fn from_json(json: &str) -> Result<Self> {
        serde_json::from_str(json)
            .map_err(|error| Error::new(ErrorKind::Corrupt, format!("the backup's notes cannot be read: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_go_there_and_back() {
        let notes = Notes {
            version: "15.14".to_owned(),
            system_identifier: "7345678901234567890".to_owned(),
            segment_bytes: 16 << 20,
            tablespaces: vec![Tablespace { oid: 16384, location: "/srv/fast".to_owned() }],
            includes_wal: true,
        };
        assert_eq!(Notes::from_json(&notes.to_json().unwrap()).unwrap(), notes);
        assert!(Notes::from_json("{}").is_err());
    }
}
