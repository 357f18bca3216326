//! Two or four parts side by side with the processor's SHA instructions.
//!
//! An instruction does two rounds of one part and its result is ready four cycles later; with four parts there is always
//! one to go on with. Registers hold a state as the instructions want it: `ABEF` and `CDGH`.

use super::{BLOCK, ROUND, Way};
use std::arch::x86_64::*;

/// What the processor needs for it.
pub(super) fn way<const LANES: usize>() -> Way<LANES> {
    let able =
        is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1");
    Way { able, add_blocks }
}

/// Four words, the first in the lowest place.
#[inline]
#[target_feature(enable = "sse2")]
fn words(words: &[u32]) -> __m128i {
    _mm_set_epi32(words[3] as i32, words[2] as i32, words[1] as i32, words[0] as i32)
}

/// Sixteen bytes of a block as four big-endian words.
#[inline]
#[target_feature(enable = "sse2,ssse3")]
fn message(bytes: &[u8]) -> __m128i {
    let half = |half: &[u8]| half.first_chunk().map_or(0, |half| i64::from_le_bytes(*half));
    let swapped = _mm_set_epi64x(0x0c0d0e0f_08090a0b, 0x04050607_00010203);
    _mm_shuffle_epi8(_mm_set_epi64x(half(&bytes[8..]), half(bytes)), swapped)
}

#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn add_blocks<const LANES: usize>(states: &mut [[u32; 8]; LANES], blocks: [&[u8]; LANES]) {
    let (mut abef, mut cdgh) = ([_mm_setzero_si128(); LANES], [_mm_setzero_si128(); LANES]);
    for lane in 0..LANES {
        let cdab = _mm_shuffle_epi32::<0xb1>(words(&states[lane][..4]));
        let efgh = _mm_shuffle_epi32::<0x1b>(words(&states[lane][4..]));
        abef[lane] = _mm_alignr_epi8::<8>(cdab, efgh);
        cdgh[lane] = _mm_blend_epi16::<0xf0>(efgh, cdab);
    }
    for start in (0..blocks[0].len()).step_by(BLOCK) {
        let (abef_before, cdgh_before) = (abef, cdgh);
        let mut schedule = [[_mm_setzero_si128(); 4]; LANES];
        for lane in 0..LANES {
            let block = &blocks[lane][start..start + BLOCK];
            schedule[lane] = [message(block), message(&block[16..]), message(&block[32..]), message(&block[48..])];
        }
        // Four rounds of every lane; then the four words of the schedule that follow after twelve more.
        macro_rules! rounds {
            ($($step:literal)*) => {$(
                let constants = words(&ROUND[4 * $step..4 * $step + 4]);
                for lane in 0..LANES {
                    let sums = _mm_add_epi32(schedule[lane][$step % 4], constants);
                    cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], sums);
                    abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], _mm_shuffle_epi32::<0x0e>(sums));
                }
                if $step < 12 {
                    for words in &mut schedule {
                        let [oldest, second, third, newest] =
                            [words[$step % 4], words[($step + 1) % 4], words[($step + 2) % 4], words[($step + 3) % 4]];
                        let sum = _mm_add_epi32(
                            _mm_sha256msg1_epu32(oldest, second),
                            _mm_alignr_epi8::<4>(newest, third),
                        );
                        words[$step % 4] = _mm_sha256msg2_epu32(sum, newest);
                    }
                }
            )*};
        }
        rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        for lane in 0..LANES {
            abef[lane] = _mm_add_epi32(abef[lane], abef_before[lane]);
            cdgh[lane] = _mm_add_epi32(cdgh[lane], cdgh_before[lane]);
        }
    }
    for lane in 0..LANES {
        let feba = _mm_shuffle_epi32::<0x1b>(abef[lane]);
        let dchg = _mm_shuffle_epi32::<0xb1>(cdgh[lane]);
        let halves = [_mm_blend_epi16::<0xf0>(feba, dchg), _mm_alignr_epi8::<8>(dchg, feba)];
        for (half, words) in halves.into_iter().zip(states[lane].chunks_exact_mut(4)) {
            let pairs = [_mm_cvtsi128_si64(half) as u64, _mm_cvtsi128_si64(_mm_unpackhi_epi64(half, half)) as u64];
            for (pair, words) in pairs.into_iter().zip(words.chunks_exact_mut(2)) {
                words.copy_from_slice(&[pair as u32, (pair >> 32) as u32]);
            }
        }
    }
}
