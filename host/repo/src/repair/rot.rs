//! Rot: packs whose bytes are not what was written, found by reading every byte of them.

use crate::limits::{OBJECT_BYTES_MAX, whole_packs_at_once};
use crate::pack::{PackedBlob, pack_bytes, read_header};
use crate::read::fetch::unopened;
use crate::{Id, RepoError, RepoErrorKind, Repository, Result};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A pack that is not what its index entry says.
#[derive(Debug)]
pub(super) struct Found {
    /// What lies in it: what its own header says where that opens, else what the index says.
    pub(super) blobs: Vec<PackedBlob>,
    /// Where those begin that do not open.
    pub(super) lost: HashSet<u32>,
    /// Whether its bytes are not what was written; else only the index has it wrong.
    pub(super) is_rotten: bool,
}

/// A rotten pack, blob by blob.
pub(super) struct Rotten {
    pub(super) pack: Id,
    /// Blobs that open.
    pub(super) whole: Vec<PackedBlob>,
    /// Blobs that do not.
    pub(super) lost: Vec<PackedBlob>,
}

impl Rotten {
    pub(super) fn new(pack: Id, found: Found) -> Self {
        let (lost, whole) = found.blobs.into_iter().partition(|blob| found.lost.contains(&blob.offset));
        Self { pack, whole, lost }
    }

    /// Reads it once more: memory and lines garble what they carry, too. Nothing: it is not there, as was seen before.
    ///
    /// # Errors
    /// [`RepoErrorKind::Damaged`] when other blobs open than before; whatever the store reports.
    pub(super) async fn confirm(&self, repository: &Repository) -> Result<Option<Bytes>> {
        let blobs: Vec<PackedBlob> = self.whole.iter().chain(&self.lost).copied().collect();
        let Some(Read { bytes, .. }) = read_pack(repository, self.pack, &blobs).await? else {
            return if self.whole.is_empty() { Ok(None) } else { Err(otherwise()) };
        };
        let (key, sealed) = (Arc::clone(repository.shared_key()), bytes.clone());
        let lost = tokio::task::spawn_blocking(move || offsets(unopened(&key, sealed, blobs))).await?;
        match lost == self.lost.iter().map(|blob| blob.offset).collect() {
            true => Ok(Some(bytes)),
            false => Err(otherwise()),
        }
    }
}

/// What a plan rests on is not so when it is looked at once more.
pub(super) fn otherwise() -> RepoError {
    RepoError::new(RepoErrorKind::Damaged, "the repository reads otherwise than a moment ago")
        .advise("nothing was removed; start again, and look at the store and the line to it")
}

/// Reads packs, some at once; `progress` hears of bytes read and to be read. A pack that is gone is rotten as a whole.
///
/// # Errors
/// [`RepoErrorKind::InvalidConfig`] for a pack that is too long to be read whole, which is no rot; whatever the store reports.
pub(super) async fn find(
    repository: &Repository,
    packs: Vec<(Id, Vec<PackedBlob>)>,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<HashMap<Id, Found>> {
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
            let read = bytes(&blobs);
            let found = match read_pack(repository, pack, &blobs).await? {
                None => Some(Found { lost: blobs.iter().map(|blob| blob.offset).collect(), blobs, is_rotten: true }),
                Some(sealed) => look(repository, pack, sealed, blobs).await?,
            };
            Ok::<_, RepoError>((read, pack, found))
        })
        .buffer_unordered(whole_packs_at_once(bytes_max));
    let (mut done, mut all) = (0, HashMap::new());
    while let Some((read, pack, found)) = reads.try_next().await? {
        done += read;
        progress(done, total);
        all.extend(found.map(|found| (pack, found)));
    }
    Ok(all)
}

/// A pack's bytes.
struct Read {
    bytes: Bytes,
    /// Whether these are all.
    is_all: bool,
}

/// A whole pack, or of one that is far too long what these blobs need; nothing where there is none.
async fn read_pack(repository: &Repository, pack: Id, blobs: &[PackedBlob]) -> Result<Option<Read>> {
    let (store, key) = (repository.store(), pack.pack_key());
    let read = match store.get(&key, u64::from(u32::MAX)).await {
        Err(error) if error.kind() == RepoErrorKind::Damaged => {
            let needed = store.get_range(&key, 0..pack_bytes(blobs).min(OBJECT_BYTES_MAX)).await;
            needed.map(|bytes| Read { bytes, is_all: false })
        }
        whole => whole.map(|bytes| Read { bytes, is_all: true }),
    };
    match read {
        Err(error) if matches!(error.kind(), RepoErrorKind::NotFound | RepoErrorKind::Damaged) => Ok(None),
        read => read.map(Some),
    }
}

/// Nothing for a pack that is what was written, and holds these blobs.
async fn look(repository: &Repository, pack: Id, read: Read, indexed: Vec<PackedBlob>) -> Result<Option<Found>> {
    let key = Arc::clone(repository.shared_key());
    let look = tokio::task::spawn_blocking(move || {
        let Read { bytes, is_all } = read;
        let is_itself = is_all && Id::of(&bytes) == pack;
        let header = read_header(&key, &bytes).ok();
        let has_header = header.is_some();
        // It is sealed as well: what opens is what was written.
        let blobs = header.unwrap_or_else(|| indexed.clone());
        let lost = offsets(unopened(&key, bytes, blobs.clone()));
        let is_rotten = !is_itself || !has_header || !lost.is_empty();
        (is_rotten || blobs != indexed).then_some(Found { blobs, lost, is_rotten })
    });
    Ok(look.await?)
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
