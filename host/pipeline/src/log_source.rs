//! A stretch of log, for a plugin to read.

use crate::failure::log_to_engine;
use async_trait::async_trait;
use backstay_core::{Position, RelativePath, Segment};
use backstay_repo::log::LogChain;
use backstay_sandbox::{Body, EngineError, LogSource};
use cap_std::fs::Dir;
use futures::{StreamExt, stream};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Pieces fetched ahead of the reader; each has at most 64 MiB, usually 16.
const READ_AHEAD_PIECES: usize = 2;

/// Pieces of one line of history, oldest first.
pub(crate) struct Stretch {
    log: Arc<LogChain>,
    pieces: Vec<Segment>,
    /// Bytes laid out by `place`.
    pub(crate) placed_bytes: AtomicU64,
}

impl Stretch {
    pub(crate) fn new(log: Arc<LogChain>, pieces: Vec<Segment>) -> Self {
        Self { log, pieces, placed_bytes: AtomicU64::new(0) }
    }
}

#[async_trait]
impl LogSource for Stretch {
    fn segments(&self) -> Vec<Segment> {
        self.pieces.clone()
    }

    fn read(&self, start: Position) -> Body {
        let mut wanted: Vec<Segment> = self.pieces.clone();
        wanted.retain(|piece| piece.start.epoch == start.epoch && piece.end.offset > start.offset);
        let log = self.log.clone();
        // Neighbours may overlap after a merge: what was read once is not given again.
        let mut given = start.offset;
        let parts = wanted.into_iter().filter_map(move |piece| {
            let from = given.max(piece.start.offset);
            let skip = usize::try_from(from - piece.start.offset).ok()?;
            given = given.max(piece.end.offset);
            (from < piece.end.offset).then_some((piece, skip))
        });
        stream::iter(parts.collect::<Vec<_>>())
            .map(move |(piece, skip)| {
                let log = log.clone();
                async move {
                    let bytes = log.read(&piece).await.map_err(|error| io::Error::other(log_to_engine(&error)))?;
                    Ok(bytes.slice(skip..))
                }
            })
            .buffered(READ_AHEAD_PIECES)
            .boxed()
    }

    async fn place(&self, into: Arc<Dir>, path: Option<RelativePath>, file_size: u64) -> Result<u64, EngineError> {
        let bytes = self
            .log
            .place(&self.pieces, &into, path.as_ref(), file_size)
            .await
            .map_err(|error| log_to_engine(&error))?;
        self.placed_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(bytes)
    }

    async fn notes(&self) -> Result<Vec<String>, EngineError> {
        self.log.notes().await.map_err(|error| log_to_engine(&error))
    }

    async fn read_note(&self, name: &str) -> Result<Vec<u8>, EngineError> {
        Ok(self.log.read_note(name).await.map_err(|error| log_to_engine(&error))?.to_vec())
    }
}
