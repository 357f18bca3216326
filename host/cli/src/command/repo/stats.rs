//! `backstay repo stats`: what a repository holds, and for whom.

use super::RepoArgs;
use crate::{
    catalog,
    context::Context,
    failure::{Failure, Result},
    output::{self, Fields, Table},
};
use backstay_core::{BackupId, TargetName, Timestamp};
use backstay_pipeline::{FailureKind, repository::open_log};
use backstay_repo::{
    LockKind, RepoErrorKind, Repository, Snapshot, Stats, StatsProgress, Usage,
    log::{LogChain, LogUsage},
};
use serde::Serialize;
use std::collections::BTreeMap;

/// What a repository holds, as `--json` shows it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct View<'a> {
    repository: &'a str,
    /// Everything that backups and other programs' snapshots use.
    all: &'a Usage,
    targets: Vec<TargetView>,
    backups: Vec<BackupView>,
    packs: u64,
    pack_bytes: u64,
    unindexed_packs: u64,
    index_files: u64,
    indexed_blobs: u64,
    /// What a prune could free.
    unreferenced_bytes: u64,
}

/// What is there of one target.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct TargetView {
    /// Nothing: snapshots that another program made, or that hold no backup.
    target: Option<TargetName>,
    #[serde(flatten)]
    usage: Usage,
    log: LogUsage,
}

/// What one backup brought that no older one had.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct BackupView {
    id: BackupId,
    target: Option<TargetName>,
    time: Timestamp,
    restore_bytes: u64,
    files: u64,
    added_plain_bytes: u64,
    added_stored_bytes: u64,
}

/// Counts and shows.
pub(crate) fn run(args: &RepoArgs, context: &Context) -> Result<()> {
    let config = context.config()?;
    let repository = config.repository(&args.repository)?;
    let (targets, backups, stats) = context.block_on(async {
        let open = catalog::open(repository).await?;
        // Shared: nobody prunes what is being counted.
        let lock = open.lock(LockKind::Shared).await?;
        let counted = count(&open, context).await;
        lock.release().await?;
        counted
    })?;
    let text = page(&targets, &backups, &stats);
    let view = View {
        repository: &args.repository,
        all: &stats.all,
        targets,
        backups,
        packs: stats.packs,
        pack_bytes: stats.pack_bytes,
        unindexed_packs: stats.unindexed_packs,
        index_files: stats.index_files,
        indexed_blobs: stats.indexed_blobs,
        unreferenced_bytes: stats.unreferenced_bytes,
    };
    context.output().result(&view, text)
}

async fn count(open: &Repository, context: &Context) -> Result<(Vec<TargetView>, Vec<BackupView>, Stats)> {
    let entries = backstay_pipeline::catalog::entries(open, None).await?;
    let owners: BTreeMap<BackupId, TargetName> =
        entries.into_iter().map(|entry| (entry.backup.id, entry.backup.manifest.target)).collect();
    let logs = LogChain::targets(open.store()).await?;
    let snapshots = open.snapshots().await?;
    // What is nobody's comes last.
    let mut names: Vec<Option<TargetName>> = owners.values().chain(&logs).cloned().map(Some).collect();
    names.extend(snapshots.iter().any(|snapshot| !owners.contains_key(&snapshot.id)).then_some(None));
    names.sort_by_key(|name| (name.is_none(), name.clone()));
    names.dedup();
    let group = |snapshot: &Snapshot| names.iter().position(|name| *name == owners.get(&snapshot.id).cloned());
    let grouped: Vec<(Snapshot, usize)> =
        snapshots.into_iter().filter_map(|snapshot| group(&snapshot).map(|group| (snapshot, group))).collect();
    let progress = context.progress();
    let shown = |at: StatsProgress| {
        progress.update(&format!("backup {} of {}", at.done, at.total), 0, None);
    };
    let stats = open.stats(&grouped, shown).await.map_err(|error| match error.kind() {
        RepoErrorKind::Damaged => Failure::new(FailureKind::Damaged, format!("failed to count: {error}"))
            .hint("`backstay repo check` names all that is damaged, `backstay repo repair` helps"),
        _ => error.into(),
    })?;
    let backups = grouped.iter().zip(&stats.added).map(|((snapshot, _), added)| BackupView {
        id: added.id.clone(),
        target: owners.get(&snapshot.id).cloned(),
        time: snapshot.time,
        restore_bytes: added.restore_bytes,
        files: added.files,
        added_plain_bytes: added.plain_bytes,
        added_stored_bytes: added.stored_bytes,
    });
    let backups = backups.collect();
    let mut targets = Vec::new();
    for (number, target) in names.into_iter().enumerate() {
        let log = match &target {
            Some(name) if logs.contains(name) => open_log(open, name).await?.usage().await?,
            _ => LogUsage::default(),
        };
        // A target with a log alone has no group.
        let usage = stats.groups.get(number).copied().unwrap_or_default();
        targets.push(TargetView { target, usage, log });
    }
    Ok((targets, backups, stats))
}

fn page(targets: &[TargetView], backups: &[BackupView], stats: &Stats) -> String {
    let name = |target: &Option<TargetName>| target.as_ref().map_or_else(|| "(none)".to_owned(), ToString::to_string);
    let headings =
        ["target", ">backups", ">restores to", ">different", ">stored", ">log pieces", ">log", ">log stored"];
    let mut table = Table::new(&headings);
    let mut log = LogUsage::default();
    for TargetView { target, usage, log: part } in targets {
        table.row(row(name(target), usage, part));
        log.pieces += part.pieces;
        log.bytes += part.bytes;
        log.stored_bytes += part.stored_bytes;
    }
    table.row(row("all".to_owned(), &stats.all, &log));
    let mut added = Table::new(&["backup", "target", "time", ">restores to", ">added", ">added, stored"]);
    for backup in backups {
        added.row([
            backup.id.short().to_owned(),
            name(&backup.target),
            output::seconds(backup.time),
            output::size(backup.restore_bytes),
            output::size(backup.added_plain_bytes),
            output::size(backup.added_stored_bytes),
        ]);
    }
    let fields = Fields(vec![
        (
            "packs",
            format!("{}, {}, {} in no index", stats.packs, output::size(stats.pack_bytes), stats.unindexed_packs),
        ),
        ("index", format!("{} files, {} blobs", stats.index_files, stats.indexed_blobs)),
        ("unreferenced", output::size(stats.unreferenced_bytes)),
    ]);
    format!("{table}\n{added}\n{fields}")
}

fn row(name: String, usage: &Usage, log: &LogUsage) -> [String; 8] {
    [
        name,
        usage.snapshots.to_string(),
        output::size(usage.restore_bytes),
        output::size(usage.plain_bytes),
        output::size(usage.stored_bytes),
        log.pieces.to_string(),
        output::size(log.bytes),
        output::size(log.stored_bytes),
    ]
}
