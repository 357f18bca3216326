//! Any bytes are looked at; a page that was sealed is good, and with one bit changed bad, but for chance.
#![no_main]

use backstay_postgresql_wire::lsn::Lsn;
use backstay_postgresql_wire::page::{PageVerdict, inspect_page, page_checksum};
use libfuzzer_sys::fuzz_target;

const EVER: Lsn = Lsn(u64::MAX);

fuzz_target!(|input: (u32, u64, u16, &[u8])| {
    let (block, before, bit, bytes) = input;
    let _ = inspect_page(bytes, block, Lsn(before));
    let mut page = bytes.to_vec();
    page.resize(8192, 0);
    assert_eq!(inspect_page(&page, block, EVER) == PageVerdict::New, page.iter().all(|&byte| byte == 0));
    page[15] |= 1;
    let sum = page_checksum(&page, block);
    page[8..10].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(inspect_page(&page, block, EVER), PageVerdict::Good);
    page[usize::from(bit / 8)] ^= 1 << (bit % 8);
    let by_chance = page[8..10] == page_checksum(&page, block).to_le_bytes();
    assert!(inspect_page(&page, block, EVER).is_bad() || by_chance);
});
