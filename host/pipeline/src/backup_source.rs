//! A committed backup, for a plugin to restore.

use crate::first_failure::FirstFailure;
use async_trait::async_trait;
use backstay_core::RelativePath;
use backstay_repo::{NodeKind as Stored, PlaceOptions, PlaceProgress, SnapshotReader};
use backstay_sandbox::{Attributes, BackupSource, Body, EngineError, Node, NodeKind, Placed, Reporter};
use cap_std::fs::Dir;
use futures::{StreamExt, TryStreamExt, stream};
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

/// A committed backup.
pub(crate) struct Source {
    reader: Arc<SnapshotReader>,
    notes: String,
    total_bytes: u64,
    reporter: Arc<dyn Reporter>,
    placed: Mutex<Placed>,
    failed: Arc<FirstFailure>,
}

impl Source {
    pub(crate) fn new(
        reader: SnapshotReader,
        notes: String,
        total_bytes: u64,
        reporter: Arc<dyn Reporter>,
        failed: Arc<FirstFailure>,
    ) -> Self {
        Self { reader: Arc::new(reader), notes, total_bytes, reporter, placed: Mutex::default(), failed }
    }

    /// What was placed so far.
    pub(crate) fn placed(&self) -> Placed {
        *self.placed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl BackupSource for Source {
    fn notes(&self) -> String {
        self.notes.clone()
    }

    async fn nodes(&self) -> Result<Vec<Node>, EngineError> {
        let nodes = self.reader.nodes().await.map_err(|error| self.failed.repository(error))?;
        Ok(nodes
            .into_iter()
            .filter_map(|node| {
                let kind = match node.kind {
                    Stored::File { bytes, .. } => NodeKind::File(bytes),
                    Stored::Directory { .. } => NodeKind::Directory,
                    Stored::Symlink { target } => NodeKind::Symlink(target),
                    // Another program's device or pipe: nothing an engine stored.
                    Stored::Other { .. } => return None,
                };
                let attributes = Attributes { mode: node.mode, modified: node.modified };
                // A name that is no text: nothing an engine stored either.
                Some(Node { path: node.path.to_relative()?, kind, attributes })
            })
            .collect())
    }

    fn read(&self, path: RelativePath) -> Body {
        let (reader, failed) = (self.reader.clone(), self.failed.clone());
        let body = async move { reader.read(&path).await.map_err(io::Error::other) };
        stream::once(body).try_flatten().map_err(move |error| failed.body(error)).boxed()
    }

    async fn place(
        &self,
        subtree: RelativePath,
        into: Arc<Dir>,
        except: Vec<RelativePath>,
    ) -> Result<Placed, EngineError> {
        let before = self.placed().bytes;
        let (reporter, total) = (self.reporter.clone(), self.total_bytes);
        let options = PlaceOptions {
            except: except.into_iter().collect(),
            progress: Some(Arc::new(move |progress: PlaceProgress| {
                reporter.progress("restore", before + progress.bytes_done, Some(total));
            })),
        };
        let summary = self.reader.place(&subtree, &into, options).await;
        let summary = summary.map_err(|error| self.failed.repository(error))?;
        let placed = Placed { files: summary.files, bytes: summary.bytes, kept_bytes: summary.kept_bytes };
        let mut sum = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        sum.files += placed.files;
        sum.bytes += placed.bytes;
        sum.kept_bytes += placed.kept_bytes;
        Ok(placed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{damage::Repo, job::FailureKind, reporter::JobReporter};
    use cap_std::ambient_authority;

    /// A source whose only file lies in a pack that is not what was written.
    async fn damaged(repo: &Repo) -> Source {
        let id = repo.back_up("data/file", 1 << 20).await;
        repo.flip("data");
        let reader = repo.open().await.open_snapshot(&id).await.unwrap();
        Source::new(reader, String::new(), 0, Arc::new(JobReporter::new(drop)), Arc::default())
    }

    fn path(text: &str) -> RelativePath {
        RelativePath::new(text).unwrap()
    }

    #[tokio::test]
    async fn a_damaged_pack_is_known_as_one_after_it_was_placed() {
        let repo = Repo::new().await;
        let source = damaged(&repo).await;
        let into = tempfile::tempdir().unwrap();
        let into = Arc::new(Dir::open_ambient_dir(into.path(), ambient_authority()).unwrap());
        source.place(path("data"), into, Vec::new()).await.unwrap_err();
        assert_eq!(source.failed.judge(Ok(())).unwrap_err().kind, FailureKind::Damaged);
    }

    #[tokio::test]
    async fn a_damaged_pack_is_known_as_one_after_it_was_read() {
        let repo = Repo::new().await;
        let source = damaged(&repo).await;
        source.read(path("data/file")).try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(source.failed.judge(Ok(())).unwrap_err().kind, FailureKind::Damaged);
    }

    #[tokio::test]
    async fn a_file_that_is_not_in_the_backup_is_no_damage() {
        let repo = Repo::new().await;
        let source = damaged(&repo).await;
        source.read(path("data/other")).try_collect::<Vec<_>>().await.unwrap_err();
        source.failed.judge(Ok(())).unwrap();
    }
}
