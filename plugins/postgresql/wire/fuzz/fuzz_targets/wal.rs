//! Any bytes are log or an error; the scanner always reads on, and errors do not depend on how
//! the bytes are cut.
#![no_main]

use backstay_postgresql_wire::wal::{PAGE_BYTES, Record, Scanner};
use libfuzzer_sys::fuzz_target;

fn scan(start: u64, bytes: &[u8], piece: usize) -> (Vec<Record>, usize) {
    let (mut scanner, mut records, mut errors) = (Scanner::new(start), Vec::new(), 0);
    for mut input in bytes.chunks(piece) {
        while !input.is_empty() {
            match scanner.next(&mut input) {
                Ok(Some(record)) => records.push(record),
                Ok(None) => assert!(input.is_empty()),
                Err(_) => errors += 1,
            }
        }
    }
    assert!(records.len() + errors <= bytes.len() / 8 + 1);
    (records, errors)
}

/// Gives every page a header that fits its place, or no mutation would ever get past it.
fn number_pages(start: u64, bytes: &mut [u8]) {
    for (n, page) in bytes.chunks_mut(PAGE_BYTES as usize).enumerate() {
        if page.len() >= 40 {
            let at = start + n as u64 * PAGE_BYTES;
            page[0..2].copy_from_slice(&0xd110u16.to_le_bytes());
            let long = at % (1 << 20) == 0;
            page[2] = page[2] & 0x09 | if long { 2 } else { 0 };
            page[3] = 0;
            page[8..16].copy_from_slice(&at.to_le_bytes());
            if page[2] & 1 == 0 {
                page[16..20].fill(0);
            } else {
                page[18..20].fill(0);
                page[16] |= 1;
            }
            if long {
                page[32..36].copy_from_slice(&(1u32 << 20).to_le_bytes());
                page[36..40].copy_from_slice(&8192u32.to_le_bytes());
            }
        }
    }
}

fuzz_target!(|input: (u16, u16, bool, Vec<u8>)| {
    let (segment, piece, numbered, mut bytes) = input;
    let start = u64::from(segment) << 20;
    if numbered {
        number_pages(start, &mut bytes);
    }
    let whole = scan(start, &bytes, bytes.len().max(1));
    assert_eq!(whole, scan(start, &bytes, usize::from(piece).max(1)));
    scan(start | u64::from(piece), &bytes, 4096);
});
