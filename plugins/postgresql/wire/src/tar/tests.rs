#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;

/// What an archive says, with each file's bytes joined.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    entries: Vec<(Entry, Vec<u8>)>,
    ended: bool,
}

fn decode(archive: &[u8], piece: usize) -> Result<Seen> {
    let mut decoder = Decoder::new();
    let mut seen = Seen { entries: Vec::new(), ended: false };
    let mut open = false;
    for mut input in archive.chunks(piece.max(1)) {
        while let Some(event) = decoder.next(&mut input)? {
            match event {
                Event::Entry(entry) => {
                    assert!(!open, "an entry inside a file");
                    open = entry.kind == EntryKind::File;
                    seen.entries.push((entry, Vec::new()));
                }
                Event::Data(data) => {
                    assert!(open && !data.is_empty());
                    seen.entries.last_mut().unwrap().1.extend_from_slice(data);
                }
                Event::FileEnd => {
                    let (entry, data) = seen.entries.last().unwrap();
                    assert_eq!(entry.size, data.len() as u64);
                    open = false;
                }
                Event::End => seen.ended = true,
            }
        }
        assert!(input.is_empty());
    }
    decoder.finish()?;
    Ok(seen)
}

fn header(name: &[u8], flag: u8, size: &[u8; 12]) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000600 ");
    block[124..136].copy_from_slice(size);
    block[136..148].copy_from_slice(b"14000000000 ");
    block[156] = flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

fn seal(block: &mut [u8; BLOCK_BYTES]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn octal(size: u64) -> [u8; 12] {
    format!("{size:011o} ").into_bytes().try_into().unwrap()
}

fn file(name: &[u8], body: &[u8]) -> Vec<u8> {
    let mut archive = header(name, b'0', &octal(body.len() as u64)).to_vec();
    archive.extend_from_slice(body);
    archive.resize(archive.len().next_multiple_of(BLOCK_BYTES), 0);
    archive
}

#[test]
fn files_folders_and_links_are_told_apart() {
    let mut archive = file(b"base/1/PG_VERSION", b"15\n");
    archive.extend(header(b"base/1/", b'5', &octal(0)));
    let mut link = header(b"pg_tblspc/16384", b'2', &octal(0));
    link[157..166].copy_from_slice(b"/srv/fast");
    seal(&mut link);
    archive.extend(link);
    archive.extend(file(b"empty", b""));
    archive.resize(archive.len() + 2 * BLOCK_BYTES, 0);
    let seen = decode(&archive, 100).unwrap();
    assert!(seen.ended);
    let kinds: Vec<_> =
        seen.entries.iter().map(|(entry, data)| (entry.path.as_str(), entry.kind.clone(), data.as_slice())).collect();
    assert_eq!(
        kinds,
        [
            ("base/1/PG_VERSION", EntryKind::File, b"15\n".as_slice()),
            ("base/1", EntryKind::Directory, b""),
            ("pg_tblspc/16384", EntryKind::Symlink("/srv/fast".into()), b""),
            ("empty", EntryKind::File, b""),
        ]
    );
    assert_eq!(seen.entries[0].0.mode, 0o600);
    assert_eq!(seen.entries[0].0.mtime, 0o14_000_000_000);
}

#[test]
fn an_archive_without_its_zero_blocks_is_whole_and_a_cut_one_is_not() {
    let archive = file(b"a", &[7; 700]);
    assert!(!decode(&archive, 512).unwrap().ended);
    for cut in [1, 511, 513, 1211, 1213] {
        assert!(decode(&archive[..cut], 4096).is_err(), "{cut}");
    }
}

#[test]
fn sizes_beyond_eight_gibibytes_are_read() {
    let mut size = [0; 12];
    size[0] = 0x80;
    size[4..].copy_from_slice(&(9u64 << 30).to_be_bytes());
    let block = header(b"base/1/16385", b'0', &size);
    let mut decoder = Decoder::new();
    match decoder.next(&mut block.as_slice()).unwrap() {
        Some(Event::Entry(entry)) => assert_eq!(entry.size, 9 << 30),
        other => panic!("{other:?}"),
    }
    size[3] = 1;
    let block = header(b"x", b'0', &size);
    assert!(Decoder::new().next(&mut block.as_slice()).is_err());
}

#[test]
fn long_names_come_in_three_shapes() {
    let long = "d/".repeat(90) + "file";
    let mut prefixed = header(b"file", b'0', &octal(0));
    prefixed[345..345 + 155].copy_from_slice(("d/".repeat(77) + "e").as_bytes());
    seal(&mut prefixed);
    let seen = decode(&prefixed, 512).unwrap();
    assert_eq!(seen.entries[0].0.path, "d/".repeat(77) + "e/file");

    let mut gnu = header(b"././@LongLink", b'L', &octal(long.len() as u64 + 1)).to_vec();
    gnu.extend_from_slice(long.as_bytes());
    gnu.resize(1024, 0);
    gnu.extend(file(b"d/d", b"x"));
    assert_eq!(decode(&gnu, 17).unwrap().entries[0].0.path, long);
    assert!(decode(&gnu[..1024], 512).is_err());

    let record = format!("{} path={long}\n", long.len() + 10);
    assert_eq!(record.len(), long.len() + 10);
    let mut pax = header(b"PaxHeaders/x", b'x', &octal(record.len() as u64)).to_vec();
    pax.extend_from_slice(record.as_bytes());
    pax.resize(1024, 0);
    pax.extend(file(b"d/d", b"x"));
    assert_eq!(decode(&pax, 512).unwrap().entries[0].0.path, long);
}

#[test]
fn paths_that_leave_the_folder_are_refused() {
    for bad in ["/etc/passwd", "a/../../b", "..", "a//b", "", "."] {
        assert!(decode(&file(bad.as_bytes(), b""), 512).is_err(), "{bad}");
    }
    assert_eq!(decode(&file(b"./a", b""), 512).unwrap().entries[0].0.path, "a");
}

#[test]
fn a_header_with_a_wrong_checksum_is_malformed() {
    let mut archive = file(b"a", b"b");
    archive[0] = b'c';
    assert!(decode(&archive, 512).is_err());
}

#[test]
fn archives_of_the_systems_tar_are_understood() {
    let folder = std::env::temp_dir().join(format!("backstay-tar-{}", std::process::id()));
    let deep = folder.join("x".repeat(90)).join("y".repeat(90));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("file"), [9; 10_000]).unwrap();
    for format in ["ustar", "gnu", "pax"] {
        let archive = std::process::Command::new("tar")
            .args(["--format", format, "-cf", "-", "-C"])
            .arg(&folder)
            .arg("x".repeat(90))
            .output()
            .unwrap();
        assert!(archive.status.success());
        let seen = decode(&archive.stdout, 1000).unwrap();
        assert!(seen.ended);
        let (entry, data) = seen.entries.last().unwrap();
        assert_eq!(entry.path, format!("{}/{}/file", "x".repeat(90), "y".repeat(90)));
        assert_eq!(data, &[9; 10_000]);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

proptest! {
    #[test]
    fn any_bytes_are_an_archive_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        piece in 1usize..1000,
    ) {
        let _ = decode(&bytes, piece);
    }

    #[test]
    fn any_sealed_header_is_an_entry_or_an_error(
        fields in prop::collection::vec(any::<u8>(), BLOCK_BYTES),
        flag in prop::sample::select(b"05LKxg2\x00".to_vec()),
        size in 0u64..3000,
        body in prop::collection::vec(any::<u8>(), 0..3000),
    ) {
        let mut block: [u8; BLOCK_BYTES] = fields.try_into().unwrap();
        block[156] = flag;
        block[124..136].copy_from_slice(&octal(size));
        seal(&mut block);
        let mut archive = block.to_vec();
        archive.extend(body);
        let _ = decode(&archive, 333);
    }

    #[test]
    fn what_is_decoded_does_not_depend_on_how_it_is_cut(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 0..6),
        piece in 1usize..2000,
    ) {
        let mut archive = Vec::new();
        for (at, body) in bodies.iter().enumerate() {
            archive.extend(file(format!("f{at}").as_bytes(), body));
        }
        archive.resize(archive.len() + 2 * BLOCK_BYTES, 0);
        let seen = decode(&archive, piece).unwrap();
        prop_assert!(seen.ended);
        let got: Vec<_> = seen.entries.into_iter().map(|(_, body)| body).collect();
        prop_assert_eq!(got, bodies);
    }
}
