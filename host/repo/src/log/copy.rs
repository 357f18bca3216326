//! Copying a log into another repository, sealed anew and bound to its place there.
//!
//! ```text
//!   identity ─▶ notes ─▶ epochs, oldest first: claim, pieces in order ─▶ confirmed
//! ```
//!
//! What is copied is what the other log lacks from its own beginning on: older log that retention took there does not
//! come back. Where both have a place, they must have the same bytes.
//!
//! An archiver may be at work on either side. Into a log that is empty pieces come under their own names. Behind the end
//! of one that is not, each comes as an archiver would append it, under its start alone: that is the fence, and whoever
//! comes second learns it. A piece of which the other log has a part is cut: appended pieces link only where the one
//! before ends.

use super::{
    LogChain, LogError, LogResult,
    append::slice,
    limits::{PIECES_AT_ONCE, SIGHT_MAX},
    name,
    name::ObjectName,
};
use crate::RepoErrorKind;
use backstay_core::{Position, Segment};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

/// How a log is copied.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogCopyOptions {
    /// Only count.
    pub dry_run: bool,
    /// Compare what both have by its digest, or its bytes where the pieces differ; else only what touches something new.
    pub compare: bool,
}

/// What was copied, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LogCopied {
    /// Pieces.
    pub pieces: u64,
    /// Their plaintext bytes.
    pub bytes: u64,
    /// Side files.
    pub notes: u64,
    /// Pieces that were there.
    pub there: u64,
}

impl LogCopied {
    /// Whether there was nothing to copy.
    pub fn is_nothing(&self) -> bool {
        self.pieces == 0 && self.notes == 0
    }
}

/// A stretch of one epoch, with what people call its ends.
type Stretch = (Position, Position);

impl LogChain {
    /// Copies into `to`, the log of the same target in another repository, what it lacks. Both as loaded last; `to` is
    /// loaded again when something came.
    ///
    /// # Errors
    /// [`LogError::Conflict`] when both have a place with other bytes, or belong to other databases; damaged pieces of
    /// this log; whatever the stores report. What was copied until then counts.
    pub async fn copy_to(
        &self,
        to: &mut Self,
        options: LogCopyOptions,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> LogResult<LogCopied> {
        let mut copied = LogCopied::default();
        if let Some(identity) = self.identity().await? {
            let there = to.identity().await?;
            if !options.dry_run || there.is_some() {
                to.identify(&identity.engine, &identity.identity).await?;
            }
        }
        if !options.dry_run {
            // The copy must not have what a power cut takes back here: whoever goes on here might put something else there.
            self.settle().await?;
            // What need not be copied, because somebody else put it there, is relied on from now on.
            to.settle().await?;
        }
        self.copy_notes(to, options, &mut copied).await?;
        // Older branches went with retention.
        let oldest = to.chain.epochs().next();
        let is_empty = to.chain.is_empty();
        for epoch in self.chain.epochs().filter(|epoch| oldest.is_none_or(|oldest| *epoch >= oldest)) {
            self.copy_epoch(to, epoch, is_empty, options, &mut copied, progress).await?;
        }
        if options.dry_run {
            return Ok(copied);
        }
        if copied.pieces > 0 {
            to.load().await?;
        }
        if let Some(confirmed) = self.confirmed().await? {
            let older = to.confirmed().await?.is_none_or(|there| there.time < confirmed.time);
            if older && to.chain.covers(&confirmed.position) {
                to.confirm(&confirmed.position, confirmed.time).await?;
            }
        }
        Ok(copied)
    }

    async fn copy_notes(&self, to: &Self, options: LogCopyOptions, copied: &mut LogCopied) -> LogResult<()> {
        let there = to.notes().await?;
        for note in self.notes().await? {
            let known = there.binary_search(&note).is_ok();
            if known && !options.compare {
                continue;
            }
            copied.notes += u64::from(!known);
            if known || !options.dry_run {
                // One that is there with other content is a conflict.
                to.put_note(&note, self.read_note(&note).await?).await?;
            }
        }
        Ok(())
    }

    async fn copy_epoch(
        &self,
        to: &Self,
        epoch: u64,
        is_empty: bool,
        options: LogCopyOptions,
        copied: &mut LogCopied,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> LogResult<()> {
        let mut cover = Cover::of(to.chain.pieces(epoch));
        let mut work = Vec::new();
        for piece in self.chain.pieces(epoch) {
            let parts = cover.take(piece);
            copied.there += u64::from(parts.is_empty());
            if options.compare || !parts.is_empty() {
                work.push(Work { piece, parts });
            }
        }
        if work.iter().all(|work| work.parts.is_empty()) && !options.compare {
            return Ok(());
        }
        if !options.dry_run && work.iter().any(|work| !work.parts.is_empty()) {
            self.copy_claim(to, epoch).await?;
        }
        let bodies = stream::iter(work).map(|work| self.body_of(to, work, options)).buffered(PIECES_AT_ONCE);
        let mut bodies = std::pin::pin!(bodies);
        // One after another: a reader must not meet a hole that an interrupted copy left.
        while let Some((Work { piece, parts }, body)) = bodies.try_next().await? {
            for (start, end) in parts {
                copied.pieces += 1;
                copied.bytes += end.offset - start.offset;
                if !options.dry_run {
                    self.put_part(to, piece, &body, (start, end), is_empty).await?;
                }
                progress(copied.bytes);
            }
        }
        Ok(())
    }

    /// A piece's bytes, as far as they are needed, and compared with what the other log has of it.
    async fn body_of<'a>(&self, to: &Self, work: Work<'a>, options: LogCopyOptions) -> LogResult<(Work<'a>, Bytes)> {
        let Work { piece, parts } = &work;
        let untouched = matches!(parts.as_slice(), [(start, end)] if *start == piece.start && *end == piece.end);
        if (untouched && options.dry_run) || (parts.is_empty() && self.expect_same_object(to, piece).await?) {
            return Ok((work, Bytes::new()));
        }
        let body = self.read(piece).await?;
        if !untouched {
            self.expect_agreement(to, piece, &body).await?;
        }
        Ok((work, body))
    }

    /// Whether the other log has this piece as one of its own; then it must have the same digest.
    async fn expect_same_object(&self, to: &Self, piece: &Segment) -> LogResult<bool> {
        let place = (piece.start.epoch, piece.start.offset, piece.end.offset);
        let (Some(ours), Some(theirs)) = (self.objects.get(&place), to.objects.get(&place)) else { return Ok(false) };
        match tokio::try_join!(self.digest_of(ours), to.digest_of(theirs)) {
            Ok((ours, theirs)) if ours == theirs => Ok(true),
            Ok(_) => Err(conflict(piece)),
            // Merged away meanwhile: its bytes will tell.
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn digest_of(&self, name: &ObjectName) -> LogResult<String> {
        let there = self.store.head(&self.sealer.key_of(name)).await?;
        Ok(self.header(name, there.bytes).await?.sha256)
    }

    /// The other log has the same bytes wherever it has any of this piece's.
    async fn expect_agreement(&self, to: &Self, piece: &Segment, body: &Bytes) -> LogResult<()> {
        let theirs = to.chain.pieces(piece.start.epoch);
        let first = theirs.partition_point(|other| other.end.offset <= piece.start.offset);
        for other in theirs[first..].iter().take_while(|other| other.start.offset < piece.end.offset) {
            let there = to.read(other).await?;
            let from = piece.start.offset.max(other.start.offset);
            let end = piece.end.offset.min(other.end.offset);
            if slice(body, piece, from, end) != slice(&there, other, from, end) {
                return Err(conflict(piece));
            }
        }
        Ok(())
    }

    /// Where the epoch starts, in the same words; one that no piece followed is replaced.
    async fn copy_claim(&self, to: &Self, epoch: u64) -> LogResult<()> {
        let name = ObjectName::Claim { epoch };
        let Some((_, body)) = self.get_if_there(&name).await? else { return Ok(()) };
        let key = to.sealer.key_of(&name);
        let (object, ours) = to.sealer.seal(&name, None, body).await?;
        match to.store.put_new(&key, object.clone()).await {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == RepoErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
        // Where pieces are, they say where the epoch starts.
        if to.epoch_has_pieces(epoch).await? || to.digest_of(&name).await? == ours {
            return Ok(());
        }
        to.store.delete(&key).await?;
        to.store.put_new(&key, object).await?;
        // Whoever looked at the old claim before it went has written its piece by now.
        match to.epoch_has_pieces(epoch).await? {
            true => Err(LogError::rival(format!("an archiver has just begun epoch {epoch}"))),
            false => Ok(()),
        }
    }

    /// Writes the part `start..end` of a piece.
    async fn put_part(
        &self,
        to: &Self,
        piece: &Segment,
        body: &Bytes,
        (start, end): Stretch,
        is_empty: bool,
    ) -> LogResult<()> {
        let from = (start.offset - piece.start.offset) as usize;
        let body = body.slice(from..from + (end.offset - start.offset) as usize);
        let whole = start == piece.start && end == piece.end;
        // Commits of a part that is left out are in the log as well, so the times stay true of it.
        let part = Segment {
            follows: piece.follows.clone().filter(|_| start == piece.start),
            file_offset: piece.file_offset + from as u64,
            start,
            end,
            ..piece.clone()
        };
        part.validate()?;
        let place = (piece.start.epoch, piece.start.offset, piece.end.offset);
        let name = match self.objects.get(&place) {
            Some(name) if whole && (is_empty || !name.is_merged()) => name.clone(),
            _ => ObjectName::appended(&part),
        };
        let (object, ours) = to.sealer.seal(&name, Some(&part), body.clone()).await?;
        match to.store.put_new(&to.sealer.key_of(&name), object).await {
            Ok(()) => {}
            Err(error) if error.kind() == RepoErrorKind::AlreadyExists => {
                if to.digest_of(&name).await? != ours {
                    return Err(conflict(&part));
                }
                // Who wrote it may have ended before its name was durable.
                to.store.settle(&name::epoch_folder(to.target(), piece.start.epoch)).await?;
            }
            Err(error) => return Err(error.into()),
        }
        if to.seen.age() > SIGHT_MAX {
            to.expect_uncovered(&part, &name, &body).await?;
        }
        Ok(())
    }
}

/// A piece, and what the other log lacks of it.
struct Work<'a> {
    piece: &'a Segment,
    parts: Vec<Stretch>,
}

/// What a log has of an epoch.
struct Cover {
    /// Older log went with retention.
    floor: Option<Position>,
    /// In order, of starts and of ends.
    stretches: Vec<Stretch>,
}

impl Cover {
    fn of(pieces: &[Segment]) -> Self {
        Self {
            floor: pieces.first().map(|piece| piece.start.clone()),
            stretches: pieces.iter().map(|piece| (piece.start.clone(), piece.end.clone())).collect(),
        }
    }

    /// What is not covered of `piece`; from now on it is.
    fn take(&mut self, piece: &Segment) -> Vec<Stretch> {
        let floor = self.floor.clone().filter(|floor| floor.offset > piece.start.offset);
        let mut at = floor.unwrap_or_else(|| piece.start.clone());
        let mut parts: Vec<Stretch> = Vec::new();
        let first = self.stretches.partition_point(|(_, end)| end.offset <= at.offset);
        for (start, end) in &self.stretches[first..] {
            if start.offset >= piece.end.offset {
                break;
            }
            if start.offset > at.offset {
                parts.push((at, start.clone()));
            }
            at = end.clone();
        }
        if at.offset < piece.end.offset {
            parts.push((at, piece.end.clone()));
        }
        for part in &parts {
            let place = self.stretches.partition_point(|(start, _)| start.offset < part.0.offset);
            self.stretches.insert(place, part.clone());
        }
        parts
    }
}

fn conflict(piece: &Segment) -> LogError {
    LogError::Conflict {
        what: format!("log piece {} is in both repositories, with other content", piece.start),
        advice: "find out which of the two is the database's, and keep that one",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(start: u64, end: u64) -> Segment {
        let at = |offset| Position { epoch: 1, offset, label: String::new() };
        Segment {
            start: at(start),
            end: at(end),
            follows: None,
            first_commit: None,
            last_commit: None,
            file: "f".to_owned(),
            file_offset: start,
        }
    }

    fn taken(cover: &mut Cover, start: u64, end: u64) -> Vec<(u64, u64)> {
        cover.take(&piece(start, end)).into_iter().map(|(start, end)| (start.offset, end.offset)).collect()
    }

    #[test]
    fn what_a_log_lacks_is_what_lies_in_its_gaps_and_behind_its_end() {
        let mut cover = Cover::of(&[piece(10, 20), piece(30, 40)]);
        assert_eq!(taken(&mut cover, 0, 10), [], "older log does not come back");
        assert_eq!(taken(&mut cover, 5, 25), [(20, 25)]);
        assert_eq!(taken(&mut cover, 10, 20), []);
        assert_eq!(taken(&mut cover, 15, 50), [(25, 30), (40, 50)]);
        assert_eq!(taken(&mut cover, 45, 60), [(50, 60)]);
        assert_eq!(taken(&mut Cover::of(&[]), 5, 7), [(5, 7)]);
    }
}
