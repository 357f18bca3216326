//! Appending: the fence, and when to look behind it.
//!
//! The name of a piece is its start, created only if absent. Two things that alone cannot
//! see, and what does:
//! - *The first piece of an epoch* could be created at two different starts. So the start is
//!   claimed first, under one name, and the claim is looked at again once the piece is there.
//! - *A place can be free again* because its piece was merged away. Compactors leave young
//!   objects alone ([`COMPACT_AGE_MIN`]), so only an archiver that has not seen the log for
//!   long ([`SIGHT_MAX`]) can meet that, and it looks again before it acknowledges.
//!
//! [`COMPACT_AGE_MIN`]: super::limits::COMPACT_AGE_MIN

use super::{LogChain, LogError, LogResult, Sight, limits::SIGHT_MAX, name, name::ObjectName};
use crate::RepoErrorKind;
use backstay_core::{Position, Segment};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Where an epoch starts. Field names are the stored ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    start: u64,
    /// Epoch and offset.
    follows: Option<(u64, u64)>,
}

impl LogChain {
    /// Lets the next piece leave a gap: the way out once the database no longer has the log
    /// in between. No recovery window reaches across the gap.
    pub fn allow_gap(&mut self) {
        self.gap_allowed = true;
    }

    /// Appends a piece. Durable once it answers ok.
    ///
    /// # Errors
    /// [`LogError::Gap`] unless it continues the chain, [`LogError::Conflict`] when another
    /// archiver wrote that place, [`LogError::Invalid`] when it contradicts itself. After an
    /// error nothing was acknowledged, and the same piece may be appended again.
    pub async fn append(&mut self, piece: &Segment, body: Bytes) -> LogResult<()> {
        if body.len() as u64 != piece.length() {
            return Err(LogError::Invalid(format!(
                "log piece {} has {} bytes, its positions say {}",
                piece.start,
                body.len(),
                piece.length()
            )));
        }
        match self.chain.accepts(piece) {
            Err(backstay_core::ChainError::Gap { .. }) if self.gap_allowed => {}
            other => other?,
        }
        let started = Sight::now();
        let is_first = self.chain.pieces(piece.start.epoch).is_empty();
        if is_first {
            self.claim(piece).await?;
        }
        let name = ObjectName::appended(piece);
        let (object, digest) = self.sealer.seal(&name, Some(piece), body.clone()).await?;
        match self.store.put_new(&self.sealer.key_of(&name), object).await {
            Ok(()) => {}
            Err(error) if error.kind() == RepoErrorKind::AlreadyExists => {
                self.expect_own(piece, &name, &digest).await?
            }
            Err(error) => return Err(error.into()),
        }
        if is_first {
            self.expect_claim(piece, &name).await?;
        }
        if is_first || self.seen.age() > SIGHT_MAX {
            self.expect_uncovered(piece, &name, &body).await?;
        }
        self.chain.push_after_gap(piece.clone())?;
        self.gap_allowed = false;
        let place = (piece.start.epoch, piece.start.offset, piece.end.offset);
        self.objects.insert(place, name);
        self.seen = started;
        Ok(())
    }

    /// The place is taken: fine when it is our own earlier attempt.
    async fn expect_own(&self, piece: &Segment, name: &ObjectName, digest: &str) -> LogResult<()> {
        let there = async {
            let there = self.store.head(&self.sealer.key_of(name)).await?;
            self.header(name, there.bytes).await
        };
        let header = match there.await {
            // Whoever wrote it has taken it away again.
            Err(error) if error.is_absent() => {
                return Err(LogError::rival(format!("another archiver wrote at {} at this moment", piece.start)));
            }
            there => there?,
        };
        let same = header.segment().is_some_and(|there| there.end == piece.end && there.file == piece.file);
        if same && header.sha256 == digest {
            // It may have ended before the name was durable.
            return Ok(self.store.settle(&name::epoch_folder(self.target(), piece.start.epoch)).await?);
        }
        Err(LogError::rival(format!("another archiver has written log piece {}", piece.start)))
    }

    /// A rival's piece may have been merged, which frees its name: then ours must hold the same bytes.
    async fn expect_uncovered(&self, piece: &Segment, name: &ObjectName, body: &Bytes) -> LogResult<()> {
        let listing = self.list(&name::epoch_folder(self.target(), piece.start.epoch)).await?;
        let ours = |listed: &&super::Listed| listed.name != *name;
        let meets = |listed: &&super::Listed| {
            listed.piece.start.offset < piece.end.offset && piece.start.offset < listed.piece.end.offset
        };
        for other in listing.pieces.iter().filter(ours).filter(meets) {
            let from = piece.start.offset.max(other.piece.start.offset);
            let to = piece.end.offset.min(other.piece.end.offset);
            let same = match self.get_if_there(&other.name).await? {
                Some((_, theirs)) => slice(&theirs, &other.piece, from, to) == slice(body, piece, from, to),
                None => false,
            };
            if !same {
                self.store.delete(&self.sealer.key_of(name)).await?;
                return Err(LogError::rival(format!("another archiver wrote the log at {} long ago", piece.start)));
            }
        }
        Ok(())
    }

    /// Takes the start of a new epoch.
    async fn claim(&self, piece: &Segment) -> LogResult<()> {
        let claim = Claim::of(piece);
        let name = ObjectName::Claim { epoch: piece.start.epoch };
        if self.put_document(&name, &claim).await? {
            return Ok(());
        }
        match self.get_document::<Claim>(&name).await? {
            Some(there) if there == claim => return Ok(()),
            Some(_) if self.epoch_has_pieces(piece.start.epoch).await? => return Err(rival_epoch(&piece.start)),
            // An archiver ended between its claim and its first piece.
            _ => self.store.delete(&self.sealer.key_of(&name)).await?,
        }
        if !self.put_document(&name, &claim).await? {
            return Err(rival_epoch(&piece.start));
        }
        // Whoever looked at the old claim before it went has written its piece by now.
        if self.epoch_has_pieces(piece.start.epoch).await? {
            return Err(rival_epoch(&piece.start));
        }
        Ok(())
    }

    /// Whether the epoch is still ours now that its first piece is there.
    async fn expect_claim(&self, piece: &Segment, name: &ObjectName) -> LogResult<()> {
        let claim = ObjectName::Claim { epoch: piece.start.epoch };
        if self.get_document::<Claim>(&claim).await? == Some(Claim::of(piece)) {
            return Ok(());
        }
        self.store.delete(&self.sealer.key_of(name)).await?;
        Err(rival_epoch(&piece.start))
    }

    async fn epoch_has_pieces(&self, epoch: u64) -> LogResult<bool> {
        let folder = name::epoch_folder(self.target(), epoch);
        let claim = self.sealer.key_of(&ObjectName::Claim { epoch });
        Ok(self.store.list(&folder).await?.iter().any(|info| info.key != claim))
    }
}

impl Claim {
    fn of(piece: &Segment) -> Self {
        let follows = piece.follows.as_ref().map(|follows| (follows.epoch, follows.offset));
        Self { start: piece.start.offset, follows }
    }
}

/// The bytes `from..to` of an epoch, out of a piece that holds them.
fn slice<'a>(body: &'a [u8], piece: &Segment, from: u64, to: u64) -> Option<&'a [u8]> {
    let at = |offset: u64| usize::try_from(offset.checked_sub(piece.start.offset)?).ok();
    body.get(at(from)?..at(to)?)
}

fn rival_epoch(start: &Position) -> LogError {
    LogError::rival(format!("another archiver has begun epoch {}, elsewhere than at {}", start.epoch, start.label))
}
