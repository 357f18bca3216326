//! Compaction: pieces of seconds become pieces of tens of mebibytes.
//!
//! ```text
//!   read parts ─▶ create merged ─▶ read it back ─▶ remove what it holds
//! ```
//!
//! Safe at every point, for any number of compactors and readers at once: a piece goes only
//! when a merged piece that holds all of it was read back, and a merged piece never shrinks.
//! What a crash leaves behind is removed by the next run.

use super::{
    Listed, Listing, LogChain, LogError, LogResult, limits,
    limits::{COMPACT_AGE_MIN, DELETES_AT_ONCE, INDEX_PIECES_MIN, SMALL_BYTES, SMALL_PIECES_MAX},
    name,
    name::ObjectName,
    object::digest,
};
use crate::{RepoError, RepoErrorKind};
use backstay_core::{SEGMENT_BYTES_MAX, Segment, Timestamp};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// When pieces are merged.
#[derive(Clone, Debug)]
pub struct CompactPolicy {
    /// Younger objects are left alone: archivers trust their sight of the log for
    /// [`limits::SIGHT_MAX`], and clocks differ. Zero only where no archiver can be running.
    pub age_min: Duration,
    /// Most plaintext in a merged piece; at most 64 MiB.
    pub merged_bytes_max: u64,
    /// So many small pieces may pile up in a database file that is still growing.
    pub small_pieces_max: usize,
    /// So many merged pieces may be missing in the index before it is written anew.
    pub index_pieces_min: usize,
}

impl Default for CompactPolicy {
    fn default() -> Self {
        Self {
            age_min: COMPACT_AGE_MIN,
            merged_bytes_max: SEGMENT_BYTES_MAX,
            small_pieces_max: SMALL_PIECES_MAX,
            index_pieces_min: INDEX_PIECES_MIN,
        }
    }
}

/// What a compaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CompactReport {
    /// Merged pieces written.
    pub merged: u64,
    /// Plaintext bytes in them.
    pub bytes: u64,
    /// Objects removed.
    pub removed: u64,
}

impl LogChain {
    /// Merges small pieces; `now` is the host's clock. This log's own view stays valid.
    ///
    /// # Errors
    /// Damaged pieces that were to be merged (they stay), and whatever the store reports.
    pub async fn compact(&self, policy: &CompactPolicy, now: Timestamp) -> LogResult<CompactReport> {
        let mut listing = self.list(&name::folder(self.target())).await?;
        // Parts that the store keeps would lie beside what was made of them.
        let age_min = policy.age_min.max(self.store.retention().unwrap_or_default());
        let age = u64::try_from(age_min.as_micros()).unwrap_or(u64::MAX);
        let settled = now.as_micros().saturating_sub(age);
        let by_name: BTreeMap<&ObjectName, &Listed> =
            listing.pieces.iter().map(|listed| (&listed.name, listed)).collect();
        let mut report = CompactReport::default();
        let mut damage = None;
        let newest = listing.chain.newest();
        for epoch in listing.chain.epochs() {
            let pieces = listing.chain.pieces(epoch);
            let is_settled = |piece: &Segment| {
                by_name.get(listing.name_of(piece)).is_some_and(|listed| listed.info.modified.as_micros() <= settled)
            };
            for group in groups(pieces, newest != Some(epoch), policy, is_settled) {
                match self.merge(group, |piece| listing.name_of(piece).clone()).await {
                    Ok(bytes) => (report.merged, report.bytes) = (report.merged + 1, report.bytes + bytes),
                    // Another compactor merged and removed a part: it has done this group's work.
                    Err(error) if error.is_absent() => {}
                    // The other groups are worth merging all the same.
                    Err(error) if error.is_damage() => damage = damage.or(Some(error)),
                    Err(error) => return Err(error),
                }
            }
        }
        if report.merged > 0 {
            listing = self.list(&name::folder(self.target())).await?;
        }
        report.removed = self.sweep(&listing, settled).await?;
        self.write_index(&listing, policy.index_pieces_min).await?;
        damage.map_or(Ok(report), Err)
    }

    /// Writes one merged piece. Answers its length.
    async fn merge(&self, parts: &[Segment], name_of: impl Fn(&Segment) -> ObjectName) -> LogResult<u64> {
        let [first, .., last] = parts else { return Ok(0) };
        let merged = Segment {
            start: first.start.clone(),
            end: last.end.clone(),
            follows: first.follows.clone(),
            first_commit: parts.iter().find_map(|part| part.first_commit),
            last_commit: parts.iter().rev().find_map(|part| part.last_commit),
            file: first.file.clone(),
            file_offset: first.file_offset,
        };
        merged.validate()?;
        let body = self.gather(parts, name_of).await?;
        let name = ObjectName::merged(&merged);
        let expected = digest(&body);
        let (object, _) = self.sealer.seal(&name, Some(&merged), body).await?;
        match self.store.put_new(&self.sealer.key_of(&name), object).await {
            Err(error) if error.kind() != RepoErrorKind::AlreadyExists => return Err(error.into()),
            // There already: another compactor merged the same parts.
            _ => {}
        }
        let (header, _) = self.get(&name).await?;
        if header.sha256 != expected {
            let key = self.sealer.key_of(&name);
            return Err(RepoError::damaged(key, "it does not hold what its parts hold").into());
        }
        Ok(merged.length())
    }

    /// The bytes of neighbouring pieces, each byte once.
    async fn gather(&self, parts: &[Segment], name_of: impl Fn(&Segment) -> ObjectName) -> LogResult<Bytes> {
        let length: u64 = parts.iter().map(Segment::length).sum();
        let mut body = BytesMut::with_capacity(length.min(SEGMENT_BYTES_MAX) as usize);
        let mut at = parts.first().map_or(0, |part| part.start.offset);
        let names: Vec<ObjectName> = parts.iter().map(name_of).collect();
        let mut bodies = stream::iter(names)
            .map(|name| async move { Ok::<_, LogError>(self.get(&name).await?.1) })
            .buffered(limits::PIECES_AT_ONCE);
        for part in parts {
            let Some(bytes) = bodies.try_next().await? else { break };
            let skip = at.saturating_sub(part.start.offset) as usize;
            body.extend_from_slice(bytes.get(skip..).unwrap_or_default());
            at = part.end.offset;
        }
        Ok(body.freeze())
    }

    /// Removes pieces that a merged piece holds. Every merged piece that takes another's place
    /// is read back first.
    async fn sweep(&self, listing: &Listing, settled: u64) -> LogResult<u64> {
        let by_name: BTreeMap<&ObjectName, &Listed> =
            listing.pieces.iter().map(|listed| (&listed.name, listed)).collect();
        let mut by_start: Vec<&Listed> = listing.pieces.iter().collect();
        let place = |listed: &Listed| (listed.piece.start.epoch, listed.piece.start.offset);
        by_start.sort_by_key(|listed| place(listed));
        let mut removed = 0;
        for epoch in listing.chain.epochs() {
            // A merged piece may be seen though whoever wrote it ended before it was durable.
            self.store.settle(&name::epoch_folder(self.target(), epoch)).await?;
            for kept in listing.chain.pieces(epoch) {
                let name = listing.name_of(kept);
                let Some(merged) = by_name.get(name).filter(|listed| listed.name.is_merged()) else { continue };
                let from = by_start.partition_point(|listed| place(listed) < place(merged));
                let parts: Vec<String> = by_start[from..]
                    .iter()
                    .take_while(|part| place(part) < (epoch, merged.piece.end.offset))
                    .filter(|part| part.name != *name && part.piece.end.offset <= merged.piece.end.offset)
                    .filter(|part| part.info.modified.as_micros() <= settled)
                    .map(|part| self.sealer.key_of(&part.name))
                    .collect();
                if parts.is_empty() {
                    continue;
                }
                match self.get(name).await {
                    Ok(_) => {}
                    // A longer one has taken its place since it was listed.
                    Err(error) if error.is_absent() => continue,
                    Err(error) => return Err(error),
                }
                let removals = stream::iter(parts).map(|key| async move {
                    match self.store.delete(&key).await {
                        // It goes another day.
                        Err(error) if error.kind() == RepoErrorKind::Retained => Ok(0),
                        gone => gone.map(|()| 1),
                    }
                });
                let gone: Vec<u64> = removals.buffer_unordered(DELETES_AT_ONCE).try_collect().await?;
                removed += gone.iter().sum::<u64>();
            }
        }
        Ok(removed)
    }
}

/// The stretches of one epoch's pieces that are worth merging: each of one database file,
/// unbroken, settled, of at least two pieces, and no longer than a piece may be.
fn groups<'a>(
    pieces: &'a [Segment],
    epoch_is_over: bool,
    policy: &CompactPolicy,
    is_settled: impl Fn(&Segment) -> bool,
) -> Vec<&'a [Segment]> {
    let bytes_max = policy.merged_bytes_max.min(SEGMENT_BYTES_MAX);
    let mut groups = Vec::new();
    let last_file = pieces.last().map(|piece| piece.file.clone());
    let touches = |a: &Segment, b: &Segment| a.file == b.file && a.end.offset >= b.start.offset;
    for file in pieces.chunk_by(touches) {
        let growing = !epoch_is_over && last_file.as_deref() == file.first().map(|piece| piece.file.as_str());
        let small = |piece: &Segment| !growing || piece.length() < SMALL_BYTES;
        let runs = file.chunk_by(|a, b| is_settled(a) && is_settled(b) && small(a) && small(b));
        for run in runs {
            if growing && run.len() <= policy.small_pieces_max {
                continue;
            }
            let mut from = 0;
            for at in 1..=run.len() {
                let fits = at < run.len() && run[at].end.offset - run[from].start.offset <= bytes_max;
                if !fits {
                    if at - from > 1 {
                        groups.push(&run[from..at]);
                    }
                    from = at;
                }
            }
        }
    }
    groups
}
