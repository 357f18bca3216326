//! `backstay repo`: init, check, key, unlock, stats, repair, as restic users expect.

mod check;
mod copy;
mod init;
mod key;
mod repair;
mod stats;
mod sync;
mod unlock;

use crate::{context::Context, failure::Result};

/// What to do with a repository.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum RepoCommand {
    /// Make a new, empty repository
    Init(RepoArgs),
    /// Check that everything refers to what is there; with --read-data, that every byte is what was written
    Check(check::CheckArgs),
    /// Look after the passwords that open a repository
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Remove locks that nobody holds any more
    Unlock(unlock::UnlockArgs),
    /// Count what it holds: by target, by backup, and what nothing refers to
    Stats(RepoArgs),
    /// Copy backups and logs into another repository, sealed anew with its key
    Copy(copy::CopyArgs),
    /// Bring a target's repository and its mirrors level, both ways
    Sync(sync::SyncArgs),
    /// Make right again what can be: the plan is shown first
    #[command(subcommand)]
    Repair(repair::RepairCommand),
}

/// Which repository.
#[derive(Debug, clap::Args)]
pub(crate) struct RepoArgs {
    /// A repository of the configuration
    #[arg(value_name = "REPO")]
    repository: String,
}

/// Does what was asked of a repository.
pub(crate) fn run(command: RepoCommand, context: &Context) -> Result<()> {
    match command {
        RepoCommand::Init(args) => init::run(&args, context),
        RepoCommand::Check(args) => check::run(&args, context),
        RepoCommand::Key(command) => key::run(command, context),
        RepoCommand::Unlock(args) => unlock::run(&args, context),
        RepoCommand::Stats(args) => stats::run(&args, context),
        RepoCommand::Copy(args) => copy::run(&args, context),
        RepoCommand::Sync(args) => sync::run(&args, context),
        RepoCommand::Repair(command) => repair::run(&command, context),
    }
}
