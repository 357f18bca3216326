#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn layout() -> Layout {
    Layout::new(1024, 1000).unwrap()
}

/// The file of a server whose layout is [`layout`].
fn file(truncation: u32, blocks: &[u32]) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        [MAGIC, blocks.len() as u32, truncation].iter().chain(blocks).flat_map(|word| word.to_le_bytes()).collect();
    if !blocks.is_empty() {
        bytes.resize(bytes.len().next_multiple_of(1024), 0);
    }
    for &block in blocks {
        bytes.extend([block as u8; 1024]);
    }
    bytes
}

/// The header and all data of a file that comes in pieces.
fn decode(bytes: &[u8], piece: usize) -> Result<(Header, Vec<u8>)> {
    let (mut decoder, mut header, mut content) = (Decoder::new(layout()), None, Vec::new());
    for mut input in bytes.chunks(piece) {
        while let Some(event) = decoder.next(&mut input)? {
            match event {
                Event::Header(one) => assert!(header.replace(one).is_none() && content.is_empty()),
                Event::Data(data) => {
                    assert!(!data.is_empty());
                    content.extend_from_slice(data);
                }
            }
        }
        assert!(input.is_empty());
    }
    decoder.finish()?;
    Ok((header.unwrap(), content))
}

#[test]
fn the_file_of_changed_blocks_is_read() {
    let bytes = file(5, &[1, 4, 6]);
    let (header, content) = decode(&bytes, bytes.len()).unwrap();
    assert_eq!(header.blocks(), [1, 4, 6]);
    assert_eq!(header.bytes_before_blocks(), 1024);
    assert_eq!(header.inherited_bytes(), 5 * 1024);
    assert_eq!(header.file_bytes(), 7 * 1024);
    assert_eq!(header.content_bytes(), 3 * 1024);
    assert_eq!(content, [[1; 1024], [4; 1024], [6; 1024]].concat());
}

#[test]
fn a_file_without_changes_is_twelve_bytes() {
    let bytes = file(9, &[]);
    assert_eq!(bytes.len(), 12);
    let (header, content) = decode(&bytes, 5).unwrap();
    assert_eq!((header.bytes_before_blocks(), header.file_bytes(), content.len()), (12, 9 * 1024, 0));
    assert_eq!(header.runs().count(), 0);
}

#[test]
fn adjacent_blocks_are_one_run() {
    let (header, _) = decode(&file(0, &[0, 1, 2, 7, 9, 10, 999]), 100).unwrap();
    let runs: Vec<_> = header.runs().map(|run| (run.offset / 1024, run.bytes / 1024)).collect();
    assert_eq!(runs, [(0, 3), (7, 1), (9, 2), (999, 1)]);
}

/// What comes from where, in blocks: `e` from the earlier file, `h` from here, `0` from nowhere.
fn plan(header: &Header) -> String {
    let blocks = |bytes: u64| (bytes / 1024) as usize;
    let mut plan = vec!['0'; blocks(header.file_bytes())];
    plan[..blocks(header.inherited_bytes())].fill('e');
    for run in header.runs() {
        plan[blocks(run.offset)..blocks(run.offset + run.bytes)].fill('h');
    }
    plan.into_iter().collect()
}

#[test]
fn every_byte_of_the_whole_file_comes_from_somewhere() {
    for (truncation, blocks, expected) in [
        (5, &[1, 4, 6][..], "eheeh0h"),
        (5, &[], "eeeee"),
        (0, &[2], "00h"),
        (3, &[0, 1, 2], "hhh"),
        (2, &[5], "ee000h"),
        (0, &[], ""),
    ] {
        let (header, _) = decode(&file(truncation, blocks), 1000).unwrap();
        assert_eq!(plan(&header), expected);
        assert_eq!(header.file_bytes(), expected.len() as u64 * 1024);
    }
}

#[test]
fn what_lay_behind_a_cut_does_not_come_back() {
    let cut = |segment, blocks| {
        let (mut header, _) = decode(&file(8, &[1, 4, 6]), 1000).unwrap();
        header.relation_was_cut(segment, blocks);
        plan(&header)
    };
    assert_eq!(cut(0, 3), "ehe0h0h0");
    assert_eq!(cut(0, 0), "0h00h0h0");
    assert_eq!(cut(0, 8), "eheehehe");
    assert_eq!(cut(0, u32::MAX), "eheehehe");
    // Segments have 1,000 blocks.
    assert_eq!(cut(2, 2003), "ehe0h0h0");
    assert_eq!(cut(2, 1999), "0h00h0h0");
    assert_eq!(cut(u32::MAX, u32::MAX), "0h00h0h0");
}

#[test]
fn a_header_that_fills_its_blocks_has_no_zeros() {
    // Three numbers and 253 more are 1,024 bytes.
    let blocks: Vec<u32> = (0..253).collect();
    let (header, _) = decode(&file(0, &blocks), 1000).unwrap();
    assert_eq!(header.bytes_before_blocks(), 1024);
    let blocks: Vec<u32> = (0..254).collect();
    let (header, _) = decode(&file(0, &blocks), 1000).unwrap();
    assert_eq!(header.bytes_before_blocks(), 2048);
}

#[test]
fn a_length_beyond_the_segment_is_cut_down() {
    let (header, _) = decode(&file(u32::MAX, &[3]), 64).unwrap();
    assert_eq!(header.inherited_bytes(), 1000 * 1024);
    assert_eq!(header.file_bytes(), 1000 * 1024);
}

#[test]
fn what_is_no_such_file_is_refused() {
    let changed = |at: usize, word: u32| {
        let mut bytes = file(5, &[1, 4, 6]);
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        bytes
    };
    let longer = [file(5, &[1]), vec![0]].concat();
    for bad in
        [changed(0, 7), changed(4, 1001), changed(16, 1), changed(16, 9), changed(20, 1000), changed(24, 1), longer]
    {
        assert_eq!(decode(&bad, 512).unwrap_err().kind(), ErrorKind::Malformed);
    }
    let error = decode(&changed(0, MAGIC.to_be()), 512).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn a_file_that_is_cut_short_is_told_from_a_whole_one() {
    for whole in [file(5, &[]), file(5, &[1, 4])] {
        for length in 0..whole.len() {
            let (mut decoder, mut input) = (Decoder::new(layout()), &whole[..length]);
            while decoder.next(&mut input).unwrap().is_some() {}
            assert!(decoder.finish().is_err(), "{length}");
        }
        decode(&whole, 3).unwrap();
    }
}

#[test]
fn names_lead_to_the_whole_file() {
    for (path, full) in [
        ("base/5/INCREMENTAL.16384", "base/5/16384"),
        ("base/5/INCREMENTAL.16384.1", "base/5/16384.1"),
        ("global/INCREMENTAL.1262_vm", "global/1262_vm"),
        ("PG_18_202506291/5/INCREMENTAL.16384", "PG_18_202506291/5/16384"),
        ("pg_tblspc/9/PG_18_202506291/5/INCREMENTAL.16384_init", "pg_tblspc/9/PG_18_202506291/5/16384_init"),
    ] {
        assert_eq!(full_name(path).unwrap(), full);
    }
    for path in [
        "",
        "INCREMENTAL.16384",
        "base/5/16384",
        "base/5/INCREMENTAL.",
        "base/5/INCREMENTAL.x",
        "base/INCREMENTAL.5/16384",
        "my/INCREMENTAL.1",
        "base/5/INCREMENTAL.INCREMENTAL.1",
    ] {
        assert_eq!(full_name(path), None, "{path}");
    }
}

proptest! {
    #[test]
    fn any_file_survives_however_it_is_cut(
        truncation in 0u32..1000,
        blocks in prop::collection::btree_set(0u32..1000, 0..300),
        piece in 1usize..3000,
    ) {
        let blocks: Vec<u32> = blocks.into_iter().collect();
        let bytes = file(truncation, &blocks);
        let (header, content) = decode(&bytes, piece).unwrap();
        prop_assert_eq!(header.blocks(), &blocks);
        prop_assert_eq!(header.inherited_bytes(), u64::from(truncation) * 1024);
        prop_assert_eq!(header.bytes_before_blocks() + header.content_bytes(), bytes.len() as u64);
        prop_assert_eq!(&content, &bytes[header.bytes_before_blocks() as usize..]);
        let runs: Vec<Run> = header.runs().collect();
        let of_runs = runs.iter().flat_map(|run| run.offset / 1024..(run.offset + run.bytes) / 1024);
        prop_assert!(of_runs.eq(blocks.iter().copied().map(u64::from)));
        prop_assert!(runs.windows(2).all(|pair| pair[0].offset + pair[0].bytes < pair[1].offset));
        prop_assert!(runs.iter().all(|run| run.offset + run.bytes <= header.file_bytes()));
        let listed = |(block, letter): (usize, char)| (letter == 'h') == blocks.contains(&(block as u32));
        prop_assert!(plan(&header).chars().enumerate().all(listed));
    }

    #[test]
    fn any_bytes_are_a_file_or_an_error(
        start in prop::sample::select(vec![vec![], MAGIC.to_le_bytes().to_vec()]),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        piece in 1usize..50,
    ) {
        let bytes = [start, bytes].concat();
        let whole = decode(&bytes, bytes.len().max(1));
        prop_assert_eq!(whole, decode(&bytes, piece));
    }

    #[test]
    fn any_text_is_a_name_or_not(text in "\\PC{0,30}") {
        let _ = full_name(&text);
        let _ = full_name(&format!("base/1/INCREMENTAL.{text}"));
    }
}
