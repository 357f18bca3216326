//! `backstay completions`: for the shell's start-up files.

use crate::{args::Args, context::Context, failure::Result};
use clap::CommandFactory;
use clap_complete::Shell;

/// Arguments of `backstay completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: &CompletionsArgs, context: &Context) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "backstay", &mut script);
    if context.output().json {
        let value = serde_json::json!({ "shell": args.shell.to_string(), "script": String::from_utf8_lossy(&script) });
        return context.output().result(&value, "");
    }
    context.output().bytes(&script)
}
