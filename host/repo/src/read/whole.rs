//! Packs, read whole and looked at: what a check tells of them, and a repair acts on.

use super::fetch::unopened;
use crate::limits::{OBJECT_BYTES_MAX, WHOLE_PACKS_BYTES_MAX};
use crate::pack::{PackedBlob, pack_bytes, read_header};
use crate::{Id, RepoError, RepoErrorKind, Repository, Result};
use bytes::Bytes;
use std::sync::Arc;

/// How many packs are looked at whole at the same time, of which the largest has so many bytes: one is read while every
/// core looks at one.
pub(crate) fn at_once(largest: u64) -> usize {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let fitting = usize::try_from(WHOLE_PACKS_BYTES_MAX / largest.max(1)).unwrap_or(usize::MAX);
    fitting.clamp(1, cores + 1)
}

/// What looking at a whole pack found.
pub(crate) struct Look {
    /// Bytes that were read.
    pub(crate) bytes: u64,
    /// Whether they are the ones that it is named by.
    pub(crate) is_itself: bool,
    /// Why its header does not open.
    pub(crate) headless: Option<RepoError>,
    /// What lies in it: what its header says, which is sealed too, and what the index says where that does not open.
    pub(crate) blobs: Vec<PackedBlob>,
    /// Those that do not open, and why.
    pub(crate) unopened: Vec<(PackedBlob, RepoError)>,
}

impl Look {
    /// Whether its bytes are not what was written.
    pub(crate) fn is_rotten(&self) -> bool {
        !self.is_itself || self.headless.is_some() || !self.unopened.is_empty()
    }
}

/// Looks at a pack that holds these blobs by the index; nothing where there is none.
///
/// # Errors
/// As [`read`].
pub(crate) async fn look(repository: &Repository, pack: Id, indexed: &[PackedBlob]) -> Result<Option<Look>> {
    let Some(Whole { bytes, is_all }) = read(repository, pack, indexed).await? else { return Ok(None) };
    let (key, indexed) = (Arc::clone(repository.shared_key()), indexed.to_vec());
    let look = tokio::task::spawn_blocking(move || {
        let (read, is_itself) = (bytes.len() as u64, is_all && Id::of(&bytes) == pack);
        let (blobs, headless) = match read_header(&key, &bytes) {
            Ok(blobs) => (blobs, None),
            Err(error) => (indexed, Some(error)),
        };
        let unopened = unopened(&key, bytes, blobs.clone());
        Look { bytes: read, is_itself, headless, blobs, unopened }
    });
    Ok(Some(look.await?))
}

/// A pack's bytes.
pub(crate) struct Whole {
    pub(crate) bytes: Bytes,
    /// Whether these are all.
    pub(crate) is_all: bool,
}

/// Reads a whole pack, or of one that is far too long what these blobs need; nothing where there is none.
///
/// # Errors
/// [`RepoErrorKind::InvalidConfig`] when it is meant to be too long to be read whole, which is no damage; whatever the store
/// reports.
pub(crate) async fn read(repository: &Repository, pack: Id, blobs: &[PackedBlob]) -> Result<Option<Whole>> {
    let (store, key, needed) = (repository.store(), pack.pack_key(), pack_bytes(blobs));
    if needed > OBJECT_BYTES_MAX {
        let what = format!("failed to read pack {}: it has {needed} bytes, too many to be read whole", pack.short());
        return Err(RepoError::new(RepoErrorKind::InvalidConfig, what)
            .advise("stock restic reads and copies such packs: `restic check --read-data`, `restic copy`"));
    }
    let read = match store.get(&key, OBJECT_BYTES_MAX).await {
        Err(error) if error.kind() == RepoErrorKind::Damaged => {
            store.get_range(&key, 0..needed).await.map(|bytes| Whole { bytes, is_all: false })
        }
        whole => whole.map(|bytes| Whole { bytes, is_all: true }),
    };
    match read {
        Err(error) if matches!(error.kind(), RepoErrorKind::NotFound | RepoErrorKind::Damaged) => Ok(None),
        read => read.map(Some),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::pack::BlobKind;
    use crate::{InitOptions, KdfCost, Password, Store};

    #[tokio::test]
    async fn a_pack_that_is_too_long_to_be_read_is_no_damage() {
        let store = Store::from_object_store(Arc::new(object_store::memory::InMemory::new()), "memory");
        let options = InitOptions { kdf: KdfCost::TRIVIAL };
        let repository = Repository::init(store, &Password::new("correct horse"), options).await.unwrap();
        let length = (OBJECT_BYTES_MAX / 2) as u32;
        let blob = |offset| PackedBlob { id: Id::of(b""), kind: BlobKind::Data, offset, length, raw_length: 0 };
        let error = look(&repository, Id::of(b"pack"), &[blob(0), blob(length)]).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), RepoErrorKind::InvalidConfig);
        assert!(error.to_string().contains("too many to be read whole; stock restic"), "{error}");
    }

    #[test]
    fn packs_that_are_held_together_are_bounded_whatever_their_size() {
        let cores = std::thread::available_parallelism().unwrap().get();
        assert_eq!((at_once(0), at_once(1 << 20)), (cores + 1, (cores + 1).min(256)));
        assert_eq!((at_once(WHOLE_PACKS_BYTES_MAX / 2), at_once(u64::MAX)), (2, 1));
    }
}
