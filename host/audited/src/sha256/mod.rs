//! SHA-256 (FIPS 180-4) of many parts at once.
//!
//! One digest is a chain of dependent steps: a core waits for each. Parts do not depend on each other and go
//! side by side, two or four with the processor's SHA instructions (1.5 and 1.8 times the rate of one after another on Zen 5)
//! or sixteen in AVX-512 registers (2.6 times). Whatever the processor has not, or is alone, is hashed by AWS-LC.

#[cfg(target_arch = "x86_64")]
mod few;
#[cfg(target_arch = "x86_64")]
mod many;

use aws_lc_rs::digest::{SHA256, digest};

/// A part's digest.
type Digest = [u8; 32];

/// Section 5.3.3.
#[cfg(target_arch = "x86_64")]
const INITIAL: [u32; 8] =
    [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];

/// Section 4.2.2.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ROUND: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
];

/// Bytes of a block.
const BLOCK: usize = 64;

/// SHA-256 of every part, in their order. Parts are hashed side by side as far as they are equally long.
///
/// ```
/// let digests = backstay_audited::sha256_each(&[b"abc", b"abd"]);
/// assert_eq!(digests[0][..4], [0xba, 0x78, 0x16, 0xbf]);
/// ```
pub fn sha256_each(parts: &[&[u8]]) -> Vec<[u8; 32]> {
    let mut digests = Vec::with_capacity(parts.len());
    let alike = |one: &&[u8], next: &&[u8]| {
        let (short, long) = (one.len().min(next.len()), one.len().max(next.len()));
        // A lane whose part has ended is idle: a little of that is cheaper than parts one after another.
        long - short <= short / 8
    };
    for alike in parts.chunk_by(alike) {
        let mut rest = alike;
        while !rest.is_empty() {
            let done = side_by_side(rest, &mut digests);
            rest = &rest[done..];
        }
    }
    digests
}

/// Hashes some of these parts, which are about as long as each other; answers how many.
fn side_by_side(alike: &[&[u8]], digests: &mut Vec<Digest>) -> usize {
    #[cfg(target_arch = "x86_64")]
    if alike[0].len() >= BLOCK {
        // Sixteen lanes take as long for nine parts as for all; for fewer, four at a time are faster.
        let done = match alike.len() {
            9.. => many::way().take(alike, digests),
            _ => None,
        };
        let done = done.or_else(|| match alike.len() {
            4.. => few::way::<4>().take(alike, digests),
            2.. => few::way::<2>().take(alike, digests),
            _ => None,
        });
        if let Some(done) = done {
            return done;
        }
    }
    let mut one = [0; 32];
    one.copy_from_slice(digest(&SHA256, alike[0]).as_ref());
    digests.push(one);
    1
}

/// A way of hashing so many parts side by side.
#[cfg(target_arch = "x86_64")]
struct Way<const LANES: usize> {
    /// Whether the processor has the instructions that `add_blocks` is made of: it was asked.
    able: bool,
    /// Adds as many whole blocks to all lanes' states.
    add_blocks: unsafe fn(&mut [[u32; 8]; LANES], [&[u8]; LANES]),
}

#[cfg(target_arch = "x86_64")]
impl<const LANES: usize> Way<LANES> {
    /// Hashes as many of these parts as there are lanes; answers how many. Nothing when the processor cannot.
    fn take(&self, alike: &[&[u8]], digests: &mut Vec<Digest>) -> Option<usize> {
        let count = alike.len().min(LANES);
        // Lanes without a part do the first again.
        let parts = std::array::from_fn(|lane| *alike.get(lane).unwrap_or(&alike[0]));
        digests.extend_from_slice(&self.digests(parts)?[..count]);
        Some(count)
    }

    fn digests(&self, parts: [&[u8]; LANES]) -> Option<[Digest; LANES]> {
        if !self.able {
            return None;
        }
        let mut states = [INITIAL; LANES];
        self.add_parts(&mut states, parts.map(|part| &part[..whole(part)]));
        // The ends: what is left, one bit, zeros, the length in bits (section 5.1.1).
        let ends: [([u8; 2 * BLOCK], usize); LANES] = parts.map(|part| {
            let rest = &part[whole(part)..];
            let end = if rest.len() < BLOCK - 8 { BLOCK } else { 2 * BLOCK };
            let mut block = [0; 2 * BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            block[rest.len()] = 0x80;
            block[end - 8..end].copy_from_slice(&(part.len() as u64 * 8).to_be_bytes());
            (block, end)
        });
        self.add_parts(&mut states, ends.each_ref().map(|(block, end)| &block[..*end]));
        Some(states.map(|state| {
            let mut digest = [0; 32];
            for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
                bytes.copy_from_slice(&word.to_be_bytes());
            }
            digest
        }))
    }

    /// Adds parts of whole blocks, each to its state.
    fn add_parts(&self, states: &mut [[u32; 8]; LANES], parts: [&[u8]; LANES]) {
        let mut start = 0;
        // Up to the end of the shortest, then of the next.
        while let Some(shortest) = parts.iter().filter(|part| part.len() > start).min_by_key(|part| part.len()) {
            let end = shortest.len();
            let mut after = *states;
            // Lanes whose part has ended do another's blocks, for nothing.
            let blocks = parts.map(|part| part.get(start..end).unwrap_or(&shortest[start..end]));
            // SAFETY: the function asks for nothing but instructions that are there: `digests` goes on only if so.
            #[allow(unsafe_code)]
            unsafe {
                (self.add_blocks)(&mut after, blocks);
            }
            for (lane, part) in parts.iter().enumerate() {
                if part.len() >= end {
                    states[lane] = after[lane];
                }
            }
            start = end;
        }
    }
}

/// Bytes in whole blocks.
#[cfg(target_arch = "x86_64")]
fn whole(part: &[u8]) -> usize {
    part.len() - part.len() % BLOCK
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn one_by_one(parts: &[&[u8]]) -> Vec<Digest> {
        parts.iter().map(|part| digest(&SHA256, part).as_ref().try_into().unwrap()).collect()
    }

    #[test]
    fn every_number_of_parts_of_every_length_around_a_block() {
        let noise: Vec<u8> = (0..50_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for length in (0..=200).chain([1023, 1024, 8192]) {
            for count in [1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 35] {
                let parts: Vec<&[u8]> = (0..count).map(|part| &noise[part * 911..][..length]).collect();
                assert_eq!(sha256_each(&parts), one_by_one(&parts), "{count} parts of {length} bytes");
                let about: Vec<&[u8]> =
                    (0..count).map(|part| &noise[part * 911..][..length + part * length / 300]).collect();
                assert_eq!(sha256_each(&about), one_by_one(&about), "{count} parts of about {length} bytes");
            }
        }
        assert!(sha256_each(&[]).is_empty());
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn each_way_there_is_answers_the_same() {
        fn check<const LANES: usize>(way: &Way<LANES>) {
            let parts: [Vec<u8>; LANES] = std::array::from_fn(|part| vec![part as u8; 777 + 13 * part]);
            let parts = parts.each_ref().map(Vec::as_slice);
            assert!(way.digests(parts).is_none_or(|found| found[..] == one_by_one(&parts)), "{LANES} lanes");
        }
        check(&few::way::<2>());
        check(&few::way::<4>());
        check(&many::way());
    }

    proptest! {
        #[test]
        fn any_parts_have_the_digests_that_each_has_alone(
            parts in vec(prop_oneof![vec(any::<u8>(), 0..300), vec(any::<u8>(), 250..300)], 0..40)
        ) {
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(sha256_each(&parts), one_by_one(&parts));
        }
    }
}
