//! Which backups go, and which log is needed no more.
//!
//! ```text
//!   backups    B1 ●      B2 ●          B3 ●        B4 ●
//!   log        ├─────────────────────────────┤gap├────────┤
//!   window                      ├──────────────────────────┤   pitr-window
//!   needed               B2                        B4          the fewest that reach every moment of it
//!   log            goes ┤ stays ─────────────────────────▶      from where B2 needs it
//! ```

use crate::retention::{KeepReason, RetentionPolicy, is_in_future};
use crate::window::{Reach, is_stray, lines};
use crate::{Backup, BackupId, Chain, Confirmed, Position, Segment, Spot, TargetName, Timestamp};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What happens to one backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The backup.
    pub backup: Backup,
    /// Why it stays; it goes where there is none.
    pub reasons: Vec<KeepReason>,
}

impl Decision {
    /// Whether it stays.
    pub fn stays(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// What a policy does to a target's backups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgetPlan {
    /// The target.
    pub target: TargetName,
    /// Every backup, oldest first.
    pub decisions: Vec<Decision>,
    /// The log that the backups that stay need.
    pub log: LogNeed,
}

impl ForgetPlan {
    fn new(
        records: Records<'_>,
        policy: &RetentionPolicy,
        mut reasons: impl FnMut(&Backup) -> Vec<KeepReason>,
    ) -> Self {
        let decide = |backup: &Backup| Decision { reasons: reasons(backup), backup: backup.clone() };
        let decisions: Vec<Decision> = records.backups.iter().map(decide).collect();
        let kept: Vec<Backup> =
            decisions.iter().filter(|decision| decision.stays()).map(|decision| decision.backup.clone()).collect();
        let log = log_needed(Records { backups: &kept, ..records }, policy);
        Self { target: records.target.clone(), decisions, log }
    }

    /// The backups that go, oldest first.
    pub fn forgotten(&self) -> impl Iterator<Item = &Backup> {
        self.decisions.iter().filter(|decision| !decision.stays()).map(|decision| &decision.backup)
    }

    /// The backups that stay, oldest first.
    pub fn kept(&self) -> impl Iterator<Item = &Backup> {
        self.decisions.iter().filter(|decision| decision.stays()).map(|decision| &decision.backup)
    }
}

/// Which log is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LogNeed {
    /// From here on; all of it where nothing says more.
    pub from: Option<Position>,
    /// The backup that needs it from there on.
    pub because_of: Option<BackupId>,
    /// Where the recovery window starts that the policy keeps.
    pub window_since: Option<Timestamp>,
}

impl LogNeed {
    /// Whether nobody needs `piece` any more.
    pub fn is_over(&self, piece: &Segment) -> bool {
        let Some(from) = &self.from else { return false };
        // Databases number their branches upwards: older epochs were left before this place was reached.
        piece.end.epoch < from.epoch || (piece.end.epoch == from.epoch && piece.end.offset <= from.offset)
    }

    /// The pieces that may go, oldest first. The last piece stays: whoever goes on archiving continues from it.
    pub fn superfluous<'chain>(&self, chain: &'chain Chain) -> Vec<&'chain Segment> {
        let last = chain.newest().and_then(|epoch| chain.pieces(epoch).last());
        chain.iter().filter(|piece| self.is_over(piece) && Some(*piece) != last).collect()
    }
}

/// What is known of a target.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    /// Its name.
    pub target: &'a TargetName,
    /// Its backups, oldest first.
    pub backups: &'a [Backup],
    /// Its log.
    pub chain: &'a Chain,
    /// How far the log is complete though nothing was logged.
    pub confirmed: Option<&'a Confirmed>,
    /// The host's clock.
    pub now: Timestamp,
}

/// What `policy` does to a target's backups; `pins` says why some are pinned.
///
/// Every moment of the policy's recovery window that can be restored to before can be restored to after.
pub fn plan_forget(records: Records<'_>, policy: &RetentionPolicy, pins: &BTreeMap<BackupId, String>) -> ForgetPlan {
    let mut reasons = policy.reasons(records.backups, records.now);
    for (id, reason) in pins {
        reasons.entry(id.clone()).or_default().push(KeepReason::Pinned { reason: reason.clone() });
    }
    if let Some(since) = window_start(policy, records) {
        for backup in needed(records, since) {
            reasons.entry(backup.id.clone()).or_default().push(KeepReason::Window { since });
        }
    }
    ForgetPlan::new(records, policy, |backup| reasons.remove(&backup.id).unwrap_or_default())
}

/// A backup that was named and must not go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("backup {} stays: {reason}", backup.short())]
pub struct Needed {
    /// The backup.
    pub backup: BackupId,
    /// Why it stays.
    pub reason: KeepReason,
}

/// As [`plan_forget`], of the backups that are `named` and no others, whatever the calendar's rules say of them.
///
/// # Errors
/// [`Needed`] for one that is pinned or that the policy's recovery window needs.
pub fn plan_forget_named(
    records: Records<'_>,
    policy: &RetentionPolicy,
    pins: &BTreeMap<BackupId, String>,
    named: &BTreeSet<BackupId>,
) -> Result<ForgetPlan, Needed> {
    if let Some((backup, reason)) = pins.iter().find(|(id, _)| named.contains(*id)) {
        return Err(Needed { backup: backup.clone(), reason: KeepReason::Pinned { reason: reason.clone() } });
    }
    if let Some(since) = window_start(policy, records)
        && let Some(backup) = needed(records, since).into_iter().find(|backup| named.contains(&backup.id))
    {
        return Err(Needed { backup: backup.id.clone(), reason: KeepReason::Window { since } });
    }
    let reasons = |backup: &Backup| if named.contains(&backup.id) { vec![] } else { vec![KeepReason::NotNamed] };
    Ok(ForgetPlan::new(records, policy, reasons))
}

/// The log that these backups need by `policy`.
pub fn log_needed(records: Records<'_>, policy: &RetentionPolicy) -> LogNeed {
    let Records { backups, chain, .. } = records;
    let window_since = window_start(policy, records);
    let mut bases: BTreeSet<&BackupId> = match window_since {
        Some(since) => needed(records, since).into_iter().map(|backup| &backup.id).collect(),
        None => backups.iter().map(|backup| &backup.id).collect(),
    };
    // Whoever archives now continues it, whatever the window. One dated in the future would be it until then.
    let newest = backups.iter().rfind(|backup| !is_in_future(backup, records.now)).or(backups.last());
    bases.extend(newest.map(|newest| &newest.id));
    let mut need = LogNeed { window_since, ..LogNeed::default() };
    let lines = lines(backups, chain);
    let order = |place: &Position| (place.epoch, place.offset);
    for backup in backups.iter().filter(|backup| bases.contains(&backup.id)) {
        let log_from = &backup.manifest.log_from;
        // A database reads a log file from its head.
        let heads = lines.iter().filter_map(|line| chain.walk(line, log_from)?.pieces.first().map(|s| &s.piece.start));
        let from = heads.chain([log_from]).min_by_key(|place| order(place)).unwrap_or(log_from);
        if need.from.as_ref().is_none_or(|known| order(from) < order(known)) {
            (need.from, need.because_of) = (Some(from.clone()), Some(backup.id.clone()));
        }
    }
    need
}

/// Where the window starts: counted from the last moment that can be restored to, so that an archive that stands
/// still loses nothing by it.
fn window_start(policy: &RetentionPolicy, records: Records<'_>) -> Option<Timestamp> {
    let window = policy.pitr_window?;
    let windows = crate::windows(records.backups, records.chain, records.confirmed);
    let last = windows.iter().map(|window| window.to.time).max()?;
    Some(window.before(last.min(records.now), &policy.time_zone))
}

/// The stretch of a line that one backup and the log behind it reach.
struct Stretch<'b> {
    backup: &'b Backup,
    from: Spot,
    to: Spot,
    /// The time at `to`.
    until: Timestamp,
}

/// The fewest backups that reach everything from `since` on that any of them reaches.
fn needed<'a>(records: Records<'a>, since: Timestamp) -> Vec<&'a Backup> {
    let Records { backups, chain, confirmed, .. } = records;
    let lines = lines(backups, chain);
    // Only one at the same place can stand for those; the newest does.
    let strays = backups.iter().filter(|backup| is_stray(&lines, backup) && backup.time() >= since);
    let place = |backup: &Backup| (backup.manifest.end.epoch, backup.manifest.end.offset);
    let strays: BTreeMap<(u64, u64), &Backup> = strays.map(|backup| (place(backup), backup)).collect();
    let mut needed: Vec<&Backup> = strays.into_values().collect();
    for line in lines {
        let mut stretches: Vec<Stretch<'_>> = backups
            .iter()
            .filter_map(|backup| {
                let reach = Reach::of(chain, &line, backup, confirmed)?;
                let from = line.spot(&backup.manifest.end)?;
                Some(Stretch { backup, from, to: reach.spot, until: reach.time })
            })
            .filter(|stretch| stretch.until >= since)
            .collect();
        stretches.sort_by_key(|stretch| stretch.from);
        // Before the window starts the nearest backup will do: it replays least.
        let before = stretches.iter().take_while(|stretch| stretch.backup.time() <= since).count();
        let (before, mut rest) = stretches.split_at(before);
        // Only what reaches as far as any can stand for the others.
        let mut covered = before.iter().map(|stretch| stretch.to).max();
        let best = before.iter().rfind(|stretch| Some(stretch.to) == covered);
        needed.extend(best.map(|stretch| stretch.backup));
        while let Some(first) = rest.first() {
            let inside = |stretch: &&Stretch<'_>| covered.is_some_and(|covered| stretch.from <= covered);
            // Of those that begin in what is covered the one that reaches furthest; else the first behind the gap.
            let furthest = rest.iter().take_while(inside).max_by_key(|stretch| stretch.to);
            let count = rest.iter().take_while(inside).count();
            match furthest {
                Some(furthest) if covered.is_some_and(|covered| furthest.to > covered) => {
                    needed.push(furthest.backup);
                    covered = Some(furthest.to);
                    rest = &rest[count..];
                }
                Some(_) => rest = &rest[count..],
                None => {
                    let same = rest.iter().take_while(|stretch| stretch.from == first.from);
                    let best = same.max_by_key(|stretch| stretch.to).unwrap_or(first);
                    needed.push(best.backup);
                    covered = Some(best.to);
                    rest = &rest[1..];
                }
            }
        }
    }
    let mut seen = BTreeSet::new();
    needed.retain(|backup| seen.insert(&backup.id));
    needed
}

#[cfg(test)]
mod tests;
