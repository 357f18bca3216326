//! `backstay repo check`: is all there that must be there.

use crate::{
    catalog::{self, Checked},
    context::Context,
    failure::{Failure, Result},
    output,
};
use backstay_core::{BackupId, Gap, TargetName};
use backstay_pipeline::FailureKind;
use backstay_repo::{Problem, ReadData, Subset};
use serde::Serialize;

/// Arguments of `backstay repo check`.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// A repository of the configuration
    #[arg(value_name = "REPO")]
    repository: String,
    /// Read and verify every byte
    #[arg(long)]
    read_data: bool,
    /// Read and verify some of the packs: 1/12 to 12/12 for a twelfth, the same whenever it is asked for; 5% or 10G for
    /// that much, at random. Logs are read by --read-data alone
    #[arg(long, value_name = "PART", conflicts_with = "read_data")]
    read_data_subset: Option<Subset>,
}

impl CheckArgs {
    fn read(&self) -> ReadData {
        match self.read_data_subset {
            Some(subset) => ReadData::Subset(subset),
            None if self.read_data => ReadData::Everything,
            None => ReadData::Nothing,
        }
    }
}

/// What `repo check` found, as `--json` shows it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct CheckView<'a> {
    repository: &'a str,
    read_data: bool,
    read_data_subset: Option<String>,
    snapshots: u64,
    packs_read: u64,
    bytes_read: u64,
    /// One line each, as people read them.
    problems: Vec<String>,
    problems_unlisted: u64,
    /// The same problems in parts.
    damaged: Vec<DamageView<'a>>,
    gaps: Vec<GapView<'a>>,
}

/// Something that is damaged or missing.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct DamageView<'a> {
    object: &'a str,
    what: &'a str,
    /// The newest backups that need it; `null` where it is not a part of backups.
    backups: Option<&'a [BackupId]>,
    /// How many need it.
    backups_count: Option<u64>,
}

/// A gap in a target's log.
#[derive(Serialize)]
struct GapView<'a> {
    target: &'a TargetName,
    #[serde(flatten)]
    gap: &'a Gap,
}

impl<'a> From<&'a Problem> for DamageView<'a> {
    fn from(problem: &'a Problem) -> Self {
        let affected = problem.affected.as_ref();
        Self {
            object: &problem.object,
            what: &problem.what,
            backups: affected.map(|affected| affected.listed.as_slice()),
            backups_count: affected.map(|affected| affected.count),
        }
    }
}

pub(crate) fn run(args: &CheckArgs, context: &Context) -> Result<()> {
    let config = context.config()?;
    let repository = config.repository(&args.repository)?;
    let checked = context.block_on(async {
        let open = catalog::open(repository).await?;
        context.check(&open, args.read()).await
    })?;
    let view = CheckView {
        repository: &args.repository,
        read_data: args.read_data,
        read_data_subset: args.read_data_subset.map(|subset| subset.to_string()),
        snapshots: checked.snapshots,
        packs_read: checked.packs_read,
        bytes_read: checked.bytes_read,
        problems: checked.problems.iter().map(ToString::to_string).collect(),
        problems_unlisted: checked.unlisted,
        damaged: checked.problems.iter().map(DamageView::from).collect(),
        gaps: checked.gaps.iter().map(|(target, gap)| GapView { target, gap }).collect(),
    };
    context.output().result(&view, page(&checked, args.read()))?;
    if !checked.problems.is_empty() {
        let problems = checked.problems.len() as u64 + checked.unlisted;
        return Err(Failure::new(
            FailureKind::Damaged,
            format!("repository `{}` is damaged: {problems} problems, listed above", args.repository),
        )
        .hint(format!(
            "backups that do not need what is damaged still restore; `backstay repo repair index {} --read-data` takes \
             out what is damaged, and the next backup stores it again where the database still has it",
            args.repository
        ))
        .told());
    }
    if let Some((target, gap)) = checked.gaps.first() {
        return Err(Failure::new(FailureKind::Gap, format!("failed to find the log of `{target}` whole: {gap}"))
            .hint("no restore goes across a gap; a new backup starts a new recovery window behind it")
            .told());
    }
    Ok(())
}

fn page(checked: &Checked, read_data: ReadData) -> String {
    let problems = checked.problems.iter().map(|problem| format!("problem: {problem}"));
    let gaps = checked.gaps.iter().map(|(target, gap)| format!("gap: {target}: {gap}"));
    let mut lines: Vec<String> = problems.chain(gaps).collect();
    output::shorten(&mut lines, checked.unlisted);
    let depth = match read_data {
        ReadData::Everything => format!("{} read and verified", output::size(checked.bytes_read)),
        ReadData::Subset(subset) => {
            format!(
                "{} packs ({subset}) with {} read and verified",
                checked.packs_read,
                output::size(checked.bytes_read)
            )
        }
        ReadData::Nothing => "data not read (--read-data does)".to_owned(),
    };
    let verdict = if lines.is_empty() { "no problem found" } else { "problems found" };
    lines.push(format!("{} backups checked, {depth}: {verdict}", checked.snapshots));
    lines.join("\n")
}
