//! `backstay backups pin` and `unpin`: what no policy takes away, in whichever of its target's repositories.

use crate::{
    catalog,
    command::backups::{self, Record},
    config::{Config, Repository},
    context::Context,
    failure::{Failure, Result},
};
use backstay_core::{BackupId, Timestamp};
use backstay_repo::{Id, Snapshot};

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
    let record = backups::find(context, None, &args.id)?;
    let config = context.config()?;
    let id = &record.backup.id;
    context.block_on(async {
        for (open, copy) in copies(&record, &config).await? {
            open.pin(&copy, &args.reason).await?;
        }
        Ok(())
    })?;
    let result = serde_json::json!({ "id": id, "pinned": true, "reason": args.reason });
    context.output().result(&result, format!("pinned backup {}: no policy takes it away", id.short()))
}

/// Lets policies have it again.
pub(crate) fn unpin(args: &UnpinArgs, context: &Context) -> Result<()> {
    let record = backups::find(context, None, &args.id)?;
    let config = context.config()?;
    let id = &record.backup.id;
    let was_pinned = context.block_on(async {
        let mut was_pinned = false;
        for (open, copy) in copies(&record, &config).await? {
            was_pinned |= open.unpin(&copy).await?;
        }
        Ok(was_pinned)
    })?;
    let result = serde_json::json!({ "id": id, "pinned": false, "was-pinned": was_pinned });
    let text = if was_pinned { "unpinned backup" } else { "nobody had pinned backup" };
    context.output().result(&result, format!("{text} {}", id.short()))
}

/// The backup in its repository, and its copies in the others of its target that can be reached.
async fn copies(record: &Record, config: &Config) -> Result<Vec<(backstay_repo::Repository, BackupId)>> {
    let home = config.repository(record.repository.as_str())?;
    let open = catalog::open(home).await?;
    let snapshots = readable(&open).await?;
    let same = snapshots.iter().find(|snapshot| snapshot.id == record.backup.id);
    let same = same.map(Snapshot::identity);
    let mut found = vec![(open, record.backup.id.clone())];
    let Some(target) = config.targets.get(&record.backup.manifest.target) else { return Ok(found) };
    for other in config.repositories_of(target)?.into_iter().filter(|other| other.name != home.name) {
        match copy(other, same).await {
            Ok(copy) => found.extend(copy),
            Err(failure) => {
                tracing::warn!(
                    "repository `{}` is away, do it again when it is back: {}",
                    other.name,
                    failure.message()
                );
            }
        }
    }
    Ok(found)
}

async fn copy(
    repository: &Repository,
    same: Option<(Timestamp, Id)>,
) -> Result<Option<(backstay_repo::Repository, BackupId)>, Failure> {
    let open = catalog::open_soon(repository, &repository.spec()?).await?;
    let snapshots = readable(&open).await?;
    let copy = snapshots.into_iter().find(|snapshot| Some(snapshot.identity()) == same);
    Ok(copy.map(|copy| (open, copy.id)))
}

/// The snapshots that can be read: the one that is meant is among them, or was told as damaged.
async fn readable(open: &backstay_repo::Repository) -> Result<Vec<Snapshot>> {
    Ok(open.each_snapshot().await?.into_iter().filter_map(|(_, read)| read.ok()).collect())
}
