//! The plan of a restore: which backup, which pieces of log, and why; or why not.
//!
//! ```text
//!   target ──▶ line of history ──▶ newest backup at or before it ──▶ pieces up to what the target needs
//! ```
//!
//! A plan is shown before it is performed, and the dry run is the plan.

use crate::{
    Backup, BackupId, Chain, Confirmed, Gap, Line, Point, Position, Segment, Size, Spot, Timestamp, Window,
    window::{Reach, lines, windows},
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where to restore to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// As early as the backup is consistent.
    BackupEnd,
    /// The end of the log.
    Latest,
    /// The last state at this time.
    Time(Timestamp),
    /// A place in the log: a position, or what a transaction or a name was found at.
    Place {
        /// The branch; nothing: whichever the restore follows.
        epoch: Option<u64>,
        /// Bytes into it.
        offset: u64,
        /// What people call it.
        label: String,
    },
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// Where to.
    pub target: Target,
    /// Whether what lies exactly at the target is part of the result.
    pub inclusive: bool,
    /// This backup and no other.
    pub backup: Option<BackupId>,
    /// The branch of history to follow; nothing: the newest.
    pub epoch: Option<u64>,
    /// The host's clock.
    pub now: Timestamp,
}

/// What a restore will do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RestorePlan {
    /// The backup to start from.
    pub backup: BackupId,
    /// Where it is consistent, and its time.
    pub consistent: Point,
    /// Bytes of the backup's files.
    pub backup_bytes: u64,
    /// Where to.
    pub target: Target,
    /// Whether what lies exactly at the target is part of the result.
    pub inclusive: bool,
    /// The branch of history to follow.
    pub epoch: u64,
    /// The log to replay, in order. Neighbours may overlap after a merge.
    pub pieces: Vec<Segment>,
    /// Bytes of these pieces.
    pub log_bytes: u64,
    /// The log holds nothing behind the target. A database that would wait for a later
    /// record (a time or a position after the last one) is told to replay all there is.
    pub at_end_of_log: bool,
    /// What happens and why, a line each.
    pub explanation: Vec<String>,
}

/// Why a restore cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum PlanError {
    /// Nothing was backed up.
    #[error("there is no backup to restore from")]
    NoBackups,
    /// No backup has this id.
    #[error("there is no backup {id}")]
    UnknownBackup {
        /// The id.
        id: BackupId,
    },
    /// No log and no backup belongs to this branch.
    #[error("nothing is known of epoch {epoch}")]
    UnknownEpoch {
        /// The branch.
        epoch: u64,
    },
    /// The time has not come.
    #[error("{time} lies in the future: it is {now}")]
    InFuture {
        /// What was asked for.
        time: Timestamp,
        /// The host's clock.
        now: Timestamp,
    },
    /// The chosen backup is later than the target, or on another branch.
    #[error("backup {} is consistent at {} ({}), which is not before {target}", id.short(), consistent.position, consistent.time)]
    BackupTooLate {
        /// The chosen backup.
        id: BackupId,
        /// Where it is consistent.
        consistent: Box<Point>,
        /// What was asked for, for people.
        target: String,
    },
    /// No backup and unbroken log reach the target.
    #[error("{0}")]
    OutsideWindow(Box<Outside>),
    /// Log is missing between the backup and the target.
    #[error("failed to reach {target}: {gap}")]
    Gap {
        /// What was asked for, for people.
        target: String,
        /// What is missing.
        gap: Box<Gap>,
        /// The last restorable place before the gap.
        nearest: Box<Point>,
    },
}

/// A target outside every recovery window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outside {
    /// What was asked for, for people.
    pub target: String,
    /// It lies before the first window.
    pub too_early: bool,
    /// Where the target can be restored to.
    pub windows: Vec<Window>,
    /// The restorable place closest before it, or else the first one of all.
    pub nearest: Option<Point>,
}

/// How many windows a message names; `backstay window` shows all.
const WINDOWS_NAMED_MAX: usize = 3;

impl fmt::Display for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.too_early { "before" } else { "outside" };
        write!(f, "{} lies {side} the recovery window", self.target)?;
        for (index, window) in self.windows.iter().take(WINDOWS_NAMED_MAX).enumerate() {
            write!(f, "{}{window}", if index == 0 { ": " } else { "; " })?;
        }
        match self.windows.len().saturating_sub(WINDOWS_NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl PlanError {
    /// What to do about it, one line.
    pub fn hint(&self) -> String {
        match self {
            Self::NoBackups => "make one with `backstay backup TARGET`".into(),
            Self::UnknownBackup { .. } => "see `backstay backups TARGET`".into(),
            Self::UnknownEpoch { .. } => "see `backstay window TARGET`".into(),
            Self::InFuture { .. } => "use `--to latest` for the newest state".into(),
            Self::BackupTooLate { .. } => "leave `--backup` out to let the right one be chosen".into(),
            Self::OutsideWindow(outside) => match &outside.nearest {
                Some(nearest) => format!("the nearest restorable time is `--to time:{}`", nearest.time),
                None => "see `backstay window TARGET`".into(),
            },
            Self::Gap { nearest, .. } => {
                format!("the last restorable time before the gap is `--to time:{}`", nearest.time)
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BackupEnd => f.write_str("the backup's end"),
            Self::Latest => f.write_str("the end of the log"),
            Self::Time(time) => write!(f, "{time}"),
            Self::Place { epoch: Some(epoch), label, .. } => write!(f, "{label} (epoch {epoch})"),
            Self::Place { label, .. } => f.write_str(label),
        }
    }
}

impl RestorePlan {
    /// Plans a restore. `backups` in any order; `chain` and `confirmed` from the log.
    pub fn new(
        backups: &[Backup],
        chain: &Chain,
        confirmed: Option<&Confirmed>,
        request: &RestoreRequest,
    ) -> Result<Self, PlanError> {
        let chosen = match &request.backup {
            Some(id) => vec![backups.iter().find(|backup| backup.id == *id).ok_or_else(|| {
                if backups.is_empty() { PlanError::NoBackups } else { PlanError::UnknownBackup { id: id.clone() } }
            })?],
            None => backups.iter().collect(),
        };
        let search = Search { backups, chosen, chain, confirmed, request };
        search.plan()
    }

    /// What to tell the database where it would wait for log that does not exist.
    ///
    /// Only for a time or a position; a transaction at the end of the log still has to be
    /// left out when it is excluded.
    pub fn effective_target(&self) -> Target {
        match (&self.target, self.at_end_of_log, self.pieces.is_empty()) {
            (Target::BackupEnd, ..) | (_, true, true) => Target::BackupEnd,
            (_, true, false) => Target::Latest,
            (target, false, _) => target.clone(),
        }
    }
}

impl fmt::Display for RestorePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.explanation.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// One request against what there is.
struct Search<'a> {
    backups: &'a [Backup],
    chosen: Vec<&'a Backup>,
    chain: &'a Chain,
    confirmed: Option<&'a Confirmed>,
    request: &'a RestoreRequest,
}

/// Why a line of history does not serve.
enum Refusal {
    /// No backup on this line is early enough; older history may have one.
    NoneBefore,
    Because(PlanError),
}

impl Search<'_> {
    fn plan(&self) -> Result<RestorePlan, PlanError> {
        if self.chosen.is_empty() {
            return Err(PlanError::NoBackups);
        }
        if let Target::BackupEnd = self.request.target {
            return self.backup_end();
        }
        if let Target::Time(time) = self.request.target {
            let now = self.request.now;
            if time > now && windows(self.backups, self.chain, self.confirmed).iter().all(|w| w.to.time < time) {
                return Err(PlanError::InFuture { time, now });
            }
        }
        let lines = self.lines()?;
        let mut first = None;
        for line in &lines {
            match self.on_line(line) {
                Ok(plan) => return Ok(plan),
                Err(Refusal::Because(error)) => {
                    // What the newest line says counts, unless it says nothing about this time.
                    return Err(first.unwrap_or(error));
                }
                Err(Refusal::NoneBefore) => {
                    first.get_or_insert_with(|| self.none_before(line));
                }
            }
        }
        Err(first.unwrap_or_else(|| self.outside()))
    }

    /// The lines to look at: one that was asked for, or the newest, then older history.
    fn lines(&self) -> Result<Vec<Line>, PlanError> {
        let asked = match &self.request.target {
            Target::Place { epoch: Some(epoch), .. } => self.request.epoch.or(Some(*epoch)),
            _ => self.request.epoch,
        };
        if let Some(epoch) = asked {
            let known = !self.chain.pieces(epoch).is_empty()
                || self.backups.iter().any(|backup| backup.manifest.end.epoch == epoch);
            return if known { Ok(vec![self.chain.line(epoch)]) } else { Err(PlanError::UnknownEpoch { epoch }) };
        }
        let mut lines = lines(self.backups, self.chain);
        match &self.request.target {
            // Times are looked for in older history too, and a chosen backup says where it belongs.
            Target::Time(_) => {}
            _ if self.request.backup.is_some() => {}
            _ => lines.truncate(1),
        }
        Ok(lines)
    }

    fn on_line(&self, line: &Line) -> Result<RestorePlan, Refusal> {
        let mut candidates: Vec<(Spot, &Backup)> = self
            .chosen
            .iter()
            .filter_map(|backup| Some((line.spot(&backup.manifest.end)?, *backup)))
            .filter(|(spot, backup)| self.is_before_target(line, *spot, backup))
            .collect();
        candidates.sort_by_key(|(spot, backup)| (*spot, backup.time()));
        let mut first = None;
        for (spot, backup) in candidates.into_iter().rev() {
            match self.with_backup(line, spot, backup) {
                Ok(plan) => return Ok(plan),
                Err(error) => first.get_or_insert(error),
            };
        }
        Err(first.map_or(Refusal::NoneBefore, Refusal::Because))
    }

    fn is_before_target(&self, line: &Line, spot: Spot, backup: &Backup) -> bool {
        match &self.request.target {
            Target::BackupEnd | Target::Latest => true,
            Target::Time(time) => backup.time() <= *time,
            Target::Place { .. } => self.place_on(line, spot).is_some_and(|place| spot <= place),
        }
    }

    /// Where the asked-for place lies on the line, seen from a backup.
    fn place_on(&self, line: &Line, from: Spot) -> Option<Spot> {
        let Target::Place { epoch, offset, label } = &self.request.target else { return None };
        match epoch {
            Some(epoch) => line.spot(&Position { epoch: *epoch, offset: *offset, label: label.clone() }),
            None => Some(line.spot_from(from, *offset)),
        }
    }

    /// The pieces that take this backup to the target.
    fn with_backup(&self, line: &Line, spot: Spot, backup: &Backup) -> Result<RestorePlan, PlanError> {
        let Some(reach) = Reach::of(self.chain, line, backup, self.confirmed) else { return Err(self.outside()) };
        let all = reach.walk.pieces.len();
        let beyond = |piece: &Segment, step: usize| (step, piece.end.offset) > (spot.step(), spot.offset());
        let (needed, at_end) = match &self.request.target {
            Target::BackupEnd => (0, true),
            Target::Latest => match self.missing(line, &reach) {
                Some(gap) => return Err(self.gap(gap, &reach)),
                None => (all, true),
            },
            Target::Time(time) => {
                let commit = |stride: &crate::Stride<'_>| {
                    stride.piece.last_commit.filter(|_| !stride.leaves && beyond(stride.piece, stride.step))
                };
                let past = |stride: &crate::Stride<'_>| commit(stride).is_some_and(|commit| commit > *time);
                match reach.walk.pieces.iter().position(past).filter(|_| reach.extends) {
                    Some(last) => (last + 1, false),
                    // Exclusive, a commit at exactly this time is where the database stops.
                    None if *time <= reach.time => {
                        let stops = |stride| commit(stride) == Some(*time);
                        (all, self.request.inclusive || !reach.walk.pieces.iter().any(stops))
                    }
                    None => match self.missing(line, &reach).filter(|gap| self.commits_after(line, gap, *time)) {
                        Some(gap) => return Err(self.gap(gap, &reach)),
                        None => return Err(self.outside()),
                    },
                }
            }
            Target::Place { .. } => {
                let Some(place) = self.place_on(line, spot) else { return Err(self.outside()) };
                if place > reach.spot {
                    let end = self.chain.end_of(line.epoch()).and_then(|end| line.spot(end));
                    let gap = self.missing(line, &reach).filter(|_| end.is_some_and(|end| place <= end));
                    return Err(gap.map_or_else(|| self.outside(), |gap| self.gap(gap, &reach)));
                }
                let holds = |stride: &crate::Stride<'_>| {
                    (stride.step, stride.piece.end.offset) > (place.step(), place.offset())
                };
                match reach.walk.pieces.iter().position(holds).filter(|_| reach.extends) {
                    // One more: databases stop only when they see the record behind the target.
                    Some(last) => ((last + 2).min(all), false),
                    None => (all, true),
                }
            }
        };
        let needed = if reach.extends { needed } else { 0 };
        let pieces = reach.walk.pieces[..needed].iter().map(|stride| stride.piece.clone()).collect();
        Ok(self.finish(line, backup, pieces, at_end, &reach))
    }

    /// The first missing link behind what a backup reaches, where log goes on behind it.
    fn missing(&self, line: &Line, reach: &Reach<'_>) -> Option<Gap> {
        if reach.extends && reach.walk.gap.is_some() {
            return reach.walk.gap.clone();
        }
        if reach.extends {
            return None;
        }
        let mut steps = line.steps().iter().enumerate().skip(reach.spot.step());
        let to = steps.find_map(|(step, at)| {
            let behind = |piece: &&Segment| (step, piece.end.offset) > (reach.spot.step(), reach.spot.offset());
            let within = |piece: &&Segment| at.until.is_none_or(|until| piece.start.offset < until);
            self.chain.pieces(at.epoch).iter().find(|piece| behind(piece) && within(piece))
        })?;
        Some(Gap { from: reach.end.clone(), to: to.start.clone() })
    }

    /// Whether log behind the gap is from `time` or later, so that the gap is what hides it.
    fn commits_after(&self, line: &Line, gap: &Gap, time: Timestamp) -> bool {
        let Some(spot) = line.spot(&gap.to) else { return false };
        let confirmed = self.confirmed.filter(|c| line.spot(&c.position).is_some_and(|at| at >= spot));
        let steps = line.steps().iter().skip(spot.step());
        let commits = steps.flat_map(|step| self.chain.pieces(step.epoch)).filter_map(|piece| piece.last_commit);
        commits.chain(confirmed.map(|confirmed| confirmed.time)).any(|commit| commit >= time)
    }

    fn backup_end(&self) -> Result<RestorePlan, PlanError> {
        let on_epoch = |backup: &&&Backup| self.request.epoch.is_none_or(|epoch| backup.manifest.end.epoch == epoch);
        let newest = self.chosen.iter().filter(on_epoch).max_by_key(|backup| {
            let end = &backup.manifest.end;
            (end.epoch, end.offset, backup.manifest.finished)
        });
        let Some(backup) = newest else {
            let epoch = self.request.epoch.unwrap_or_default();
            return Err(PlanError::UnknownEpoch { epoch });
        };
        let line = self.chain.line(backup.manifest.end.epoch);
        self.with_backup(&line, line.spot(&backup.manifest.end).ok_or_else(|| self.outside())?, backup)
    }

    fn finish(
        &self,
        line: &Line,
        backup: &Backup,
        pieces: Vec<Segment>,
        at_end_of_log: bool,
        reach: &Reach<'_>,
    ) -> RestorePlan {
        let manifest = &backup.manifest;
        let log_bytes = pieces.iter().map(Segment::length).sum();
        let mut plan = RestorePlan {
            backup: backup.id.clone(),
            consistent: Point { position: manifest.end.clone(), time: backup.time() },
            backup_bytes: manifest.bytes,
            target: self.request.target.clone(),
            inclusive: self.request.inclusive,
            epoch: pieces.last().map_or(manifest.end.epoch, |_| line.epoch()),
            pieces,
            log_bytes,
            at_end_of_log,
            explanation: Vec::new(),
        };
        plan.explanation = explain(&plan, manifest, line, reach);
        plan
    }

    fn none_before(&self, line: &Line) -> PlanError {
        match (&self.request.backup, self.chosen.first()) {
            (Some(id), Some(backup)) => PlanError::BackupTooLate {
                id: id.clone(),
                consistent: Box::new(Point { position: backup.manifest.end.clone(), time: backup.time() }),
                target: match self.request.target {
                    Target::Latest => format!("the end of epoch {}", line.epoch()),
                    _ => self.request.target.to_string(),
                },
            },
            _ => self.outside(),
        }
    }

    fn gap(&self, gap: Gap, reach: &Reach<'_>) -> PlanError {
        let nearest = Point { position: reach.end.clone(), time: reach.time };
        PlanError::Gap { target: self.request.target.to_string(), gap: Box::new(gap), nearest: Box::new(nearest) }
    }

    fn outside(&self) -> PlanError {
        let windows = windows(self.backups, self.chain, self.confirmed);
        let is_before = |point: &Point| match &self.request.target {
            Target::Time(time) => point.time <= *time,
            Target::Place { epoch, offset, .. } => {
                epoch.is_none_or(|epoch| epoch == point.position.epoch) && point.position.offset <= *offset
            }
            Target::BackupEnd | Target::Latest => true,
        };
        let before = windows.iter().map(|window| &window.to).filter(|to| is_before(to)).max_by_key(|to| to.time);
        let first = || windows.iter().map(|window| &window.from).min_by_key(|from| from.time);
        let too_early = before.is_none() && !windows.is_empty();
        let nearest = before.or_else(first).cloned();
        let target = self.request.target.to_string();
        PlanError::OutsideWindow(Box::new(Outside { target, too_early, windows, nearest }))
    }
}

/// The lines a tired person reads before the restore starts.
fn explain(plan: &RestorePlan, manifest: &crate::BackupManifest, line: &Line, reach: &Reach<'_>) -> Vec<String> {
    let kind = if plan.inclusive { "inclusive" } else { "exclusive" };
    let what = match &plan.target {
        Target::BackupEnd => format!("the end of backup {}", plan.backup.short()),
        Target::Latest => "the latest state there is".into(),
        Target::Time(time) => format!("{time}, {kind}"),
        place @ Target::Place { .. } => format!("{place}, {kind}"),
    };
    let files = if manifest.files == 1 { "file" } else { "files" };
    let mut lines = vec![
        format!("restore  {} to {what}", manifest.target),
        format!(
            "backup   {}, consistent at {} on {}: {} in {} {files}",
            plan.backup.short(),
            plan.consistent.position.label,
            plan.consistent.time,
            Size(plan.backup_bytes),
            manifest.files
        ),
    ];
    match (plan.pieces.first(), plan.pieces.last()) {
        (Some(first), Some(last)) => lines.push(format!(
            "log      {} {}, {}, from {} to {}",
            plan.pieces.len(),
            if plan.pieces.len() == 1 { "piece" } else { "pieces" },
            Size(plan.log_bytes),
            first.start.label,
            last.end.label
        )),
        _ => lines.push("log      none: the backup alone".into()),
    }
    let used: Vec<u64> = plan.pieces.iter().map(|piece| piece.start.epoch).collect();
    let history: Vec<String> =
        line.steps().iter().filter(|step| used.contains(&step.epoch)).map(|step| step.epoch.to_string()).collect();
    if history.len() > 1 {
        lines.push(format!("history  epoch {}", history.join(", then ")));
    }
    lines.push(match (&plan.target, plan.at_end_of_log) {
        (Target::BackupEnd, _) => "stops    as soon as the database is consistent".into(),
        (_, true) => format!("stops    at {}, the end of the log: nothing was committed after it", reach.end.label),
        (Target::Time(time), false) if plan.inclusive => format!("stops    after the last commit at or before {time}"),
        (Target::Time(time), false) => format!("stops    after the last commit before {time}"),
        (place, false) if plan.inclusive => format!("stops    right after {place}"),
        (place, false) => format!("stops    right before {place}"),
    });
    lines
}

#[cfg(test)]
mod tests;
