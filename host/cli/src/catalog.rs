//! What a repository holds of a target, read in this process: it runs no plugin.

use crate::{
    command::backups::Record,
    config::{Repository, RepositoryName},
    context::Context,
    failure::{Failure, Result},
};
use backstay_core::{Chain, Confirmed, Gap, TargetName};
use backstay_pipeline::{RepositorySpec, repository::open_log};
use backstay_repo::{
    CheckOptions, CheckProgress, Problem, ReadData, RepoErrorKind,
    log::{LogChain, LogReport},
};
use std::sync::{Mutex, PoisonError};

/// Everything that says where a target can be restored to.
pub(crate) struct Catalog {
    /// Its backups, oldest first.
    pub(crate) records: Vec<Record>,
    /// Its log.
    pub(crate) chain: Chain,
    /// How far the log is complete though nothing was logged.
    pub(crate) confirmed: Option<Confirmed>,
}

/// What a check found.
pub(crate) struct Checked {
    /// What is damaged or missing.
    pub(crate) problems: Vec<Problem>,
    /// Missing links of the logs, by target.
    pub(crate) gaps: Vec<(TargetName, Gap)>,
    /// Problems that are not listed.
    pub(crate) unlisted: u64,
    /// Backups and other snapshots looked at.
    pub(crate) snapshots: u64,
    /// Packs read and verified.
    pub(crate) packs_read: u64,
    /// Bytes read and verified, of packs and logs.
    pub(crate) bytes_read: u64,
}

impl Context {
    /// The backups of one target, or of all targets in all repositories of the configuration, oldest first.
    pub(crate) fn records(&self, target: Option<&str>) -> Result<Vec<Record>> {
        let config = self.config()?;
        let target = target.map(|target| config.target(target)).transpose()?;
        let repositories = config.repositories.values();
        let wanted = repositories.filter(|repository| target.is_none_or(|target| target.repository == repository.name));
        let wanted: Vec<&Repository> = wanted.collect();
        let mut records = self.block_on(async {
            let mut records = Vec::new();
            for repository in &wanted {
                match open(repository).await {
                    Ok(open) => records.extend(list(&repository.name, &open, target.map(|target| &target.name)).await?),
                    // Asked for everything, a repository that was not made yet holds nothing.
                    Err(Unopened::Absent(_)) if target.is_none() && wanted.len() > 1 => {}
                    Err(unopened) => return Err(unopened.into()),
                }
            }
            Ok(records)
        })?;
        records.sort_by_key(|record| record.backup.manifest.finished);
        Ok(records)
    }

    /// Everything about one target.
    pub(crate) fn catalog(&self, target: &str) -> Result<Catalog> {
        let config = self.config()?;
        let target = config.target(target)?;
        let repository = config.repository(target.repository.as_str())?;
        self.block_on(async {
            let open = open(repository).await?;
            // Backups first: the log that is listed later reaches at least as far.
            let records = list(&repository.name, &open, Some(&target.name)).await?;
            let log = open_log(&open, &target.name).await?;
            Ok(Catalog { records, confirmed: log.confirmed().await?, chain: log.chain().clone() })
        })
    }

    /// Checks a repository with its logs; reads as much as is wished, the logs where that is everything.
    pub(crate) async fn check(&self, open: &backstay_repo::Repository, read_data: ReadData) -> Result<Checked> {
        let progress = Mutex::new(self.progress());
        let shown = |at: CheckProgress| {
            // A drawing that panicked elsewhere is no reason to stop checking.
            let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.update(&format!("pack {} of {}", at.packs_done, at.packs_total), at.bytes_done, None);
        };
        let report = open.check(CheckOptions { read_data }, shown).await?;
        let mut checked = Checked {
            problems: report.errors,
            gaps: Vec::new(),
            unlisted: report.errors_unlisted,
            snapshots: report.snapshots,
            packs_read: report.packs_read,
            bytes_read: report.bytes_read,
        };
        let read_data = read_data == ReadData::Everything;
        for target in LogChain::targets(open.store()).await? {
            let log = open_log(open, &target).await?.check(read_data).await?;
            checked.add(&target, log);
        }
        Ok(checked)
    }
}

impl Checked {
    fn add(&mut self, target: &TargetName, log: LogReport) {
        self.problems.extend(log.damaged.into_iter().map(|damaged| Problem {
            what: damaged.why.strip_prefix(&format!("{} ", damaged.object)).unwrap_or(&damaged.why).to_owned(),
            object: damaged.object,
            affected: None,
        }));
        self.gaps.extend(log.gaps.into_iter().map(|gap| (target.clone(), gap)));
        self.bytes_read += log.read_bytes;
    }
}

/// Why a repository did not open.
pub(crate) enum Unopened {
    /// There is none at that place.
    Absent(Failure),
    /// Everything else.
    Other(Failure),
}

impl From<Unopened> for Failure {
    fn from(unopened: Unopened) -> Self {
        match unopened {
            Unopened::Absent(failure) | Unopened::Other(failure) => failure,
        }
    }
}

/// Opens a repository of the configuration; reads its secrets.
pub(crate) async fn open(repository: &Repository) -> Result<backstay_repo::Repository, Unopened> {
    open_as(repository, &repository.spec().map_err(Unopened::Other)?).await
}

/// Opens a repository for a job: the job gets its key, not its password.
pub(crate) async fn unlock(repository: &Repository) -> Result<RepositorySpec, Unopened> {
    let spec = repository.spec().map_err(Unopened::Other)?;
    let opened = open_as(repository, &spec).await?;
    Ok(backstay_pipeline::repository::unlocked(spec, &opened))
}

async fn open_as(repository: &Repository, spec: &RepositorySpec) -> Result<backstay_repo::Repository, Unopened> {
    let name = &repository.name;
    backstay_pipeline::repository::open(spec).await.map_err(|error| match error.kind() {
        RepoErrorKind::NotFound => Unopened::Absent(
            Failure::usage(format!("failed to open repository `{name}`: there is none at {}", spec.url))
                .hint(format!("make it with `backstay repo init {name}`, or check its url")),
        ),
        RepoErrorKind::WrongPassword => Unopened::Other(
            Failure::usage(format!("failed to open repository `{name}`: its password opens none of its keys"))
                .hint(format!("check the password of [repositories.{name}]")),
        ),
        _ => Unopened::Other(error.into()),
    })
}

/// Opens a target's log.
pub(crate) async fn log(repository: &Repository, target: &TargetName) -> Result<LogChain> {
    Ok(open_log(&open(repository).await?, target).await?)
}

async fn list(
    name: &RepositoryName,
    repository: &backstay_repo::Repository,
    target: Option<&TargetName>,
) -> Result<Vec<Record>> {
    let entries = backstay_pipeline::catalog::entries(repository, target).await?;
    let mut pins = repository.pins().await?;
    let record = |entry: backstay_pipeline::catalog::Entry| Record {
        repository: name.clone(),
        pinned: pins.remove(&entry.backup.id).map(|pin| pin.reason),
        uploaded: entry.snapshot.uploaded,
        backup: entry.backup,
    };
    Ok(entries.into_iter().map(record).collect())
}
