//! `backstay repo key`: the passwords that open a repository.

use super::RepoArgs;
use crate::{
    catalog,
    config::{SecretSource, secret_text},
    context::Context,
    failure::{Failure, Result},
    limits::SECRET_BYTES_MAX,
    output::{self, Table},
};
use backstay_core::{Secret, Timestamp};
use backstay_repo::{KdfCost, Password};
use serde::Serialize;
use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

/// What to do with a repository's passwords.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum KeyCommand {
    /// Let one more password open the repository
    Add(KeyAddArgs),
    /// List the keys; the one in use has a star
    List(RepoArgs),
    /// Remove a key, so that its password opens nothing any more
    Remove(KeyRemoveArgs),
}

/// Arguments of `backstay repo key add`.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyAddArgs {
    /// A repository of the configuration
    #[arg(value_name = "REPO")]
    repository: String,
    /// The file with the new password; `-` is standard input
    #[arg(long, value_name = "FILE")]
    new_password_file: PathBuf,
}

/// Arguments of `backstay repo key remove`.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyRemoveArgs {
    /// A repository of the configuration
    #[arg(value_name = "REPO")]
    repository: String,
    /// The key's id, or its first digits
    #[arg(value_name = "KEY")]
    key: String,
    /// Only say which key would be removed
    #[arg(long)]
    dry_run: bool,
}

/// Does what was asked of the passwords.
pub(crate) fn run(command: KeyCommand, context: &Context) -> Result<()> {
    match command {
        KeyCommand::Add(args) => add(&args, context),
        KeyCommand::List(args) => list(&args, context),
        KeyCommand::Remove(args) => remove(&args, context),
    }
}

fn add(args: &KeyAddArgs, context: &Context) -> Result<()> {
    let config = context.config()?;
    let repository = config.repository(&args.repository)?;
    let password = new_password(&args.new_password_file)?;
    let id = context.block_on(async {
        let open = catalog::open(repository).await?;
        Ok(open.key_add(&Password::new(password.reveal()), KdfCost::default()).await?)
    })?;
    context.output().result(&serde_json::json!({ "id": id.to_string() }), format!("added key {}", id.short()))
}

/// From a file or from standard input, as the configuration would read it.
fn new_password(file: &Path) -> Result<Secret> {
    if file != Path::new("-") {
        return Ok(SecretSource::File(file.to_owned()).read("the new password")?);
    }
    let mut bytes = Vec::new();
    let read = io::stdin().lock().take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes);
    let refuse = |reason: String| Failure::usage(format!("failed to read the new password: {reason}"));
    read.map_err(|error| refuse(error.to_string()))?;
    secret_text(bytes).map_err(|reason| refuse(reason.to_owned()))
}

/// A key, as `--json` shows it.
#[derive(Serialize)]
struct KeyView {
    id: String,
    created: Timestamp,
    hostname: String,
    username: String,
    /// Whether this run opened the repository with it.
    current: bool,
}

fn list(args: &RepoArgs, context: &Context) -> Result<()> {
    let config = context.config()?;
    let repository = config.repository(&args.repository)?;
    let keys = context.block_on(async { Ok(catalog::open(repository).await?.key_list().await?) })?;
    let views = keys.into_iter().map(|key| KeyView {
        id: key.id.to_string(),
        created: key.created,
        hostname: key.hostname,
        username: key.username,
        current: key.current,
    });
    let views: Vec<KeyView> = views.collect();
    let mut table = Table::new(&["", "id", "user", "host", "created"]);
    for key in &views {
        let star = if key.current { "*" } else { " " };
        let id = key.id.chars().take(8).collect();
        table.row([star.to_owned(), id, key.username.clone(), key.hostname.clone(), output::seconds(key.created)]);
    }
    context.output().result(&views, table)
}

fn remove(args: &KeyRemoveArgs, context: &Context) -> Result<()> {
    let config = context.config()?;
    let repository = config.repository(&args.repository)?;
    let id = context.block_on(async {
        let open = catalog::open(repository).await?;
        if args.dry_run {
            return Ok(open.key_removable(&args.key).await?.id);
        }
        Ok(open.key_remove(&args.key).await?)
    })?;
    let result = serde_json::json!({ "id": id.to_string(), "dry-run": args.dry_run });
    let done = if args.dry_run { "would remove" } else { "removed" };
    context.output().result(&result, format!("{done} key {}", id.short()))
}
