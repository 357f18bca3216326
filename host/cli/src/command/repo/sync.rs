//! `backstay repo sync`: a target's repository and its mirrors, brought level.
//!
//! Not a part of `repo copy`: that one copies what it is told from one side to the other, while this one knows a target's
//! repositories, goes both ways, and takes of the backups only those that count as new: decision 0009.

use crate::{
    catalog,
    context::Context,
    failure::{Failure, Result},
    mirror::{Flow, Level},
    output,
};
use serde::Serialize;

/// Arguments of `backstay repo sync`.
#[derive(Debug, clap::Args)]
pub(crate) struct SyncArgs {
    /// A target of the configuration
    target: String,
    /// Only say what would be copied
    #[arg(long)]
    dry_run: bool,
}

/// What was done, as `--json` shows it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct View<'a> {
    target: &'a str,
    dry_run: bool,
    #[serde(flatten)]
    level: &'a Level,
}

/// Brings level; a repository that is away is a failure here, once the others are level.
pub(crate) fn run(args: &SyncArgs, context: &Context) -> Result<()> {
    let config = context.config()?;
    let target = config.target(&args.target)?;
    if target.mirrors.is_empty() {
        return Err(Failure::usage(format!("failed to sync: target `{}` has no mirrors", target.name))
            .hint(format!("name some with `mirrors` in [targets.{}]", target.name)));
    }
    let mut level = context.block_on(async {
        if !args.dry_run && !context.output().json {
            let home = catalog::home(&config, target).await?;
            let plan = crate::mirror::level(&config, target, &home, true, &|_, _, _| ()).await?;
            context.output().lines(&page(&plan, "to copy"))?;
        }
        let home = catalog::home(&config, target).await?;
        context.level(&config, target, &home, args.dry_run).await
    })?;
    let view = View { target: &args.target, dry_run: args.dry_run, level: &level };
    let text = match args.dry_run {
        true => format!("{}\nnothing was copied: this was a dry run", page(&level, "to copy")),
        false => page(&level, "copied"),
    };
    context.output().result(&view, text)?;
    match level.mirrors.iter_mut().find_map(|standing| standing.failure.take()) {
        Some(failure) => Err(failure.told()),
        None => Ok(()),
    }
}

fn page(level: &Level, what: &str) -> String {
    let flow = |flow: &Flow| {
        format!(
            "{} -> {}: {} backups, {}, and {} of log {what}",
            flow.from,
            flow.to,
            flow.backups.len(),
            output::size(flow.bytes),
            output::size(flow.log.bytes)
        )
    };
    let mut lines: Vec<String> = level.flows.iter().map(flow).collect();
    for standing in &level.mirrors {
        let state = if standing.lags { "lags" } else { "level" };
        lines.push(format!("{}: {state}", standing.repository));
    }
    lines.join("\n")
}
