//! Randomness that can be played again.

use std::time::{SystemTime, UNIX_EPOCH};

/// A stream of numbers that its seed decides (SplitMix64).
#[derive(Clone, Debug)]
pub struct Seed(u64);

impl Seed {
    /// `BACKSTAY_SEED` when set, else the clock. Prints it, so that a failure can be played again.
    pub fn from_env(test: &str) -> Self {
        let seed = match std::env::var("BACKSTAY_SEED") {
            Ok(text) => text.parse().expect("BACKSTAY_SEED is a decimal number"),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_nanos() as u64,
        };
        eprintln!("{test}: play again with BACKSTAY_SEED={seed}");
        Self(seed)
    }

    /// From a number.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In `range`, which must not be empty.
    pub fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        assert!(range.start < range.end, "empty range {range:?}");
        range.start + self.next_u64() % (range.end - range.start)
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.next_u64().is_multiple_of(n)
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.within(0..from.len() as u64) as usize]
    }

    /// An independent stream, for another thread.
    pub fn fork(&mut self) -> Self {
        Self(self.next_u64())
    }
}
