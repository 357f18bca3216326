//! `backstay prune`: frees what nothing refers to.

use crate::{
    catalog,
    config::Config,
    context::Context,
    failure::{Failure, Result},
    limits::LOCK_RETRY,
    output::{self, Table},
    progress::Progress,
};
use backstay_core::{BackupId, LogNeed, Records, TargetName, Timestamp, log_needed};
use backstay_pipeline::repository::open_log;
use backstay_repo::{
    Lock, LockKind, PruneOptions, PrunePlan, PruneProgress, PruneReport, RepoErrorKind, Repository,
    log::{LogChain, TrimPlan},
};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// Arguments of `backstay prune`.
#[derive(Debug, clap::Args)]
pub(crate) struct PruneArgs {
    /// A repository of the configuration
    #[arg(value_name = "REPO")]
    repository: String,
    /// So many per cent of what stays may be unused: packs that hold some are copied only as far as needed
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, value_parser = percent)]
    max_unused: f64,
    /// Read at most so much to copy what is used: 500 MiB, 10 GiB
    #[arg(long, value_name = "SIZE", value_parser = output::parse_size)]
    max_repack: Option<u64>,
    /// Wait so long for backups and restores that hold a lock: 90s, 30m, 2h
    #[arg(long, value_name = "PERIOD", value_parser = wait)]
    wait: Option<Duration>,
    /// Show the plan and stop
    #[arg(long)]
    dry_run: bool,
}

fn wait(text: &str) -> Result<Duration, String> {
    let span = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    span.ok_or_else(|| "write a time like 90s, 30m or 2h".to_owned())
}

/// Takes the exclusive lock, again and again until `wait` is over.
async fn lock(repository: &Repository, wait: Option<Duration>) -> Result<Lock> {
    let end = Instant::now() + wait.unwrap_or_default();
    loop {
        match repository.lock(LockKind::Exclusive).await {
            Err(error) if error.kind() == RepoErrorKind::Locked && Instant::now() < end => {
                tracing::info!(%error, "waiting for the lock");
                tokio::time::sleep(LOCK_RETRY.min(end.saturating_duration_since(Instant::now()))).await;
            }
            taken => return Ok(taken?),
        }
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.trim_end_matches('%').parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
    percent.ok_or_else(|| "write a number from 0 to 100".to_owned())
}

/// What happens to one target's log.
#[derive(Serialize)]
struct LogView {
    target: TargetName,
    need: LogNeed,
    #[serde(flatten)]
    plan: TrimPlan,
    #[serde(skip)]
    log: LogChain,
    /// Objects that are left because the store would not let one go.
    refused: u64,
}

/// What `--json` shows.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct View<'a> {
    repository: &'a str,
    dry_run: bool,
    plan: &'a PrunePlan,
    logs: &'a [LogView],
    /// What is freed, or would be.
    bytes_freed: u64,
    /// Nothing with `--dry-run`.
    done: Option<PruneReport>,
}

/// Plans, shows, prunes.
pub(crate) fn run(args: &PruneArgs, context: &Context) -> Result<()> {
    let config = context.config()?;
    let repository = config.repository(&args.repository)?;
    let options = PruneOptions {
        unused_percent_max: args.max_unused,
        repack_bytes_max: args.max_repack.unwrap_or(PruneOptions::default().repack_bytes_max),
    };
    let progress = context.progress();
    let shown = |at| tell(&progress, at);
    context.block_on(async {
        let open = catalog::open(repository).await?;
        if args.dry_run {
            let plan = open.plan_prune(&options, &shown).await?;
            let logs = plan_logs(&open, &config, &BTreeSet::new()).await?;
            return show(args, context, &plan, &logs, None);
        }
        let lock = Arc::new(lock(&open, args.wait).await?);
        let done = async {
            let plan = open.plan_prune(&options, &shown).await?;
            let mut logs = plan_logs(&open, &config, &BTreeSet::new()).await?;
            progress.finish();
            if !context.output().json {
                context.output().lines(&page(args, &plan, &logs))?;
            }
            let report = open.prune(&lock, plan.clone(), &shown).await?;
            lock.confirm().await?;
            for log in &mut logs {
                log.refused = log.log.trim(&lock, &log.plan).await?;
            }
            Ok::<_, Failure>((plan, logs, report))
        };
        let done = done.await;
        lock.give_back().await?;
        let (plan, logs, report) = done?;
        show(args, context, &plan, &logs, Some(report))
    })
}

fn tell(progress: &Progress, at: PruneProgress) {
    match at {
        PruneProgress::Marking { trees } => progress.update(&format!("looking what is used, folder {trees}"), 0, None),
        PruneProgress::Repacking { packs_done, packs_total, bytes } => {
            progress.update(&format!("copying pack {packs_done} of {packs_total}"), bytes, None);
        }
        PruneProgress::Removing { packs_done, packs_total } => {
            progress.update(&format!("removing pack {packs_done} of {packs_total}"), 0, None);
        }
    }
}

/// What a prune as it is without options would free once these backups are forgotten.
pub(super) async fn freed_without(
    repository: &Repository,
    config: &Config,
    forgotten: &BTreeSet<BackupId>,
    context: &Context,
) -> Result<u64> {
    let progress = context.progress();
    let shown = |at| tell(&progress, at);
    let packs = repository.bytes_freed_without(forgotten, &PruneOptions::default(), &shown).await;
    progress.finish();
    let logs = plan_logs(repository, config, forgotten).await?;
    Ok(packs? + log_bytes(&logs))
}

/// Every log of the repository, also of targets that the configuration does not know: for those log stays as long as
/// the oldest backup. Those that are `forgotten` need none.
async fn plan_logs(repository: &Repository, config: &Config, forgotten: &BTreeSet<BackupId>) -> Result<Vec<LogView>> {
    let now = Timestamp::from(SystemTime::now());
    let mut logs = Vec::new();
    // Backups first: the log that is listed later reaches at least as far. All at once: each has its manifest read.
    let all = backstay_pipeline::catalog::entries(repository, None).await?;
    for target in LogChain::targets(repository.store()).await? {
        let known = config.targets.get(&target).and_then(|target| target.retention.clone());
        let policy = known.unwrap_or_default();
        let of_target = all.iter().map(|entry| &entry.backup).filter(|backup| backup.manifest.target == target);
        let backups: Vec<_> = of_target.filter(|backup| !forgotten.contains(&backup.id)).cloned().collect();
        let log = open_log(repository, &target).await?;
        let confirmed = log.confirmed().await?;
        let records =
            Records { target: &target, backups: &backups, chain: log.chain(), confirmed: confirmed.as_ref(), now };
        let need = log_needed(records, &policy);
        let plan = log.plan_trim(&need).await?;
        logs.push(LogView { target, need, plan, log, refused: 0 });
    }
    Ok(logs)
}

fn log_bytes(logs: &[LogView]) -> u64 {
    logs.iter().map(|log| log.plan.bytes).sum()
}

fn show(
    args: &PruneArgs,
    context: &Context,
    plan: &PrunePlan,
    logs: &[LogView],
    done: Option<PruneReport>,
) -> Result<()> {
    let refused = done.as_ref().map_or(0, |report| report.refused) + logs.iter().map(|log| log.refused).sum::<u64>();
    let bytes_freed = match &done {
        Some(report) if refused > 0 => {
            let trimmed = logs.iter().filter(|log| log.refused == 0).map(|log| log.plan.bytes).sum::<u64>();
            report.bytes_removed.saturating_sub(report.bytes_repacked) + trimmed
        }
        _ => plan.bytes_freed() + log_bytes(logs),
    };
    let text = match refused {
        _ if done.is_none() => format!("{}would free {}\n", page(args, plan, logs), output::size(bytes_freed)),
        // The plan was shown before.
        0 => format!("freed {}\n", output::size(bytes_freed)),
        refused => format!(
            "freed {}; the store would not let {refused} objects go: prune again once their time is over\n",
            output::size(bytes_freed)
        ),
    };
    let view = View { repository: &args.repository, dry_run: args.dry_run, plan, logs, bytes_freed, done };
    context.output().result(&view, text)
}

fn page(args: &PruneArgs, plan: &PrunePlan, logs: &[LogView]) -> String {
    let mut table = Table::new(&["", ">packs", ">size", "why"]);
    let sum = |packs: &std::collections::BTreeMap<_, u64>| packs.values().sum::<u64>();
    let mut row = |what: &str, packs: usize, bytes: u64, why: String| {
        if packs > 0 {
            table.row([what.to_owned(), packs.to_string(), output::size(bytes), why]);
        }
    };
    row("goes", plan.unused.len(), sum(&plan.unused), "no backup refers to anything in them".to_owned());
    let left = "no index names them: an interrupted writer left them".to_owned();
    row("goes", plan.unreferenced.len(), sum(&plan.unreferenced), left);
    let repacked = plan.repack.iter().map(|repack| repack.bytes).sum();
    let why = format!("{} in them is used, and is copied into new packs", output::size(plan.bytes_repacked()));
    row("repacked", plan.repack.len(), repacked, why);
    if let Some(until) = plan.waiting.until {
        let why = format!("nothing in them is used, but the store keeps them until {}", output::seconds(until));
        row("waits", plan.waiting.packs.len(), sum(&plan.waiting.packs), why);
    }
    let gone: u64 = sum(&plan.unused) + sum(&plan.unreferenced) + sum(&plan.waiting.packs) + repacked;
    let stays = (plan.packs - plan.packs_removed()) as usize - plan.waiting.packs.len();
    let why = match plan.unused_bytes_left {
        0 => format!("{} backups use all of it", plan.snapshots),
        unused if unused == plan.unused_bytes_kept => {
            format!("{} in them is unused, and the store keeps them for now", output::size(unused))
        }
        unused => format!(
            "{} in them is unused: copying the rest would cost more (--max-unused {}%)",
            output::size(unused),
            args.max_unused
        ),
    };
    row("stays", stays, plan.bytes - gone, why);
    let mut text = table.to_string();
    for log in logs {
        let need = match (&log.need.from, &log.need.because_of) {
            (Some(from), Some(backup)) => format!("backup {} needs it from {} on", backup.short(), from.label),
            _ => "there is no backup to go on from".to_owned(),
        };
        // Writing into a text cannot fail.
        let _ = writeln!(
            text,
            "log of {}: {} pieces, {} go; {} pieces, {} stay: {need}",
            log.target,
            log.plan.objects,
            output::size(log.plan.bytes),
            log.plan.objects_left,
            output::size(log.plan.bytes_left),
        );
        if let Some(until) = log.plan.waiting_until {
            let (objects, until) = (log.plan.objects_waiting, output::seconds(until));
            let _ =
                writeln!(text, "log of {}: {objects} of those wait, the store keeps them until {until}", log.target);
        }
    }
    text
}
