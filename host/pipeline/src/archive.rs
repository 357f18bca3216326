//! Follows a database's log: every piece is durable before the plugin hears of it.

use crate::{
    backup::repository_of,
    first_failure::FirstFailure,
    job::{ArchiveSummary, Failure},
    repository,
    work::Work,
};
use async_trait::async_trait;
use backstay_core::{Position, Segment, TargetName, Timestamp};
use backstay_repo::{
    Repository,
    log::{CompactPolicy, LogChain, LogError},
};
use backstay_sandbox::{EngineError, LogSink, Reporter};
use bytes::Bytes;
use std::{
    sync::{
        Arc, Mutex as Lock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// How often small pieces are merged. Readers cope with any number of them; this keeps LIST
/// short, and a synchronous archiver may append hundreds a second.
const COMPACT_EVERY: Duration = Duration::from_secs(60);
/// How often the end of the log is confirmed while the database is idle.
const CONFIRM_EVERY: Duration = Duration::from_secs(10);

pub(crate) async fn run(work: &Work, accept_gap: bool) -> Result<ArchiveSummary, Failure> {
    let target = &work.spec.target;
    let spec = repository_of(&work.spec.repository)?;
    let repository = repository::open(spec).await?;
    let mut log = repository::open_log(&repository, &target.name).await?;
    // The database throws away what lies before the tail that it is told.
    log.settle().await?;
    let mut tail = log.tail().cloned();
    if accept_gap {
        // The plugin starts where the database still has log, as if there were none here.
        log.allow_gap();
        tail = None;
    }
    let sink = Arc::new(Sink {
        engine: target.engine.clone(),
        log: Mutex::new(log),
        tail: Lock::new(tail),
        pieces: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        confirmed: Lock::new(None),
        reporter: work.reporter.clone(),
        failed: FirstFailure::default(),
    });
    let compactor = tokio::spawn(compact_forever(repository.clone(), target.name.clone(), work.reporter.clone()));
    let done = work.plugin.archive(work.context("archive"), sink.clone()).await;
    compactor.abort();
    sink.failed.judge(done)?;
    Ok(ArchiveSummary {
        tail: sink.tail(),
        pieces: sink.pieces.load(Ordering::Relaxed),
        bytes: sink.bytes.load(Ordering::Relaxed),
    })
}

/// Merges on a view of the log of its own, so that appending never waits for it.
async fn compact_forever(repository: Repository, target: TargetName, clock: Arc<dyn Reporter>) {
    let mut opened = None;
    loop {
        tokio::time::sleep(COMPACT_EVERY).await;
        let compacted = async {
            // Kept: it remembers the headers it has read.
            let log = match &mut opened {
                Some(log) => log,
                None => opened.insert(repository::open_log(&repository, &target).await?),
            };
            Ok::<_, Failure>(log.compact(&CompactPolicy::default(), clock.now()).await?)
        };
        match compacted.await {
            Ok(report) => tracing::debug!(?report, "merged log pieces"),
            Err(failure) => tracing::warn!("failed to merge log pieces, will try again: {failure}"),
        }
    }
}

/// The end of the log on the store.
struct Sink {
    engine: String,
    log: Mutex<LogChain>,
    tail: Lock<Option<Position>>,
    pieces: AtomicU64,
    bytes: AtomicU64,
    confirmed: Lock<Option<Instant>>,
    reporter: Arc<dyn Reporter>,
    /// Since the store last took something.
    failed: FirstFailure,
}

impl Sink {
    /// What the plugin hears. What the store took makes good what it refused before: a plugin
    /// may well try again.
    fn answer<T>(&self, done: Result<T, LogError>) -> Result<T, EngineError> {
        match done {
            Ok(done) => {
                self.failed.forget();
                Ok(done)
            }
            Err(error) => Err(self.failed.log(error)),
        }
    }
}

#[async_trait]
impl LogSink for Sink {
    async fn identify(&self, identity: &str) -> Result<(), EngineError> {
        let mut log = self.log.lock().await;
        self.answer(log.identify(&self.engine, identity).await)
    }

    fn tail(&self) -> Option<Position> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn append(&self, segment: Segment, body: Bytes) -> Result<(), EngineError> {
        let mut log = self.log.lock().await;
        let length = segment.length();
        self.answer(log.append(&segment, body).await)?;
        *self.tail.lock().unwrap_or_else(PoisonError::into_inner) = log.tail().cloned();
        self.pieces.fetch_add(1, Ordering::Relaxed);
        let bytes = self.bytes.fetch_add(length, Ordering::Relaxed) + length;
        self.reporter.progress("archive", bytes, None);
        Ok(())
    }

    async fn confirm(&self, at: Position, when: Timestamp) -> Result<(), EngineError> {
        let due = {
            let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
            let due = confirmed.is_none_or(|last| last.elapsed() >= CONFIRM_EVERY);
            if due {
                *confirmed = Some(Instant::now());
            }
            due
        };
        if !due {
            return Ok(());
        }
        let log = self.log.lock().await;
        self.answer(log.confirm(&at, when).await)
    }

    async fn put_note(&self, name: &str, bytes: Bytes) -> Result<(), EngineError> {
        let log = self.log.lock().await;
        self.answer(log.put_note(name, bytes).await)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        damage::{Repo, piece},
        job::FailureKind,
        reporter::JobReporter,
    };

    /// The folder of the first epoch.
    const EPOCH: &str = "logs/shop/00000000000000000001";

    async fn sink(repo: &Repo) -> Sink {
        Sink {
            engine: "postgresql".to_owned(),
            log: Mutex::new(repo.log().await),
            tail: Lock::new(None),
            pieces: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            confirmed: Lock::new(None),
            reporter: Arc::new(JobReporter::new(drop)),
            failed: FirstFailure::default(),
        }
    }

    #[tokio::test]
    async fn a_store_that_takes_nothing_fails_the_job_even_when_the_plugin_is_content() {
        let repo = Repo::new().await;
        let sink = sink(&repo).await;
        sink.identify("7").await.unwrap();
        sink.append(piece(0, 10), Bytes::from_static(&[0; 10])).await.unwrap();
        // A file where a folder belongs: nothing can be stored any more, whoever runs this.
        repo.block(EPOCH);
        sink.append(piece(10, 20), Bytes::from_static(&[0; 10])).await.unwrap_err();
        assert_eq!(sink.tail(), Some(piece(0, 10).end));
        assert_eq!(sink.failed.judge(Ok(())).unwrap_err().kind, FailureKind::Failed);
    }

    #[tokio::test]
    async fn what_the_store_takes_at_last_makes_the_failures_before_good() {
        let repo = Repo::new().await;
        let sink = sink(&repo).await;
        sink.identify("7").await.unwrap();
        repo.block(EPOCH);
        sink.append(piece(0, 10), Bytes::from_static(&[0; 10])).await.unwrap_err();
        repo.unblock(EPOCH);
        sink.append(piece(0, 10), Bytes::from_static(&[0; 10])).await.unwrap();
        sink.failed.judge(Ok(())).unwrap();
    }

    #[tokio::test]
    async fn a_gap_is_the_plugins_to_explain() {
        let repo = Repo::new().await;
        let sink = sink(&repo).await;
        sink.identify("7").await.unwrap();
        sink.append(piece(0, 10), Bytes::from_static(&[0; 10])).await.unwrap();
        let told = sink.append(piece(11, 20), Bytes::from_static(&[0; 9])).await.unwrap_err();
        assert_eq!(told.kind, backstay_sandbox::EngineErrorKind::Gap);
        sink.failed.judge(Ok(())).unwrap();
    }
}
