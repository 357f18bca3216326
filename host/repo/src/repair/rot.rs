//! Rot: packs whose bytes are not what was written, found by reading every byte of them.

use crate::pack::{PackedBlob, pack_bytes};
use crate::read::fetch::unopened;
use crate::read::whole::{self, Look, Whole};
use crate::{Id, RepoError, RepoErrorKind, Repository, Result};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What is wrong with a pack and its index entry.
pub(super) enum Wrong {
    /// The pack: its bytes are not what was written.
    Pack(Rotten),
    /// The entry alone: this is what lies in the pack.
    Entry(Vec<PackedBlob>),
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
    fn new(pack: Id, look: Look) -> Self {
        let unopened = offsets(&look.unopened);
        let (lost, whole) = look.blobs.into_iter().partition(|blob| unopened.contains(&blob.offset));
        Self { pack, whole, lost }
    }

    /// Reads it once more: memory and lines garble what they carry, too. Nothing: it is not there, as was seen before.
    ///
    /// # Errors
    /// [`RepoErrorKind::Damaged`] when other blobs open than before; whatever the store reports.
    pub(super) async fn confirm(&self, repository: &Repository) -> Result<Option<Bytes>> {
        let blobs: Vec<PackedBlob> = self.whole.iter().chain(&self.lost).copied().collect();
        let Some(Whole { bytes, .. }) = whole::read(repository, self.pack, &blobs).await? else {
            return if self.whole.is_empty() { Ok(None) } else { Err(otherwise()) };
        };
        let (key, sealed) = (Arc::clone(repository.shared_key()), bytes.clone());
        let lost = tokio::task::spawn_blocking(move || offsets(&unopened(&key, sealed, blobs))).await?;
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

/// Reads packs, some at once, and answers those that are not what their entries say; `progress` hears of bytes read and to
/// be read. A pack that is gone is rotten as a whole.
///
/// # Errors
/// As [`whole::read`].
pub(super) async fn find(
    repository: &Repository,
    packs: Vec<(Id, Vec<PackedBlob>)>,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<HashMap<Id, Wrong>> {
    let total = packs.iter().map(|(_, blobs)| pack_bytes(blobs)).sum();
    let largest = packs.iter().map(|(_, blobs)| pack_bytes(blobs)).max().unwrap_or(0);
    let mut looks = futures::stream::iter(packs)
        .map(|(pack, blobs)| async move {
            let look = whole::look(repository, pack, &blobs).await?;
            let read = pack_bytes(&blobs);
            let wrong = match look {
                None => Some(Wrong::Pack(Rotten { pack, whole: Vec::new(), lost: blobs })),
                Some(look) if look.is_rotten() => Some(Wrong::Pack(Rotten::new(pack, look))),
                Some(look) => (look.blobs != blobs).then_some(Wrong::Entry(look.blobs)),
            };
            Ok::<_, RepoError>((read, pack, wrong))
        })
        .buffer_unordered(whole::at_once(largest));
    let (mut done, mut found) = (0, HashMap::new());
    while let Some((read, pack, wrong)) = looks.try_next().await? {
        done += read;
        progress(done, total);
        found.extend(wrong.map(|wrong| (pack, wrong)));
    }
    Ok(found)
}

fn offsets(unopened: &[(PackedBlob, RepoError)]) -> HashSet<u32> {
    unopened.iter().map(|(blob, _)| blob.offset).collect()
}
