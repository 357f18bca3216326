//! `backstay repo repair`: what can be made right again, planned and shown before it is done.

use crate::{catalog, context::Context, failure::Result, output};
use backstay_repo::{
    BrokenSnapshot, DamagedFile, Id, IndexPlan, IndexRepair, IndexRepairOptions, LockKind, Repaired, SnapshotRepair,
    SnapshotRepairOptions, SnapshotsPlan,
};
use serde::Serialize;

/// What to repair.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum RepairCommand {
    /// Make the index say what the packs' own headers say, and nothing that cannot be read
    Index(IndexArgs),
    /// Take away backups with holes, and keep what is whole of them as snapshots that no restore takes for backups
    Snapshots(SnapshotsArgs),
}

/// Arguments of `backstay repo repair index`.
#[derive(Debug, clap::Args)]
pub(crate) struct IndexArgs {
    /// A repository of the configuration
    #[arg(value_name = "REPO")]
    repository: String,
    /// Read every byte, and take out what is not what was written: the next backup stores it again
    #[arg(long)]
    read_data: bool,
    /// Show the plan and stop
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `backstay repo repair snapshots`.
#[derive(Debug, clap::Args)]
pub(crate) struct SnapshotsArgs {
    /// A repository of the configuration
    #[arg(value_name = "REPO")]
    repository: String,
    /// Read every byte, and count what is not what was written as missing
    #[arg(long)]
    read_data: bool,
    /// Remove snapshot files that cannot be read; else they are only listed
    #[arg(long)]
    remove_damaged: bool,
    /// Show the plan and stop
    #[arg(long)]
    dry_run: bool,
}

/// A repair as `--json` shows it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct View<'a, P> {
    repository: &'a str,
    dry_run: bool,
    plan: P,
    /// What became of each broken snapshot; of the index nothing.
    repaired: &'a [Repaired],
    /// Objects that the store kept for now.
    refused: u64,
}

/// Plans, shows, repairs.
pub(crate) fn run(command: &RepairCommand, context: &Context) -> Result<()> {
    match command {
        RepairCommand::Index(args) => index(args, context),
        RepairCommand::Snapshots(args) => snapshots(args, context),
    }
}

/// A plan alone changes nothing, so others may go on meanwhile.
fn lock(dry_run: bool) -> LockKind {
    if dry_run { LockKind::Shared } else { LockKind::Exclusive }
}

fn index(args: &IndexArgs, context: &Context) -> Result<()> {
    let config = context.config()?;
    let repository = config.repository(&args.repository)?;
    let options = IndexRepairOptions { read_data: args.read_data };
    let (plan, refused) = context.block_on(async {
        let open = catalog::open(repository).await?;
        let progress = context.progress();
        let shown = |done, total| {
            progress.update("read", done, Some(total));
        };
        let repair = IndexRepair::plan(&open, lock(args.dry_run), options, shown).await?;
        drop(progress);
        let plan = repair.summary().clone();
        show(&index_page(&plan), context)?;
        let refused = match args.dry_run || plan.is_empty() {
            true => {
                repair.release().await?;
                0
            }
            false => repair.perform().await?,
        };
        Ok((plan, refused))
    })?;
    let view = View { repository: &args.repository, dry_run: args.dry_run, plan: &plan, repaired: &[], refused };
    let advice = match plan.broken.is_empty() {
        true => "",
        false => {
            "\nnext: back up, which stores again what the database still has; then `backstay repo repair snapshots` \
             keeps what is whole of the backups above that still have holes"
        }
    };
    context.output().result(&view, format!("{}{}{advice}", kept(refused), verdict(args.dry_run, plan.is_empty())))
}

/// What to say of objects that the store would not let go.
fn kept(refused: u64) -> String {
    match refused {
        0 => String::new(),
        refused => format!("the store would not let {refused} objects go: repair again once their time is over\n"),
    }
}

fn snapshots(args: &SnapshotsArgs, context: &Context) -> Result<()> {
    let config = context.config()?;
    let repository = config.repository(&args.repository)?;
    let options = SnapshotRepairOptions { read_data: args.read_data, remove_damaged: args.remove_damaged };
    let (plan, repaired) = context.block_on(async {
        let open = catalog::open(repository).await?;
        let progress = context.progress();
        let shown = |done, total| {
            progress.update("read", done, Some(total));
        };
        let repair = SnapshotRepair::plan(&open, lock(args.dry_run), options, shown).await?;
        drop(progress);
        let plan = repair.summary().clone();
        show(&snapshots_page(&plan), context)?;
        let repaired = match args.dry_run || plan.is_empty() {
            true => {
                repair.release().await?;
                Vec::new()
            }
            false => repair.perform().await?,
        };
        Ok((plan, repaired))
    })?;
    let refused = repaired.iter().filter(|one| one.refused).count() as u64;
    let view = View { repository: &args.repository, dry_run: args.dry_run, plan: &plan, repaired: &repaired, refused };
    let lines = repaired.iter().map(|one| match &one.salvaged {
        Some(salvaged) => format!("{} -> {}\n", one.removed.short(), salvaged.short()),
        None => format!("{} -> nothing, as nothing was whole\n", one.removed.short()),
    });
    let verdict = verdict(args.dry_run, plan.is_empty());
    let text = format!("{}{}{verdict}", lines.collect::<String>(), kept(refused));
    context.output().result(&view, text)
}

/// Shows a plan before anything is done. With `--json` it is part of the result.
fn show(plan: &str, context: &Context) -> Result<()> {
    if context.output().json { Ok(()) } else { context.output().lines(plan) }
}

fn verdict(dry_run: bool, nothing: bool) -> &'static str {
    match (nothing, dry_run) {
        (true, _) => "nothing to repair",
        (false, true) => "nothing was changed: this was a dry run",
        (false, false) => "repaired",
    }
}

fn index_page(plan: &IndexPlan) -> String {
    let mut lines = Vec::new();
    let packs = |what: &str, packs: &[Id], lines: &mut Vec<String>| {
        lines.extend(packs.iter().map(|pack| format!("{what}: pack {}", pack.short())));
    };
    lines.extend(damaged("removes", &plan.damaged_files));
    packs("adds, by its header", &plan.added_packs, &mut lines);
    packs("corrects, by its header", &plan.corrected_packs, &mut lines);
    packs("drops what is gone", &plan.gone_packs, &mut lines);
    lines.extend(damaged("leaves out", &plan.unreadable_packs));
    lines.extend(plan.rotten_packs.iter().map(|rotten| {
        let (pack, lost, whole) = (rotten.pack.short(), rotten.lost_blobs, rotten.whole_blobs);
        match lost {
            0 => format!("removes pack {pack}: it is not what was written; all {whole} blobs open and are copied"),
            _ => format!("removes pack {pack}: {lost} blobs in it do not open, {whole} are copied into a new one"),
        }
    }));
    lines.extend(plan.broken.iter().flat_map(|one| broken("cannot be restored whole", one)));
    let sum = format!(
        "{} of {} index files replaced, {} blobs found again, {} blobs lost, {} backups not whole",
        plan.replaced_files,
        plan.index_files,
        plan.added_blobs,
        plan.lost_blobs,
        plan.broken.len()
    );
    bounded(lines, sum)
}

fn snapshots_page(plan: &SnapshotsPlan) -> String {
    let mut lines = Vec::new();
    for one in &plan.broken {
        lines.extend(broken("is not whole", one));
        lines.push(match one.whole_files {
            0 => "  is removed: nothing of it is whole".to_owned(),
            files => {
                let size = output::size(one.whole_bytes);
                format!("  is removed; {files} files, {size}, are kept as a snapshot tagged `salvaged`")
            }
        });
    }
    let verb = if plan.remove_damaged { "removes" } else { "leaves (--remove-damaged removes it)" };
    lines.extend(damaged(verb, &plan.damaged_files));
    let sum = format!(
        "{} backups looked at, {} with holes, {} that cannot be read",
        plan.snapshots,
        plan.broken.len(),
        plan.damaged_files.len()
    );
    bounded(lines, sum)
}

fn damaged<'a>(verb: &'a str, files: &'a [DamagedFile]) -> impl Iterator<Item = String> + 'a {
    files.iter().map(move |file| format!("{verb}: {}", file.why))
}

fn broken(what: &str, snapshot: &BrokenSnapshot) -> Vec<String> {
    let name = if snapshot.tags.is_empty() { snapshot.paths.join(" ") } else { snapshot.tags.join(" ") };
    let mut lines = vec![format!("{} of {} ({name}) {what}", snapshot.id.short(), output::seconds(snapshot.time))];
    lines.extend(snapshot.missing.iter().map(|missing| format!("  missing: {missing}")));
    if snapshot.missing_unlisted > 0 {
        lines.push(format!("  and {} more", snapshot.missing_unlisted));
    }
    lines
}

fn bounded(mut lines: Vec<String>, sum: String) -> String {
    output::shorten(&mut lines, 0);
    lines.push(sum);
    lines.join("\n")
}
