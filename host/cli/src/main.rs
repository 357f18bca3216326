//! `backstay`: database backup and point-in-time recovery.
//!
//! ```text
//!   args ──► Context ──► command::<verb>::run ──► a result on standard output, or a Failure and an exit code
//!                            └──► in this process: what needs the repository alone
//!                                 in a child process (`backstay job`): what runs an engine plugin
//! ```

mod ahead;
mod args;
mod catalog;
mod command;
mod config;
mod context;
mod exit;
mod failure;
mod job;
mod limits;
mod logging;
mod mirror;
mod output;
mod plugin_build;
mod progress;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => return failure::refuse_arguments(&error),
    };
    if let args::Command::Job = args.command {
        // Before any thread exists: the child confines itself first.
        return backstay_pipeline::child_main();
    }
    let context = context::Context::new(args.global);
    match command::run(args.command, &context) {
        Ok(()) => exit::Exit::Done.into(),
        Err(failure) => failure.report(context.output()),
    }
}
