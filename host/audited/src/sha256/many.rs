//! Sixteen parts side by side in AVX-512 registers: each holds one word of all parts.

use super::{BLOCK, ROUND, Way};
use std::arch::x86_64::*;
use std::array::from_fn;

const LANES: usize = 16;

/// What the processor needs for it.
pub(super) fn way() -> Way<LANES> {
    Way { able: is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw"), add_blocks }
}

/// The same word of all parts.
#[inline]
#[target_feature(enable = "avx512f")]
fn gather(word: impl Fn(usize) -> u32) -> __m512i {
    let w: [i32; LANES] = from_fn(|lane| word(lane) as i32);
    _mm512_set_epi32(
        w[15], w[14], w[13], w[12], w[11], w[10], w[9], w[8], w[7], w[6], w[5], w[4], w[3], w[2], w[1], w[0],
    )
}

/// A block of one part as sixteen big-endian words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn message(block: &[u8]) -> __m512i {
    let w: [i64; 8] = from_fn(|i| block[8 * i..].first_chunk().map_or(0, |word| i64::from_le_bytes(*word)));
    let swapped = _mm512_set4_epi32(0x0c0d0e0f, 0x08090a0b, 0x04050607, 0x00010203);
    _mm512_shuffle_epi8(_mm512_set_epi64(w[7], w[6], w[5], w[4], w[3], w[2], w[1], w[0]), swapped)
}

/// From a part a register to a word a register: pairs, fours, then quarters of registers change places.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(mut a: [__m512i; LANES]) -> [__m512i; LANES] {
    let mut b = a;
    for i in 0..8 {
        b[2 * i] = _mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
    }
    for i in (0..LANES).step_by(4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    for i in [0, 1, 2, 3, 8, 9, 10, 11] {
        b[i] = _mm512_shuffle_i32x4::<0x88>(a[i], a[i + 4]);
        b[i + 4] = _mm512_shuffle_i32x4::<0xdd>(a[i], a[i + 4]);
    }
    for i in 0..8 {
        a[i] = _mm512_shuffle_i32x4::<0x88>(b[i], b[i + 8]);
        a[i + 8] = _mm512_shuffle_i32x4::<0xdd>(b[i], b[i + 8]);
    }
    a
}

/// Exclusive or of three.
#[inline]
#[target_feature(enable = "avx512f")]
fn xor(x: __m512i, y: __m512i, z: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0x96>(x, y, z)
}

#[target_feature(enable = "avx512f,avx512bw")]
fn add_blocks(states: &mut [[u32; 8]; LANES], blocks: [&[u8]; LANES]) {
    let mut state: [__m512i; 8] = from_fn(|word| gather(|lane| states[lane][word]));
    for start in (0..blocks[0].len()).step_by(BLOCK) {
        let mut w = transpose(blocks.map(|block| message(&block[start..start + BLOCK])));
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
        for round in (0..ROUND.len()).step_by(16) {
            // One round (section 6.2.2), and the word of the schedule sixteen rounds on. Written out, so that all of
            // it stays in registers.
            macro_rules! rounds {
                ($($i:literal)*) => {$(
                    let constant = _mm512_set1_epi32(ROUND[round + $i] as i32);
                    let sigma =
                        xor(_mm512_ror_epi32::<6>(e), _mm512_ror_epi32::<11>(e), _mm512_ror_epi32::<25>(e));
                    let choice = _mm512_ternarylogic_epi32::<0xca>(e, f, g);
                    let known = _mm512_add_epi32(h, _mm512_add_epi32(w[$i], constant));
                    let first = _mm512_add_epi32(_mm512_add_epi32(known, choice), sigma);
                    let sigma =
                        xor(_mm512_ror_epi32::<2>(a), _mm512_ror_epi32::<13>(a), _mm512_ror_epi32::<22>(a));
                    let majority = _mm512_ternarylogic_epi32::<0xe8>(a, b, c);
                    let second = _mm512_add_epi32(sigma, majority);
                    (h, g, f, e) = (g, f, e, _mm512_add_epi32(d, first));
                    (d, c, b, a) = (c, b, a, _mm512_add_epi32(first, second));
                    if round < 48 {
                        let (x, y) = (w[($i + 1) % 16], w[($i + 14) % 16]);
                        let x = xor(_mm512_ror_epi32::<7>(x), _mm512_ror_epi32::<18>(x), _mm512_srli_epi32::<3>(x));
                        let y = xor(_mm512_ror_epi32::<17>(y), _mm512_ror_epi32::<19>(y), _mm512_srli_epi32::<10>(y));
                        w[$i] = _mm512_add_epi32(_mm512_add_epi32(w[$i], w[($i + 9) % 16]), _mm512_add_epi32(x, y));
                    }
                )*};
            }
            rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        }
        for (word, new) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *word = _mm512_add_epi32(*word, new);
        }
    }
    // A state is half a row: the other half is of no interest.
    let zero = _mm512_setzero_si512();
    let rows = transpose(from_fn(|word| *state.get(word).unwrap_or(&zero)));
    for (row, state) in rows.into_iter().zip(states) {
        let quarters = [_mm512_extracti32x4_epi32::<0>(row), _mm512_extracti32x4_epi32::<1>(row)];
        for (quarter, words) in quarters.into_iter().zip(state.chunks_exact_mut(4)) {
            let high = _mm_unpackhi_epi64(quarter, quarter);
            for (pair, words) in [quarter, high].into_iter().zip(words.chunks_exact_mut(2)) {
                let pair = _mm_cvtsi128_si64(pair) as u64;
                words.copy_from_slice(&[pair as u32, (pair >> 32) as u32]);
            }
        }
    }
}
