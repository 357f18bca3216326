//! What a tree refers to, whoever wrote it and whatever the names in it are.
//!
//! [`crate::tree`] reads a tree to restore it and refuses names that could do harm. Whoever counts, copies or repairs
//! follows its references alone, and a name that nobody would restore is no reason to lose it.

use crate::index::Index;
use crate::limits::LOADS_MAX;
use crate::pack::BlobKind;
use crate::read::fetch::read_blob;
use crate::{Id, RepoError, Repository, Result, document};
use futures::{Stream, StreamExt};
use serde::Deserialize;

/// A file of a tree.
pub(crate) struct FileReference {
    /// As it is stored, escaped.
    pub(crate) name: String,
    /// Its length, as the tree says.
    pub(crate) bytes: u64,
    /// Its blobs in order.
    pub(crate) content: Vec<Id>,
}

/// A folder of a tree.
pub(crate) struct FolderReference {
    /// As it is stored, escaped.
    pub(crate) name: String,
    /// The tree that holds its nodes.
    pub(crate) subtree: Id,
}

/// What one tree refers to.
#[derive(Default)]
pub(crate) struct References {
    pub(crate) files: Vec<FileReference>,
    pub(crate) folders: Vec<FolderReference>,
}

#[derive(Deserialize)]
struct StoredTree {
    nodes: Vec<StoredNode>,
}

#[derive(Deserialize)]
struct StoredNode {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    content: Option<Vec<Id>>,
    #[serde(default)]
    subtree: Option<Id>,
}

impl References {
    /// Reads a tree's plaintext.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let tree: StoredTree = document::from_json(bytes)?;
        let mut references = Self::default();
        for node in tree.nodes {
            match (node.kind.as_str(), node.subtree) {
                ("file", _) => references.files.push(FileReference {
                    name: node.name,
                    bytes: node.size,
                    content: node.content.unwrap_or_default(),
                }),
                ("dir", Some(subtree)) => references.folders.push(FolderReference { name: node.name, subtree }),
                ("dir", None) => {
                    return Err(RepoError::new(
                        crate::RepoErrorKind::Damaged,
                        format!("folder {} has no tree", node.name),
                    ));
                }
                // Links, devices, pipes: the node is all there is.
                _ => {}
            }
        }
        Ok(references)
    }

    /// Bytes of its files, as far as a number holds them: a damaged tree may say anything.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| file.bytes.saturating_add(sum))
    }
}

/// Reads one tree.
pub(crate) async fn load(repository: &Repository, index: &Index, id: Id) -> Result<References> {
    let bytes = read_blob(repository.store(), repository.shared_key(), index, BlobKind::Tree, &id).await?;
    References::from_bytes(&bytes).map_err(|error| RepoError::damaged(format!("tree {id}"), error))
}

/// Reads several, a few at once, in any order.
pub(crate) fn load_each<'a>(
    repository: &'a Repository,
    index: &'a Index,
    ids: Vec<Id>,
) -> impl Stream<Item = (Id, Result<References>)> + 'a {
    futures::stream::iter(ids)
        .map(move |id| async move { (id, load(repository, index, id).await) })
        .buffer_unordered(LOADS_MAX)
}
