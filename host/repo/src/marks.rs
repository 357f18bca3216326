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
    pub(crate) fn mark(&mut self, number: u32) -> bool {
        let (word, bit) = place(number);
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        fresh
    }

    /// Takes a mark back.
    pub(crate) fn clear(&mut self, number: u32) {
        let (word, bit) = place(number);
        self.words[word] &= !bit;
    }

    /// Whether a number is marked.
    pub(crate) fn has(&self, number: u32) -> bool {
        let (word, bit) = place(number);
        self.words[word] & bit != 0
    }
}

fn place(number: u32) -> (usize, u64) {
    (number as usize / 64, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_marked_once_and_alone() {
        let mut marks = Marks::none(130);
        assert!(marks.mark(129) && marks.mark(0) && !marks.mark(129));
        let marked: Vec<u32> = (0..130).filter(|number| marks.has(*number)).collect();
        assert_eq!(marked, [0, 129]);
        marks.clear(129);
        assert!(!marks.has(129) && marks.mark(129));
    }
}
