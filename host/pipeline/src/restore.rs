//! A restore: plan, show, perform.

#[cfg(test)]
mod tests;

use crate::{
    backup::repository_of,
    backup_source::Source,
    catalog, confinement,
    first_failure::FirstFailure,
    job::{Event, Failure, FailureKind, RestoreSpec, RestoreSummary, RestoreTo},
    log_source::Stretch,
    repository,
    work::Work,
};
use backstay_core::{Backup, Chain, PlanError, Position, RestorePlan, RestoreRequest, Segment, Target, Volume};
use backstay_repo::{
    LockKind, Repository,
    log::{DamagedObject, LogChain},
};
use backstay_sandbox::{JobContext, Place, RecoveryTarget, Reporter, RestoreJob};
use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
};

/// What a plugin writes in a next step for the folder, whose place it does not know.
const FOLDER: &str = "FOLDER";

pub(crate) async fn run(work: &Work, spec: &RestoreSpec) -> Result<RestoreSummary, Failure> {
    let repository = repository::open(repository_of(&work.spec.repository)?).await?;
    // Shared: nobody prunes what is being read. Whether a prune came at the same moment is seen meanwhile.
    let lock = repository.begin_lock(LockKind::Shared).await?;
    let settled = async {
        match spec.dry_run {
            // A plan is made of what is read once, and is judged again before it is followed.
            true => Ok(()),
            false => lock.settle().await.map_err(Failure::from),
        }
    };
    let result = tokio::try_join!(with_lock(work, spec, &repository), settled);
    lock.release().await?;
    result.map(|(summary, ())| summary)
}

async fn with_lock(work: &Work, spec: &RestoreSpec, repository: &Repository) -> Result<RestoreSummary, Failure> {
    let target = &work.spec.target;
    let backups = catalog::readable_backups(repository, &target.name, spec.backup.as_ref()).await?;
    if backups.is_empty() {
        // What cannot be read may be the one: then that is what to tell.
        catalog::entries(repository, Some(&target.name)).await?;
    }
    let log = Arc::new(repository::open_log(repository, &target.name).await?);
    let confirmed = log.confirmed().await?;
    let request = RestoreRequest {
        target: resolve(work, spec, &backups, &log).await?,
        inclusive: spec.inclusive,
        backup: spec.backup.clone(),
        epoch: None,
        now: work.reporter.now(),
    };
    let plan = RestorePlan::new(&backups, log.chain(), confirmed.as_ref(), &request);
    let mut plan = plan.map_err(|error| unreadable(log.damaged(), &error).unwrap_or_else(|| error.into()))?;
    refuse_cut_off(log.damaged(), &plan, &spec.to)?;
    let backup = backups
        .into_iter()
        .find(|backup| backup.id == plan.backup)
        .ok_or_else(|| Failure::new(FailureKind::Failed, "the plan names a backup that is gone"))?;
    let volumes = volumes(&backup, spec)?;
    plan.explanation.extend(volumes.iter().map(|volume| format!("volume   {} -> {}", volume.title, volume.location)));
    let mut summary = RestoreSummary {
        plan,
        dry_run: spec.dry_run,
        volumes,
        // The parent knows: this process may not look into folders that it learned of just now.
        swept: Vec::new(),
        files: 0,
        bytes: 0,
        kept_bytes: 0,
        log_bytes: 0,
        finished: work.reporter.now(),
        next_steps: Vec::new(),
    };
    if spec.dry_run {
        work.reporter.event(Event::Plan(Box::new(summary.plan.clone())));
        return Ok(summary);
    }
    perform(work, spec, repository, log, &backup, &mut summary).await?;
    summary.finished = work.reporter.now();
    Ok(summary)
}

/// Log that is there and cannot be read is no gap: a copy of it may exist elsewhere.
fn unreadable(damaged: &[DamagedObject], error: &PlanError) -> Option<Failure> {
    let object = damaged.first().filter(|_| matches!(error, PlanError::Gap { .. }))?;
    Some(Failure::new(FailureKind::Damaged, format!("{error}; {}", object.why)).hint(error.hint()))
}

/// A piece that cannot be read at the log's end only makes the log look shorter. Whoever wants all
/// of it has to know.
fn refuse_cut_off(damaged: &[DamagedObject], plan: &RestorePlan, to: &RestoreTo) -> Result<(), Failure> {
    if !plan.at_end_of_log || !matches!(to, RestoreTo::Latest | RestoreTo::Time(_)) {
        return Ok(());
    }
    let end = plan.pieces.last().map_or(&plan.consistent.position, |piece| &piece.end);
    match damaged.iter().find(|damaged| damaged.place >= Some((end.epoch, end.offset))) {
        None => Ok(()),
        Some(lost) => Err(Failure::new(
            FailureKind::Damaged,
            format!("failed to restore all of the log: behind {} {}", end.label, lost.why),
        )
        .hint(format!("restore what is whole with --to 'position:{}'", end.label))),
    }
}

async fn perform(
    work: &Work,
    spec: &RestoreSpec,
    repository: &Repository,
    log: Arc<LogChain>,
    backup: &Backup,
    summary: &mut RestoreSummary,
) -> Result<(), Failure> {
    let into = work
        .opened
        .restore_into
        .clone()
        .ok_or_else(|| Failure::new(FailureKind::Failed, "the folder to restore into was not opened"))?;
    let reader = repository.open_snapshot(&backup.id).await?;
    let notes = backup.manifest.notes.clone();
    let failed = Arc::new(FirstFailure::default());
    let source = Arc::new(Source::new(reader, notes, backup.manifest.bytes, work.reporter.clone(), failed.clone()));
    let plan = &summary.plan;
    let stretch = Arc::new(Stretch::new(log, plan.pieces.clone(), failed.clone()));
    let job = RestoreJob {
        target: told(spec, plan),
        inclusive: spec.inclusive,
        epoch: Some(plan.epoch),
        volumes: summary.volumes.clone(),
        delta: spec.delta,
    };
    let mut context = without_grants(work, "restore");
    for volume in &summary.volumes {
        context.directories.insert(volume.name.clone(), confinement::open_volume(Path::new(&volume.location))?);
    }
    let report = work.plugin.restore(context, job, source.clone(), Some(stretch.clone()), into).await;
    let report = failed.judge(report)?;
    let placed = source.placed();
    summary.files = placed.files;
    summary.bytes = placed.bytes;
    summary.kept_bytes = placed.kept_bytes;
    summary.log_bytes = stretch.placed_bytes.load(Ordering::Relaxed);
    let folder = spec.into.display().to_string();
    summary.next_steps = report.next_steps.iter().map(|step| step.replace(FOLDER, &folder)).collect();
    Ok(())
}

/// A restore needs folders and bytes; it has no business with the database.
fn without_grants(work: &Work, job: &'static str) -> JobContext {
    let mut context = work.context(job);
    context.grants = Default::default();
    context.directories.clear();
    context
}

/// A time or position behind the last thing in the log means all of the log: a database that
/// is told to stop there would wait for a record that does not exist.
fn told(spec: &RestoreSpec, plan: &RestorePlan) -> RecoveryTarget {
    match (&spec.to, plan.effective_target()) {
        (RestoreTo::Time(_) | RestoreTo::Position(_), Target::Latest) => RecoveryTarget::Latest,
        (RestoreTo::Time(_) | RestoreTo::Position(_), Target::BackupEnd) => RecoveryTarget::BackupEnd,
        (to, _) => native(to),
    }
}

fn native(to: &RestoreTo) -> RecoveryTarget {
    match to {
        RestoreTo::Latest => RecoveryTarget::Latest,
        RestoreTo::BackupEnd => RecoveryTarget::BackupEnd,
        RestoreTo::Time(time) => RecoveryTarget::Time(*time),
        RestoreTo::Position(label) => RecoveryTarget::Position(label.clone()),
        RestoreTo::Transaction(id) => RecoveryTarget::Transaction(id.clone()),
        RestoreTo::Name(name) => RecoveryTarget::Name(name.clone()),
    }
}

/// The backup's volumes with the chosen locations; where none was chosen, the original one.
fn volumes(backup: &Backup, spec: &RestoreSpec) -> Result<Vec<Volume>, Failure> {
    let known = &backup.manifest.volumes;
    for name in spec.volumes.keys() {
        if !known.iter().any(|volume| volume.name == *name || volume.title == *name) {
            let names: Vec<&str> = known.iter().map(|volume| volume.title.as_str()).collect();
            return Err(Failure::new(
                FailureKind::Usage,
                format!("backup {} has no volume `{name}`", backup.id.short()),
            )
            .hint(if names.is_empty() {
                "it has none".to_owned()
            } else {
                format!("it has: {}", names.join(", "))
            }));
        }
    }
    let chosen = known.iter().map(|volume| {
        let location = spec.volumes.get(&volume.name).or_else(|| spec.volumes.get(&volume.title));
        let location = location.map_or_else(|| volume.location.clone(), |path| path.display().to_string());
        if !Path::new(&location).is_absolute() {
            let message = format!("failed to restore volume `{}`: the backup knows no folder for it", volume.title);
            return Err(Failure::new(FailureKind::Usage, message)
                .hint(format!("choose an empty folder with --map {}=DIR", volume.name)));
        }
        Ok(Volume { location, ..volume.clone() })
    });
    chosen.collect()
}

/// Positions, transactions and names mean something only to the engine.
async fn resolve(work: &Work, spec: &RestoreSpec, backups: &[Backup], log: &Arc<LogChain>) -> Result<Target, Failure> {
    let (label, kind) = match &spec.to {
        RestoreTo::Latest => return Ok(Target::Latest),
        RestoreTo::BackupEnd => return Ok(Target::BackupEnd),
        RestoreTo::Time(time) => return Ok(Target::Time(*time)),
        RestoreTo::Position(label) => {
            let found = work.plugin.locate(without_grants(work, "locate"), native(&spec.to), None).await?;
            return match found {
                Some(place) => Ok(as_target(place, label)),
                None => Err(Failure::new(FailureKind::Usage, format!("`{label}` is no position of this engine"))),
            };
        }
        RestoreTo::Transaction(id) => (id, "transaction"),
        RestoreTo::Name(name) => (name, "restore point"),
    };
    // Newest backup first: a name that was used twice means its last use.
    for stretch in stretches(backups, log.chain()) {
        work.reporter.progress("search", 0, None);
        let failed = Arc::new(FirstFailure::default());
        let source = Arc::new(Stretch::new(log.clone(), stretch, failed.clone()));
        let found = work.plugin.locate(without_grants(work, "locate"), native(&spec.to), Some(source)).await;
        if let Some(place) = failed.judge(found)? {
            return Ok(as_target(place, label));
        }
    }
    Err(Failure::new(FailureKind::OutsideWindow, format!("{kind} `{label}` is not in the archived log"))
        .hint(format!("see `backstay window {}` for what the log covers", work.spec.target.name)))
}

fn as_target(place: Place, label: &str) -> Target {
    Target::Place { epoch: place.epoch, offset: place.offset, label: label.to_owned() }
}

/// The log behind each backup up to the next one's end, on the newest line of history.
fn stretches(backups: &[Backup], chain: &Chain) -> Vec<Vec<Segment>> {
    let Some(newest) = chain.newest() else { return Vec::new() };
    let line = chain.line(newest);
    let mut starts: Vec<(&Position, &Position)> = backups
        .iter()
        .filter(|backup| line.spot(&backup.manifest.end).is_some())
        .map(|backup| (&backup.manifest.log_from, &backup.manifest.end))
        .collect();
    starts.sort_by_key(|(_, end)| line.spot(end));
    let mut stretches = Vec::new();
    let mut until: Option<&Position> = None;
    for (from, end) in starts.into_iter().rev() {
        let Some(walk) = chain.walk(&line, from) else { continue };
        let wanted = walk.pieces.iter().filter(|stride| {
            until.is_none_or(|until| line.spot(&stride.piece.start).is_none_or(|at| Some(at) <= line.spot(until)))
        });
        stretches.push(wanted.map(|stride| stride.piece.clone()).collect());
        until = Some(end);
    }
    stretches
}
