//! `backstay repo copy`: backups and logs into another repository, sealed anew with its key.

use crate::{
    catalog,
    context::Context,
    failure::{Failure, Result},
    output,
};
use backstay_core::{BackupId, TargetName};
use backstay_pipeline::{FailureKind, catalog::Entry, repository::open_log, transfer::copy_log};
use backstay_repo::{
    CopyPlan, CopyReport, Repository, Snapshot, SnapshotCopy,
    log::{LogChain, LogCopied, LogCopyOptions},
};
use serde::Serialize;
use std::collections::BTreeSet;

/// Arguments of `backstay repo copy`.
#[derive(Debug, clap::Args)]
pub(crate) struct CopyArgs {
    /// The repository to copy from
    from: String,
    /// The repository to copy into; `backstay repo init` makes one
    to: String,
    /// Only this target's backups and log
    #[arg(long, value_name = "TARGET")]
    target: Option<TargetName>,
    /// Only this backup (its id, or the first digits), with its target's log; may be given again
    #[arg(long, value_name = "ID")]
    backup: Vec<String>,
    /// No log
    #[arg(long)]
    no_log: bool,
    /// Show the plan and stop
    #[arg(long)]
    dry_run: bool,
}

/// A copy as `--json` shows it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct View<'a> {
    from: &'a str,
    to: &'a str,
    dry_run: bool,
    plan: PlanView<'a>,
    /// What was done; with `dry-run` nothing.
    #[serde(flatten)]
    report: &'a CopyReport,
    logs: &'a [LogView],
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct PlanView<'a> {
    #[serde(flatten)]
    backups: &'a CopyPlan,
    logs: &'a [LogView],
}

/// One target's log.
#[derive(Serialize)]
struct LogView {
    target: TargetName,
    #[serde(flatten)]
    log: LogCopied,
}

/// Plans, shows, copies.
pub(crate) fn run(args: &CopyArgs, context: &Context) -> Result<()> {
    let config = context.config()?;
    let (from, to) = (config.repository(&args.from)?, config.repository(&args.to)?);
    let (plan, planned, report, logs) = context.block_on(async {
        let (from, to) = (catalog::open(from).await?, catalog::open(to).await?);
        let (snapshots, targets) = choose(&from, args).await?;
        let copy = SnapshotCopy::plan(&from, &to, snapshots).await?;
        let (plan, planned) = (copy.summary().clone(), copy_logs(&from, &to, &targets, true).await);
        let planned = match planned {
            Ok(planned) => planned,
            Err(failure) => {
                copy.release().await?;
                return Err(failure);
            }
        };
        if !context.output().json {
            context.output().lines(&page(&plan, &planned))?;
        }
        if args.dry_run {
            copy.release().await?;
            return Ok((plan, planned, CopyReport::default(), Vec::new()));
        }
        let progress = context.progress();
        let shown = |done, total| {
            progress.update("copy", done, Some(total));
        };
        let report = copy.perform(shown).await?;
        drop(progress);
        let logs = copy_logs(&from, &to, &targets, false).await?;
        Ok((plan, planned, report, logs))
    })?;
    let view = View {
        from: &args.from,
        to: &args.to,
        dry_run: args.dry_run,
        plan: PlanView { backups: &plan, logs: &planned },
        report: &report,
        logs: &logs,
    };
    context.output().result(&view, summary(args.dry_run, &report, &logs))?;
    let damaged = if args.dry_run { &plan.damaged } else { &report.damaged };
    match damaged.first() {
        None => Ok(()),
        Some(first) => Err(Failure::new(
            FailureKind::Damaged,
            format!("failed to copy {} backups that are not whole: {}", damaged.len(), first.why),
        )
        .hint(format!("all others were copied; `backstay repo check {} --read-data` names what is damaged", args.from))
        .told()),
    }
}

/// The snapshots to copy, and the targets whose logs go with them.
async fn choose(from: &Repository, args: &CopyArgs) -> Result<(Vec<Snapshot>, BTreeSet<TargetName>)> {
    let snapshots = from.snapshots().await?;
    let mut targets: BTreeSet<TargetName> = LogChain::targets(from.store()).await?.into_iter().collect();
    if args.target.is_none() && args.backup.is_empty() {
        if args.no_log {
            targets.clear();
        }
        return Ok((snapshots, targets));
    }
    let entries = backstay_pipeline::catalog::entries(from, args.target.as_ref()).await?;
    let mut chosen: Vec<Snapshot> = entries.iter().map(|entry| entry.snapshot.clone()).collect();
    let mut wanted: BTreeSet<TargetName> = args.target.iter().cloned().collect();
    if let Some(target) = &args.target
        && chosen.is_empty()
        && !targets.contains(target)
    {
        return Err(Failure::usage(format!("failed to copy: repository `{}` holds nothing of `{target}`", args.from)));
    }
    if !args.backup.is_empty() {
        // Without a target also what other programs made.
        let among = if args.target.is_some() { chosen } else { snapshots };
        chosen = Vec::new();
        for prefix in &args.backup {
            let one = one(&among, prefix)?;
            wanted.extend(target_of(&entries, &one.id));
            if !chosen.iter().any(|other: &Snapshot| other.id == one.id) {
                chosen.push(one.clone());
            }
        }
    }
    targets.retain(|target| wanted.contains(target) && !args.no_log);
    Ok((chosen, targets))
}

fn target_of(entries: &[Entry], id: &BackupId) -> Option<TargetName> {
    entries.iter().find(|entry| entry.backup.id == *id).map(|entry| entry.backup.manifest.target.clone())
}

fn one<'a>(snapshots: &'a [Snapshot], prefix: &str) -> Result<&'a Snapshot> {
    let mut found = snapshots.iter().filter(|snapshot| !prefix.is_empty() && snapshot.id.as_str().starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => Err(Failure::usage(format!("failed to find backup `{prefix}`: several start like this"))
            .hint("give more digits")),
        (None, _) => Err(Failure::usage(format!("failed to find backup `{prefix}`: there is none"))
            .hint("`backstay backups` lists them")),
    }
}

async fn copy_logs(
    from: &Repository,
    to: &Repository,
    targets: &BTreeSet<TargetName>,
    dry_run: bool,
) -> Result<Vec<LogView>> {
    let mut logs = Vec::new();
    for target in targets {
        for damaged in open_log(from, target).await?.damaged() {
            tracing::warn!("{} cannot be copied: {}", damaged.object, damaged.why);
        }
        let log = copy_log(from, to, target, LogCopyOptions { dry_run, compare: true }).await?;
        logs.push(LogView { target: target.clone(), log });
    }
    Ok(logs)
}

fn page(plan: &CopyPlan, logs: &[LogView]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for snapshot in &plan.snapshots {
        let (time, size) = (output::seconds(snapshot.time), output::size(snapshot.bytes));
        let tags = snapshot.tags.join(" ");
        lines.push(format!("copies {} of {time} ({tags}): {} blobs, {size}", snapshot.id.short(), snapshot.blobs));
    }
    lines.extend(plan.there.iter().map(|same| format!("there is {} as {}", same.from.short(), same.to.short())));
    lines.extend(plan.damaged.iter().map(|damaged| format!("cannot copy {}: {}", damaged.object, damaged.why)));
    output::shorten(&mut lines, 0);
    for LogView { target, log } in logs {
        let size = output::size(log.bytes);
        lines.push(format!("copies {} pieces of the log of {target}, {size}; {} are there", log.pieces, log.there));
    }
    lines.push(format!("{} backups, {} to be sent", plan.snapshots.len(), output::size(plan.bytes)));
    lines.join("\n")
}

fn summary(dry_run: bool, report: &CopyReport, logs: &[LogView]) -> String {
    if dry_run {
        return "nothing was copied: this was a dry run".to_owned();
    }
    let lines = report.copied.iter().map(|copied| format!("{} -> {}\n", copied.from, copied.to));
    let log: u64 = logs.iter().map(|log| log.log.bytes).sum();
    format!(
        "{}copied {} backups, {} sent, and {} of log",
        lines.collect::<String>(),
        report.copied.len(),
        output::size(report.bytes),
        output::size(log)
    )
}
