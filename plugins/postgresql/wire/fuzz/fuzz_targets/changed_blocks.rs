//! Any bytes are an incremental file or an error, and how they are cut changes nothing.
#![no_main]

use backstay_postgresql_wire::incremental::{Decoder, Event, Header};
use backstay_postgresql_wire::relation_file::Layout;
use libfuzzer_sys::fuzz_target;

/// What was seen, data joined; ends with whether it ended well.
fn decode(layout: Layout, bytes: &[u8], piece: usize) -> (Option<Header>, Vec<u8>, bool) {
    let (mut decoder, mut header, mut data) = (Decoder::new(layout), None, Vec::new());
    for mut input in bytes.chunks(piece) {
        loop {
            match decoder.next(&mut input) {
                Ok(Some(Event::Header(one))) => assert!(header.replace(one).is_none()),
                Ok(Some(Event::Data(part))) => data.extend_from_slice(part),
                Ok(None) => break,
                Err(_) => return (header, data, false),
            }
        }
        assert!(input.is_empty());
    }
    let well = decoder.finish().is_ok();
    (header, data, well)
}

/// Gives the file a header that fits, or few mutations would ever get past it.
fn seal(block_bytes: usize, bytes: &mut Vec<u8>) {
    let Some((start, rest)) = bytes.split_first_chunk_mut::<12>() else { return };
    start[..4].copy_from_slice(&0xd3ae_1f0d_u32.to_le_bytes());
    let count = usize::from(start[4]) % (rest.len() / 4 + 1);
    start[4..8].copy_from_slice(&(count as u32).to_le_bytes());
    let mut block = 0;
    for word in rest.chunks_exact_mut(4).take(count) {
        block += u32::from(word[0] % 4) + 1;
        word.copy_from_slice(&block.to_le_bytes());
    }
    if count > 0 {
        let header = 12 + count * 4;
        bytes.truncate(header);
        bytes.resize(header.next_multiple_of(block_bytes) + count * block_bytes, 7);
    }
}

fuzz_target!(|input: (u8, u16, u16, bool, Vec<u8>)| {
    let (shift, segment_blocks, piece, sealed, mut bytes) = input;
    let block_bytes = 1024 << (shift % 6);
    let Ok(layout) = Layout::new(block_bytes, u32::from(segment_blocks)) else { return };
    if sealed {
        seal(block_bytes as usize, &mut bytes);
    }
    let whole = decode(layout, &bytes, bytes.len().max(1));
    assert_eq!(whole, decode(layout, &bytes, usize::from(piece).max(1)));
    if let (Some(header), data, well) = whole {
        assert!(data.len() as u64 <= header.content_bytes());
        let mut end = 0;
        for run in header.runs() {
            assert!(run.bytes > 0 && (run.offset > end || end == 0));
            end = run.offset + run.bytes;
        }
        assert!(end.max(header.inherited_bytes()) == header.file_bytes());
        assert_eq!(header.runs().map(|run| run.bytes).sum::<u64>(), header.content_bytes());
        let mut cut = header.clone();
        cut.relation_was_cut(u32::from(shift), u32::from(piece));
        assert!(cut.inherited_bytes() <= header.inherited_bytes() && cut.file_bytes() == header.file_bytes());
        assert!(!well || header.bytes_before_blocks() + header.content_bytes() == bytes.len() as u64);
    }
});
