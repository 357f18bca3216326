//! Checking a log: every link, every header, and with `read_data` every byte.

use super::{LogChain, LogResult, append::Claim, document::Identity, limits::PIECES_AT_ONCE, name};
use backstay_core::Gap;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

/// An object whose bytes are not what was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DamagedObject {
    /// Its name in the repository.
    pub object: String,
    /// Epoch and offset that it begins at, where it is one of the log's stretches.
    #[serde(skip)]
    pub place: Option<(u64, u64)>,
    /// What is wrong.
    pub why: String,
}

/// What [`LogChain::check`] found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LogReport {
    /// Which database this is.
    pub identity: Option<Identity>,
    /// Pieces in the chain.
    pub pieces: u64,
    /// Plaintext bytes of log, each counted once.
    pub bytes: u64,
    /// Plaintext bytes read and verified.
    pub read_bytes: u64,
    /// Missing links.
    pub gaps: Vec<Gap>,
    /// Damaged objects.
    pub damaged: Vec<DamagedObject>,
    /// Pieces that a longer one replaces; the next compaction removes them.
    pub superfluous: Vec<String>,
    /// Objects whose names mean nothing to this version.
    pub strangers: Vec<String>,
}

impl LogReport {
    /// Whether nothing is missing and nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.gaps.is_empty() && self.damaged.is_empty()
    }
}

impl LogChain {
    /// Checks the whole log anew; with `read_data` every byte of it.
    ///
    /// # Errors
    /// Whatever the store reports. What is wrong with the log is in the report.
    pub async fn check(&self, read_data: bool) -> LogResult<LogReport> {
        let listing = self.list_anew().await?;
        let mut report = LogReport {
            gaps: listing.chain.gaps(),
            damaged: listing.damaged.clone(),
            strangers: listing.strangers.clone(),
            ..LogReport::default()
        };
        for epoch in listing.chain.epochs() {
            let mut at = 0;
            for piece in listing.chain.pieces(epoch) {
                report.pieces += 1;
                report.bytes += piece.end.offset.saturating_sub(at.max(piece.start.offset));
                at = piece.end.offset;
            }
        }
        let kept: std::collections::BTreeSet<_> =
            listing.chain.iter().map(|piece| listing.name_of(piece).clone()).collect();
        for listed in listing.pieces.iter().filter(|listed| !kept.contains(&listed.name)) {
            report.superfluous.push(self.sealer.key_of(&listed.name));
        }
        match self.identity().await {
            Ok(identity) => report.identity = identity,
            Err(error) => self.note(&mut report, error, &name::ObjectName::Identity)?,
        }
        if let Err(error) = self.confirmed().await {
            self.note(&mut report, error, &name::ObjectName::Confirmed)?;
        }
        if let Err(error) = self.read_index().await {
            self.note(&mut report, error, &name::ObjectName::Index)?;
        }
        for epoch in listing.claims {
            let claim = name::ObjectName::Claim { epoch };
            if let Err(error) = self.get_document::<Claim>(&claim).await {
                self.note(&mut report, error, &claim)?;
            }
        }
        for note in self.notes().await? {
            if let Err(error) = self.read_note(&note).await {
                self.note(&mut report, error, &name::ObjectName::Note(note))?;
            }
        }
        if read_data {
            self.check_bodies(&mut report, listing.chain.iter().cloned().collect()).await?;
        }
        Ok(report)
    }

    async fn check_bodies(&self, report: &mut LogReport, pieces: Vec<backstay_core::Segment>) -> LogResult<()> {
        let reads = stream::iter(pieces).map(|piece| async move {
            let read = self.read(&piece).await;
            (piece, read)
        });
        let mut reads = reads.buffer_unordered(PIECES_AT_ONCE).map(Ok::<_, super::LogError>);
        while let Some((piece, read)) = reads.try_next().await? {
            match read {
                Ok(body) => report.read_bytes += body.len() as u64,
                Err(error) => {
                    let place = (piece.start.epoch, piece.start.offset, piece.end.offset);
                    let name = self.objects.get(&place).cloned().unwrap_or_else(|| name::ObjectName::appended(&piece));
                    self.note(report, error, &name)?;
                }
            }
        }
        report.damaged.sort_by(|a, b| a.object.cmp(&b.object));
        Ok(())
    }

    /// Damage goes into the report, everything else ends the check.
    fn note(&self, report: &mut LogReport, error: super::LogError, name: &name::ObjectName) -> LogResult<()> {
        if !error.is_damage() {
            return Err(error);
        }
        report.damaged.push(DamagedObject {
            object: self.sealer.key_of(name),
            place: name.place(),
            why: error.to_string(),
        });
        Ok(())
    }
}
