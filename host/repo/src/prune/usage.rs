//! Which blobs the backups use.

use super::PruneProgress;
use crate::index::Index;
use crate::limits::LOADS_MAX;
use crate::pack::BlobKind;
use crate::read::fetch::read_blob;
use crate::tree::{NodeKind, Tree};
use crate::{Id, RepoError, Repository, Result, Snapshot};
use futures::{StreamExt, TryStreamExt};

/// One bit for each blob of an index: memory does not depend on how many backups there are.
pub(crate) struct Usage {
    bits: Vec<u64>,
}

impl Usage {
    fn new(blobs: usize) -> Self {
        Self { bits: vec![0; blobs.div_ceil(64)] }
    }

    /// Whether the blob with this number is used.
    pub(crate) fn is_used(&self, number: u32) -> bool {
        self.bits[number as usize / 64] >> (number % 64) & 1 == 1
    }

    /// Whether it was not marked before.
    fn mark(&mut self, number: u32) -> bool {
        let (word, bit) = (&mut self.bits[number as usize / 64], 1 << (number % 64));
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    /// Walks every tree of these snapshots, each once.
    ///
    /// # Errors
    /// [`RepoErrorKind::Damaged`](crate::RepoErrorKind::Damaged) when a tree cannot be read or a blob is in no index.
    pub(crate) async fn of(
        repository: &Repository,
        index: &Index,
        snapshots: &[Snapshot],
        progress: &(dyn Fn(PruneProgress) + Send + Sync),
    ) -> Result<Self> {
        let mut usage = Self::new(index.len());
        let mut trees = 0;
        let mut ahead: Vec<Id> = Vec::new();
        for snapshot in snapshots {
            let number = index.number_of(BlobKind::Tree, &snapshot.tree).map_err(|error| named(snapshot, error))?;
            if usage.mark(number) {
                ahead.push(snapshot.tree);
            }
        }
        while !ahead.is_empty() {
            let some = ahead.split_off(ahead.len().saturating_sub(LOADS_MAX));
            let mut loads = futures::stream::iter(some)
                .map(|id| async move {
                    let bytes =
                        read_blob(repository.store(), repository.shared_key(), index, BlobKind::Tree, &id).await?;
                    Tree::from_bytes(&bytes).map_err(|error| RepoError::damaged(format!("tree {id}"), error))
                })
                .buffer_unordered(LOADS_MAX);
            while let Some(tree) = loads.try_next().await? {
                trees += 1;
                progress(PruneProgress::Marking { trees });
                for node in tree.nodes {
                    match node.read(None)?.kind {
                        NodeKind::Directory { subtree } => {
                            if usage.mark(index.number_of(BlobKind::Tree, &subtree)?) {
                                ahead.push(subtree);
                            }
                        }
                        NodeKind::File { content, .. } => {
                            for blob in &content {
                                usage.mark(index.number_of(BlobKind::Data, blob)?);
                            }
                        }
                        NodeKind::Symlink { .. } | NodeKind::Other { .. } => {}
                    }
                }
            }
        }
        Ok(usage)
    }
}

fn named(snapshot: &Snapshot, error: RepoError) -> RepoError {
    RepoError::damaged(format!("backup {}", snapshot.id.short()), error)
}
