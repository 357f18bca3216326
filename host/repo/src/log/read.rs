//! Reading pieces back, verified, also while a compactor merges them.

use super::{Listing, LogChain, LogError, LogResult, name, name::ObjectName};
use crate::{RepoError, RepoErrorKind};
use backstay_core::{Gap, Segment};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use std::ops::Range;

impl LogChain {
    /// The bytes of a piece that this log listed or appended.
    ///
    /// # Errors
    /// When it is damaged or missing, and whatever the store reports.
    pub async fn read(&self, piece: &Segment) -> LogResult<Bytes> {
        let place = (piece.start.epoch, piece.start.offset, piece.end.offset);
        let name = self.objects.get(&place).cloned().unwrap_or_else(|| ObjectName::appended(piece));
        match self.get_if_there(&name).await? {
            Some((header, body)) if header.segment().is_some_and(|there| there.end == piece.end) => Ok(body),
            _ => self.read_merged(piece).await,
        }
    }

    /// Part of a piece; `range` counts from the piece's start.
    ///
    /// # Errors
    /// As [`LogChain::read`]; [`LogError::Invalid`] when the piece is shorter.
    pub async fn read_range(&self, piece: &Segment, range: Range<u64>) -> LogResult<Bytes> {
        if range.start > range.end || range.end > piece.length() {
            return Err(LogError::Invalid(format!("log piece {} has no bytes {range:?}", piece.start)));
        }
        // Within a piece of at most 64 MiB.
        Ok(self.read(piece).await?.slice(range.start as usize..range.end as usize))
    }

    /// The piece's object is gone: a compactor merged it, so list once more and cut it out.
    async fn read_merged(&self, piece: &Segment) -> LogResult<Bytes> {
        let listing = self.list(&name::epoch_folder(self.target(), piece.start.epoch)).await?;
        let mut body = BytesMut::with_capacity(piece.length() as usize);
        let mut at = piece.start.offset;
        for part in listing.chain.pieces(piece.start.epoch) {
            if part.end.offset <= at || at >= piece.end.offset {
                continue;
            }
            if part.start.offset > at {
                break;
            }
            let bytes = self.get(listing.name_of(part)).await?.1;
            let to = piece.end.offset.min(part.end.offset);
            let cut = (at - part.start.offset) as usize..(to - part.start.offset) as usize;
            body.extend_from_slice(bytes.get(cut).unwrap_or_default());
            at = to;
        }
        if body.len() as u64 == piece.length() {
            return Ok(body.freeze());
        }
        let key = self.sealer.key_of(&ObjectName::appended(piece));
        Err(RepoError::new(RepoErrorKind::Damaged, format!("log piece {} is missing: there is no {key}", piece.start))
            .into())
    }

    /// The pieces of one database file, in order; empty where the log does not hold it.
    pub fn file_pieces(&self, file: &str) -> Vec<&Segment> {
        self.chain.iter().filter(|piece| piece.file == file).collect()
    }

    /// The bytes of one database file, joined from its pieces: what it holds so far, from the
    /// first byte that is in the log. Nothing where the log does not hold the file.
    ///
    /// # Errors
    /// [`LogError::Gap`] when bytes are missing between two pieces.
    pub fn file(&self, file: &str) -> LogResult<Option<impl Stream<Item = LogResult<Bytes>> + Send + '_>> {
        let pieces: Vec<Segment> = self.file_pieces(file).into_iter().cloned().collect();
        let Some(first) = pieces.first() else { return Ok(None) };
        unbroken(&pieces)?;
        Ok(Some(self.joined(first.start.offset, pieces)))
    }

    /// The bytes of these pieces of one epoch from `start` on, each byte once.
    ///
    /// The pieces are in order and unbroken, as a plan or a chain lists them.
    pub fn joined(&self, start: u64, pieces: Vec<Segment>) -> impl Stream<Item = LogResult<Bytes>> + Send + '_ {
        let mut at = start;
        let cuts: Vec<(Segment, usize)> = pieces
            .into_iter()
            .filter_map(|piece| {
                if piece.end.offset <= at {
                    return None;
                }
                let skip = at.saturating_sub(piece.start.offset) as usize;
                at = piece.end.offset;
                Some((piece, skip))
            })
            .collect();
        stream::iter(cuts)
            .map(move |(piece, skip)| async move { Ok::<_, LogError>(self.read(&piece).await?.slice(skip..)) })
            .buffered(super::limits::PIECES_AT_ONCE)
    }

    /// As [`LogChain::file`], in memory; at most `bytes_max` bytes.
    ///
    /// # Errors
    /// As [`LogChain::file`]; [`LogError::Invalid`] when the file is longer.
    pub async fn read_file(&self, file: &str, bytes_max: u64) -> LogResult<Option<Bytes>> {
        let length: u64 = self.file_pieces(file).iter().map(|piece| piece.length()).sum();
        if length > bytes_max {
            return Err(LogError::Invalid(format!("log file {file} has {length} bytes, at most {bytes_max} fit here")));
        }
        let Some(stream) = self.file(file)? else { return Ok(None) };
        let parts: Vec<Bytes> = stream.try_collect().await?;
        Ok(Some(parts.concat().into()))
    }
}

impl Listing {
    /// The object of a piece in this listing's chain.
    pub(super) fn name_of(&self, piece: &Segment) -> &ObjectName {
        let place = (piece.start.epoch, piece.start.offset, piece.end.offset);
        // Chain and names were made from the same objects.
        &self.objects[&place]
    }
}

/// Fails where two neighbours of one epoch do not touch.
pub(super) fn unbroken(pieces: &[Segment]) -> LogResult<()> {
    for pair in pieces.windows(2) {
        if pair[0].end.epoch == pair[1].start.epoch && pair[0].end.offset < pair[1].start.offset {
            return Err(LogError::Gap(Gap { from: pair[0].end.clone(), to: pair[1].start.clone() }));
        }
    }
    Ok(())
}
