//! `backup_manifest`: every file of a base backup with its size and checksum.
//!
//! ```text
//!   { "PostgreSQL-Backup-Manifest-Version": 2,
//!   "System-Identifier": 7575…,
//!   "Files": [
//!   { "Path": "PG_VERSION", "Size": 3, "Last-Modified": "… GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "…" },
//!   …
//!   "WAL-Ranges": [
//!   { "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }
//!   ],
//!   "Manifest-Checksum": "…"}
//! ```
//!
//! Version 2 (servers as of 17) adds the cluster's identity. The last line holds the SHA-256
//! of all bytes before that line. Follows the chapter "Backup Manifest Format".

mod checksum;

pub use checksum::{Algorithm, Checksum, Hasher};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::limits::MANIFEST_BYTES_MAX;
use crate::lsn::Lsn;
use crate::{Error, ErrorKind, Result, utc};

/// A base backup's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// 1, or 2 as of server 17.
    pub version: u32,
    /// The cluster's identity, in version 2.
    pub system_identifier: Option<u64>,
    /// Every file but the manifest itself and those in `pg_wal`.
    pub files: Vec<ManifestFile>,
    /// The log that makes the backup consistent.
    pub wal_ranges: Vec<WalRange>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    /// Relative to the main folder; tablespaces lie in `pg_tblspc/<oid>`. Raw bytes: a
    /// server's file names need not be UTF-8.
    pub path: Vec<u8>,
    /// In bytes.
    pub size: u64,
    /// As the server wrote it.
    pub last_modified: String,
    /// Nothing when the client asked for none.
    pub checksum: Option<Checksum>,
}

/// A stretch of log on one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WalRange {
    /// The timeline.
    #[serde(rename = "Timeline")]
    pub timeline: u32,
    /// The first byte.
    #[serde(rename = "Start-LSN")]
    pub start: Lsn,
    /// One past the last byte.
    #[serde(rename = "End-LSN")]
    pub end: Lsn,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    #[serde(rename = "PostgreSQL-Backup-Manifest-Version")]
    version: u32,
    #[serde(rename = "System-Identifier")]
    system_identifier: Option<u64>,
    #[serde(rename = "Files")]
    files: Vec<RawFile>,
    #[serde(rename = "WAL-Ranges")]
    wal_ranges: Vec<WalRange>,
    #[serde(rename = "Manifest-Checksum")]
    checksum: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Last-Modified")]
    last_modified: Option<String>,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    #[serde(rename = "Checksum")]
    checksum: Option<String>,
}

impl Manifest {
    /// Reads a manifest and checks its own checksum.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(Error::too_large(format_args!("the backup manifest has {} bytes", bytes.len())));
        }
        let malformed = |what: &dyn std::fmt::Display| Error::malformed(format_args!("the backup manifest {what}"));
        let raw: RawManifest =
            serde_json::from_slice(bytes).map_err(|error| malformed(&format_args!("cannot be read: {error}")))?;
        let body = bytes.trim_ascii_end();
        let last_line = body
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map(|at| at + 1)
            .filter(|&at| body[at..].starts_with(b"\"Manifest-Checksum\""))
            .ok_or_else(|| malformed(&"does not end with its checksum"))?;
        if !raw.checksum.eq_ignore_ascii_case(&checksum::hex(&Sha256::digest(&bytes[..last_line]))) {
            return Err(Error::mismatch("the backup manifest does not have the checksum that it names"));
        }
        match (raw.version, raw.system_identifier) {
            (1, None) | (2, Some(_)) => {}
            (1 | 2, _) => return Err(malformed(&"has fields of another version")),
            (version, _) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format_args!("the backup manifest has the unknown version {version}"),
                ));
            }
        }
        let files = raw.files.into_iter().map(ManifestFile::from_raw).collect::<Result<Vec<_>>>()?;
        let mut paths: Vec<&[u8]> = files.iter().map(|file| file.path.as_slice()).collect();
        paths.sort_unstable();
        if let Some(twice) = paths.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(malformed(&format_args!("names {:?} twice", String::from_utf8_lossy(twice[0]))));
        }
        Ok(Self { version: raw.version, system_identifier: raw.system_identifier, files, wal_ranges: raw.wal_ranges })
    }

    /// Writes the manifest as a server does, with its checksum.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{{ \"PostgreSQL-Backup-Manifest-Version\": {},\n", self.version);
        if let Some(identifier) = self.system_identifier {
            text.push_str(&format!("\"System-Identifier\": {identifier},\n"));
        }
        text.push_str("\"Files\": [");
        for (n, file) in self.files.iter().enumerate() {
            text.push_str(if n == 0 { "\n" } else { ",\n" });
            file.write(&mut text);
        }
        text.push_str("\n],\n\"WAL-Ranges\": [");
        for (n, range) in self.wal_ranges.iter().enumerate() {
            text.push_str(if n == 0 { "\n" } else { ",\n" });
            text.push_str(&format!(
                "{{ \"Timeline\": {}, \"Start-LSN\": \"{}\", \"End-LSN\": \"{}\" }}",
                range.timeline, range.start, range.end
            ));
        }
        text.push_str("\n],\n");
        let sum = checksum::hex(&Sha256::digest(text.as_bytes()));
        text.push_str(&format!("\"Manifest-Checksum\": \"{sum}\"}}\n"));
        text.into_bytes()
    }

    /// The entry of that path.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&ManifestFile> {
        self.files.iter().find(|file| file.path == path.as_bytes())
    }

    /// Makes the entry of `path` fit `contents`, written at `modified` (seconds since 1970).
    /// [`ErrorKind::Mismatch`] when there is no such entry.
    pub fn replace(&mut self, path: &str, contents: &[u8], modified: u64) -> Result<()> {
        let file = self
            .files
            .iter_mut()
            .find(|file| file.path == path.as_bytes())
            .ok_or_else(|| Error::mismatch(format_args!("the backup manifest does not name {path}")))?;
        file.size = contents.len() as u64;
        file.last_modified = utc::manifest_text(modified);
        if let Some(checksum) = &mut file.checksum {
            *checksum = Checksum::of(checksum.algorithm, contents);
        }
        Ok(())
    }
}

impl ManifestFile {
    fn from_raw(raw: RawFile) -> Result<Self> {
        let malformed = |what: &str| Error::malformed(format_args!("the backup manifest {what}"));
        let path = match (raw.path, raw.encoded_path) {
            (Some(path), None) => path.into_bytes(),
            (None, Some(encoded)) => {
                checksum::unhex(&encoded).ok_or_else(|| malformed("has an encoded path that is not hexadecimal"))?
            }
            _ => return Err(malformed("has a file without a path, or with two")),
        };
        let checksum = match (raw.algorithm, raw.checksum) {
            (None, None) => None,
            (Some(algorithm), Some(value)) => Some(Checksum::parse(&algorithm, &value)?),
            _ => return Err(malformed("has half a checksum")),
        };
        Ok(Self { path, size: raw.size, last_modified: raw.last_modified.unwrap_or_default(), checksum })
    }

    fn write(&self, text: &mut String) {
        match std::str::from_utf8(&self.path) {
            Ok(path) => text.push_str(&format!("{{ \"Path\": {}, ", json_text(path))),
            Err(_) => text.push_str(&format!("{{ \"Encoded-Path\": \"{}\", ", checksum::hex(&self.path))),
        }
        text.push_str(&format!("\"Size\": {}, \"Last-Modified\": {}", self.size, json_text(&self.last_modified)));
        if let Some(checksum) = &self.checksum {
            text.push_str(&format!(
                ", \"Checksum-Algorithm\": \"{}\", \"Checksum\": \"{}\"",
                checksum.algorithm,
                checksum::hex(&checksum.value)
            ));
        }
        text.push_str(" }");
    }
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
