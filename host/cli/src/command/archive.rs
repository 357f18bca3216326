//! `backstay archive`: the log, as it is written.

use crate::{context::Context, failure::Result, output};
use backstay_pipeline::{Job, JobResult};

/// Arguments of `backstay archive`.
#[derive(Debug, clap::Args)]
pub(crate) struct ArchiveArgs {
    /// A target of the configuration
    target: String,
    /// Start again where the server still has log, leaving a gap: no window reaches across it
    #[arg(long)]
    accept_gap: bool,
}

/// Runs until SIGTERM or SIGINT, then hands over what it has and ends with 0.
pub(crate) fn run(args: &ArchiveArgs, context: &Context) -> Result<()> {
    let way_out = format!("`backstay archive {} --accept-gap` goes on behind the gap", args.target);
    let ended = context.job(&args.target, Job::Archive { accept_gap: args.accept_gap });
    let JobResult::Archive(done) = ended.map_err(|failure| failure.hint_at_gap(&way_out))? else {
        return Err(crate::job::answered_something_else());
    };
    let end = done.tail.as_ref().map_or_else(|| "no log yet".to_owned(), |tail| format!("log is kept up to {tail}"));
    let text = format!("{end}; {} in {} pieces by this run", output::size(done.bytes), done.pieces);
    context.output().result(&done, text)
}
