//! `backstay inspect`: is the target there, which database is it, what will not work.

use crate::{context::Context, failure::Result, output::Fields};
use backstay_pipeline::{Job, JobResult};

/// Arguments of `backstay inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// A target of the configuration
    target: String,
}

/// Connects and looks; changes nothing.
pub(crate) fn run(args: &InspectArgs, context: &Context) -> Result<()> {
    let JobResult::Inspect(seen) = context.job(&args.target, Job::Inspect)? else {
        return Err(crate::job::answered_something_else());
    };
    let mut fields =
        vec![("identity", seen.identity.clone()), ("version", seen.version.clone()), ("role", seen.role.clone())];
    if let Some(tail) = &seen.tail {
        fields.push(("log position", tail.to_string()));
    }
    fields.extend(seen.warnings.iter().map(|warning| ("warning", warning.clone())));
    context.output().result(&seen, Fields(fields))
}
