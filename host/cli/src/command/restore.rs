//! `backstay restore`: the plan, then the restore.

use crate::{
    command::backups,
    context::Context,
    failure::{Failure, Result},
    output::{self, Output},
};
use backstay_core::Timestamp;
use backstay_pipeline::{Job, JobResult, RestoreSpec, RestoreSummary, RestoreTo};
use std::{fmt::Write as _, path::PathBuf};

/// Arguments of `backstay restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// A target of the configuration
    target: String,
    /// The folder to restore into: absent, empty, or with --delta an older state
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// latest, backup-end, time:RFC3339, position:P, xid:N or name:S
    #[arg(long, value_name = "WHERE", default_value = "latest", value_parser = parse_to)]
    to: RestoreTo,
    /// Stop before what lies exactly at the place of --to, not after it
    #[arg(long)]
    exclusive: bool,
    /// Start from this backup (its id, or the first digits); else the plan picks it
    #[arg(long, value_name = "ID")]
    backup: Option<String>,
    /// Where a volume (PostgreSQL: a tablespace) goes; may be given again
    #[arg(long, value_name = "VOLUME=DIR", value_parser = parse_map)]
    map: Vec<(String, PathBuf)>,
    /// The folder holds an older state: keep what is already right
    #[arg(long)]
    delta: bool,
    /// Show the plan and stop
    #[arg(long)]
    dry_run: bool,
}

/// Plans, shows, restores.
pub(crate) fn run(args: RestoreArgs, context: &Context) -> Result<()> {
    if args.exclusive && matches!(args.to, RestoreTo::Latest | RestoreTo::BackupEnd) {
        return Err(Failure::usage("failed to restore: --exclusive needs a place to stop at")
            .hint("add --to time:…, position:…, xid:… or name:…"));
    }
    let backup = match &args.backup {
        Some(prefix) => Some(backups::find(context, Some(&args.target), prefix)?.backup.id),
        None => None,
    };
    let mut volumes = std::collections::BTreeMap::new();
    for (volume, folder) in args.map {
        let folder = absolute(&folder)?;
        if volumes.insert(volume.clone(), folder).is_some() {
            return Err(Failure::usage(format!("failed to restore: volume `{volume}` is mapped twice")));
        }
    }
    let spec = RestoreSpec {
        into: absolute(&args.into)?,
        to: args.to,
        inclusive: !args.exclusive,
        backup,
        volumes,
        delta: args.delta,
        dry_run: args.dry_run,
    };
    let JobResult::Restore(done) = context.job(&args.target, Job::Restore(spec))? else {
        return Err(crate::job::answered_something_else());
    };
    // The plan was shown when it was made: `show_plan`.
    context.output().result(&done, summary(&done))
}

/// Shows a plan as soon as it is there, before anything is written. With `--json` it is part of the result.
pub(crate) fn show_plan(plan: &backstay_core::RestorePlan, output: &Output) {
    if !output.json {
        // Standard output may be gone; the restore goes on, and its end tells.
        let _ = output.lines(&plan.explanation.join("\n"));
    }
}

fn summary(done: &RestoreSummary) -> String {
    if done.dry_run {
        let mut text = "nothing was written: this was a dry run".to_owned();
        for folder in &done.swept {
            // Writing into a text cannot fail.
            let _ = write!(text, "\nremoves from {} every file that is not in the backup", folder.display());
        }
        return text;
    }
    let mut text = format!(
        "restored {} files, {} ({} already right), and {} of log",
        done.files,
        output::size(done.bytes),
        output::size(done.kept_bytes),
        output::size(done.log_bytes)
    );
    for step in &done.next_steps {
        // Writing into a text cannot fail.
        let _ = write!(text, "\nnext: {step}");
    }
    text
}

fn absolute(path: &std::path::Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Failure::usage(format!("failed to use {}: {error}", path.display())))
}

fn parse_to(text: &str) -> Result<RestoreTo, String> {
    let kinds = "latest, backup-end, time:RFC3339, position:P, xid:N or name:S";
    let (kind, value) = match text {
        "latest" => return Ok(RestoreTo::Latest),
        "backup-end" => return Ok(RestoreTo::BackupEnd),
        _ => text.split_once(':').ok_or_else(|| format!("write {kinds}"))?,
    };
    if value.is_empty() {
        return Err(format!("nothing follows `{kind}:`"));
    }
    match kind {
        "time" => value.parse::<Timestamp>().map(RestoreTo::Time).map_err(|error| error.to_string()),
        "position" => Ok(RestoreTo::Position(value.to_owned())),
        "xid" => Ok(RestoreTo::Transaction(value.to_owned())),
        "name" => Ok(RestoreTo::Name(value.to_owned())),
        _ => Err(format!("write {kinds}")),
    }
}

fn parse_map(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((volume, folder)) if !volume.is_empty() && !folder.is_empty() => {
            Ok((volume.to_owned(), PathBuf::from(folder)))
        }
        _ => Err("write VOLUME=DIR".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_to_restore_to_are_read_as_people_write_them() {
        let time = "2026-11-22T03:04:05Z".parse().unwrap();
        assert_eq!(parse_to("time:2026-11-22T04:04:05+01:00").unwrap(), RestoreTo::Time(time));
        assert_eq!(parse_to("position:0/3000028").unwrap(), RestoreTo::Position("0/3000028".into()));
        assert_eq!(parse_to("name:before: the drop").unwrap(), RestoreTo::Name("before: the drop".into()));
        assert_eq!(parse_to("xid:771").unwrap(), RestoreTo::Transaction("771".into()));
        for bad in ["", "yesterday", "time:", "time:2026-11-22T03:04:05", "lsn:0/1", "Latest"] {
            assert!(parse_to(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn volumes_are_mapped_by_the_first_equals_sign() {
        assert_eq!(parse_map("fast=/a=b").unwrap(), ("fast".into(), "/a=b".into()));
        for bad in ["fast", "=/a", "fast="] {
            assert!(parse_map(bad).is_err(), "{bad:?} was taken");
        }
    }
}
