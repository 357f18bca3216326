//! `backstay backup`: one restore point.

use crate::{
    command::backups::{Record, View},
    context::Context,
    failure::Result,
    output::{self, Output},
};
use backstay_core::Backup;
use backstay_pipeline::{Job, JobResult};

/// Arguments of `backstay backup`.
#[derive(Debug, clap::Args)]
pub(crate) struct BackupArgs {
    /// A target of the configuration
    target: String,
    /// One of the engine's methods; else its first
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Read every file again, also those whose length, times and inode are as the backup before saw them
    #[arg(long)]
    reread: bool,
}

/// The backup as `--json` shows it, with what is known of it only now.
#[derive(serde::Serialize)]
struct Made<'a> {
    #[serde(flatten)]
    backup: View<'a>,
    /// Bytes of files that were as before and not read.
    unread: u64,
}

/// Backs up; the id comes last, alone on its line.
pub(crate) fn run(args: BackupArgs, context: &Context) -> Result<()> {
    let JobResult::Backup(done) =
        context.job(&args.target, Job::Backup { method: args.method, reread: args.reread })?
    else {
        return Err(crate::job::answered_something_else());
    };
    let record = Record {
        backup: Backup { id: done.id, manifest: done.manifest },
        uploaded: Some(done.uploaded),
        repository: context.config()?.target(&args.target)?.repository.clone(),
        pinned: None,
    };
    let output: &Output = context.output();
    let manifest = &record.backup.manifest;
    let unread = match done.unread {
        0 => String::new(),
        bytes => format!("{} as before and not read, ", output::size(bytes)),
    };
    let wrong = match record.wrong_places() {
        0 => String::new(),
        count => format!("{count} places in the database's files look wrong: `backstay backups show` names them\n"),
    };
    let text = format!(
        "{} by {}: {} in {} files, {}{} uploaded, {}\nfrom {} to {}\n{wrong}{}",
        manifest.target,
        manifest.method,
        output::size(manifest.bytes),
        manifest.files,
        unread,
        output::size(done.uploaded),
        output::duration(record.duration()),
        manifest.start,
        manifest.end,
        record.backup.id
    );
    output.result(&Made { backup: record.view(), unread: done.unread }, text)
}
