//! A mark for each of many numbered things: one bit, where a set of ids would cost 32 bytes.

/// Which numbers are marked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    words: Vec<u64>,
}

impl Marks {
    /// None of the numbers below `numbers` is marked.
    pub(crate) fn none(numbers: usize) -> Self {
        Self { words: vec![0; numbers.div_ceil(64)] }
    }

    /// Marks a number; answers whether it was not marked before.
    pub(crate) fn mark(&mut self, number: usize) -> bool {
        let (word, bit) = place(number);
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        fresh
    }

    /// Takes a mark back.
    pub(crate) fn clear(&mut self, number: usize) {
        let (word, bit) = place(number);
        self.words[word] &= !bit;
    }

    /// Takes all marks back.
    pub(crate) fn clear_all(&mut self) {
        self.words.fill(0);
    }

    /// Marks what `other`, of as many numbers, has marked too.
    pub(crate) fn join(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, more)| *word |= more);
    }

    /// Whether a number is marked.
    pub(crate) fn has(&self, number: usize) -> bool {
        let (word, bit) = place(number);
        self.words[word] & bit != 0
    }
}

fn place(number: usize) -> (usize, u64) {
    (number / 64, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_marked_once_and_alone() {
        let mut marks = Marks::none(130);
        assert!(marks.mark(129) && marks.mark(0) && !marks.mark(129));
        let marked: Vec<usize> = (0..130).filter(|number| marks.has(*number)).collect();
        assert_eq!(marked, [0, 129]);
        marks.clear(129);
        assert!(!marks.has(129) && marks.mark(129));
        let mut other = Marks::none(130);
        other.mark(64);
        marks.join(&other);
        assert!(marks.has(0) && marks.has(64) && !other.has(0));
        marks.clear_all();
        assert!((0..130).all(|number| !marks.has(number)));
    }
}
