//! `backstay repo check`: is all there that must be there.

use crate::{
    catalog::{self, Checked},
    context::Context,
    failure::{Failure, Result},
    limits::REPORT_LINES_MAX,
    output,
};
use backstay_core::{Gap, TargetName};
use backstay_pipeline::FailureKind;
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
}

/// What `repo check` found, as `--json` shows it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct CheckView<'a> {
    repository: &'a str,
    read_data: bool,
    snapshots: u64,
    bytes_read: u64,
    problems: &'a [String],
    problems_unlisted: u64,
    gaps: Vec<GapView<'a>>,
}

/// A gap in a target's log.
#[derive(Serialize)]
struct GapView<'a> {
    target: &'a TargetName,
    #[serde(flatten)]
    gap: &'a Gap,
}

pub(crate) fn run(args: &CheckArgs, context: &Context) -> Result<()> {
    let config = context.config()?;
    let repository = config.repository(&args.repository)?;
    let checked = context.block_on(async {
        let open = catalog::open(repository).await?;
        context.check(&open, args.read_data).await
    })?;
    let view = CheckView {
        repository: &args.repository,
        read_data: args.read_data,
        snapshots: checked.snapshots,
        bytes_read: checked.bytes_read,
        problems: &checked.problems,
        problems_unlisted: checked.unlisted,
        gaps: checked.gaps.iter().map(|(target, gap)| GapView { target, gap }).collect(),
    };
    context.output().result(&view, page(&checked, args.read_data))?;
    if !checked.problems.is_empty() {
        let problems = checked.problems.len() as u64 + checked.unlisted;
        return Err(Failure::new(
            FailureKind::Damaged,
            format!("repository `{}` is damaged: {problems} problems, listed above", args.repository),
        )
        .hint("backups that do not need what is damaged still restore; the next backup stores what is missing again")
        .told());
    }
    if let Some((target, gap)) = checked.gaps.first() {
        return Err(Failure::new(FailureKind::Gap, format!("failed to find the log of `{target}` whole: {gap}"))
            .hint("no restore goes across a gap; a new backup starts a new recovery window behind it")
            .told());
    }
    Ok(())
}

fn page(checked: &Checked, read_data: bool) -> String {
    let problems = checked.problems.iter().map(|problem| format!("problem: {problem}"));
    let gaps = checked.gaps.iter().map(|(target, gap)| format!("gap: {target}: {gap}"));
    let lines: Vec<String> = problems.chain(gaps).collect();
    let mut text: String = lines.iter().take(REPORT_LINES_MAX).map(|line| format!("{line}\n")).collect();
    let more = lines.len().saturating_sub(REPORT_LINES_MAX) as u64 + checked.unlisted;
    if more > 0 {
        text.push_str(&format!("... and {more} more\n"));
    }
    let depth = if read_data {
        format!("{} read and verified", output::size(checked.bytes_read))
    } else {
        "data not read (--read-data does)".to_owned()
    };
    let verdict = if lines.is_empty() { "no problem found" } else { "problems found" };
    text.push_str(&format!("{} backups checked, {depth}: {verdict}", checked.snapshots));
    text
}
