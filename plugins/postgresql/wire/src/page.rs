//! Data pages: is what lies on disk what the server wrote?
//!
//! ```text
//!   0          8          10      12         14         16      …          block size
//!   ┌──────────┬──────────┬───────┬──────────┬──────────┬──────────────────┐
//!   │ pd_lsn   │ checksum │ flags │ pd_lower │ pd_upper │ items, tuples …  │   little-endian
//!   └──────────┴──────────┴───────┴──────────┴──────────┴──────────────────┘
//!        └ the log up to here has to be replayed before the page may be written
//! ```
//!
//! The checksum takes in the block's number, so a page in the wrong place is noticed too. It is a
//! family of 32 FNV-1a hashes side by side, one for each column of a table whose rows are 128
//! bytes. Of pages with other bytes, one in 65,535 has the same checksum by chance. Follows `storage/checksum_impl.h`, `verify_page_checksum` in `backup/basebackup.c` and
//! `PageIsVerified` in `storage/page/bufpage.c`.

use crate::lsn::Lsn;

/// Where `pd_checksum` lies.
const CHECKSUM_AT: usize = 8;

/// No backup lasts while a server writes so much log: a page that is newer still has a broken header.
pub const NEWER_BYTES_MAX: u64 = 1 << 40;

/// Where `pd_upper` lies.
const UPPER_AT: usize = 14;

/// How many hashes stand side by side: `N_SUMS`.
const LANES: usize = 32;

/// What the hashes take in at a time: four bytes each.
const ROW_BYTES: usize = LANES * 4;

/// `FNV_PRIME`.
const PRIME: u32 = 16_777_619;

/// What each hash starts with: `checksumBaseOffsets`.
const STARTS: [u32; LANES] = [
    0x5b1f_36e9,
    0xb852_5960,
    0x02ab_50aa,
    0x1de6_6d2a,
    0x79ff_467a,
    0x9bb9_f8a3,
    0x217e_7cd2,
    0x83e1_3d2c,
    0xf8d4_474f,
    0xe39e_b970,
    0x42c6_ae16,
    0x9932_16fa,
    0x7b09_3b5d,
    0x98da_ff3c,
    0xf718_902a,
    0x0b1c_9cdb,
    0xe58f_764b,
    0x1876_36bc,
    0x5d7b_3bb1,
    0xe73d_e7de,
    0x92be_c979,
    0xcca6_c0b2,
    0x304a_0979,
    0x85aa_43d4,
    0x7831_25bb,
    0x6ca8_eaa2,
    0xe407_eac6,
    0x4b5c_fc3e,
    0x9fbf_8c76,
    0x15ca_20be,
    0xf2ca_9fd3,
    0x959b_d756,
];

/// What a look at a page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageVerdict {
    /// All zeros: room that was taken and never written.
    New,
    /// The checksum fits.
    Good,
    /// Written after the backup began, so the log makes it whole. Not judged: half of it may be old.
    Newer,
    /// The checksum does not fit.
    Bad {
        /// What the bytes add up to in this place.
        expected: u16,
        /// What the header says.
        found: u16,
    },
    /// The header says that the page was never written (`pd_upper` is 0), but there are bytes. The
    /// server's own backup lets such a page pass; reading it in a query fails.
    NotEmpty,
}

impl PageVerdict {
    /// Whether something is wrong with the page.
    ///
    /// Of a running server's file, only a second read makes it certain: the first may have seen
    /// one half of a page from before a write and the other from after it.
    #[must_use]
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Bad { .. } | Self::NotEmpty)
    }
}

/// Looks at a whole page of a cluster that has checksums.
///
/// `block` is its number in the relation, see [`Layout::block`](crate::relation_file::Layout::block).
/// `before` is where the log stood when the backup began. [`u64::MAX`] judges every page, as is right
/// for a stopped server: only then is a page noticed whose broken header says that it is a little newer.
/// One that says it is newer by more than [`NEWER_BYTES_MAX`] was not written by the server, and is judged.
#[must_use]
pub fn inspect_page(page: &[u8], block: u32, before: Lsn) -> PageVerdict {
    let is_new = u16::from_le_bytes(field(page, UPPER_AT)) == 0;
    if is_new && is_zero(page) {
        return PageVerdict::New;
    }
    // Two halves, the high one first, each in the machine's order.
    let (high, low) = (u32::from_le_bytes(field(page, 0)), u32::from_le_bytes(field(page, 4)));
    let lsn = u64::from(high) << 32 | u64::from(low);
    if lsn >= before.0 && lsn - before.0 < NEWER_BYTES_MAX && before.0 < u64::MAX {
        return PageVerdict::Newer;
    }
    if is_new {
        return PageVerdict::NotEmpty;
    }
    let expected = page_checksum(page, block);
    let found = u16::from_le_bytes(field(page, CHECKSUM_AT));
    if expected == found { PageVerdict::Good } else { PageVerdict::Bad { expected, found } }
}

/// The checksum that a page has as block number `block` of its relation, whatever its header says.
/// Never 0.
///
/// `page` is a whole one, so a multiple of 128 bytes.
#[must_use]
pub fn page_checksum(page: &[u8], block: u32) -> u16 {
    let (rows, _rest) = page.as_chunks::<ROW_BYTES>();
    let mut sums = STARTS;
    if let Some((first, rows)) = rows.split_first() {
        // The checksum is not part of what it protects.
        let mut first = *first;
        first[CHECKSUM_AT..CHECKSUM_AT + 2].fill(0);
        add(&mut sums, &first);
        for row in rows {
            add(&mut sums, row);
        }
    }
    // Mixes in the bits that came last.
    for _ in 0..2 {
        add(&mut sums, &[0; ROW_BYTES]);
    }
    let sum = sums.iter().fold(block, |all, sum| all ^ sum);
    // At most 65,535.
    (sum % 0xffff + 1) as u16
}

/// Takes one row in. Kept so plain that compilers make vector instructions of it.
#[inline(always)]
fn add(sums: &mut [u32; LANES], row: &[u8; ROW_BYTES]) {
    let (words, _none) = row.as_chunks::<4>();
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ u32::from_le_bytes(*word);
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // A word at a time; a row that is not zero ends it.
    let (rows, rest) = bytes.as_chunks::<ROW_BYTES>();
    rows.iter().all(|row| row.iter().fold(0, |all, byte| all | byte) == 0) && rest.iter().all(|&byte| byte == 0)
}

/// The bytes at a fixed place; zeros where the page is too short to have it.
fn field<const N: usize>(page: &[u8], at: usize) -> [u8; N] {
    page.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const EVER: Lsn = Lsn(u64::MAX);

    /// A page with a header that says it was written at `lsn`, sealed as block `block`.
    fn page(lsn: u64, block: u32, fill: u8) -> Vec<u8> {
        let mut page = vec![fill; 8192];
        page[..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
        page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
        page[UPPER_AT..UPPER_AT + 2].copy_from_slice(&8160u16.to_le_bytes());
        let sum = page_checksum(&page, block);
        page[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum.to_le_bytes());
        page
    }

    /// The algorithm as it is told in words: column after column, on a copy.
    fn column_by_column(page: &[u8], block: u32) -> u16 {
        let mut page = page.to_vec();
        page[8] = 0;
        page[9] = 0;
        let mut all = block;
        for (column, start) in STARTS.into_iter().enumerate() {
            let mut sum = start;
            let words =
                page.chunks(4).skip(column).step_by(LANES).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
            for word in words.chain([0, 0]) {
                sum = (sum ^ word).wrapping_mul(PRIME) ^ ((sum ^ word) >> 17);
            }
            all ^= sum;
        }
        (all % 65_535 + 1) as u16
    }

    #[test]
    fn checksums_are_those_of_the_server() {
        // Computed with PostgreSQL 18's checksum_impl.h over the same bytes.
        for (bytes, sums) in [
            (1024, [29_490, 29_491, 29_492, 36_047]),
            (8192, [45_143, 45_142, 45_141, 20_394]),
            (32_768, [53_314, 53_315, 53_312, 12_223]),
        ] {
            let mut state = 1u32;
            let page: Vec<u8> = std::iter::repeat_with(|| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            })
            .take(bytes)
            .collect();
            assert_eq!([0, 1, 131_072, u32::MAX].map(|block| page_checksum(&page, block)), sums, "{bytes}");
        }
    }

    #[test]
    fn a_page_that_fits_its_checksum_is_good_and_only_in_its_place() {
        let page = page(0x1_0000_0028, 7, 3);
        assert_eq!(inspect_page(&page, 7, EVER), PageVerdict::Good);
        assert!(matches!(inspect_page(&page, 8, EVER), PageVerdict::Bad { .. }));
    }

    #[test]
    fn a_bad_page_tells_both_checksums() {
        let mut page = page(0x28, 7, 3);
        let found = u16::from_le_bytes([page[8], page[9]]);
        page[5000] ^= 1;
        let expected = page_checksum(&page, 7);
        let verdict = inspect_page(&page, 7, EVER);
        assert_eq!(verdict, PageVerdict::Bad { expected, found });
        assert!(verdict.is_bad() && expected != found);
    }

    #[test]
    fn what_was_written_after_the_start_is_not_judged() {
        let mut page = page(0x1_0000_0028, 7, 3);
        page[5000] ^= 1;
        assert_eq!(inspect_page(&page, 7, Lsn(0x1_0000_0028)), PageVerdict::Newer);
        assert!(inspect_page(&page, 7, Lsn(0x1_0000_0029)).is_bad());
    }

    #[test]
    fn a_header_that_says_far_newer_is_broken() {
        let start = Lsn(0x1_0000_0028);
        for (ahead, verdict) in [(NEWER_BYTES_MAX - 1, PageVerdict::Newer), (NEWER_BYTES_MAX, PageVerdict::Good)] {
            let mut page = page(start.0 + ahead, 7, 3);
            assert_eq!(inspect_page(&page, 7, start), verdict);
            page[5000] ^= 1;
            assert_eq!(inspect_page(&page, 7, start).is_bad(), verdict == PageVerdict::Good);
        }
        // What disks and their firmware leave.
        assert!(inspect_page(&[0xff; 8192], 7, start).is_bad());
        let mut page = [0; 8192];
        page[..8].fill(0xff);
        assert_eq!(inspect_page(&page, 7, start), PageVerdict::NotEmpty);
    }

    #[test]
    fn a_page_of_a_stopped_server_is_judged_whatever_it_says() {
        let page = [0xff; 8192];
        assert_eq!(inspect_page(&page, 7, Lsn(u64::MAX - 1)), PageVerdict::Newer);
        assert!(inspect_page(&page, 7, EVER).is_bad());
    }

    #[test]
    fn a_page_never_written_is_all_zeros() {
        let mut page = vec![0; 8192];
        assert_eq!(inspect_page(&page, 7, EVER), PageVerdict::New);
        assert_eq!(inspect_page(&page, 7, Lsn(0)), PageVerdict::New);
        page[8191] = 1;
        let verdict = inspect_page(&page, 7, EVER);
        assert_eq!(verdict, PageVerdict::NotEmpty);
        assert!(verdict.is_bad());
    }

    #[test]
    fn nearly_every_changed_bit_is_noticed() {
        let mut page = page(0x28, 7, 3);
        let mut missed = 0;
        for bit in 0..page.len() * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            missed += u32::from(!inspect_page(&page, 7, EVER).is_bad());
            page[bit / 8] ^= 1 << (bit % 8);
        }
        // By chance, one in 65,535 is.
        assert!(missed < 5, "{missed}");
        assert_eq!(inspect_page(&page, 7, EVER), PageVerdict::Good);
    }

    proptest! {
        #[test]
        fn any_page_has_the_checksum_of_its_columns(
            page in prop::collection::vec(any::<u8>(), 1024..=1024),
            copies in 1usize..=4,
            block: u32,
        ) {
            let page = page.repeat(copies);
            prop_assert_eq!(page_checksum(&page, block), column_by_column(&page, block));
        }

        #[test]
        fn any_bytes_are_looked_at(bytes in prop::collection::vec(any::<u8>(), 0..300), block: u32, before: u64) {
            let _ = inspect_page(&bytes, block, Lsn(before));
        }
    }
}
