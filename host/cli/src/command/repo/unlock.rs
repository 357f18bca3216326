//! `backstay repo unlock`: locks that nobody holds any more.

use crate::{catalog, context::Context, failure::Result};

/// Arguments of `backstay repo unlock`.
#[derive(Debug, clap::Args)]
pub(crate) struct UnlockArgs {
    /// A repository of the configuration
    #[arg(value_name = "REPO")]
    repository: String,
    /// Remove every lock, even those whose holder may still be at work
    #[arg(long)]
    remove_all: bool,
    /// Only say which locks would be removed
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: &UnlockArgs, context: &Context) -> Result<()> {
    let config = context.config()?;
    let repository = config.repository(&args.repository)?;
    let locks = context.block_on(async {
        let open = catalog::open(repository).await?;
        if args.dry_run {
            return Ok(open.removable_locks(args.remove_all).await?);
        }
        Ok(open.unlock(args.remove_all).await?)
    })?;
    let listed = locks.iter().map(|lock| serde_json::json!({ "id": lock.id.to_string(), "holder": lock.holder }));
    let listed: Vec<_> = listed.collect();
    let result = serde_json::json!({ "removed": locks.len(), "locks": listed, "dry-run": args.dry_run });
    let lines = locks.iter().map(|lock| {
        format!("lock {}, held by {}\n", lock.id.short(), lock.holder.as_deref().unwrap_or("nobody can tell whom"))
    });
    let done = if args.dry_run { "would remove" } else { "removed" };
    context.output().result(&result, format!("{}{done} {} locks", lines.collect::<String>(), locks.len()))
}
