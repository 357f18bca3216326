//! From one repository into another: backups by their manifests, and a target's log.

#[cfg(test)]
mod tests;

use crate::{catalog::Entry, job::Failure, repository::open_log};
use backstay_core::{TargetName, Timestamp};
use backstay_repo::{
    Copied, Id, Repository, Snapshot, SnapshotCopy,
    log::{LogCopied, LogCopyOptions},
};
use std::collections::{BTreeMap, BTreeSet};

/// Backups that go from one repository into another, older ones first.
#[derive(Clone, Debug)]
pub struct Step {
    /// Where they are: a place in the list that the plan was made of.
    pub from: usize,
    /// Where they go: as well.
    pub to: usize,
    /// Their snapshots, as they are at `from`.
    pub snapshots: Vec<Snapshot>,
}

/// What came of copying backups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// Backups that were copied, or would be: then with the id they have.
    pub backups: Vec<Copied>,
    /// Why backups could not be copied, one line each.
    pub damaged: Vec<String>,
    /// Stored bytes that were sent, or would be.
    pub bytes: u64,
}

/// What goes where so that repositories have the same backups of a target, in this order; the first of `holdings` is
/// home. What another one has and home lacks goes there and to all others, and what home has goes to all others.
///
/// The steps go from older backups to newer ones, whichever way each is to go: of any two repositories, whatever is
/// older than the newest that both have was decided before. So one may stop after any step, or in it, and what is left
/// is still new when a plan is made again.
pub fn steps(holdings: &[Vec<Entry>]) -> Vec<Step> {
    let Some((home, mirrors)) = holdings.split_first() else { return Vec::new() };
    let mut moves: BTreeMap<(Place, Same), Move<'_>> = BTreeMap::new();
    for (from, mirror) in (1..).zip(mirrors) {
        for entry in lacking(mirror, home) {
            moves.entry(key(entry)).or_insert(Move { from, entry, to: BTreeSet::from([0]) });
        }
    }
    for (to, mirror) in (1..).zip(mirrors) {
        for entry in lacking(home, mirror) {
            moves.entry(key(entry)).or_insert(Move { from: 0, entry, to: BTreeSet::new() }).to.insert(to);
        }
        for (from, other) in (1..).zip(mirrors).filter(|(from, _)| *from != to) {
            for entry in lacking(other, mirror) {
                if let Some(coming) = moves.get_mut(&key(entry)).filter(|coming| coming.from == from) {
                    coming.to.insert(to);
                }
            }
        }
    }
    let mut steps: Vec<Step> = Vec::new();
    // Where the steps of those backups begin that follow each other and come from the same repository.
    let mut begin = 0;
    for Move { from, entry, to } in moves.into_values() {
        if steps.last().is_some_and(|step| step.from != from) {
            begin = steps.len();
        }
        for to in to {
            match steps[begin..].iter_mut().find(|step| step.to == to) {
                Some(step) => step.snapshots.push(entry.snapshot.clone()),
                None => steps.push(Step { from, to, snapshots: vec![entry.snapshot.clone()] }),
            }
        }
    }
    steps
}

/// Copies backups. `progress` hears of bytes sent and to be sent.
///
/// # Errors
/// Whatever the stores report, a lock that somebody holds; backups that are not whole are in the answer.
pub async fn bring(
    from: &Repository,
    to: &Repository,
    snapshots: Vec<Snapshot>,
    dry_run: bool,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<Brought, Failure> {
    let copy = SnapshotCopy::plan(from, to, snapshots).await?;
    let bytes = copy.summary().bytes;
    if dry_run {
        let plan = copy.summary().clone();
        copy.release().await?;
        let same = |id: &backstay_core::BackupId| Copied { from: id.clone(), to: id.clone() };
        return Ok(Brought {
            backups: plan.snapshots.iter().map(|snapshot| same(&snapshot.id)).collect(),
            damaged: plan.damaged.into_iter().map(|damaged| damaged.why).collect(),
            bytes,
        });
    }
    let report = copy.perform(progress).await?;
    let damaged = report.damaged.into_iter().map(|damaged| damaged.why).collect();
    Ok(Brought { backups: report.copied, damaged, bytes })
}

/// Copies what `to` lacks of a target's log.
///
/// # Errors
/// Whatever the stores report; a conflict where both have other bytes at one place.
pub async fn copy_log(
    from: &Repository,
    to: &Repository,
    target: &TargetName,
    options: LogCopyOptions,
) -> Result<LogCopied, Failure> {
    let (ours, mut theirs) = tokio::try_join!(open_log(from, target), open_log(to, target))?;
    Ok(ours.copy_to(&mut theirs, options, &|_| ()).await?)
}

/// A backup on its way.
struct Move<'a> {
    from: usize,
    entry: &'a Entry,
    to: BTreeSet<usize>,
}

/// Those of `ours` that `theirs` never had, as far as can be told. What is missing there and is older than something
/// that both have was there, and retention or a person removed it.
///
/// A backup that ran beside that one may have been committed after it was copied, so it counts as new all the same.
fn lacking<'a>(ours: &'a [Entry], theirs: &[Entry]) -> Vec<&'a Entry> {
    let there: BTreeSet<Same> = theirs.iter().map(|entry| entry.snapshot.identity()).collect();
    let (shared, missing): (Vec<&Entry>, Vec<&Entry>) =
        ours.iter().partition(|entry| there.contains(&entry.snapshot.identity()));
    let shared = shared.into_iter().max_by_key(|entry| place(entry));
    let oldest = theirs.iter().map(place).min();
    let is_new = |entry: &&Entry| match shared {
        Some(shared) => place(entry) > place(shared) || ran_beside(entry, shared),
        None => oldest.is_none_or(|oldest| place(entry) > oldest),
    };
    missing.into_iter().filter(is_new).collect()
}

/// The order of backups: where they end in the log. A clock may be set back, and the log is never; databases number its
/// branches upwards. The clock decides where nothing was written in between.
type Place = (u64, u64, Timestamp);

fn place(entry: &Entry) -> Place {
    let manifest = &entry.backup.manifest;
    (manifest.end.epoch, manifest.end.offset, manifest.finished)
}

/// Whether a backup that ended before another one did ran at the same time for a while: by the log and by the clock. By
/// the log alone backups of a standby would that follow each other between two of its checkpoints.
fn ran_beside(earlier: &Entry, later: &Entry) -> bool {
    let (earlier, later) = (&earlier.backup.manifest, &later.backup.manifest);
    let place = |position: &backstay_core::Position| (position.epoch, position.offset);
    place(&later.start) <= place(&earlier.end) && later.started < earlier.finished
}

/// What a backup keeps when it is copied.
type Same = (Timestamp, Id);

fn key(entry: &Entry) -> (Place, Same) {
    (place(entry), entry.snapshot.identity())
}
