//! What people type: one verb, one file.

pub(crate) mod archive;
pub(crate) mod backup;
pub(crate) mod backups;
pub(crate) mod completions;
pub(crate) mod forget;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod log;
pub(crate) mod pin;
pub(crate) mod plugin;
pub(crate) mod prune;
#[cfg(test)]
mod reference;
pub(crate) mod repo;
pub(crate) mod restore;
pub(crate) mod window;

use crate::{
    args::Command,
    context::Context,
    failure::{Failure, Result},
};

/// Does what was typed.
pub(crate) fn run(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::Init(args) => init::run(&args, context),
        Command::Repo(command) => repo::run(command, context),
        Command::Plugin(command) => plugin::run(&command, context),
        Command::Inspect(args) => inspect::run(&args, context),
        Command::Backup(args) => backup::run(args, context),
        Command::Backups(args) => backups::run(&args, context),
        Command::Archive(args) => archive::run(&args, context),
        Command::Window(args) => window::run(&args, context),
        Command::Forget(args) => forget::run(&args, context),
        Command::Prune(args) => prune::run(&args, context),
        Command::Restore(args) => restore::run(args, context),
        Command::Log(command) => log::run(&command, context),
        Command::Completions(args) => completions::run(&args, context),
        // `main` calls it before anything is set up.
        Command::Job => Err(Failure::usage("failed to start a job: it is not a command for people")),
    }
}
