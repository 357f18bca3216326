//! Which of many things, numbered from 0 on: one bit each.

/// A set of numbers below a bound.
#[derive(Clone, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// Room for the numbers below `count`.
    pub(super) fn new(count: usize) -> Self {
        Self { words: vec![0; count.div_ceil(64)] }
    }

    pub(super) fn has(&self, number: usize) -> bool {
        self.words.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Answers whether it is new.
    pub(super) fn add(&mut self, number: usize) -> bool {
        let Some(word) = self.words.get_mut(number / 64) else { return false };
        let before = *word;
        *word |= 1 << (number % 64);
        *word != before
    }

    pub(super) fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Takes all of `other` in.
    pub(super) fn join(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, more)| *word |= more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_in_it_once_it_was_added() {
        let (mut bits, mut other) = (Bits::new(130), Bits::new(130));
        for number in [0, 63, 64, 129] {
            assert!(!bits.has(number) && bits.add(number) && !bits.add(number) && bits.has(number));
        }
        assert!(!bits.has(1) && !bits.has(1000) && !bits.add(1000));
        other.add(1);
        bits.join(&other);
        assert!(bits.has(1) && bits.has(129));
        bits.clear();
        assert!((0..130).all(|number| !bits.has(number)));
    }
}
