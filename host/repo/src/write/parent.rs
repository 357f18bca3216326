//! The backup before: files that are as they were then need not be read again, others may be patched.

use crate::pack::BlobKind;
use crate::read::SnapshotReader;
use crate::stamp::FileStamp;
use crate::tree::{Node, NodeKind};
use crate::{Id, RepoErrorKind, Result};
use backstay_core::{BackupId, RelativePath, Timestamp};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::Mutex;

/// Folders remembered: a walk is in one, and in those around it.
const FOLDERS_MAX: usize = 4;

type Nodes = Arc<HashMap<Vec<u8>, Node>>;

/// A backup that a session may take files from.
#[derive(Clone, Debug)]
pub struct Parent {
    /// Its id.
    pub id: BackupId,
    /// Its files were first looked at no sooner than this; nothing: none of them may pass for unchanged.
    pub begun: Option<Timestamp>,
}

/// The same, open.
pub(crate) struct OpenParent {
    reader: SnapshotReader,
    begun: Option<Timestamp>,
    /// The folders looked into last.
    folders: Mutex<VecDeque<(Option<RelativePath>, Nodes)>>,
}

impl OpenParent {
    pub(crate) fn new(reader: SnapshotReader, begun: Option<Timestamp>) -> Self {
        Self { reader, begun, folders: Mutex::default() }
    }

    /// The chunks of the file at `path`, if it is as it was and the repository has them all.
    pub(crate) async fn unchanged(&self, path: &RelativePath, bytes: u64, stamp: FileStamp) -> Result<Option<Vec<Id>>> {
        if !self.begun.is_some_and(|begun| stamp.is_settled_at(begun)) {
            return Ok(None);
        }
        let folder = self.folder(path.parent()).await?;
        let Some(Node { kind: NodeKind::File { bytes: then, content }, stamp: Some(before), .. }) =
            folder.get(path.name().as_bytes())
        else {
            return Ok(None);
        };
        let index = self.reader.index();
        let whole = || content.iter().all(|id| index.find(BlobKind::Data, id).is_some());
        Ok((*then == bytes && *before == stamp && whole()).then(|| content.clone()))
    }

    /// The chunks of the file at `path`, if there is one.
    pub(crate) async fn content(&self, path: &RelativePath) -> Result<Option<Vec<Id>>> {
        let folder = self.folder(path.parent()).await?;
        Ok(match folder.get(path.name().as_bytes()) {
            Some(Node { kind: NodeKind::File { content, .. }, .. }) => Some(content.clone()),
            _ => None,
        })
    }

    pub(crate) fn reader(&self) -> &SnapshotReader {
        &self.reader
    }

    async fn folder(&self, path: Option<RelativePath>) -> Result<Nodes> {
        // Held while a tree is loaded: whoever comes next wants the same one.
        let mut folders = self.folders.lock().await;
        if let Some((_, nodes)) = folders.iter().find(|(known, _)| *known == path) {
            return Ok(Arc::clone(nodes));
        }
        let nodes = match self.reader.folder(path.as_ref()).await {
            Ok(nodes) => nodes,
            Err(error) if error.kind() == RepoErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let nodes = nodes.into_iter().map(|node| (node.path.name().to_owned(), node)).collect();
        let nodes: Nodes = Arc::new(nodes);
        folders.push_front((path, Arc::clone(&nodes)));
        folders.truncate(FOLDERS_MAX);
        Ok(nodes)
    }
}
