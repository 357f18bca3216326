//! Where a target can be restored to.
//!
//! ```text
//!   log       ├──────────────────────────┤   gap   ├───────────────┤
//!   backups        B1 ●────────  B2 ●                        B3 ●
//!   windows           [ B1, B2 ──────────]                      [B3]
//! ```
//!
//! A window starts where a backup is consistent and goes on as far as the log is whole.

use crate::{Backup, BackupId, Chain, Line, Position, Spot, Timestamp, Walk};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};

/// A place and the database's time there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// The place.
    pub position: Position,
    /// The last commit before it, or a later time at which the database had no newer log.
    pub time: Timestamp,
}

/// The log is complete up to `position`, and the database's clock showed `time` there.
pub type Confirmed = Point;

/// An unbroken stretch a target can be restored to any place of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The first restorable place.
    pub from: Point,
    /// The last; equal to `from` where a backup has no log.
    pub to: Point,
    /// The epoch its line of history ends in.
    pub epoch: u64,
    /// Whether later history left this line before `to`.
    pub abandoned: bool,
    /// The backups inside, oldest first.
    pub backups: Vec<BackupId>,
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to {
            write!(f, "{} only", self.from.time)?;
        } else {
            write!(f, "{} to {}", self.from.time, self.to.time)?;
        }
        if self.abandoned { write!(f, " (abandoned epoch {})", self.epoch) } else { Ok(()) }
    }
}

/// How far one backup reaches along a line.
pub(crate) struct Reach<'chain> {
    /// From the backup's `log_from` on.
    pub(crate) walk: Walk<'chain>,
    /// The last restorable place: at least the backup's own end.
    pub(crate) end: Position,
    pub(crate) spot: Spot,
    pub(crate) time: Timestamp,
    /// Whether log takes it beyond its own end.
    pub(crate) extends: bool,
}

impl<'chain> Reach<'chain> {
    /// Nothing where the backup is not on the line.
    pub(crate) fn of(
        chain: &'chain Chain,
        line: &Line,
        backup: &Backup,
        confirmed: Option<&Confirmed>,
    ) -> Option<Self> {
        let own = line.spot(&backup.manifest.end)?;
        let end = backup.manifest.end.clone();
        let mut reach = Self {
            walk: chain.walk(line, &backup.manifest.log_from).unwrap_or_default(),
            end,
            spot: own,
            time: backup.time(),
            extends: false,
        };
        let Some((end, spot)) = reach.walk.end.clone().and_then(|end| line.spot(&end).map(|spot| (end, spot))) else {
            return Some(reach);
        };
        if spot <= own {
            // Idle since the backup: the log has nothing to add but its time.
            if spot == own {
                reach.time = reach.time.max(confirmed_time(line, confirmed, own).unwrap_or(reach.time));
            }
            return Some(reach);
        }
        let commits = reach.walk.pieces.iter().filter(|stride| !stride.leaves).filter_map(|s| s.piece.last_commit);
        reach.time = commits.chain(confirmed_time(line, confirmed, spot)).fold(reach.time, Timestamp::max);
        (reach.end, reach.spot, reach.extends) = (end, spot, true);
        Some(reach)
    }

    fn point(&self) -> Point {
        Point { position: self.end.clone(), time: self.time }
    }
}

/// The confirmed time, where the confirmed place is on the line and inside the log that ends at `end`.
fn confirmed_time(line: &Line, confirmed: Option<&Confirmed>, end: Spot) -> Option<Timestamp> {
    let confirmed = confirmed?;
    (line.spot(&confirmed.position)? <= end).then_some(confirmed.time)
}

/// The lines of history worth showing, newest first: of the chain, and of backups without log.
pub(crate) fn lines(backups: &[Backup], chain: &Chain) -> Vec<Line> {
    let mut epochs: BTreeSet<u64> = chain.line_ends().into_iter().collect();
    epochs.extend(backups.iter().map(|b| b.manifest.end.epoch).filter(|epoch| chain.pieces(*epoch).is_empty()));
    epochs.iter().rev().map(|epoch| chain.line(*epoch)).collect()
}

/// Where the target can be restored to: windows of the newest line first, each line's oldest first.
///
/// Abandoned branches come after the newest line, from where they leave it.
pub fn windows(backups: &[Backup], chain: &Chain, confirmed: Option<&Confirmed>) -> Vec<Window> {
    let lines = lines(backups, chain);
    let mut windows = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let shared = lines[..index].iter().filter_map(|newer| line.shared(newer)).max();
        let mut on_line: Vec<(Spot, &Backup)> =
            backups.iter().filter_map(|backup| Some((line.spot(&backup.manifest.end)?, backup))).collect();
        on_line.sort_by_key(|(spot, _)| *spot);
        let mut open: Option<(Spot, Window)> = None;
        for (spot, backup) in on_line {
            let Some(reach) = Reach::of(chain, line, backup, confirmed) else { continue };
            let point = Point { position: backup.manifest.end.clone(), time: backup.time() };
            let from = match shared {
                Some(shared) if spot <= shared => match branch(chain, line, shared, &reach) {
                    Some(branch) => branch,
                    None => continue,
                },
                _ => point,
            };
            match &mut open {
                Some((reached, window)) if spot <= *reached => {
                    window.backups.push(backup.id.clone());
                    if reach.spot >= *reached {
                        (window.to.position, *reached) = (reach.end.clone(), reach.spot);
                    }
                    window.to.time = window.to.time.max(reach.time);
                }
                _ => {
                    windows.extend(open.take().map(|(_, window)| window));
                    let to = reach.point();
                    let (epoch, abandoned) = (line.epoch(), index > 0 && shared.is_some());
                    let window = Window { from, to, epoch, abandoned, backups: vec![backup.id.clone()] };
                    open = Some((reach.spot, window));
                }
            }
        }
        windows.extend(open.map(|(_, window)| window));
    }
    for backup in backups.iter().filter(|backup| is_stray(&lines, backup)) {
        let point = Point { position: backup.manifest.end.clone(), time: backup.time() };
        let (epoch, backups) = (point.position.epoch, vec![backup.id.clone()]);
        windows.push(Window { from: point.clone(), to: point, epoch, abandoned: true, backups });
    }
    windows
}

/// Whether a backup is on none of the `lines`: past the place where its epoch was left, before the log got that far.
/// Nothing but itself restores to its end.
pub(crate) fn is_stray(lines: &[Line], backup: &Backup) -> bool {
    lines.iter().all(|line| line.spot(&backup.manifest.end).is_none())
}

/// Where a line leaves those already listed, if something was committed after that.
fn branch(chain: &Chain, line: &Line, shared: Spot, reach: &Reach<'_>) -> Option<Point> {
    if reach.spot <= shared {
        return None;
    }
    let epoch = line.steps().get(shared.step())?.epoch;
    // The piece that holds the branch may hold commits of both sides: it counts to neither.
    let end = |piece: &crate::Segment, step| (step, piece.end.offset) <= (shared.step(), shared.offset());
    let (mut before, mut after) = (None, None);
    for stride in &reach.walk.pieces {
        let side = if end(stride.piece, stride.step) { &mut before } else { &mut after };
        *side = (*side).max(stride.piece.last_commit);
    }
    let time = before.unwrap_or(Timestamp::EPOCH);
    after.filter(|after| *after > time)?;
    let label = chain.epochs().filter_map(|epoch| chain.follows(epoch));
    let known = label.into_iter().find(|follows| (follows.epoch, follows.offset) == (epoch, shared.offset()));
    let position = known.cloned()?;
    Some(Point { position, time })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::Segment;
    use crate::sample::{backup, piece, place, second};

    type Span = ((u64, u64), (u64, u64), usize);

    fn spans(windows: &[Window]) -> Vec<Span> {
        let at = |point: &Point| (point.position.epoch, point.position.offset);
        windows.iter().map(|window| (at(&window.from), at(&window.to), window.backups.len())).collect()
    }

    fn log(epoch: u64, from: u64, to: u64) -> Vec<Segment> {
        (from / 10..to / 10).map(|n| piece(epoch, n * 10, n * 10 + 10)).collect()
    }

    #[test]
    fn a_backup_without_log_is_a_single_point() {
        let backups = [backup(1, place(1, 5), place(1, 9))];
        let windows = windows(&backups, &Chain::default(), None);
        assert_eq!(spans(&windows), [((1, 9), (1, 9), 1)]);
        assert_eq!(windows[0].to_string(), "1970-01-01T00:00:09Z only");
    }

    #[test]
    fn a_gap_parts_two_windows() {
        let mut pieces = log(1, 0, 60);
        pieces.extend(log(1, 80, 120));
        let chain = Chain::new(pieces, vec![]);
        let backups = [
            backup(1, place(1, 5), place(1, 9)),
            backup(2, place(1, 30), place(1, 33)),
            backup(3, place(1, 82), place(1, 90)),
        ];
        let windows = windows(&backups, &chain, None);
        assert_eq!(spans(&windows), [((1, 9), (1, 60), 2), ((1, 90), (1, 120), 1)]);
        assert_eq!(windows[0].to.time, second(59));
    }

    #[test]
    fn a_confirmation_carries_time_over_idle_hours() {
        let chain = Chain::new(log(1, 0, 60), vec![]);
        let backups = [backup(1, place(1, 5), place(1, 9))];
        let confirmed = Point { position: place(1, 60), time: second(5000) };
        assert_eq!(windows(&backups, &chain, Some(&confirmed))[0].to.time, second(5000));
        let elsewhere = Point { position: place(1, 61), time: second(5000) };
        assert_eq!(windows(&backups, &chain, Some(&elsewhere))[0].to.time, second(59));
    }

    #[test]
    fn an_abandoned_branch_is_a_window_of_its_own() {
        let mut pieces = log(1, 0, 200);
        pieces.push(Segment { follows: Some(place(1, 105)), ..piece(2, 64, 120) });
        pieces.extend(log(2, 120, 150));
        let chain = Chain::new(pieces, vec![]);
        let backups = [backup(1, place(1, 5), place(1, 9))];
        let windows = windows(&backups, &chain, None);
        assert_eq!(spans(&windows), [((1, 9), (2, 150), 1), ((1, 105), (1, 200), 1)]);
        assert!(!windows[0].abandoned && windows[1].abandoned);
    }

    #[test]
    fn a_backup_behind_the_branch_belongs_to_the_abandoned_line() {
        let mut pieces = log(1, 0, 200);
        pieces.push(Segment { follows: Some(place(1, 105)), ..piece(2, 64, 120) });
        let chain = Chain::new(pieces, vec![]);
        let backups = [backup(1, place(1, 122), place(1, 130))];
        let windows = windows(&backups, &chain, None);
        assert_eq!(spans(&windows), [((1, 130), (1, 200), 1)]);
    }

    #[test]
    fn a_backup_on_a_promoted_server_without_archive_still_counts() {
        let chain = Chain::new(log(1, 0, 60), vec![]);
        let backups = [backup(1, place(1, 5), place(1, 9)), backup(2, place(2, 70), place(2, 80))];
        assert_eq!(spans(&windows(&backups, &chain, None)), [((2, 80), (2, 80), 1), ((1, 9), (1, 60), 1)]);
    }
}
