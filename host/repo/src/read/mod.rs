//! Reading a backup.
//!
//! ```text
//!   snapshot ► trees ► nodes ► content ► index ► reads of packs, coalesced ► blobs, each verified
//! ```

pub(crate) mod fetch;
mod fill;
mod landing;
mod place;
mod scan;
pub(crate) mod whole;

pub use place::{PlaceOptions, PlaceProgress, PlaceSummary};

use crate::aligned::AlignedBuffer;
use crate::index::{Index, Place};
use crate::limits::TREE_DEPTH_MAX;
use crate::node_path::NodePath;
use crate::pack::BlobKind;
use crate::snapshot::Snapshot;
use crate::tree::{Node, NodeKind, Tree};
use crate::{Id, RepoError, RepoErrorKind, Repository, Result};
use backstay_core::RelativePath;
use bytes::Bytes;
use fetch::Reads;
use futures::{Stream, StreamExt, TryStreamExt};
use std::sync::Arc;

/// Blobs that a stream reads ahead together, and how many such groups.
const WINDOW_BLOBS: usize = 64;
/// Plaintext of such a group.
const WINDOW_BYTES: u64 = 8 << 20;
/// Groups under way: one is being consumed, the next are being fetched.
const WINDOWS_AHEAD: usize = 3;

/// A snapshot, open for reading. Cheap to clone.
#[derive(Clone)]
pub struct SnapshotReader {
    repository: Repository,
    index: Arc<Index>,
    snapshot: Arc<Snapshot>,
}

impl SnapshotReader {
    pub(crate) fn new(repository: Repository, index: Arc<Index>, snapshot: Snapshot) -> Self {
        Self { repository, index, snapshot: Arc::new(snapshot) }
    }

    /// What the snapshot says about itself.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// All nodes, parents before children, in the order of paths.
    ///
    /// # Errors
    /// [`RepoErrorKind::Damaged`], whatever the store reports.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        self.walk(None, self.snapshot.tree).await
    }

    /// All nodes below the folder `path`, which is not among them.
    ///
    /// # Errors
    /// As [`SnapshotReader::nodes`]; [`RepoErrorKind::NotFound`] when it is no folder.
    pub async fn nodes_below(&self, path: &RelativePath) -> Result<Vec<Node>> {
        let node = self.node(path).await?;
        match node.kind {
            NodeKind::Directory { subtree } => self.walk(Some(&node.path), subtree).await,
            _ => Err(self.missing(path, "it is not a folder")),
        }
    }

    /// The nodes in the folder `path`, or at the top.
    pub(crate) async fn folder(&self, path: Option<&RelativePath>) -> Result<Vec<Node>> {
        let Some(path) = path else {
            return self.load_tree(None, self.snapshot.tree).await;
        };
        let node = self.node(path).await?;
        match node.kind {
            NodeKind::Directory { subtree } => self.load_tree(Some(&node.path), subtree).await,
            _ => Err(self.missing(path, "it is not a folder")),
        }
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// One node.
    ///
    /// # Errors
    /// [`RepoErrorKind::NotFound`], [`RepoErrorKind::Damaged`], whatever the store reports.
    pub async fn node(&self, path: &RelativePath) -> Result<Node> {
        let mut tree = self.snapshot.tree;
        let mut parent: Option<NodePath> = None;
        let mut parts = path.parts().peekable();
        while let Some(name) = parts.next() {
            let nodes = self.load_tree(parent.as_ref(), tree).await?;
            let node = nodes.into_iter().find(|node| node.path.name() == name.as_bytes());
            let node = node.ok_or_else(|| self.missing(path, "it is not there"))?;
            if parts.peek().is_none() {
                return Ok(node);
            }
            match node.kind {
                NodeKind::Directory { subtree } => (tree, parent) = (subtree, Some(node.path)),
                _ => break,
            }
        }
        Err(self.missing(path, "it is not there"))
    }

    /// A file's bytes, read ahead, each blob verified.
    ///
    /// # Errors
    /// [`RepoErrorKind::NotFound`] when there is no such file. The stream's errors carry a
    /// [`RepoError`] as their source.
    pub async fn read(
        &self,
        path: &RelativePath,
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin + use<>> {
        let (_, content) = self.file(path).await?;
        let mut windows: Vec<Vec<Place>> = Vec::new();
        let mut bytes = 0;
        for id in &content {
            let place = self.index.require(BlobKind::Data, id)?;
            bytes += u64::from(place.blob.plain_length());
            match windows.last_mut() {
                Some(window) if window.len() < WINDOW_BLOBS && bytes <= WINDOW_BYTES => window.push(place),
                _ => {
                    windows.push(vec![place]);
                    bytes = u64::from(place.blob.plain_length());
                }
            }
        }
        let reader = self.clone();
        let stream = futures::stream::iter(windows)
            .map(move |window| {
                let reader = reader.clone();
                async move { reader.read_window(window).await }
            })
            .buffered(WINDOWS_AHEAD)
            .map_ok(|blobs| futures::stream::iter(blobs.into_iter().map(Ok::<_, RepoError>)))
            .try_flatten()
            .map_err(std::io::Error::other);
        Ok(Box::pin(stream))
    }

    /// A whole file of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// As [`SnapshotReader::read`]; [`RepoErrorKind::Damaged`] when it is longer.
    pub async fn read_all(&self, path: &RelativePath, bytes_max: u64) -> Result<Vec<u8>> {
        let (bytes, content) = self.file(path).await?;
        if bytes > bytes_max {
            return Err(RepoError::damaged(path, format!("it has {bytes} bytes, at most {bytes_max} make sense")));
        }
        let mut whole = Vec::new();
        for id in &content {
            let (store, key) = (self.repository.store(), self.repository.shared_key());
            whole.extend_from_slice(&fetch::read_blob(store, key, &self.index, BlobKind::Data, id).await?);
        }
        if whole.len() as u64 != bytes {
            return Err(RepoError::damaged(path, format!("its content has {} bytes, not {bytes}", whole.len())));
        }
        Ok(whole)
    }

    async fn file(&self, path: &RelativePath) -> Result<(u64, Vec<Id>)> {
        match self.node(path).await?.kind {
            NodeKind::File { bytes, content } => Ok((bytes, content)),
            _ => Err(self.missing(path, "it is not a file")),
        }
    }

    /// Blobs in the order asked for.
    async fn read_window(&self, window: Vec<Place>) -> Result<Vec<Bytes>> {
        let mut sorted: Vec<(Place, usize)> = window.iter().copied().zip(0..).collect();
        sorted.sort_by_key(|(place, _)| (place.pack, place.blob.offset));
        let mut blobs = vec![Bytes::new(); window.len()];
        for read in Reads::new(sorted.into_iter()) {
            let pack = self.index.pack(read.pack).pack_key();
            let bytes = fetch::get(self.repository.store(), &pack, read.range.clone()).await?;
            let key = Arc::clone(self.repository.shared_key());
            let opened = tokio::task::spawn_blocking(move || {
                let mut opened = Vec::with_capacity(read.wants.len());
                fetch::open_all(&key, &pack, read, bytes, &mut AlignedBuffer::default(), |plain, slots| {
                    opened.extend(slots.into_iter().map(|(slot, place)| (slot, Bytes::copy_from_slice(&plain[place]))));
                    Ok(())
                })?;
                Ok::<_, RepoError>(opened)
            })
            .await??;
            for (slot, plain) in opened {
                blobs[slot] = plain;
            }
        }
        Ok(blobs)
    }

    async fn walk(&self, parent: Option<&NodePath>, tree: Id) -> Result<Vec<Node>> {
        let mut nodes = Vec::new();
        let mut ahead = self.load_tree(parent, tree).await?;
        ahead.reverse();
        while let Some(node) = ahead.pop() {
            if let NodeKind::Directory { subtree } = node.kind {
                if node.path.parts().count() > TREE_DEPTH_MAX {
                    return Err(RepoError::damaged(
                        format!("tree {subtree}"),
                        format!("it lies deeper than {TREE_DEPTH_MAX} folders"),
                    ));
                }
                let below = self.load_tree(Some(&node.path), subtree).await?;
                ahead.extend(below.into_iter().rev());
            }
            nodes.push(node);
        }
        Ok(nodes)
    }

    async fn load_tree(&self, parent: Option<&NodePath>, id: Id) -> Result<Vec<Node>> {
        let bytes =
            fetch::read_blob(self.repository.store(), self.repository.shared_key(), &self.index, BlobKind::Tree, &id)
                .await?;
        let damaged = |error| RepoError::damaged(format!("tree {id}"), error);
        let tree = Tree::from_bytes(&bytes).map_err(damaged)?;
        tree.nodes.into_iter().map(|node| node.read(parent).map_err(damaged)).collect()
    }

    fn missing(&self, path: &RelativePath, why: &str) -> RepoError {
        RepoError::new(
            RepoErrorKind::NotFound,
            format!("failed to read {path} of backup {}: {why}", self.snapshot.id.short()),
        )
    }
}
