//! `backstay repo`: init, check, key, unlock, as restic users expect.

use crate::{
    catalog::{self, Checked},
    config::{SecretSource, secret_text},
    context::Context,
    failure::{Failure, Result},
    limits::{REPORT_LINES_MAX, SECRET_BYTES_MAX},
    output::{self, Table},
};
use backstay_core::{BackupId, Gap, Secret, TargetName, Timestamp};
use backstay_pipeline::FailureKind;
use backstay_repo::{KdfCost, Password, Problem, ReadData, Subset};
use serde::Serialize;
use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

/// What to do with a repository.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum RepoCommand {
    /// Make a new, empty repository
    Init(RepoArgs),
    /// Check that everything refers to what is there; with --read-data, that every byte is what was written
    Check(CheckArgs),
    /// Look after the passwords that open a repository
    #[command(subcommand)]
    Key(KeyCommand),
    /// Remove locks that nobody holds any more
    Unlock(UnlockArgs),
}

/// Which repository.
#[derive(Debug, clap::Args)]
pub(crate) struct RepoArgs {
    /// A repository of the configuration
    #[arg(value_name = "REPO")]
    repository: String,
}

/// Arguments of `backstay repo check`.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// A repository of the configuration
    #[arg(value_name = "REPO")]
    repository: String,
    /// Read and verify every byte
    #[arg(long)]
    read_data: bool,
    /// Read and verify some of the packs: 1/12 to 12/12 for a twelfth, the same whenever it is asked for; 5% or 10G for
    /// that much, at random. Logs are read by --read-data alone
    #[arg(long, value_name = "PART", conflicts_with = "read_data")]
    read_data_subset: Option<Subset>,
}

impl CheckArgs {
    fn read(&self) -> ReadData {
        match self.read_data_subset {
            Some(subset) => ReadData::Subset(subset),
            None if self.read_data => ReadData::Everything,
            None => ReadData::Nothing,
        }
    }
}

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

/// Does what was asked of a repository.
pub(crate) fn run(command: RepoCommand, context: &Context) -> Result<()> {
    match command {
        RepoCommand::Init(args) => init(&args, context),
        RepoCommand::Check(args) => check(&args, context),
        RepoCommand::Key(KeyCommand::Add(args)) => key_add(&args, context),
        RepoCommand::Key(KeyCommand::List(args)) => key_list(&args, context),
        RepoCommand::Key(KeyCommand::Remove(args)) => key_remove(&args, context),
        RepoCommand::Unlock(args) => unlock(&args, context),
    }
}

fn init(args: &RepoArgs, context: &Context) -> Result<()> {
    let config = context.config()?;
    let spec = config.repository(&args.repository)?.spec()?;
    let made = context.block_on(async { Ok(backstay_pipeline::repository::init(&spec).await?) })?;
    let result = serde_json::json!({ "repository": spec.name, "url": spec.url, "id": made.id().to_string() });
    let text = format!(
        "made repository {} at {}\nkeep its password: without it nothing in there can be read",
        made.id().short(),
        spec.url
    );
    context.output().result(&result, text)
}

/// What `repo check` found, as `--json` shows it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct CheckView<'a> {
    repository: &'a str,
    read_data: bool,
    read_data_subset: Option<String>,
    snapshots: u64,
    packs_read: u64,
    bytes_read: u64,
    /// One line each, as people read them.
    problems: Vec<String>,
    problems_unlisted: u64,
    /// The same problems in parts.
    damaged: Vec<DamageView<'a>>,
    gaps: Vec<GapView<'a>>,
}

/// Something that is damaged or missing.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct DamageView<'a> {
    object: &'a str,
    what: &'a str,
    /// The newest backups that need it; `null` where it is not a part of backups.
    backups: Option<&'a [BackupId]>,
    /// How many need it.
    backups_count: Option<u64>,
}

/// A gap in a target's log.
#[derive(Serialize)]
struct GapView<'a> {
    target: &'a TargetName,
    #[serde(flatten)]
    gap: &'a Gap,
}

impl<'a> From<&'a Problem> for DamageView<'a> {
    fn from(problem: &'a Problem) -> Self {
        let affected = problem.affected.as_ref();
        Self {
            object: &problem.object,
            what: &problem.what,
            backups: affected.map(|affected| affected.listed.as_slice()),
            backups_count: affected.map(|affected| affected.count),
        }
    }
}

fn check(args: &CheckArgs, context: &Context) -> Result<()> {
    let config = context.config()?;
    let repository = config.repository(&args.repository)?;
    let checked = context.block_on(async {
        let open = catalog::open(repository).await?;
        context.check(&open, args.read()).await
    })?;
    let view = CheckView {
        repository: &args.repository,
        read_data: args.read_data,
        read_data_subset: args.read_data_subset.map(|subset| subset.to_string()),
        snapshots: checked.snapshots,
        packs_read: checked.packs_read,
        bytes_read: checked.bytes_read,
        problems: checked.problems.iter().map(ToString::to_string).collect(),
        problems_unlisted: checked.unlisted,
        damaged: checked.problems.iter().map(DamageView::from).collect(),
        gaps: checked.gaps.iter().map(|(target, gap)| GapView { target, gap }).collect(),
    };
    context.output().result(&view, page(&checked, args.read()))?;
    if !checked.problems.is_empty() {
        let problems = checked.problems.len() as u64 + checked.unlisted;
        return Err(Failure::new(
            FailureKind::Damaged,
            format!("repository `{}` is damaged: {problems} problems, listed above", args.repository),
        )
        .hint("backups that do not need what is damaged still restore; the next backup stores what is missing again")
        .told());
    }
    if let Some((target, gap)) = checked.gaps.first() {
        return Err(Failure::new(FailureKind::Gap, format!("failed to find the log of `{target}` whole: {gap}"))
            .hint("no restore goes across a gap; a new backup starts a new recovery window behind it")
            .told());
    }
    Ok(())
}

fn page(checked: &Checked, read_data: ReadData) -> String {
    let problems = checked.problems.iter().map(|problem| format!("problem: {problem}"));
    let gaps = checked.gaps.iter().map(|(target, gap)| format!("gap: {target}: {gap}"));
    let lines: Vec<String> = problems.chain(gaps).collect();
    let mut text: String = lines.iter().take(REPORT_LINES_MAX).map(|line| format!("{line}\n")).collect();
    let more = lines.len().saturating_sub(REPORT_LINES_MAX) as u64 + checked.unlisted;
    if more > 0 {
        text.push_str(&format!("... and {more} more\n"));
    }
    let depth = match read_data {
        ReadData::Everything => format!("{} read and verified", output::size(checked.bytes_read)),
        ReadData::Subset(subset) => {
            format!(
                "{} packs ({subset}) with {} read and verified",
                checked.packs_read,
                output::size(checked.bytes_read)
            )
        }
        ReadData::Nothing => "data not read (--read-data does)".to_owned(),
    };
    let verdict = if lines.is_empty() { "no problem found" } else { "problems found" };
    text.push_str(&format!("{} backups checked, {depth}: {verdict}", checked.snapshots));
    text
}

fn key_add(args: &KeyAddArgs, context: &Context) -> Result<()> {
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

fn key_list(args: &RepoArgs, context: &Context) -> Result<()> {
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

fn key_remove(args: &KeyRemoveArgs, context: &Context) -> Result<()> {
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

fn unlock(args: &UnlockArgs, context: &Context) -> Result<()> {
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
