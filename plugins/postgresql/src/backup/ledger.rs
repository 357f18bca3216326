//! What came in, file by file, and whether that is what the server promised.

use std::collections::BTreeMap;

use backstay_postgresql_wire::manifest::{Algorithm, Manifest, ManifestFile};
use backstay_sdk::{Error, ErrorKind, Result};

/// The folder whose files a manifest may leave out.
const LOG_FOLDER: &str = "pg_wal/";

/// Size and CRC-32C of each file received, by the path that the manifest knows it by.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    files: BTreeMap<String, Received>,
}

#[derive(Debug, Clone, Copy)]
struct Received {
    size: u64,
    crc: u32,
}

impl Ledger {
    /// A file came in whole.
    pub(super) fn add(&mut self, path: String, size: u64, crc: u32) -> Result<()> {
        if self.files.contains_key(&path) {
            return Err(Error::new(ErrorKind::Corrupt, format!("the server sent {path:?} twice")));
        }
        self.files.insert(path, Received { size, crc });
        Ok(())
    }

    /// Refuses files that differ, that are missing, and that nobody listed. Log files are
    /// not in a manifest: PostgreSQL checks each of their records when it replays them.
    pub(super) fn compare(mut self, manifest: &Manifest) -> Result<()> {
        let mut wrong = Wrong::default();
        for listed in &manifest.files {
            let path = String::from_utf8_lossy(&listed.path);
            match self.files.remove(path.as_ref()) {
                None => wrong.add(format!("{path:?} is missing")),
                Some(received) => {
                    if let Some(difference) = difference(listed, received) {
                        wrong.add(format!("{path:?} {difference}"));
                    }
                }
            }
        }
        for path in self.files.keys().filter(|path| !path.starts_with(LOG_FOLDER)) {
            wrong.add(format!("{path:?} is not in the manifest"));
        }
        wrong.into_result()
    }
}

fn difference(listed: &ManifestFile, received: Received) -> Option<String> {
    if listed.size != received.size {
        return Some(format!("has {} bytes in place of {}", received.size, listed.size));
    }
    match &listed.checksum {
        // The bytes of the checksum lie in memory order of a little-endian machine.
        Some(checksum) if checksum.algorithm == Algorithm::Crc32c => {
            (checksum.value != received.crc.to_le_bytes()).then(|| "has another checksum".to_owned())
        }
        Some(_) | None => Some("has no CRC-32C in the manifest".to_owned()),
    }
}

/// What does not fit, counted; the first is told.
#[derive(Default)]
struct Wrong {
    count: usize,
    first: String,
}

impl Wrong {
    fn add(&mut self, what: String) {
        if self.count == 0 {
            self.first = what;
        }
        self.count += 1;
    }

    fn into_result(self) -> Result<()> {
        let more = match self.count {
            0 => return Ok(()),
            1 => String::new(),
            count => format!(" (and {} more files)", count - 1),
        };
        Err(Error::new(ErrorKind::Corrupt, format!("the backup does not fit its manifest: {}{more}", self.first))
            .hint("repeat the backup; if it happens again, check the server's disks and memory"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstay_postgresql_wire::manifest::Checksum;

    fn listed(path: &str, bytes: &[u8]) -> ManifestFile {
        ManifestFile {
            path: path.as_bytes().to_vec(),
            size: bytes.len() as u64,
            last_modified: String::new(),
            checksum: Some(Checksum::of(Algorithm::Crc32c, bytes)),
        }
    }

    fn compare(received: &[(&str, &[u8])], files: Vec<ManifestFile>) -> Result<()> {
        let mut ledger = Ledger::default();
        for (path, bytes) in received {
            ledger.add((*path).to_owned(), bytes.len() as u64, crc32c::crc32c(bytes))?;
        }
        ledger.compare(&Manifest { version: 1, system_identifier: None, files, wal_ranges: Vec::new() })
    }

    #[test]
    fn what_was_promised_is_accepted_and_log_needs_no_promise() {
        let files = vec![listed("PG_VERSION", b"15\n"), listed("empty", b"")];
        let received =
            [("PG_VERSION", b"15\n".as_slice()), ("empty", b""), ("pg_wal/000000010000000000000002", b"log")];
        compare(&received, files).unwrap();
    }

    #[test]
    fn one_bit_a_length_a_missing_and_an_extra_file_are_each_refused() {
        let files = || vec![listed("a", b"good"), listed("b", b"fine")];
        let good = ("a", b"good".as_slice());
        for (received, told) in [
            (vec![good, ("b", b"finf".as_slice())], "another checksum"),
            (vec![good, ("b", b"fin")], "3 bytes in place of 4"),
            (vec![good], "\"b\" is missing"),
            (vec![good, ("b", b"fine"), ("c", b"")], "\"c\" is not in the manifest"),
        ] {
            let error = compare(&received, files()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Corrupt);
            assert!(error.message.contains(told), "{error}");
        }
        assert!(compare(&[good, good], files()).is_err());
    }

    #[test]
    fn a_manifest_without_checksums_is_refused() {
        let bare = ManifestFile { checksum: None, ..listed("a", b"good") };
        assert!(compare(&[("a", b"good")], vec![bare]).is_err());
    }

    #[test]
    fn many_wrong_files_are_counted() {
        let files = vec![listed("a", b"1"), listed("b", b"2"), listed("c", b"3")];
        let error = compare(&[], files).unwrap_err();
        assert!(error.message.contains("\"a\" is missing (and 2 more files)"), "{error}");
    }
}
