//! `backstay forget`: drops backups by policy.

use crate::{
    catalog::{self, Catalog},
    command::{backups, prune},
    config::{Config, Repository, Target, advice},
    context::Context,
    failure::{Failure, Result},
    output::{self, Table},
};
use backstay_core::{
    Backup, BackupId, Chain, Confirmed, ForgetPlan, KeepReason, LogNeed, Period, Records, RetentionPolicy, TargetName,
    Timestamp, Window, plan_forget, plan_forget_named, windows,
};
use backstay_pipeline::FailureKind;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::SystemTime,
};

/// Arguments of `backstay forget`.
#[derive(Debug, clap::Args)]
pub(crate) struct ForgetArgs {
    /// A target of the configuration
    target: String,
    /// Drop this one (its id, or the first digits) and no other; may be given again
    #[arg(long, value_name = "ID", conflicts_with_all = COUNTS)]
    backup: Vec<String>,
    /// In this one of the target's repositories; else in its own
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,
    /// Show the plan and stop
    #[arg(long)]
    dry_run: bool,
    /// Do not tell what a prune frees: for that every backup of the repository is looked at
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    policy: PolicyArgs,
}

/// The options that say how many stay.
const COUNTS: [&str; 7] =
    ["keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly", "keep_within"];

/// A policy on the command line, in place of the configuration's.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Policy, in place of the configuration's")]
pub(crate) struct PolicyArgs {
    /// Keep the newest N
    #[arg(long, value_name = "N")]
    keep_last: Option<u32>,
    /// Keep the newest of each of the last N hours that have one
    #[arg(long, value_name = "N")]
    keep_hourly: Option<u32>,
    /// Keep the newest of each of the last N days that have one
    #[arg(long, value_name = "N")]
    keep_daily: Option<u32>,
    /// Keep the newest of each of the last N weeks that have one
    #[arg(long, value_name = "N")]
    keep_weekly: Option<u32>,
    /// Keep the newest of each of the last N months that have one
    #[arg(long, value_name = "N")]
    keep_monthly: Option<u32>,
    /// Keep the newest of each of the last N years that have one
    #[arg(long, value_name = "N")]
    keep_yearly: Option<u32>,
    /// Keep all that are at most this much older than the newest: 36h, 7d, 2w, 6mo, 1y
    #[arg(long, value_name = "PERIOD")]
    keep_within: Option<Period>,
    /// Keep what every moment of this time before the last restorable one needs
    #[arg(long, value_name = "PERIOD")]
    pitr_window: Option<Period>,
    /// Where hours, days and weeks begin
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    time_zone: Option<jiff::tz::TimeZone>,
}

fn zone(name: &str) -> Result<jiff::tz::TimeZone, String> {
    jiff::tz::TimeZone::get(name)
        .map_err(|_| "there is no such time zone, write one like UTC or Europe/Berlin".to_owned())
}

impl PolicyArgs {
    /// Whether anything was typed that keeps something, if it is not 0.
    fn keeps(&self) -> bool {
        let counts =
            [self.keep_last, self.keep_hourly, self.keep_daily, self.keep_weekly, self.keep_monthly, self.keep_yearly];
        counts.iter().any(Option::is_some) || self.keep_within.is_some() || self.pitr_window.is_some()
    }

    /// The policy that was typed; nothing where none was. Of the configuration's only the time zone counts then; a time
    /// zone alone is that for the configuration's policy.
    fn typed(&self, configured: Option<&RetentionPolicy>) -> Result<Option<RetentionPolicy>> {
        let count = |typed: Option<u32>| typed.unwrap_or(0);
        let zone = self.time_zone.clone().or_else(|| Some(configured?.time_zone.clone()));
        if !self.keeps() {
            let zoned = |policy: &RetentionPolicy| Some(RetentionPolicy { time_zone: zone.clone()?, ..policy.clone() });
            return Ok(configured.and_then(zoned));
        }
        let policy = RetentionPolicy {
            last: count(self.keep_last),
            hourly: count(self.keep_hourly),
            daily: count(self.keep_daily),
            weekly: count(self.keep_weekly),
            monthly: count(self.keep_monthly),
            yearly: count(self.keep_yearly),
            within: self.keep_within,
            pitr_window: self.pitr_window,
            time_zone: zone.unwrap_or(jiff::tz::TimeZone::UTC),
        };
        if policy.is_empty() {
            return Err(Failure::usage("failed to forget backups: the policy that was typed keeps nothing")
                .hint("keep one at least: --keep-last 1"));
        }
        Ok(Some(policy))
    }
}

/// A plan as `--json` shows it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct View<'a> {
    target: &'a TargetName,
    dry_run: bool,
    kept: Vec<KeptView<'a>>,
    forgotten: Vec<BackupView<'a>>,
    /// What would go if the store did not keep it for a while.
    waiting: Vec<WaitingView<'a>>,
    log: &'a LogNeed,
    /// What a prune frees then; nothing where that was not looked at.
    bytes_freed: Option<u64>,
    /// Where the target can be restored to afterwards.
    windows: Vec<Window>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct BackupView<'a> {
    id: &'a BackupId,
    finished: Timestamp,
    bytes: u64,
}

#[derive(Serialize)]
struct WaitingView<'a> {
    #[serde(flatten)]
    backup: BackupView<'a>,
    /// Until when the store keeps it; nothing where it would not say.
    until: Option<Timestamp>,
}

#[derive(Serialize)]
struct KeptView<'a> {
    #[serde(flatten)]
    backup: BackupView<'a>,
    reasons: &'a [KeepReason],
}

impl<'a> BackupView<'a> {
    fn of(backup: &'a Backup) -> Self {
        Self { id: &backup.id, finished: backup.manifest.finished, bytes: backup.manifest.bytes }
    }
}

/// Plans, shows, forgets.
pub(crate) fn run(args: &ForgetArgs, context: &Context) -> Result<()> {
    let config = context.config()?;
    let target = config.target(&args.target)?;
    let policy = policy(args, target, &config)?;
    let repository = repository(args, target, &config)?;
    let now = Timestamp::from(SystemTime::now());
    context.block_on(async {
        let open = catalog::open(repository).await?;
        let known = Catalog::of(&repository.name, &open, &target.name).await?;
        let named: BTreeSet<BackupId> = args
            .backup
            .iter()
            .map(|prefix| Ok(backups::among(&known.records, prefix)?.backup.id.clone()))
            .collect::<Result<_>>()?;
        let pins: BTreeMap<BackupId, String> = known
            .records
            .iter()
            .filter_map(|record| Some((record.backup.id.clone(), record.pinned.clone()?)))
            .collect();
        let backups: Vec<Backup> = known.records.into_iter().map(|record| record.backup).collect();
        let (chain, confirmed) = (&known.chain, known.confirmed.as_ref());
        let records = Records { target: &target.name, backups: &backups, chain, confirmed, now };
        let plan = match named.is_empty() {
            true => plan_forget(records, &policy, &pins),
            false => plan_forget_named(records, &policy, &pins, &named).map_err(|needed| {
                Failure::new(FailureKind::Conflict, format!("failed to forget what was named: {needed}"))
                    .hint("unpin it, or shorten the policy's pitr-window")
            })?,
        };
        let mut waiting: BTreeMap<BackupId, Option<Timestamp>> =
            open.retained_backups().await?.into_iter().map(|(id, until)| (id, Some(until))).collect();
        let going = plan.forgotten().map(|backup| backup.id.clone()).filter(|id| !waiting.contains_key(id));
        let going: BTreeSet<BackupId> = going.collect();
        let bytes_freed = match args.quick || going.is_empty() {
            true => None,
            // A prune that is at work takes away what is looked at: nobody forgets less for that.
            false => prune::freed_without(&open, &config, &going, context)
                .await
                .inspect_err(|error| tracing::warn!("failed to tell what a prune frees: {}", error.message()))
                .ok(),
        };
        if !context.output().json {
            context.output().lines(table(args, &plan, &waiting).trim_end())?;
            if let Some(bytes) = bytes_freed {
                context.output().lines(&format!("a prune frees {} then", output::size(bytes)))?;
            }
        }
        if !args.dry_run && !going.is_empty() {
            let stays: Vec<BackupId> = plan.kept().map(|backup| backup.id.clone()).collect();
            waiting
                .extend(open.forget(&Vec::from_iter(going), &stays).await?.into_iter().map(|refused| (refused, None)));
        }
        let view = View {
            target: &plan.target,
            dry_run: args.dry_run,
            kept: plan
                .decisions
                .iter()
                .filter(|decision| decision.stays())
                .map(|d| KeptView { backup: BackupView::of(&d.backup), reasons: &d.reasons })
                .collect(),
            forgotten: plan.forgotten().filter(|b| !waiting.contains_key(&b.id)).map(BackupView::of).collect(),
            waiting: plan
                .forgotten()
                .filter_map(|b| Some(WaitingView { backup: BackupView::of(b), until: *waiting.get(&b.id)? }))
                .collect(),
            log: &plan.log,
            bytes_freed,
            windows: left(&plan, &waiting, chain, confirmed),
        };
        let configured = target.retention.as_ref().map(|policy| policy.pitr_window);
        let strange = configured.filter(|window| *window != policy.pitr_window).is_some();
        context.output().result(&view, page(&plan, &view, repository.name.as_str(), strange))
    })
}

/// Which of the target's repositories is meant.
fn repository<'a>(args: &ForgetArgs, target: &Target, config: &'a Config) -> Result<&'a Repository> {
    let Some(name) = &args.repository else { return config.repository(target.repository.as_str()) };
    let its_own = config.repositories_of(target)?;
    let known = its_own.iter().map(|repository| repository.name.as_str());
    its_own.iter().copied().find(|repository| repository.name.as_str() == name).ok_or_else(|| {
        let advice = advice(name, known);
        Failure::usage(format!(
            "failed to forget backups of `{}`: `{name}` is none of its repositories{advice}",
            target.name
        ))
    })
}

fn policy(args: &ForgetArgs, target: &Target, config: &Config) -> Result<RetentionPolicy> {
    let policy = args.policy.typed(target.retention.as_ref())?.or_else(|| target.retention.clone());
    // Who names backups needs no policy; where there is one, its window is kept all the same.
    let policy = policy.or_else(|| (!args.backup.is_empty()).then(RetentionPolicy::default));
    policy.ok_or_else(|| {
        Failure::usage(format!("failed to forget backups of `{}`: it has no retention policy", target.name)).hint(
            format!(
                "write [targets.{}.retention] into {}, or type one: --keep-daily 7 --pitr-window 7d",
                target.name,
                config.file.display()
            ),
        )
    })
}

/// The windows that are left when the log that is needed no more is gone as well.
fn left(
    plan: &ForgetPlan,
    waiting: &BTreeMap<BackupId, Option<Timestamp>>,
    chain: &Chain,
    confirmed: Option<&Confirmed>,
) -> Vec<Window> {
    let waits = plan.forgotten().filter(|backup| waiting.contains_key(&backup.id));
    let kept: Vec<Backup> = plan.kept().chain(waits).cloned().collect();
    windows(&kept, &chain.without(&plan.log.superfluous(chain)), confirmed)
}

/// What goes, what stays, and why.
fn table(args: &ForgetArgs, plan: &ForgetPlan, waiting: &BTreeMap<BackupId, Option<Timestamp>>) -> String {
    let mut table = Table::new(&["", "id", "time", ">size", "why"]);
    for decision in &plan.decisions {
        let named = if args.backup.is_empty() { "no rule keeps it" } else { "named" };
        let until = waiting.get(&decision.backup.id).copied().flatten();
        let (mark, why) = match (decision.reasons.as_slice(), until) {
            ([], None) => ("goes", named.to_owned()),
            ([], Some(until)) => ("waits", format!("{named}; the store keeps it until {}", output::seconds(until))),
            (reasons, _) => ("stays", reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        };
        let manifest = &decision.backup.manifest;
        table.row([
            mark.to_owned(),
            decision.backup.id.short().to_owned(),
            output::seconds(manifest.finished),
            output::size(manifest.bytes),
            why,
        ]);
    }
    table.to_string()
}

/// What comes of it.
fn page(plan: &ForgetPlan, view: &View<'_>, repository: &str, strange_window: bool) -> String {
    let mut text = String::new();
    for refused in view.waiting.iter().filter(|waiting| waiting.until.is_none()) {
        let id = refused.backup.id.short();
        // Writing into a text cannot fail, here and below.
        let _ = writeln!(text, "{id} waits: the store would not let it go, try again later");
    }
    let _ = match (&plan.log.from, &plan.log.because_of) {
        (Some(from), Some(backup)) => {
            writeln!(text, "log: needed from {} on, by backup {}", from.label, backup.short())
        }
        _ => writeln!(text, "log: all of it stays"),
    };
    for window in &view.windows {
        let _ = writeln!(text, "restorable afterwards: {window}");
    }
    if strange_window {
        let _ = writeln!(text, "a prune keeps log by the pitr-window of the configuration, which is another one");
    }
    let (gone, kept) = (view.forgotten.len(), view.kept.len() + view.waiting.len());
    let done = if view.dry_run { "would forget" } else { "forgot" };
    let _ = writeln!(text, "{done} {gone} of {} backups", gone + kept);
    if gone > 0 {
        let _ = writeln!(text, "their space is freed by `backstay prune {repository}`");
    }
    text
}

#[cfg(test)]
mod tests;
