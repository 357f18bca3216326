//! `backstay backup`: one restore point.

use crate::{
    command::backups::Record,
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
}

/// Backs up; the id comes last, alone on its line.
pub(crate) fn run(args: BackupArgs, context: &Context) -> Result<()> {
    let JobResult::Backup(done) = context.job(&args.target, Job::Backup { method: args.method })? else {
        return Err(crate::job::answered_something_else());
    };
    let record = Record { backup: Backup { id: done.id, manifest: done.manifest }, uploaded: Some(done.uploaded) };
    let output: &Output = context.output();
    let manifest = &record.backup.manifest;
    let text = format!(
        "{} by {}: {} in {} files, {} uploaded, {}\nfrom {} to {}\n{}",
        manifest.target,
        manifest.method,
        output::size(manifest.bytes),
        manifest.files,
        output::size(done.uploaded),
        output::duration(record.duration()),
        manifest.start,
        manifest.end,
        record.backup.id
    );
    output.result(&record.view(), text)
}
