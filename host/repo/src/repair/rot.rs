//! Rot: packs whose bytes are not what was written, found by reading all of them.

use crate::limits::{OBJECT_BYTES_MAX, whole_packs_at_once};
use crate::pack::{PackedBlob, pack_bytes, read_header};
use crate::read::fetch::unopened;
use crate::{Id, RepoError, RepoErrorKind, Repository, Result};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Packs that are rotten, and where the blobs in each begin that do not open: none, when only its header is.
pub(super) type Rot = HashMap<Id, HashSet<u32>>;

/// Reads packs, some at once; `progress` hears of bytes read and to be read. A pack that is gone is rotten as a whole.
///
/// # Errors
/// [`RepoErrorKind::InvalidConfig`] for a pack that is too long to be read whole, which is no rot; whatever the store reports.
pub(super) async fn find(
    repository: &Repository,
    packs: Vec<(Id, Vec<PackedBlob>)>,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<Rot> {
    let largest = packs.iter().max_by_key(|(_, blobs)| pack_bytes(blobs));
    let (largest, bytes_max) = largest.map_or((None, 0), |(pack, blobs)| (Some(pack), pack_bytes(blobs)));
    if let Some(pack) = largest.filter(|_| bytes_max > OBJECT_BYTES_MAX) {
        let what = format!("failed to read pack {}: it has {bytes_max} bytes, too many to be read whole", pack.short());
        return Err(RepoError::new(RepoErrorKind::InvalidConfig, what)
            .advise("stock restic reads and copies such packs: `restic check --read-data`, `restic copy`"));
    }
    let bytes = |blobs: &[PackedBlob]| blobs.iter().map(|blob| u64::from(blob.length)).sum::<u64>();
    let total = packs.iter().map(|(_, blobs)| bytes(blobs)).sum();
    let mut reads = futures::stream::iter(packs)
        .map(|(pack, blobs)| async move {
            let (read, all) = (bytes(&blobs), blobs.iter().map(|blob| blob.offset).collect::<HashSet<u32>>());
            let found = match read_pack(repository, pack).await? {
                None => Some(all),
                Some(sealed) => look(repository, pack, sealed, blobs).await?,
            };
            Ok::<_, RepoError>((read, pack, found))
        })
        .buffer_unordered(whole_packs_at_once(bytes_max));
    let (mut done, mut rot) = (0, Rot::new());
    while let Some((read, pack, found)) = reads.try_next().await? {
        done += read;
        progress(done, total);
        rot.extend(found.map(|lost| (pack, lost)));
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

/// Nothing for a pack that is what was written, else where those of its blobs begin that do not open.
async fn look(
    repository: &Repository,
    pack: Id,
    sealed: Bytes,
    blobs: Vec<PackedBlob>,
) -> Result<Option<HashSet<u32>>> {
    let key = Arc::clone(repository.shared_key());
    let look = tokio::task::spawn_blocking(move || {
        let is_itself = Id::of(&sealed) == pack && read_header(&key, &sealed).is_ok_and(|header| header == blobs);
        let lost = offsets(unopened(&key, sealed, blobs));
        (!is_itself || !lost.is_empty()).then_some(lost)
    });
    Ok(look.await?)
}

/// Where those of a pack's blobs begin that do not open.
pub(super) async fn lost_in(repository: &Repository, sealed: Bytes, blobs: Vec<PackedBlob>) -> Result<HashSet<u32>> {
    let key = Arc::clone(repository.shared_key());
    Ok(tokio::task::spawn_blocking(move || offsets(unopened(&key, sealed, blobs))).await?)
}

fn offsets(unopened: Vec<(PackedBlob, RepoError)>) -> HashSet<u32> {
    unopened.into_iter().map(|(blob, _)| blob.offset).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::pack::BlobKind;
    use crate::{InitOptions, KdfCost, Password, Store};

    #[tokio::test]
    async fn a_pack_that_is_too_long_to_be_read_is_no_rot() {
        let store = Store::from_object_store(Arc::new(object_store::memory::InMemory::new()), "memory");
        let options = InitOptions { kdf: KdfCost::TRIVIAL };
        let repository = Repository::init(store, &Password::new("correct horse"), options).await.unwrap();
        let length = (OBJECT_BYTES_MAX / 2) as u32;
        let blob = |offset| PackedBlob { id: Id::of(b""), kind: BlobKind::Data, offset, length, raw_length: 0 };
        let packs = vec![(Id::of(b"pack"), vec![blob(0), blob(length)])];
        let error = find(&repository, packs, &|_, _| {}).await.unwrap_err();
        assert_eq!(error.kind(), RepoErrorKind::InvalidConfig);
        assert!(error.to_string().contains("too many to be read whole; stock restic"), "{error}");
    }
}
