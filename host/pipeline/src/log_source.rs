//! A stretch of log, for a plugin to read.

use crate::first_failure::FirstFailure;
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
    failed: Arc<FirstFailure>,
}

impl Stretch {
    pub(crate) fn new(log: Arc<LogChain>, pieces: Vec<Segment>, failed: Arc<FirstFailure>) -> Self {
        Self { log, pieces, placed_bytes: AtomicU64::new(0), failed }
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
        let (log, failed) = (self.log.clone(), self.failed.clone());
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
                let (log, failed) = (log.clone(), failed.clone());
                async move {
                    let bytes = log.read(&piece).await.map_err(|error| io::Error::other(failed.log(error)))?;
                    Ok(bytes.slice(skip..))
                }
            })
            .buffered(READ_AHEAD_PIECES)
            .boxed()
    }

    async fn place(&self, into: Arc<Dir>, path: Option<RelativePath>, file_size: u64) -> Result<u64, EngineError> {
        let bytes = self.log.place(&self.pieces, &into, path.as_ref(), file_size).await;
        let bytes = bytes.map_err(|error| self.failed.log(error))?;
        self.placed_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(bytes)
    }

    async fn notes(&self) -> Result<Vec<String>, EngineError> {
        self.log.notes().await.map_err(|error| self.failed.log(error))
    }

    async fn read_note(&self, name: &str) -> Result<Vec<u8>, EngineError> {
        Ok(self.log.read_note(name).await.map_err(|error| self.failed.log(error))?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        damage::{Repo, piece},
        job::FailureKind,
    };
    use cap_std::ambient_authority;
    use futures::TryStreamExt;

    async fn stretch(repo: &Repo, pieces: Vec<Segment>) -> Stretch {
        Stretch::new(Arc::new(repo.log().await), pieces, Arc::default())
    }

    async fn read(stretch: &Stretch, from: u64) -> io::Result<Vec<u8>> {
        let parts: Vec<_> = stretch.read(piece(from, from + 1).start).try_collect().await?;
        Ok(parts.concat())
    }

    #[tokio::test]
    async fn a_stretch_is_read_from_the_middle_of_a_piece_to_its_end() {
        let repo = Repo::new().await;
        repo.append(&[piece(0, 100), piece(100, 150)]).await;
        let stretch = stretch(&repo, vec![piece(0, 100), piece(100, 150)]).await;
        for from in [0, 1, 99, 100, 149, 150] {
            let expected: Vec<u8> = (from..150).map(|offset| offset as u8).collect();
            assert_eq!(read(&stretch, from).await.unwrap(), expected, "from {from}");
        }
    }

    #[tokio::test]
    async fn what_two_pieces_share_is_read_once() {
        let repo = Repo::new().await;
        repo.append(&[piece(0, 100), piece(100, 150)]).await;
        // As a plan has them while a merge is under way.
        let stretch = stretch(&repo, vec![piece(0, 100), piece(0, 100), piece(100, 150)]).await;
        assert_eq!(read(&stretch, 0).await.unwrap().len(), 150);
        assert_eq!(read(&stretch, 40).await.unwrap().len(), 110);
    }

    #[tokio::test]
    async fn nothing_of_another_epoch_is_read() {
        let repo = Repo::new().await;
        repo.append(&[piece(0, 100)]).await;
        let stretch = stretch(&repo, vec![piece(0, 100)]).await;
        let elsewhere = Position { epoch: 2, ..piece(0, 1).start };
        assert_eq!(stretch.read(elsewhere).try_collect::<Vec<_>>().await.unwrap(), Vec::<bytes::Bytes>::new());
    }

    #[tokio::test]
    async fn a_damaged_piece_is_known_as_one_whichever_way_it_was_taken() {
        let repo = Repo::new().await;
        repo.append(&[piece(0, 100_000)]).await;
        let stretch = stretch(&repo, vec![piece(0, 100_000)]).await;
        repo.flip("logs");
        read(&stretch, 0).await.unwrap_err();
        assert_eq!(stretch.failed.judge(Ok(())).unwrap_err().kind, FailureKind::Damaged);

        let into = tempfile::tempdir().unwrap();
        let into = Arc::new(Dir::open_ambient_dir(into.path(), ambient_authority()).unwrap());
        stretch.place(into, None, 0).await.unwrap_err();
        assert_eq!(stretch.failed.judge(Ok(())).unwrap_err().kind, FailureKind::Damaged);
    }

    #[tokio::test]
    async fn a_note_that_is_not_there_is_no_damage() {
        let repo = Repo::new().await;
        let stretch = stretch(&repo, Vec::new()).await;
        stretch.read_note("00000002.history").await.unwrap_err();
        stretch.failed.judge(Ok(())).unwrap();
    }
}
