//! `backstay backups`: which restore points there are.

use crate::{
    command::pin::{self, PinArgs, UnpinArgs},
    config::RepositoryName,
    context::Context,
    failure::{Failure, Result},
    output::{self, Fields, Table},
};
use backstay_core::{Backup, BackupId, BackupManifest, Position, TargetName, Timestamp};
use serde::Serialize;
use std::time::Duration;

/// Arguments of `backstay backups`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BackupsArgs {
    #[command(subcommand)]
    command: Option<BackupsCommand>,
    /// Only this target's; else every target of the configuration
    target: Option<String>,
}

/// What else to do with backups.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum BackupsCommand {
    /// Everything about one backup
    Show(ShowArgs),
    /// Keep one whatever the policy says
    Pin(PinArgs),
    /// Let the policy have it again
    Unpin(UnpinArgs),
}

/// Arguments of `backstay backups show`.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// The backup's id, or its first digits
    id: String,
}

/// A committed backup and what it cost.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// The backup.
    pub(crate) backup: Backup,
    /// Bytes that went to the store, where that is known.
    pub(crate) uploaded: Option<u64>,
    /// The repository that holds it.
    pub(crate) repository: RepositoryName,
    /// Why it is pinned, where it is.
    pub(crate) pinned: Option<String>,
}

/// A backup as `--json` shows it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct View<'a> {
    id: &'a BackupId,
    /// The restic snapshot: the same id.
    snapshot: &'a BackupId,
    target: &'a TargetName,
    engine: &'a str,
    engine_version: &'a str,
    database_version: &'a str,
    identity: &'a str,
    method: &'a str,
    started: Timestamp,
    finished: Timestamp,
    duration_seconds: f64,
    start: &'a Position,
    end: &'a Position,
    log_from: &'a Position,
    consistent_at: Option<Timestamp>,
    bytes: u64,
    files: u64,
    uploaded: Option<u64>,
    volumes: &'a [backstay_core::Volume],
    /// What was wrong in files of the database when they were read.
    findings: &'a [backstay_core::Finding],
    more_findings: u64,
    repository: &'a str,
    /// Why no policy may take it away; nothing where one may.
    pinned: Option<&'a str>,
}

impl Record {
    /// How long it took.
    pub(crate) fn duration(&self) -> Duration {
        let manifest = &self.backup.manifest;
        Duration::from_micros(manifest.finished.as_micros().saturating_sub(manifest.started.as_micros()))
    }

    /// As `--json` shows it.
    pub(crate) fn view(&self) -> View<'_> {
        let manifest: &BackupManifest = &self.backup.manifest;
        View {
            id: &self.backup.id,
            snapshot: &self.backup.id,
            target: &manifest.target,
            engine: &manifest.engine,
            engine_version: &manifest.engine_version,
            database_version: &manifest.database_version,
            identity: &manifest.identity,
            method: &manifest.method,
            started: manifest.started,
            finished: manifest.finished,
            duration_seconds: self.duration().as_secs_f64(),
            start: &manifest.start,
            end: &manifest.end,
            log_from: &manifest.log_from,
            consistent_at: manifest.consistent_at,
            bytes: manifest.bytes,
            files: manifest.files,
            uploaded: self.uploaded,
            volumes: &manifest.volumes,
            findings: &manifest.findings,
            more_findings: manifest.more_findings,
            repository: self.repository.as_str(),
            pinned: self.pinned.as_deref(),
        }
    }

    /// How many places in files of the database looked wrong when they were read.
    pub(crate) fn wrong_places(&self) -> u64 {
        let manifest = &self.backup.manifest;
        manifest.findings.len() as u64 + manifest.more_findings
    }

    fn row(&self) -> [String; 8] {
        let manifest = &self.backup.manifest;
        let mut mark = if self.pinned.is_some() { "; pinned".to_owned() } else { String::new() };
        if self.wrong_places() > 0 {
            mark.push_str(&format!("; {} bad places, see `backups show`", self.wrong_places()));
        }
        [
            self.backup.id.short().to_owned(),
            manifest.target.to_string(),
            output::seconds(manifest.finished),
            manifest.method.clone(),
            output::size(manifest.bytes),
            self.uploaded.map_or_else(|| "?".to_owned(), output::size),
            output::duration(self.duration()),
            format!("{} to {}{mark}", manifest.start.label, manifest.end.label),
        ]
    }

    fn fields(&self) -> Fields {
        let manifest = &self.backup.manifest;
        let mut fields = vec![
            ("id", self.backup.id.to_string()),
            ("target", manifest.target.to_string()),
            ("engine", format!("{} (plugin {})", manifest.engine, manifest.engine_version)),
            ("database", format!("{}, identity {}", manifest.database_version, manifest.identity)),
            ("method", manifest.method.clone()),
            ("started", manifest.started.to_string()),
            ("finished", manifest.finished.to_string()),
            ("duration", output::duration(self.duration())),
            ("size", format!("{} in {} files", output::size(manifest.bytes), manifest.files)),
            ("uploaded", self.uploaded.map_or_else(|| "not known".to_owned(), output::size)),
            ("start", manifest.start.to_string()),
            ("end", manifest.end.to_string()),
            ("log from", manifest.log_from.to_string()),
            ("consistent", manifest.consistent_at.map_or_else(|| "not known".to_owned(), |time| time.to_string())),
        ];
        fields.push(("repository", self.repository.to_string()));
        fields.extend(self.pinned.as_ref().map(|reason| ("pinned", reason.clone())));
        let volumes = manifest.volumes.iter();
        fields.extend(
            volumes.map(|volume| ("volume", format!("{}: {}, was at {}", volume.name, volume.title, volume.location))),
        );
        fields.extend(manifest.findings.iter().map(|finding| ("wrong", finding.to_string())));
        if manifest.more_findings > 0 {
            fields.push(("wrong", format!("and {} places more", manifest.more_findings)));
        }
        Fields(fields)
    }
}

/// Lists, or shows one.
pub(crate) fn run(args: &BackupsArgs, context: &Context) -> Result<()> {
    match &args.command {
        None => {}
        Some(BackupsCommand::Show(show)) => {
            let record = find(context, None, &show.id)?;
            return context.output().result(&record.view(), record.fields());
        }
        Some(BackupsCommand::Pin(args)) => return pin::pin(args, context),
        Some(BackupsCommand::Unpin(args)) => return pin::unpin(args, context),
    }
    let records = context.records(args.target.as_deref())?;
    let views: Vec<View<'_>> = records.iter().map(Record::view).collect();
    let headings = ["id", "target", "time", "method", ">size", ">uploaded", ">duration", "positions"];
    let mut table = Table::new(&headings);
    for record in &records {
        table.row(record.row());
    }
    let text = if table.is_empty() { "no backup yet".to_owned() } else { table.to_string() };
    context.output().result(&views, text)
}

/// The one backup whose id starts with `prefix`; of one target, or of any in the configuration.
pub(crate) fn find(context: &Context, target: Option<&str>, prefix: &str) -> Result<Record> {
    among(&context.records_asked_for(target, Some(prefix))?, prefix).cloned()
}

/// The one whose id begins like this.
pub(crate) fn among<'a>(records: &'a [Record], prefix: &str) -> Result<&'a Record> {
    let digits = !prefix.is_empty() && prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !digits || prefix.len() > 64 {
        return Err(Failure::usage(format!("failed to find backup `{prefix}`: an id has up to 64 digits and a to f")));
    }
    let found: Vec<&Record> = records.iter().filter(|record| record.backup.id.as_str().starts_with(prefix)).collect();
    if found.len() > 1 {
        let ids: Vec<_> = found.iter().take(5).map(|record| record.backup.id.short().to_owned()).collect();
        return Err(Failure::usage(format!(
            "failed to find backup `{prefix}`: {} backups start like this ({})",
            found.len(),
            ids.join(", ")
        ))
        .hint("give more digits"));
    }
    found.first().copied().ok_or_else(|| {
        Failure::usage(format!("failed to find backup `{prefix}`: there is none")).hint("`backstay backups` lists them")
    })
}
