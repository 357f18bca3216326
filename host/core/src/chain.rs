//! All pieces of a target's log, as a tree of epochs.
//!
//! ```text
//!   epoch 1   [0────40)[40────80)[80──95)          abandoned after 70
//!                           │ 70
//!   epoch 2        [64──────┴──90)[90───────120)   follows (1, 70), repeats 64..70
//! ```
//!
//! A *link* holds where one piece ends and the next starts, or where an epoch's
//! first piece says what it `follows` and the predecessor is known up to there.
//! A missing link is a [`Gap`]. It is looked for when a piece is appended, when a
//! restore is planned, and by `check`.

use crate::{InvalidSegment, Position, Segment};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// All pieces of a target's log.
///
/// Per epoch it keeps a cover: pieces in order, none of them superfluous. Two
/// neighbours may overlap where two compactors merged the same stretch differently;
/// both hold the same bytes there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    epochs: BTreeMap<u64, Vec<Segment>>,
}

/// A stretch of log that is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The log is whole up to here.
    pub from: Position,
    /// And goes on here.
    pub to: Position,
}

/// Why a piece does not fit, or a path does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The piece contradicts itself or its neighbours.
    #[error("{0}")]
    Invalid(String),
    /// Log is missing between what is known and the piece.
    #[error("the log has a gap: expected a piece that starts at {expected}, got one at {got}")]
    Gap {
        /// Where the known log ends.
        expected: Position,
        /// Where the piece starts, or the place it says it follows.
        got: Position,
    },
    /// The place is taken already.
    #[error("the log already holds {got}: it ends at {expected}")]
    Conflict {
        /// Where the known log ends.
        expected: Position,
        /// Where the piece starts.
        got: Position,
    },
    /// The place is not part of the epoch's history.
    #[error("{from} is not part of the history of epoch {to}")]
    Elsewhere {
        /// The place.
        from: Position,
        /// The epoch.
        to: u64,
    },
}

impl From<InvalidSegment> for ChainError {
    fn from(error: InvalidSegment) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log is missing from {} to {}", self.from, self.to)
    }
}

impl Chain {
    /// From pieces in any order: those an archiver appended, and those a compactor merged.
    ///
    /// Where both hold the same bytes the merged, then the longer one is kept. An
    /// appended piece links only where it starts exactly at the end of the one before:
    /// its start was fenced, so anything else is not the piece that was acknowledged.
    pub fn new(appended: Vec<Segment>, merged: Vec<Segment>) -> Self {
        let mut epochs: BTreeMap<u64, (Vec<Segment>, Vec<Segment>)> = BTreeMap::new();
        for piece in appended {
            epochs.entry(piece.start.epoch).or_default().0.push(piece);
        }
        for piece in merged {
            epochs.entry(piece.start.epoch).or_default().1.push(piece);
        }
        let epochs = epochs.into_iter().map(|(epoch, (appended, merged))| (epoch, cover(appended, merged)));
        Self { epochs: epochs.collect() }
    }

    /// Whether there is no piece at all.
    pub fn is_empty(&self) -> bool {
        self.epochs.is_empty()
    }

    /// The epochs with log, in ascending order.
    pub fn epochs(&self) -> impl DoubleEndedIterator<Item = u64> + '_ {
        self.epochs.keys().copied()
    }

    /// One epoch's pieces in order; empty for an unknown epoch.
    pub fn pieces(&self, epoch: u64) -> &[Segment] {
        self.epochs.get(&epoch).map_or(&[], Vec::as_slice)
    }

    /// The same without these pieces.
    #[must_use]
    pub fn without(&self, gone: &[&Segment]) -> Self {
        let mut epochs = self.epochs.clone();
        for pieces in epochs.values_mut() {
            pieces.retain(|piece| !gone.contains(&piece));
        }
        epochs.retain(|_, pieces| !pieces.is_empty());
        Self { epochs }
    }

    /// Every piece of every epoch.
    pub fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.epochs.values().flatten()
    }

    /// The newest epoch. Databases number their branches upwards.
    pub fn newest(&self) -> Option<u64> {
        self.epochs.keys().next_back().copied()
    }

    /// The end of the last piece of the newest epoch.
    pub fn tail(&self) -> Option<&Position> {
        self.end_of(self.newest()?)
    }

    /// The end of an epoch's last piece.
    pub fn end_of(&self, epoch: u64) -> Option<&Position> {
        self.pieces(epoch).last().map(|piece| &piece.end)
    }

    /// Where an epoch leaves its predecessor, as its first piece says.
    pub fn follows(&self, epoch: u64) -> Option<&Position> {
        self.pieces(epoch).first().and_then(|piece| piece.follows.as_ref())
    }

    /// Whether `place` lies inside a piece, or at the end of one.
    pub fn covers(&self, place: &Position) -> bool {
        let pieces = self.pieces(place.epoch);
        let next = pieces.partition_point(|piece| piece.end.offset < place.offset);
        pieces.get(next).is_some_and(|piece| piece.start.offset <= place.offset)
    }

    /// Whether `piece` continues the log without a gap and without writing a place twice.
    pub fn accepts(&self, piece: &Segment) -> Result<(), ChainError> {
        piece.validate()?;
        let Some(last) = self.pieces(piece.start.epoch).last() else {
            return self.accepts_epoch(piece);
        };
        let (expected, got) = (last.end.clone(), piece.start.clone());
        if got.offset > expected.offset {
            return Err(ChainError::Gap { expected, got });
        }
        if got.offset < expected.offset {
            return Err(ChainError::Conflict { expected, got });
        }
        if piece.follows.is_some() {
            return Err(ChainError::Invalid(format!(
                "log piece {got} says what its epoch follows, which only the epoch's first piece may"
            )));
        }
        if piece.file == last.file && piece.file_offset != last.file_offset + last.length() {
            return Err(ChainError::Invalid(format!(
                "log piece {got} starts at byte {} of file {}, expected byte {}",
                piece.file_offset,
                piece.file,
                last.file_offset + last.length()
            )));
        }
        Ok(())
    }

    /// The rules for the first piece of an epoch.
    fn accepts_epoch(&self, piece: &Segment) -> Result<(), ChainError> {
        let Some(tail) = self.tail() else {
            return Ok(());
        };
        let Some(follows) = &piece.follows else {
            return Err(ChainError::Gap { expected: tail.clone(), got: piece.start.clone() });
        };
        if follows.epoch > piece.start.epoch {
            return Err(ChainError::Invalid(format!(
                "epoch {} says it follows the later epoch {}",
                piece.start.epoch, follows.epoch
            )));
        }
        if !self.covers(follows) {
            let expected = self.end_of(follows.epoch).unwrap_or(tail).clone();
            return Err(ChainError::Gap { expected, got: follows.clone() });
        }
        if piece.start.offset > follows.offset {
            return Err(ChainError::Gap { expected: follows.clone(), got: piece.start.clone() });
        }
        Ok(())
    }

    /// Appends a piece that the chain accepts.
    pub fn push(&mut self, piece: Segment) -> Result<(), ChainError> {
        self.accepts(&piece)?;
        self.epochs.entry(piece.start.epoch).or_default().push(piece);
        Ok(())
    }

    /// Appends a piece even where it leaves a gap: the way out once the database no
    /// longer has the log in between. No window reaches across the gap.
    pub fn push_after_gap(&mut self, piece: Segment) -> Result<(), ChainError> {
        match self.accepts(&piece) {
            Ok(()) | Err(ChainError::Gap { .. }) => {}
            Err(error) => return Err(error),
        }
        self.epochs.entry(piece.start.epoch).or_default().push(piece);
        Ok(())
    }

    /// Every missing link, oldest epoch first.
    ///
    /// An epoch whose predecessors are all gone is where the log begins (retention
    /// removes the oldest pieces first), which is no gap.
    pub fn gaps(&self) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let mut before: Option<&Position> = None;
        let oldest = self.epochs.keys().next().copied().unwrap_or(0);
        for (epoch, pieces) in &self.epochs {
            if let (Some(before), Some(first)) = (before, pieces.first()) {
                gaps.extend(self.gap_before(*epoch, first, before, oldest));
            }
            gaps.extend(
                pieces
                    .windows(2)
                    .filter(|pair| pair[0].end.offset < pair[1].start.offset)
                    .map(|pair| Gap { from: pair[0].end.clone(), to: pair[1].start.clone() }),
            );
            before = pieces.last().map(|piece| &piece.end);
        }
        gaps
    }

    /// The gap between an epoch and its predecessor; `before` is the end of any older epoch, `oldest` the first that
    /// is left.
    fn gap_before(&self, epoch: u64, first: &Segment, before: &Position, oldest: u64) -> Option<Gap> {
        let Some(follows) = self.follows(epoch) else {
            return Some(Gap { from: before.clone(), to: first.start.clone() });
        };
        if !self.covers(follows) {
            return match self.end_of(follows.epoch) {
                Some(end) if end.offset < follows.offset => Some(Gap { from: end.clone(), to: follows.clone() }),
                // Inside a gap of the predecessor, named there, or before all that is left of it.
                Some(_) => None,
                // Retention took it.
                None if follows.epoch < oldest => None,
                None => Some(Gap { from: before.clone(), to: follows.clone() }),
            };
        }
        (first.start.offset > follows.offset).then(|| Gap { from: follows.clone(), to: first.start.clone() })
    }

    /// The epochs that no other epoch follows, and those that go on past every branch:
    /// each is the end of one line of history.
    pub fn line_ends(&self) -> Vec<u64> {
        let mut branches: BTreeMap<u64, u64> = BTreeMap::new();
        for epoch in self.epochs() {
            if let Some(follows) = self.follows(epoch) {
                let furthest = branches.entry(follows.epoch).or_default();
                *furthest = follows.offset.max(*furthest);
            }
        }
        let beyond = |epoch: &u64| match (branches.get(epoch), self.end_of(*epoch)) {
            (Some(branch), Some(end)) => end.offset > *branch,
            _ => true,
        };
        self.epochs().filter(beyond).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// The fewest pieces that hold everything there is, in order.
fn cover(mut appended: Vec<Segment>, mut merged: Vec<Segment>) -> Vec<Segment> {
    let order = |piece: &Segment| (piece.start.offset, piece.end.offset);
    appended.sort_by_key(order);
    merged.sort_by_key(order);
    let mut appended = appended.into_iter().peekable();
    let mut merged = merged.into_iter().peekable();
    let mut chosen: Vec<Segment> = Vec::new();
    loop {
        let at = chosen.last().map_or(0, |piece| piece.end.offset);
        // Merged pieces are unions of fenced ones: any that reaches further will do.
        let mut best: Option<Segment> = None;
        let started = |piece: &Segment| !chosen.is_empty() && piece.start.offset <= at;
        while let Some(piece) = merged.next_if(started) {
            let reach = best.as_ref().map_or(at, |best| best.end.offset);
            if piece.end.offset > reach {
                best = Some(piece);
            }
        }
        while appended.next_if(|piece| started(piece) && piece.start.offset < at).is_some() {}
        while let Some(piece) = appended.next_if(|piece| started(piece) && piece.start.offset == at) {
            let reach = best.as_ref().map_or(at, |best| best.end.offset);
            // Only one appended piece can start at a place; merged ones win over it.
            if best.is_none() && piece.end.offset > reach {
                best = Some(piece);
            }
        }
        if best.is_none() {
            // A gap, or the start: go on with the piece that starts first, a merged one if there is one.
            let next = [appended.peek(), merged.peek()].into_iter().flatten().map(|piece| piece.start.offset).min();
            let Some(next) = next else { break };
            while let Some(piece) = merged.next_if(|piece| piece.start.offset == next) {
                best = Some(piece); // sorted: the last of them is the longest
            }
            while let Some(piece) = appended.next_if(|piece| piece.start.offset == next) {
                best.get_or_insert(piece);
            }
        }
        chosen.extend(best);
    }
    chosen
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::sample::{piece, place};

    fn spans(chain: &Chain, epoch: u64) -> Vec<(u64, u64)> {
        chain.pieces(epoch).iter().map(|piece| (piece.start.offset, piece.end.offset)).collect()
    }

    #[test]
    fn a_merged_piece_replaces_its_parts() {
        let parts = vec![piece(1, 20, 30), piece(1, 0, 10), piece(1, 10, 20), piece(1, 30, 40)];
        let chain = Chain::new(parts, vec![piece(1, 0, 30)]);
        assert_eq!(spans(&chain, 1), [(0, 30), (30, 40)]);
        assert_eq!(chain.gaps(), []);
        assert_eq!(chain.tail().unwrap().offset, 40);
    }

    #[test]
    fn merges_that_overlap_still_cover() {
        let chain = Chain::new(vec![], vec![piece(1, 64, 128), piece(1, 0, 100), piece(1, 0, 64)]);
        assert_eq!(spans(&chain, 1), [(0, 100), (64, 128)]);
        assert_eq!(chain.gaps(), []);
    }

    #[test]
    fn a_stale_piece_under_a_merged_one_is_ignored_even_if_longer() {
        let chain = Chain::new(vec![piece(1, 0, 100), piece(1, 60, 80)], vec![piece(1, 0, 60)]);
        assert_eq!(spans(&chain, 1), [(0, 60), (60, 80)]);
    }

    #[test]
    fn a_missing_piece_is_a_named_gap() {
        let chain = Chain::new(vec![piece(1, 0, 10), piece(1, 20, 30)], vec![]);
        assert_eq!(chain.gaps(), [Gap { from: place(1, 10), to: place(1, 20) }]);
        assert!(chain.covers(&place(1, 10)) && !chain.covers(&place(1, 15)) && chain.covers(&place(1, 20)));
    }

    #[test]
    fn a_piece_that_skips_or_repeats_is_refused_with_what_was_expected() {
        let mut chain = Chain::default();
        chain.push(piece(1, 100, 110)).unwrap();
        let gap = chain.push(piece(1, 120, 130)).unwrap_err();
        assert_eq!(gap, ChainError::Gap { expected: place(1, 110), got: place(1, 120) });
        assert!(gap.to_string().contains("expected a piece that starts at 1:110"), "{gap}");
        assert!(matches!(chain.push(piece(1, 105, 115)), Err(ChainError::Conflict { .. })));
        chain.push_after_gap(piece(1, 120, 130)).unwrap();
        assert_eq!(chain.gaps().len(), 1);
        assert!(matches!(chain.push_after_gap(piece(1, 0, 5)), Err(ChainError::Conflict { .. })));
    }

    #[test]
    fn a_new_epoch_must_follow_a_known_place() {
        let mut chain = Chain::default();
        chain.push(piece(1, 0, 100)).unwrap();
        let branch = |start, follows| Segment { follows, ..piece(2, start, start + 50) };
        assert!(matches!(chain.accepts(&branch(64, None)), Err(ChainError::Gap { .. })));
        assert!(matches!(chain.accepts(&branch(64, Some(place(1, 101)))), Err(ChainError::Gap { .. })));
        assert!(matches!(chain.accepts(&branch(81, Some(place(1, 80)))), Err(ChainError::Gap { .. })));
        assert!(matches!(chain.accepts(&branch(64, Some(place(7, 80)))), Err(ChainError::Invalid(_))));
        chain.push(branch(64, Some(place(1, 80)))).unwrap();
        // The old branch may go on: history that was abandoned is kept.
        chain.push(piece(1, 100, 120)).unwrap();
        assert_eq!(chain.tail().unwrap(), &place(2, 114));
        assert_eq!(chain.gaps(), []);
        assert_eq!(chain.line_ends(), [1, 2]);
        let again = Segment { follows: Some(place(1, 80)), ..piece(2, 114, 120) };
        assert!(matches!(chain.accepts(&again), Err(ChainError::Invalid(_))));
    }

    #[test]
    fn a_file_grows_without_holes() {
        let mut chain = Chain::default();
        chain.push(piece(1, 0, 10)).unwrap();
        let shifted = Segment { file_offset: 11, file: chain.pieces(1)[0].file.clone(), ..piece(1, 10, 20) };
        assert!(matches!(chain.push(shifted), Err(ChainError::Invalid(_))));
    }

    #[test]
    fn an_epoch_whose_predecessor_retention_took_has_no_gap() {
        let branch = |epoch, from: u64| Segment { follows: Some(place(1, from)), ..piece(epoch, from, from + 50) };
        let chain = Chain::new(vec![piece(2, 90, 120), branch(3, 60)], vec![]);
        assert_eq!(chain.gaps(), []);
        let chain = Chain::new(vec![piece(1, 0, 30), piece(2, 30, 40), branch(3, 60)], vec![]);
        assert_eq!(chain.gaps().len(), 2);
    }

    #[test]
    fn a_lost_first_piece_of_an_epoch_is_a_gap() {
        let chain = Chain::new(vec![piece(1, 0, 100), piece(2, 90, 120)], vec![]);
        assert_eq!(chain.gaps(), [Gap { from: place(1, 100), to: place(2, 90) }]);
    }
}
