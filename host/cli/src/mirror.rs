//! Mirrors: a target's other repositories get what its first one has.
//!
//! ```text
//!   backup ─► home, the first that can be reached ─► committed ─► then level with the others, both ways
//!   archive ─► level home first ─► home ─► acknowledged
//!                                   └─► a task for each other repository brings it the log as it comes
//! ```
//!
//! No mirror is waited for: a backup counts when home has it, log is acknowledged when home has it. A mirror that was
//! away is brought level by whoever finds it back: the archiver, the next backup, `backstay repo sync`.

use crate::{
    catalog::{Home, open_soon},
    config::{Config, Repository, Target},
    failure::Failure,
    limits::{MIRROR_COMPACT, MIRROR_FAREWELL, MIRROR_PAUSE, MIRROR_RETRY},
};
use backstay_core::{TargetName, Timestamp};
use backstay_pipeline::{
    FailureKind,
    catalog::{Entry, entries},
    repository::open_log,
    transfer::{Brought, Step, bring, copy_log, steps},
};
use backstay_repo::{
    Copied,
    log::{CompactPolicy, LogChain, LogCopied, LogCopyOptions},
};
use serde::Serialize;
use std::time::{Instant, SystemTime};
use tokio::sync::watch;

/// How one mirror stands, as `--json` shows it.
#[derive(Serialize)]
pub(crate) struct Standing {
    /// Its name.
    pub(crate) repository: String,
    /// Whether it lacks something that another has.
    pub(crate) lags: bool,
    /// Why.
    pub(crate) why: Option<String>,
    /// For the exit code.
    #[serde(skip)]
    pub(crate) failure: Option<Failure>,
}

/// What went from one repository into another.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Flow {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) backups: Vec<Copied>,
    pub(crate) damaged: Vec<String>,
    pub(crate) bytes: u64,
    pub(crate) log: LogCopied,
}

/// How all of a target's repositories stand.
#[derive(Serialize)]
pub(crate) struct Level {
    /// The first that can be reached.
    pub(crate) repository: String,
    /// All others, in the order of the configuration.
    pub(crate) mirrors: Vec<Standing>,
    /// What went where; nothing where there was nothing to do.
    pub(crate) flows: Vec<Flow>,
}

impl Level {
    /// The mirrors that lag.
    pub(crate) fn lagging(&self) -> impl Iterator<Item = &Standing> {
        self.mirrors.iter().filter(|standing| standing.lags)
    }
}

/// All of the target's repositories but that one.
fn others<'a>(config: &'a Config, target: &Target, home: &Home<'_>) -> Result<Vec<&'a Repository>, Failure> {
    let mut all = config.repositories_of(target)?;
    all.retain(|repository| repository.name != home.repository.name);
    Ok(all)
}

async fn open(repository: &Repository) -> Result<backstay_repo::Repository, Failure> {
    Ok(open_soon(repository, &repository.spec()?).await?)
}

/// Brings home level with every other repository of the target that can be reached, and those with home.
pub(crate) async fn level(
    config: &Config,
    target: &Target,
    home: &Home<'_>,
    dry_run: bool,
    progress: &(dyn Fn(&str, u64, u64) + Send + Sync),
) -> Result<Level, Failure> {
    let name = home.repository.name.to_string();
    let mut sides = vec![Side { name: name.clone(), open: home.open.clone(), standing: None, is_out: false }];
    let mut level = Level { repository: name, mirrors: Vec::new(), flows: Vec::new() };
    for (number, repository) in others(config, target, home)?.into_iter().enumerate() {
        let name = repository.name.to_string();
        let mut standing = Standing { repository: name.clone(), lags: false, why: None, failure: None };
        match open(repository).await {
            Ok(open) => sides.push(Side { name, open, standing: Some(number), is_out: false }),
            Err(failure) => standing.fail(failure),
        }
        level.mirrors.push(standing);
    }
    let mut leveling = Leveling { level, sides };
    let holdings = leveling.holdings(&target.name).await;
    for Step { from, to, snapshots } in steps(&holdings) {
        let Some((ours, theirs, mirror)) = leveling.way(from, to) else { continue };
        let shown = |done, total| progress(&mirror, done, total);
        let brought = bring(&ours, &theirs, snapshots, dry_run, &shown).await;
        leveling.note(from, to, brought.map(|brought| (brought, LogCopied::default())));
    }
    // Behind the backups, so that the log reaches at least as far; first what only a mirror has, so that the others get
    // it in the same run.
    let mirrors = 1..leveling.sides.len();
    for (from, to) in mirrors.clone().map(|mirror| (mirror, 0)).chain(mirrors.map(|mirror| (0, mirror))) {
        let Some((ours, theirs, _)) = leveling.way(from, to) else { continue };
        let options = LogCopyOptions { dry_run, compare: false };
        let log = copy_log(&ours, &theirs, &target.name, options).await;
        leveling.note(from, to, log.map(|log| (Brought::default(), log)));
    }
    let mut level = leveling.level;
    if dry_run {
        for standing in &mut level.mirrors {
            let name = &standing.repository;
            standing.lags |= level.flows.iter().any(|flow| flow.from == *name || flow.to == *name);
        }
    }
    Ok(level)
}

/// A repository that takes part.
struct Side {
    name: String,
    open: backstay_repo::Repository,
    /// Its place among the mirrors' standings; home has none.
    standing: Option<usize>,
    /// It failed, and gets nothing newer either: what it lacks would look removed then.
    is_out: bool,
}

/// Repositories on their way to the same state; home is the first.
struct Leveling {
    level: Level,
    sides: Vec<Side>,
}

impl Leveling {
    /// The backups of each, all or nothing: one that cannot be read is not one that is missing.
    async fn holdings(&mut self, target: &TargetName) -> Vec<Vec<Entry>> {
        let all = futures::future::join_all(self.sides.iter().map(|side| entries(&side.open, Some(target)))).await;
        let read = |(number, holding): (usize, Result<Vec<Entry>, _>)| {
            holding.unwrap_or_else(|failure: backstay_pipeline::Failure| {
                let out = if number == 0 { 0..self.sides.len() } else { number..number + 1 };
                out.for_each(|number| self.fail(number, failure.clone().into()));
                Vec::new()
            })
        };
        all.into_iter().enumerate().map(read).collect()
    }

    /// Both ends of a way and the mirror it is about; nothing where one of them is out.
    fn way(&self, from: usize, to: usize) -> Option<(backstay_repo::Repository, backstay_repo::Repository, String)> {
        let (ours, theirs) = (&self.sides[from], &self.sides[to]);
        let mirror = self.sides[about(from, to)].name.clone();
        (!ours.is_out && !theirs.is_out).then(|| (ours.open.clone(), theirs.open.clone(), mirror))
    }

    fn note(&mut self, from: usize, to: usize, done: Result<(Brought, LogCopied), backstay_pipeline::Failure>) {
        let (Brought { backups, damaged, bytes }, log) = match done {
            Ok(done) => done,
            Err(failure) => return self.fail(about(from, to), failure.into()),
        };
        if let (Some(first), Some(standing)) = (damaged.first(), self.sides[about(from, to)].standing) {
            self.level.mirrors[standing].fail(Failure::new(FailureKind::Damaged, first.clone()));
        }
        if backups.is_empty() && damaged.is_empty() && log.is_nothing() {
            return;
        }
        let (from, to) = (&self.sides[from].name, &self.sides[to].name);
        let flows = &mut self.level.flows;
        match flows.iter_mut().find(|flow| flow.from == *from && flow.to == *to) {
            Some(flow) => {
                flow.backups.extend(backups);
                flow.damaged.extend(damaged);
                flow.bytes += bytes;
                // It comes once, and last.
                flow.log = log;
            }
            None => flows.push(Flow { from: from.clone(), to: to.clone(), backups, damaged, bytes, log }),
        }
    }

    fn fail(&mut self, number: usize, failure: Failure) {
        let side = &mut self.sides[number];
        side.is_out = true;
        if let Some(standing) = side.standing {
            self.level.mirrors[standing].fail(failure);
        }
    }
}

/// The mirror that a way is about: what comes into home says how the mirror stands that has it.
fn about(from: usize, to: usize) -> usize {
    if to == 0 { from } else { to }
}

impl Standing {
    fn fail(&mut self, failure: Failure) {
        self.lags = true;
        self.why = Some(failure.message().to_owned());
        self.failure = Some(failure);
    }
}

/// Brings log that only a mirror has into home, before an archiver goes on there: the database may no longer have it.
pub(crate) async fn before_archive(config: &Config, target: &Target, home: &Home<'_>) -> Result<(), Failure> {
    for repository in others(config, target, home)? {
        let name = &repository.name;
        let came = async {
            let open = open(repository).await?;
            let options = LogCopyOptions::default();
            Ok::<_, Failure>(copy_log(&open, &home.open, &target.name, options).await?)
        };
        match came.await {
            Ok(came) if came.is_nothing() => {}
            Ok(came) => tracing::info!(bytes = came.bytes, "took log that only mirror `{name}` had"),
            Err(failure) => {
                tracing::warn!("mirror `{name}` lags, and log that only it has is missing: {}", failure.message())
            }
        }
    }
    Ok(())
}

/// What wakes those who follow a log, and what ends them.
pub(crate) struct Bell {
    news: watch::Sender<u64>,
    stop: watch::Sender<bool>,
}

impl Bell {
    pub(crate) fn new() -> Self {
        Self { news: watch::Sender::new(0), stop: watch::Sender::new(false) }
    }

    /// There is more log.
    pub(crate) fn ring(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    /// There will be no more.
    pub(crate) fn end(&self) {
        self.stop.send_replace(true);
    }
}

/// Brings every other repository the log as it comes, until the bell ends it and they have the last of it.
pub(crate) async fn follow(config: &Config, target: &Target, home: &Home<'_>, bell: &Bell) -> Result<(), Failure> {
    let followers = others(config, target, home)?.into_iter().map(|repository| Follower {
        home: &home.open,
        repository,
        target: &target.name,
        ours: None,
        theirs: None,
        compacted: Instant::now(),
    });
    let all = futures::future::join_all(followers.map(|follower| follower.run(bell)));
    let farewell = async {
        // The sender lives as long as the bell.
        let _ = bell.stop.subscribe().wait_for(|stop| *stop).await;
        tokio::time::sleep(MIRROR_FAREWELL).await;
    };
    tokio::select! {
        _ = all => {}
        () = farewell => tracing::warn!("a mirror did not get the last of the log: `backstay repo sync` brings it level"),
    }
    Ok(())
}

/// Brings one repository what another one gets.
struct Follower<'a> {
    home: &'a backstay_repo::Repository,
    repository: &'a Repository,
    target: &'a TargetName,
    /// Kept: they remember the headers they have read.
    ours: Option<LogChain>,
    theirs: Option<LogChain>,
    compacted: Instant,
}

impl Follower<'_> {
    async fn run(mut self, bell: &Bell) {
        let (mut news, mut stop) = (bell.news.subscribe(), bell.stop.subscribe());
        let mut is_away = false;
        loop {
            let last = *stop.borrow_and_update();
            news.mark_unchanged();
            let name = &self.repository.name;
            match self.round().await {
                Ok(_) if is_away => {
                    tracing::warn!("mirror `{name}` is back and level with the log");
                    is_away = false;
                }
                Ok(copied) => tracing::debug!(?copied, "mirror `{name}` is level with the log"),
                Err(failure) => {
                    (self.ours, self.theirs) = (None, None);
                    if !std::mem::replace(&mut is_away, true) {
                        tracing::warn!("mirror `{name}` lags, will try again: {}", failure.message());
                    }
                }
            }
            if last {
                return;
            }
            let pause = if is_away { MIRROR_RETRY } else { MIRROR_PAUSE };
            let rested = tokio::select! {
                () = tokio::time::sleep(pause) => true,
                _ = stop.changed() => false,
            };
            if rested && !is_away {
                // Whatever becomes of the bell, the next round tells.
                tokio::select! {
                    _ = news.changed() => {}
                    _ = stop.changed() => {}
                    () = tokio::time::sleep(MIRROR_RETRY) => {}
                }
            }
        }
    }

    async fn round(&mut self) -> Result<LogCopied, Failure> {
        let theirs = match &mut self.theirs {
            Some(theirs) => theirs,
            None => {
                let open = open(self.repository).await?;
                self.theirs.insert(open_log(&open, self.target).await?)
            }
        };
        let ours = match &mut self.ours {
            Some(ours) => {
                ours.load().await?;
                ours
            }
            None => self.ours.insert(open_log(self.home, self.target).await?),
        };
        let copied = ours.copy_to(theirs, LogCopyOptions::default(), &|_| ()).await?;
        if self.compacted.elapsed() > MIRROR_COMPACT {
            self.compacted = Instant::now();
            theirs.compact(&CompactPolicy::default(), Timestamp::from(SystemTime::now())).await?;
        }
        Ok(copied)
    }
}
