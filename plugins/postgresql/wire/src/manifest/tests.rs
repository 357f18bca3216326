#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn sample() -> Manifest {
    Manifest {
        version: 2,
        system_identifier: Some(7_575_000_000_000_000_001),
        files: vec![
            ManifestFile {
                path: b"backup_label".to_vec(),
                size: 226,
                last_modified: "2026-11-22 21:16:47 GMT".into(),
                checksum: Some(Checksum::of(Algorithm::Crc32c, b"123456789")),
            },
            ManifestFile {
                path: b"odd\xff".to_vec(),
                size: 0,
                last_modified: "2026-11-22 21:16:47 GMT".into(),
                checksum: Some(Checksum::of(Algorithm::Sha384, b"")),
            },
            ManifestFile {
                path: "say \"hi\"\n\u{e4}".as_bytes().to_vec(),
                size: 1 << 40,
                last_modified: "2026-11-22 21:16:47 GMT".into(),
                checksum: None,
            },
        ],
        wal_ranges: vec![WalRange { timeline: 1, start: Lsn(0x200_0028), end: Lsn(0x200_0100) }],
    }
}

#[test]
fn crc_is_written_in_little_endian_order() {
    // The check value of CRC-32C is E3069283.
    let sum = Checksum::of(Algorithm::Crc32c, b"123456789");
    assert_eq!(checksum::hex(&sum.value), "839206e3");
}

#[test]
fn manifests_go_there_and_back() {
    let mut manifest = sample();
    assert_eq!(Manifest::parse(&manifest.to_bytes()).unwrap(), manifest);
    manifest.version = 1;
    assert!(Manifest::parse(&manifest.to_bytes()).is_err());
    manifest.system_identifier = None;
    assert_eq!(Manifest::parse(&manifest.to_bytes()).unwrap(), manifest);
    manifest.version = 3;
    assert!(Manifest::parse(&manifest.to_bytes()).is_err());
}

#[test]
fn a_changed_byte_is_noticed() {
    let bytes = sample().to_bytes();
    let text = String::from_utf8(bytes).unwrap();
    let changed = text.replace("226", "227");
    let error = Manifest::parse(changed.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
}

#[test]
fn a_file_named_twice_is_malformed() {
    let mut manifest = sample();
    manifest.files.push(manifest.files[0].clone());
    assert!(Manifest::parse(&manifest.to_bytes()).is_err());
}

#[test]
fn one_file_can_be_replaced() {
    let mut manifest = sample();
    manifest.replace("backup_label", b"new", 0).unwrap();
    let file = manifest.file("backup_label").unwrap();
    assert_eq!(file.size, 3);
    assert_eq!(file.last_modified, "1970-01-01 00:00:00 GMT");
    assert_eq!(file.checksum, Some(Checksum::of(Algorithm::Crc32c, b"new")));
    assert!(manifest.replace("no such file", b"", 0).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_a_manifest_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Manifest::parse(&bytes);
    }

    #[test]
    fn a_manifest_with_broken_bytes_is_an_error(at in 0usize..300, byte: u8) {
        let mut bytes = sample().to_bytes();
        let at = at % bytes.len();
        let before = bytes[at];
        bytes[at] = byte;
        // White space behind the end, and the case of the checksum's digits, mean nothing.
        if let Ok(manifest) = Manifest::parse(&bytes) {
            prop_assert!(manifest == sample());
            prop_assert!(before == byte || before.eq_ignore_ascii_case(&byte) || before == b'\n');
        }
    }

    #[test]
    fn any_paths_go_there_and_back(paths in prop::collection::btree_set(prop::collection::vec(any::<u8>(), 1..30), 0..8)) {
        let mut manifest = sample();
        manifest.files = paths
            .into_iter()
            .map(|path| ManifestFile { path, size: 1, last_modified: String::new(), checksum: None })
            .collect();
        prop_assert_eq!(Manifest::parse(&manifest.to_bytes()).unwrap(), manifest);
    }
}
