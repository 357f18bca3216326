//! Rot: blobs that are where the index says and do not open, found by reading every byte.

use crate::pack::PackedBlob;
use crate::read::fetch::unopened;
use crate::{Id, RepoErrorKind, Repository, Result};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// By pack, where the blobs begin that do not open.
pub(super) type Rot = HashMap<Id, HashSet<u32>>;

/// Reads packs, as many at once as there are cores; `progress` hears of bytes read and to be read. A pack that is gone is
/// rotten as a whole.
pub(super) async fn find(
    repository: &Repository,
    packs: Vec<(Id, Vec<PackedBlob>)>,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<Rot> {
    let bytes = |blobs: &[PackedBlob]| blobs.iter().map(|blob| u64::from(blob.length)).sum::<u64>();
    let total = packs.iter().map(|(_, blobs)| bytes(blobs)).sum();
    let at_once = std::thread::available_parallelism().map_or(2, std::num::NonZero::get) + 1;
    let mut reads = futures::stream::iter(packs)
        .map(|(pack, blobs)| async move {
            let (read, all) = (bytes(&blobs), blobs.iter().map(|blob| blob.offset).collect::<HashSet<u32>>());
            let rotten = match read_pack(repository, pack).await? {
                None => all,
                Some(sealed) => rotten(repository, sealed, blobs).await?,
            };
            Ok::<_, crate::RepoError>((read, pack, rotten))
        })
        .buffer_unordered(at_once);
    let (mut done, mut rot) = (0, Rot::new());
    while let Some((read, pack, rotten)) = reads.try_next().await? {
        done += read;
        progress(done, total);
        if !rotten.is_empty() {
            rot.insert(pack, rotten);
        }
    }
    Ok(rot)
}

/// A whole pack; nothing where there is none, or far too much.
pub(super) async fn read_pack(repository: &Repository, pack: Id) -> Result<Option<Bytes>> {
    match repository.store().get(&pack.pack_key(), u64::from(u32::MAX)).await {
        Ok(sealed) => Ok(Some(sealed)),
        Err(error) if matches!(error.kind(), RepoErrorKind::NotFound | RepoErrorKind::Damaged) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where those of a pack's blobs begin that do not open.
pub(super) async fn rotten(repository: &Repository, sealed: Bytes, blobs: Vec<PackedBlob>) -> Result<HashSet<u32>> {
    let key = Arc::clone(repository.shared_key());
    let look = tokio::task::spawn_blocking(move || unopened(&key, sealed, blobs));
    Ok(look.await?.into_iter().map(|(blob, _)| blob.offset).collect())
}
