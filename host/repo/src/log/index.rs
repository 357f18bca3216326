//! The index of merged pieces: one small read instead of one per piece.
//!
//! It is a hint. What it says is used only for objects that the store lists with the size it
//! names, every byte of a body is still verified when it is read, and `check` ignores it. Of
//! two writers the later one wins; nothing is lost by that.

use super::{Listing, LogChain, LogResult, Objects, limits::INDEX_PIECES_MAX, name::ObjectName, object::PieceHeader};
use crate::{ObjectInfo, RepoError, RepoErrorKind};
use backstay_core::{SEGMENT_BYTES_MAX, Segment, Timestamp};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Pieces whose headers need not be read again.
#[derive(Default)]
pub(super) struct Known {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    pieces: BTreeMap<ObjectName, KnownPiece>,
    /// Size and time of the index that was read last.
    index: Option<(u64, Timestamp)>,
    /// How many of its pieces it had.
    indexed: usize,
}

struct KnownPiece {
    bytes: u64,
    /// Absent where the index said it.
    modified: Option<Timestamp>,
    piece: Segment,
}

/// Stored form. Field names are the stored ones.
#[derive(Serialize, Deserialize)]
pub(super) struct Index {
    pieces: Vec<IndexEntry>,
}

#[derive(Serialize, Deserialize)]
struct IndexEntry {
    /// Name below `logs/<target>/`.
    object: String,
    /// Stored bytes.
    bytes: u64,
    piece: PieceHeader,
}

impl Index {
    /// The pieces it names, as far as they make sense.
    pub(super) fn lawful(self) -> impl Iterator<Item = (u64, ObjectName, Segment)> {
        self.pieces.into_iter().take(INDEX_PIECES_MAX).filter_map(|entry| {
            let (name, piece) = (ObjectName::parse(&entry.object)?, Segment::from(entry.piece));
            let lawful = name.is_merged() && name.fits(&piece) && piece.validate().is_ok();
            lawful.then_some((entry.bytes, name, piece))
        })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }
}

impl Known {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The piece of a listed object, where it was seen before and is still the same.
    pub(super) fn piece(&self, name: &ObjectName, info: &ObjectInfo) -> Option<Segment> {
        let inner = self.inner();
        let known = inner.pieces.get(name)?;
        let same = known.bytes == info.bytes && known.modified.is_none_or(|modified| modified == info.modified);
        same.then(|| known.piece.clone())
    }

    pub(super) fn add(&self, name: &ObjectName, info: &ObjectInfo, piece: &Segment) {
        let known = KnownPiece { bytes: info.bytes, modified: Some(info.modified), piece: piece.clone() };
        self.inner().pieces.insert(name.clone(), known);
    }

    /// Forgets what is no longer there.
    fn keep(&self, objects: &Objects) {
        let there: std::collections::BTreeSet<&ObjectName> = objects.values().collect();
        self.inner().pieces.retain(|name, _| there.contains(name));
    }
}

impl LogChain {
    /// Reads the index, if it is another than the one read last. A damaged one is no help, and no harm.
    pub(super) async fn learn(&self, info: &ObjectInfo) -> LogResult<()> {
        let version = Some((info.bytes, info.modified));
        if self.known.inner().index == version {
            return Ok(());
        }
        let index = match self.read_index().await {
            Ok(index) => index,
            Err(error) if error.is_damage() => {
                tracing::warn!(%error, "the log's index is of no use, reading every header");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut inner = self.known.inner();
        inner.index = version;
        inner.indexed = 0;
        for (bytes, name, piece) in index.into_iter().flat_map(Index::lawful) {
            inner.indexed += 1;
            inner.pieces.entry(name).or_insert(KnownPiece { bytes, modified: None, piece });
        }
        Ok(())
    }

    pub(super) async fn read_index(&self) -> LogResult<Option<Index>> {
        self.get_document(&ObjectName::Index).await
    }

    /// Writes the index anew where at least `missing_min` merged pieces are not in it, or
    /// as many in it are gone.
    pub(super) async fn write_index(&self, listing: &Listing, missing_min: usize) -> LogResult<()> {
        self.known.keep(&listing.objects);
        let merged: Vec<_> = listing.pieces.iter().filter(|listed| listed.name.is_merged()).collect();
        if merged.len().abs_diff(self.known.inner().indexed) < missing_min.max(1) {
            return Ok(());
        }
        let entry = |listed: &&super::Listed| IndexEntry {
            object: listed.name.to_string(),
            bytes: listed.info.bytes,
            piece: PieceHeader::from(&listed.piece),
        };
        let index = Index { pieces: merged.iter().take(INDEX_PIECES_MAX).map(entry).collect() };
        let json = serde_json::to_vec(&index).map_err(|error| {
            RepoError::new(RepoErrorKind::Internal, "failed to write the log's index").because(error)
        })?;
        if json.len() as u64 > SEGMENT_BYTES_MAX {
            tracing::debug!(bytes = json.len(), "the log's index would be too long, leaving it out");
            return Ok(());
        }
        let (object, _) = self.sealer.seal(&ObjectName::Index, None, json.into()).await?;
        Ok(self.store.put_overwrite(&self.sealer.key_of(&ObjectName::Index), object).await?)
    }
}
