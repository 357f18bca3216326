//! What a repository holds of a target, read in this process: it runs no plugin.

#[cfg(test)]
mod tests;

use crate::{
    command::backups::Record,
    config::{Config, Repository, RepositoryName, Target},
    context::Context,
    failure::{Failure, Result},
    limits::MIRROR_CONTACT,
};
use backstay_core::{Chain, Confirmed, Gap, TargetName};
use backstay_pipeline::{
    FailureKind, RepositorySpec,
    catalog::{Entry, entries, readable_entries},
    repository::open_log,
};
use backstay_repo::{
    CheckOptions, CheckProgress, Problem, ReadData, RepoError, RepoErrorKind, RetryPolicy, Store,
    log::{LogChain, LogReport},
};
use std::{collections::BTreeMap, time::Duration};

/// Everything that says where a target can be restored to.
pub(crate) struct Catalog {
    /// Its backups, oldest first.
    pub(crate) records: Vec<Record>,
    /// Its log.
    pub(crate) chain: Chain,
    /// How far the log is complete though nothing was logged.
    pub(crate) confirmed: Option<Confirmed>,
}

impl Catalog {
    /// Reads all that an open repository has of a target, for whoever removes some of it: a backup that cannot be read is
    /// a failure.
    pub(crate) async fn of(
        name: &RepositoryName,
        open: &backstay_repo::Repository,
        target: &TargetName,
    ) -> Result<Self> {
        // Backups first: the log that is listed later reaches at least as far.
        let entries = entries(open, Some(target)).await?;
        Self::with(entries, name, open, target).await
    }

    /// Reads what can be read of it.
    async fn readable(name: &RepositoryName, open: &backstay_repo::Repository, target: &TargetName) -> Result<Self> {
        let entries = readable_entries(open, Some(target), None).await?;
        Self::with(entries, name, open, target).await
    }

    async fn with(
        entries: Vec<Entry>,
        name: &RepositoryName,
        open: &backstay_repo::Repository,
        target: &TargetName,
    ) -> Result<Self> {
        let records = records(entries, name, open).await?;
        let log = open_log(open, target).await?;
        Ok(Self { records, confirmed: log.confirmed().await?, chain: log.chain().clone() })
    }
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
    /// The backups of one target, or of all targets in all repositories of the configuration, that can be read, oldest
    /// first.
    pub(crate) fn records(&self, target: Option<&str>) -> Result<Vec<Record>> {
        self.records_asked_for(target, None)
    }

    /// The same for whoever asks for one by the start of its id: that it cannot be read is a failure then.
    pub(crate) fn records_asked_for(&self, target: Option<&str>, id_start: Option<&str>) -> Result<Vec<Record>> {
        let config = self.config()?;
        let mut records = self.block_on(async {
            match target {
                Some(target) => {
                    let target = config.target(target)?;
                    let home = home(&config, target).await?;
                    let entries = readable_entries(&home.open, Some(&target.name), id_start).await?;
                    records(entries, &home.repository.name, &home.open).await
                }
                None => all(&config, id_start).await,
            }
        })?;
        records.sort_by_key(|record| record.backup.manifest.finished);
        Ok(records)
    }

    /// Everything about one target.
    pub(crate) fn catalog(&self, target: &str) -> Result<Catalog> {
        let config = self.config()?;
        let target = config.target(target)?;
        self.block_on(async {
            let Home { repository, open, .. } = home(&config, target).await?;
            Catalog::readable(&repository.name, &open, &target.name).await
        })
    }

    /// Checks a repository with its logs; reads as much as is wished, the logs where that is everything.
    pub(crate) async fn check(&self, open: &backstay_repo::Repository, read_data: ReadData) -> Result<Checked> {
        let progress = self.progress();
        let shown = |at: CheckProgress| {
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
    /// It cannot be reached, refuses, or cannot be read.
    Away(Failure),
    /// Everything else.
    Other(Failure),
}

impl Unopened {
    /// Whether another repository may stand in for it.
    pub(crate) fn is_away(&self) -> bool {
        matches!(self, Self::Absent(_) | Self::Away(_))
    }
}

impl From<RepoError> for Unopened {
    fn from(error: RepoError) -> Self {
        match error.kind() {
            RepoErrorKind::Unreachable | RepoErrorKind::Denied | RepoErrorKind::Store | RepoErrorKind::Damaged => {
                Self::Away(error.into())
            }
            _ => Self::Other(error.into()),
        }
    }
}

impl From<Unopened> for Failure {
    fn from(unopened: Unopened) -> Self {
        match unopened {
            Unopened::Absent(failure) | Unopened::Away(failure) | Unopened::Other(failure) => failure,
        }
    }
}

/// Opens a repository of the configuration; reads its secrets.
pub(crate) async fn open(repository: &Repository) -> Result<backstay_repo::Repository, Unopened> {
    open_as(repository, &repository.spec().map_err(Unopened::Other)?).await
}

/// The first of a target's repositories that can be reached.
pub(crate) struct Home<'a> {
    /// It.
    pub(crate) repository: &'a Repository,
    /// What opened it.
    pub(crate) spec: RepositorySpec,
    /// The same, open.
    pub(crate) open: backstay_repo::Repository,
    /// Those before it.
    pub(crate) away: Vec<Away<'a>>,
}

/// A repository that cannot be reached.
pub(crate) struct Away<'a> {
    /// It.
    pub(crate) repository: &'a Repository,
    /// Why.
    pub(crate) why: Failure,
}

/// Opens the first of a target's repositories that can be reached, and says so when it is not the target's own.
pub(crate) async fn home<'a>(config: &'a Config, target: &Target) -> Result<Home<'a>> {
    let all = config.repositories_of(target)?;
    let has_mirrors = all.len() > 1;
    let mut away: Vec<Away<'a>> = Vec::new();
    for repository in all {
        let spec = repository.spec()?;
        let opened = match has_mirrors {
            true => open_soon(repository, &spec).await,
            false => open_as(repository, &spec).await,
        };
        match opened {
            Ok(open) => {
                for Away { repository: other, why } in &away {
                    let (name, why) = (&other.name, why.message());
                    tracing::warn!("repository `{name}` is away, using its mirror `{}`: {why}", repository.name);
                }
                return Ok(Home { repository, spec, open, away });
            }
            Err(unopened) if has_mirrors && unopened.is_away() => away.push(Away { repository, why: unopened.into() }),
            Err(unopened) => return Err(unopened.into()),
        }
    }
    let first = away.into_iter().next().map(|away| away.why);
    Err(first.unwrap_or_else(|| Failure::usage("failed to find a repository")))
}

/// Opens a repository that others can stand in for: whether it answers is known soon.
pub(crate) async fn open_soon(
    repository: &Repository,
    spec: &RepositorySpec,
) -> Result<backstay_repo::Repository, Unopened> {
    let store = backstay_pipeline::repository::connect(spec)?;
    contact(store, &repository.name, MIRROR_CONTACT).await?;
    open_as(repository, spec).await
}

/// Sees whether a store answers within this time, whatever keeps it.
async fn contact(store: Store, name: &RepositoryName, within: Duration) -> Result<(), Unopened> {
    let address = store.address().to_owned();
    // One attempt at least, so that what is refused at once is told as what it is.
    let patience = RetryPolicy { attempts_min: 1, deadline: within, ..RetryPolicy::default() };
    match tokio::time::timeout(within, store.with_retry(patience).exists("config")).await {
        Ok(answered) => Ok(answered.map(drop)?),
        Err(_) => Err(Unopened::Away(
            Failure::new(
                FailureKind::Unreachable,
                format!("failed to reach repository `{name}`: {address} did not answer within {within:?}"),
            )
            .hint("check the store's address and that it answers"),
        )),
    }
}

/// The backups of all repositories of the configuration. Of a target with mirrors those of one: they are the same.
async fn all(config: &Config, id_start: Option<&str>) -> Result<Vec<Record>> {
    let mut found: Vec<(&Repository, Vec<Record>)> = Vec::new();
    let mut away = Vec::new();
    for repository in config.repositories.values() {
        let stands_in = |target: &Target| {
            (target.repository == repository.name && !target.mirrors.is_empty())
                || target.mirrors.contains(&repository.name)
        };
        let spec = repository.spec()?;
        let opened = match config.targets.values().any(stands_in) {
            true => open_soon(repository, &spec).await,
            false => open_as(repository, &spec).await,
        };
        match opened {
            Ok(open) => {
                let entries = readable_entries(&open, None, id_start).await?;
                found.push((repository, records(entries, &repository.name, &open).await?));
            }
            // Asked for everything, a repository that was not made yet holds nothing.
            Err(Unopened::Absent(_)) if config.repositories.len() > 1 => {}
            Err(unopened) if unopened.is_away() && config.targets.values().any(stands_in) => {
                away.push((repository, Failure::from(unopened)));
            }
            Err(unopened) => return Err(unopened.into()),
        }
    }
    for (repository, why) in away {
        let is_found = |name: &RepositoryName| found.iter().any(|(other, _)| other.name == *name);
        let mut of_it = config.targets.values().filter(|target| target.repository == repository.name);
        if of_it.any(|target| !target.mirrors.iter().any(is_found)) {
            return Err(why);
        }
        tracing::warn!("repository `{}` is away: {}", repository.name, why.message());
    }
    let homes: BTreeMap<&TargetName, &RepositoryName> = config
        .targets
        .values()
        .filter_map(|target| {
            let mut names = std::iter::once(&target.repository).chain(&target.mirrors);
            let home = names.find(|name| found.iter().any(|(repository, _)| repository.name == **name))?;
            Some((&target.name, home))
        })
        .collect();
    let mut records = Vec::new();
    for (repository, listed) in found {
        records.extend(listed.into_iter().filter(|record| {
            let target = config.targets.get(&record.backup.manifest.target);
            let is_one_of = |target: &Target| {
                std::iter::once(&target.repository).chain(&target.mirrors).any(|name| *name == repository.name)
            };
            // What lies elsewhere is no copy.
            !target.is_some_and(is_one_of) || homes.get(&record.backup.manifest.target) == Some(&&repository.name)
        }));
    }
    Ok(records)
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
        _ => error.into(),
    })
}

/// Opens a target's log.
pub(crate) async fn log(config: &Config, target: &Target) -> Result<LogChain> {
    Ok(open_log(&home(config, target).await?.open, &target.name).await?)
}

async fn records(
    entries: Vec<Entry>,
    name: &RepositoryName,
    repository: &backstay_repo::Repository,
) -> Result<Vec<Record>> {
    let mut pins = repository.pins().await?;
    let record = |entry: Entry| Record {
        repository: name.clone(),
        pinned: pins.remove(&entry.backup.id).map(|pin| pin.reason),
        uploaded: entry.snapshot.uploaded,
        backup: entry.backup,
    };
    Ok(entries.into_iter().map(record).collect())
}
