//! `backstay backups pin` and `unpin`: what no policy takes away.

use crate::{catalog, command::backups, config::Repository, context::Context, failure::Result};
use backstay_core::BackupId;

/// Arguments of `backstay backups pin`.
#[derive(Debug, clap::Args)]
pub(crate) struct PinArgs {
    /// The backup's id, or its first digits
    id: String,
    /// Why, for whoever wonders later
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Arguments of `backstay backups unpin`.
#[derive(Debug, clap::Args)]
pub(crate) struct UnpinArgs {
    /// The backup's id, or its first digits
    id: String,
}

/// Pins one.
pub(crate) fn pin(args: &PinArgs, context: &Context) -> Result<()> {
    let (id, repository) = find(context, &args.id)?;
    context.block_on(async { Ok(catalog::open(&repository).await?.pin(&id, &args.reason).await?) })?;
    let result = serde_json::json!({ "id": id, "pinned": true, "reason": args.reason });
    context.output().result(&result, format!("pinned backup {}: no policy takes it away", id.short()))
}

/// Lets policies have it again.
pub(crate) fn unpin(args: &UnpinArgs, context: &Context) -> Result<()> {
    let (id, repository) = find(context, &args.id)?;
    let was_pinned = context.block_on(async { Ok(catalog::open(&repository).await?.unpin(&id).await?) })?;
    let result = serde_json::json!({ "id": id, "pinned": false, "was-pinned": was_pinned });
    let text = if was_pinned { "unpinned backup" } else { "nobody had pinned backup" };
    context.output().result(&result, format!("{text} {}", id.short()))
}

fn find(context: &Context, prefix: &str) -> Result<(BackupId, Repository)> {
    let record = backups::find(context, None, prefix)?;
    let config = context.config()?;
    let repository = config.repository(record.repository.as_str())?;
    Ok((record.backup.id, repository.clone()))
}
