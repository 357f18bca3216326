//! The command line.

use crate::{
    command::{
        archive, backup, backups, completions, forget, init, inspect, log, plugin, prune, repo, restore, window,
    },
    exit,
};
use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Database backup and point-in-time recovery.
///
/// Backups are restic repositories: stock restic lists, checks and restores them with Backstay gone.
#[derive(Debug, Parser)]
#[command(name = "backstay", version, after_help = exit::help(), max_term_width = 100)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// The configuration; else ./backstay.toml, ~/.config/backstay/backstay.toml, /etc/backstay/backstay.toml
    #[arg(long, global = true, value_name = "FILE", env = "BACKSTAY_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// One JSON value on standard output, everything else on standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// A folder with plugins, looked at first; may be given again. BACKSTAY_PLUGINS lists more, joined with `:`
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) plugin_dir: Vec<PathBuf>,
    /// No progress, and no log but errors
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// More log on standard error: -v info, -vv debug, -vvv trace
    #[arg(long, short, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// No progress line, even on a terminal
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
    /// How log lines look
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a commented example configuration
    Init(init::InitArgs),
    /// Look after a repository
    #[command(subcommand)]
    Repo(repo::RepoCommand),
    /// Look at the installed engine plugins, or build one
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Connect to a target and report what is there
    Inspect(inspect::InspectArgs),
    /// Back a target up; prints the backup's id last
    Backup(backup::BackupArgs),
    /// List backups, newest last, or show one
    Backups(backups::BackupsArgs),
    /// Follow a target's log until SIGTERM, then drain and end
    Archive(archive::ArchiveArgs),
    /// Show where a target can be restored to, and what is missing
    Window(window::WindowArgs),
    /// Restore a target into a folder: shows the plan, then does it
    Restore(restore::RestoreArgs),
    /// Drop a target's backups by its policy: shows what stays and why
    Forget(forget::ForgetArgs),
    /// Free what nothing in a repository refers to: backups dropped, log needed no more
    Prune(prune::PruneArgs),
    /// Fetch pieces of a target's log
    #[command(subcommand)]
    Log(log::LogCommand),
    /// Print a shell's completions
    Completions(completions::CompletionsArgs),
    /// One job in a process of its own; started by `backstay`, never by people
    #[command(hide = true)]
    Job,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Args::command().debug_assert();
    }
}
