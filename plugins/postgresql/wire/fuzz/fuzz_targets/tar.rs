//! Any bytes are an archive or an error, and how they are cut changes nothing.
#![no_main]

use backstay_postgresql_wire::tar::{Decoder, Event};
use libfuzzer_sys::fuzz_target;

/// Everything that was seen, data joined; ends with whether it ended well.
fn decode(bytes: &[u8], piece: usize) -> (Vec<String>, Vec<u8>, bool) {
    let (mut decoder, mut events, mut data) = (Decoder::new(), Vec::new(), Vec::new());
    for mut input in bytes.chunks(piece) {
        loop {
            match decoder.next(&mut input) {
                Ok(Some(Event::Data(part))) => data.extend_from_slice(part),
                Ok(Some(event)) => events.push(format!("{event:?}")),
                Ok(None) => break,
                Err(_) => return (events, data, false),
            }
        }
        assert!(input.is_empty());
    }
    let well = decoder.finish().is_ok();
    (events, data, well)
}

/// Puts right checksums into the headers, or no mutation would ever get past them.
fn seal(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if block.iter().any(|&byte| byte != 0) {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

fuzz_target!(|input: (u16, bool, Vec<u8>)| {
    let (piece, sealed, mut bytes) = input;
    if sealed {
        seal(&mut bytes);
    }
    let whole = decode(&bytes, bytes.len().max(1));
    assert_eq!(whole, decode(&bytes, usize::from(piece).max(1)));
});
