//! The server's byte stream, cut at a place that the first byte chooses: both cuts must agree.
#![no_main]

use backstay_postgresql_wire::protocol::{Backend, Decoder};
use libfuzzer_sys::fuzz_target;

fn tags(pieces: &[&[u8]]) -> Vec<(u8, usize)> {
    let mut decoder = Decoder::new();
    decoder.authenticated();
    let mut seen = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        while let Ok(Some(frame)) = decoder.next(&mut input) {
            seen.push((frame.tag, frame.body.len()));
            if let Ok(Backend::ErrorResponse(error)) = Backend::parse(frame) {
                assert!(!error.one_line().contains(char::is_control));
            }
        }
    }
    seen
}

fuzz_target!(|data: &[u8]| {
    let Some((&cut, stream)) = data.split_first() else {
        return;
    };
    let (head, tail) = stream.split_at(usize::from(cut).min(stream.len()));
    assert_eq!(tags(&[stream]), tags(&[head, tail]));
});
