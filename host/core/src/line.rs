//! One line of history: the way from the oldest known log to the end of an epoch.
//!
//! ```text
//!   line(3) =  epoch 1 until 70  →  epoch 2 until 110  →  epoch 3
//!   walk     =  the pieces along a line from a place on, until the line ends or a link is missing
//! ```

use crate::{Chain, ChainError, Gap, Position, Segment};

/// One line of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    steps: Vec<Step>,
}

/// One epoch's share of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The epoch.
    pub epoch: u64,
    /// Where the next step's epoch leaves this one; nothing on the last step.
    pub until: Option<u64>,
}

/// Where a place lies on a line: comparable along the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    step: usize,
    offset: u64,
}

/// The pieces along a line from a place on.
#[derive(Clone, Debug, Default)]
pub struct Walk<'chain> {
    /// In order. The first may start before the place: pieces that share its database
    /// file come along, because databases read a file from its head.
    pub pieces: Vec<Stride<'chain>>,
    /// How far the log is whole; nothing where the place itself is not covered.
    pub end: Option<Position>,
    /// The missing link that ends the walk early.
    pub gap: Option<Gap>,
}

/// One piece of a walk.
#[derive(Clone, Copy, Debug)]
pub struct Stride<'chain> {
    /// The piece.
    pub piece: &'chain Segment,
    /// Which step of the line it belongs to.
    pub step: usize,
    /// Whether it reaches past the place where the line leaves its epoch, so that its
    /// commits may belong to abandoned history.
    pub leaves: bool,
}

impl Line {
    /// The steps, oldest first; at least one.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The epoch the line ends in.
    pub fn epoch(&self) -> u64 {
        self.steps.last().map_or(0, |step| step.epoch)
    }

    /// Where `place` lies on the line; nothing where it belongs to other history.
    pub fn spot(&self, place: &Position) -> Option<Spot> {
        let step = self.steps.iter().position(|step| step.epoch == place.epoch)?;
        let on_line = self.steps[step].until.is_none_or(|until| place.offset <= until);
        on_line.then_some(Spot { step, offset: place.offset })
    }

    /// Where `offset` lies, for places that do not say their epoch: in the first step
    /// from `from` on that reaches that far.
    pub fn spot_from(&self, from: Spot, offset: u64) -> Spot {
        let reaches = |step: &Step| step.until.is_none_or(|until| offset <= until);
        let later = self.steps[from.step..].iter().position(reaches).unwrap_or(0);
        Spot { step: from.step + later, offset }
    }

    /// The last spot that both lines share, where they share any.
    pub fn shared(&self, other: &Line) -> Option<Spot> {
        let mut last = None;
        for (step, mine) in self.steps.iter().enumerate() {
            let Some(theirs) = other.steps.iter().find(|theirs| theirs.epoch == mine.epoch) else { break };
            let until = [mine.until, theirs.until].into_iter().flatten().min();
            last = Some(Spot { step, offset: until.unwrap_or(u64::MAX) });
            if mine.until != theirs.until {
                break;
            }
        }
        last
    }
}

impl Spot {
    /// Index into [`Line::steps`].
    pub fn step(self) -> usize {
        self.step
    }

    /// Bytes into that step's epoch.
    pub fn offset(self) -> u64 {
        self.offset
    }
}

impl Chain {
    /// The line that ends in `epoch`. An epoch without log is a line of itself.
    pub fn line(&self, epoch: u64) -> Line {
        let mut steps = vec![Step { epoch, until: None }];
        let mut at = epoch;
        while let Some(follows) = self.follows(at) {
            // Epochs count upwards, which also ends a made-up circle.
            if follows.epoch >= at || self.pieces(follows.epoch).is_empty() {
                break;
            }
            steps.push(Step { epoch: follows.epoch, until: Some(follows.offset) });
            at = follows.epoch;
        }
        steps.reverse();
        Line { steps }
    }

    /// The steps from `from` to the end of epoch `to`, walking predecessors back.
    ///
    /// Fails with [`ChainError::Elsewhere`] where `from` belongs to other history, and
    /// with [`ChainError::Gap`] where a link between the two is missing.
    pub fn path(&self, from: &Position, to: u64) -> Result<Vec<Step>, ChainError> {
        let line = self.line(to);
        let (Some(spot), Some(walk)) = (line.spot(from), self.walk(&line, from)) else {
            return Err(ChainError::Elsewhere { from: from.clone(), to });
        };
        if let Some(gap) = walk.gap {
            return Err(ChainError::Gap { expected: gap.from, got: gap.to });
        }
        if walk.end.is_none() {
            let expected = self.end_of(from.epoch).cloned().unwrap_or_else(|| from.clone());
            return Err(ChainError::Gap { expected, got: from.clone() });
        }
        Ok(line.steps[spot.step..].to_vec())
    }

    /// The pieces along `line` from `start` on, until the line ends or a link is missing.
    /// Nothing where `start` is not on the line.
    pub fn walk(&self, line: &Line, start: &Position) -> Option<Walk<'_>> {
        line.spot(start).map(|from| self.walk_from(line, start, from))
    }

    fn walk_from(&self, line: &Line, start: &Position, from: Spot) -> Walk<'_> {
        let mut walk = Walk { pieces: Vec::new(), end: None, gap: None };
        for (step, Step { epoch, until }) in line.steps.iter().copied().enumerate().skip(from.step) {
            let pieces = self.pieces(epoch);
            let first = if step == from.step {
                let at = pieces.partition_point(|piece| piece.end.offset < from.offset);
                match pieces.get(at) {
                    Some(piece) if piece.start.offset <= from.offset => head_of_file(pieces, at, from.offset),
                    Some(piece) => {
                        walk.gap = Some(Gap { from: start.clone(), to: piece.start.clone() });
                        return walk;
                    }
                    None => return walk,
                }
            } else {
                0
            };
            if let (Some(end), Some(piece)) = (&walk.end, pieces.get(first)) {
                // The place before this epoch, as its own first piece names it.
                if self.follows(epoch).is_none_or(|follows| piece.start.offset > follows.offset) {
                    walk.gap = Some(Gap { from: end.clone(), to: piece.start.clone() });
                    return walk;
                }
            }
            let mut end: Option<&Position> = None;
            for piece in &pieces[first..] {
                if until.is_some_and(|until| piece.start.offset >= until) && end.is_some() {
                    break;
                }
                if let Some(end) = end.filter(|end| end.offset < piece.start.offset) {
                    walk.end = Some(end.clone());
                    walk.gap = Some(Gap { from: end.clone(), to: piece.start.clone() });
                    return walk;
                }
                let leaves = until.is_some_and(|until| piece.end.offset > until);
                walk.pieces.push(Stride { piece, step, leaves });
                end = Some(&piece.end);
            }
            let Some(end) = end else { return walk };
            walk.end = Some(end.clone());
            if let Some((until, next)) = until.zip(line.steps.get(step + 1)) {
                let follows = self.follows(next.epoch).cloned();
                let branch = follows.unwrap_or_else(|| Position { epoch, offset: until, label: end.label.clone() });
                if end.offset < until {
                    walk.gap = Some(Gap { from: end.clone(), to: branch });
                    return walk;
                }
                walk.end = Some(branch);
            }
        }
        walk
    }
}

/// The first piece of the database file that holds `offset`, as far back as the log is whole.
fn head_of_file(pieces: &[Segment], holds: usize, offset: u64) -> usize {
    // A piece that ends exactly here is needed only where nothing follows it.
    let mut first = match pieces.get(holds + 1) {
        Some(next) if pieces[holds].end.offset == offset && next.start.offset <= offset => holds + 1,
        _ => holds,
    };
    while first > 0
        && pieces[first - 1].file == pieces[first].file
        && pieces[first - 1].end.offset >= pieces[first].start.offset
    {
        first -= 1;
    }
    first
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::sample::{piece, place};

    /// Epoch 1 until 70, abandoned to 95; epoch 2 repeats 64..70.
    fn forked() -> Chain {
        let branch = Segment { follows: Some(place(1, 70)), ..piece(2, 64, 90) };
        Chain::new(vec![piece(1, 0, 40), piece(1, 40, 80), piece(1, 80, 95), branch, piece(2, 90, 120)], vec![])
    }

    fn spans(walk: &Walk<'_>) -> Vec<(u64, u64, u64)> {
        let span = |piece: &Segment| (piece.start.epoch, piece.start.offset, piece.end.offset);
        walk.pieces.iter().map(|stride| span(stride.piece)).collect()
    }

    #[test]
    fn a_walk_leaves_the_old_epoch_at_the_branch() {
        let chain = forked();
        let line = chain.line(2);
        let walk = chain.walk(&line, &place(1, 10)).unwrap();
        assert_eq!(spans(&walk), [(1, 0, 40), (1, 40, 80), (2, 64, 90), (2, 90, 120)]);
        assert_eq!(walk.end, Some(place(2, 120)));
        assert_eq!(walk.pieces.iter().map(|stride| stride.leaves).collect::<Vec<_>>(), [false, true, false, false]);
        assert!(walk.gap.is_none());
    }

    #[test]
    fn abandoned_history_is_not_on_the_newest_line_but_on_its_own() {
        let chain = forked();
        assert!(chain.line(2).spot(&place(1, 71)).is_none());
        assert!(matches!(chain.path(&place(1, 71), 2), Err(ChainError::Elsewhere { .. })));
        let line = chain.line(1);
        let walk = chain.walk(&line, &place(1, 71)).unwrap();
        assert_eq!(walk.end, Some(place(1, 95)));
    }

    #[test]
    fn a_walk_from_the_exact_end_is_covered_and_goes_nowhere() {
        let chain = Chain::new(vec![piece(1, 0, 40)], vec![]);
        let line = chain.line(1);
        let walk = chain.walk(&line, &place(1, 40)).unwrap();
        assert_eq!(walk.end, Some(place(1, 40)));
        let beyond = chain.walk(&line, &place(1, 41)).unwrap();
        assert_eq!(beyond.end, None);
    }

    #[test]
    fn a_file_comes_from_its_head() {
        let chain = Chain::new((0..13).map(|n| piece(1, n * 10, n * 10 + 10)).collect(), vec![]);
        let line = chain.line(1);
        let walk = chain.walk(&line, &place(1, 105)).unwrap();
        // Pieces from 70 on share the file that starts at 64.
        assert_eq!(walk.pieces.first().unwrap().piece.start.offset, 70);
    }

    #[test]
    fn a_missing_link_ends_a_walk_and_fails_a_path() {
        let chain = Chain::new(vec![piece(1, 0, 40), piece(1, 50, 60)], vec![]);
        let line = chain.line(1);
        let walk = chain.walk(&line, &place(1, 10)).unwrap();
        assert_eq!(walk.end, Some(place(1, 40)));
        assert_eq!(walk.gap, Some(Gap { from: place(1, 40), to: place(1, 50) }));
        assert!(matches!(chain.path(&place(1, 10), 1), Err(ChainError::Gap { .. })));
        assert!(chain.path(&place(1, 50), 1).is_ok());
    }

    #[test]
    fn two_lines_share_history_up_to_their_branch() {
        let chain = forked();
        let (old, new) = (chain.line(1), chain.line(2));
        assert_eq!(old.shared(&new), Some(Spot { step: 0, offset: 70 }));
        assert_eq!(new.shared(&old), Some(Spot { step: 0, offset: 70 }));
        assert_eq!(old.shared(&chain.line(9)), None);
    }
}
