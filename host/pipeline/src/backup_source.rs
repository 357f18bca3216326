//! A committed backup, for a plugin to restore.

use crate::failure::to_engine;
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
}

impl Source {
    pub(crate) fn new(reader: SnapshotReader, notes: String, total_bytes: u64, reporter: Arc<dyn Reporter>) -> Self {
        Self { reader: Arc::new(reader), notes, total_bytes, reporter, placed: Mutex::default() }
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
        let nodes = self.reader.nodes().await.map_err(|error| to_engine(&error))?;
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
                Some(Node { path: node.path, kind, attributes })
            })
            .collect())
    }

    fn read(&self, path: RelativePath) -> Body {
        let reader = self.reader.clone();
        let body = async move {
            let body = reader.read(&path).await.map_err(|error| io::Error::other(to_engine(&error)))?;
            Ok::<_, io::Error>(body)
        };
        stream::once(body).try_flatten().boxed()
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
        let summary = self.reader.place(&subtree, &into, options).await.map_err(|error| to_engine(&error))?;
        let placed = Placed { files: summary.files, bytes: summary.bytes, kept_bytes: summary.kept_bytes };
        let mut sum = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        sum.files += placed.files;
        sum.bytes += placed.bytes;
        sum.kept_bytes += placed.kept_bytes;
        Ok(placed)
    }
}
