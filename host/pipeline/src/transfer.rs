//! From one repository into another: backups by their manifests, and a target's log.

use crate::{
    catalog::{self, Entry},
    job::Failure,
    repository::open_log,
};
use backstay_core::{TargetName, Timestamp};
use backstay_repo::{
    Copied, Id, Repository, Snapshot, SnapshotCopy,
    log::{LogCopied, LogCopyOptions},
};
use std::collections::BTreeSet;

/// What came when one repository was brought level with another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaughtUp {
    /// Backups that were copied, or would be: then with the id they have.
    pub backups: Vec<Copied>,
    /// Why backups could not be copied, one line each.
    pub damaged: Vec<String>,
    /// What came of the log.
    pub log: LogCopied,
    /// Stored bytes of backups that were sent, or would be.
    pub bytes: u64,
}

impl CaughtUp {
    /// Whether there was nothing to do.
    pub fn is_nothing(&self) -> bool {
        self.backups.is_empty() && self.damaged.is_empty() && self.log.is_nothing()
    }
}

/// Copies what `to` lacks of a target: backups, then the log, so that the log reaches at least as far.
///
/// Of the backups those that are newer than the newest both have: what retention removed from one of them, or a person
/// did, does not come back from the other. `progress` hears of bytes sent and to be sent.
pub async fn catch_up(
    from: &Repository,
    to: &Repository,
    target: &TargetName,
    dry_run: bool,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<CaughtUp, Failure> {
    let (ours, theirs) = tokio::try_join!(catalog::entries(from, Some(target)), catalog::entries(to, Some(target)))?;
    let snapshots = newer(ours, &theirs);
    let mut caught_up = CaughtUp::default();
    // No locks where there is nothing to copy.
    if !snapshots.is_empty() {
        let copy = SnapshotCopy::plan(from, to, snapshots).await?;
        caught_up.bytes = copy.summary().bytes;
        if dry_run {
            let plan = copy.summary().clone();
            copy.release().await?;
            let same = |id: &backstay_core::BackupId| Copied { from: id.clone(), to: id.clone() };
            caught_up.backups = plan.snapshots.iter().map(|snapshot| same(&snapshot.id)).collect();
            caught_up.damaged = plan.damaged.into_iter().map(|damaged| damaged.why).collect();
        } else {
            let report = copy.perform(progress).await?;
            caught_up.backups = report.copied;
            caught_up.damaged = report.damaged.into_iter().map(|damaged| damaged.why).collect();
        }
    }
    caught_up.log = copy_log(from, to, target, LogCopyOptions { dry_run, compare: false }).await?;
    Ok(caught_up)
}

/// Copies what `to` lacks of a target's log.
pub async fn copy_log(
    from: &Repository,
    to: &Repository,
    target: &TargetName,
    options: LogCopyOptions,
) -> Result<LogCopied, Failure> {
    let (ours, mut theirs) = tokio::try_join!(open_log(from, target), open_log(to, target))?;
    Ok(ours.copy_to(&mut theirs, options, &|_| ()).await?)
}

/// Those of `ours` that are newer than the newest that is in `theirs` too; all where none is.
fn newer(ours: Vec<Entry>, theirs: &[Entry]) -> Vec<Snapshot> {
    let there: BTreeSet<_> = theirs.iter().map(|entry| same(&entry.snapshot)).collect();
    let shared = ours.iter().rposition(|entry| there.contains(&same(&entry.snapshot)));
    ours.into_iter().skip(shared.map_or(0, |shared| shared + 1)).map(|entry| entry.snapshot).collect()
}

/// What a backup keeps when it is copied.
fn same(snapshot: &Snapshot) -> (Timestamp, Id) {
    (snapshot.time, snapshot.tree)
}
