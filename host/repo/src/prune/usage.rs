//! Which blobs the backups use.

use super::PruneProgress;
use crate::index::Index;
use crate::limits::LOADS_MAX;
use crate::marks::Marks;
use crate::pack::BlobKind;
use crate::references;
use crate::{Id, RepoError, Repository, Result, Snapshot};
use futures::StreamExt;

/// Walks every tree of these snapshots, each once; marks the numbers of the blobs that they use.
///
/// # Errors
/// [`RepoErrorKind::Damaged`](crate::RepoErrorKind::Damaged) when a tree cannot be read or a blob is in no index.
pub(super) async fn used(
    repository: &Repository,
    index: &Index,
    snapshots: &[Snapshot],
    progress: &(dyn Fn(PruneProgress) + Send + Sync),
) -> Result<Marks> {
    let mut used = Marks::none(index.len());
    let mut trees = 0;
    let mut ahead: Vec<Id> = Vec::new();
    for snapshot in snapshots {
        let number = index.number_of(BlobKind::Tree, &snapshot.tree).map_err(|error| named(snapshot, error))?;
        if used.mark(number as usize) {
            ahead.push(snapshot.tree);
        }
    }
    while !ahead.is_empty() {
        let some = ahead.split_off(ahead.len().saturating_sub(LOADS_MAX));
        let mut loads = std::pin::pin!(references::load_each(repository, index, some));
        while let Some((_, references)) = loads.next().await {
            let references = references?;
            trees += 1;
            progress(PruneProgress::Marking { trees });
            for folder in &references.folders {
                if used.mark(index.number_of(BlobKind::Tree, &folder.subtree)? as usize) {
                    ahead.push(folder.subtree);
                }
            }
            for blob in references.files.iter().flat_map(|file| &file.content) {
                used.mark(index.number_of(BlobKind::Data, blob)? as usize);
            }
        }
    }
    Ok(used)
}

fn named(snapshot: &Snapshot, error: RepoError) -> RepoError {
    RepoError::damaged(format!("backup {}", snapshot.id.short()), error)
}
