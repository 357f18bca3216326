//! Any stream of bytes is frames or an error, each frame a message or an error, however cut.
#![no_main]

use backstay_postgresql_wire::protocol::{Backend, Decoder};
use libfuzzer_sys::fuzz_target;

fn decode(bytes: &[u8], piece: usize, authenticated: bool) -> Vec<String> {
    let (mut decoder, mut seen) = (Decoder::new(), Vec::new());
    if authenticated {
        decoder.authenticated();
    }
    for mut input in bytes.chunks(piece) {
        loop {
            match decoder.next(&mut input) {
                Ok(Some(frame)) => seen.push(format!("{:?}", Backend::parse(frame))),
                Ok(None) => break,
                Err(error) => {
                    seen.push(format!("{error:?}"));
                    return seen;
                }
            }
        }
    }
    seen
}

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (authenticated, piece, bytes) = input;
    let whole = decode(bytes, bytes.len().max(1), authenticated);
    assert_eq!(whole, decode(bytes, usize::from(piece).max(1), authenticated));
});
