//! Retention: removing log that nobody needs any more.
//!
//! The oldest piece goes first and one after another: wherever it ends, what is left is one stretch without a hole.

use super::{LogChain, LogResult, name, name::ObjectName};
use backstay_core::LogNeed;
use serde::Serialize;
use std::collections::BTreeSet;

/// Which objects of a log go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrimPlan {
    /// Objects with pieces that go.
    pub objects: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// Objects with pieces that stay.
    pub objects_left: u64,
    /// Their stored bytes.
    pub bytes_left: u64,
    /// In the order in which they go.
    #[serde(skip)]
    pub(super) keys: Vec<String>,
}

impl LogChain {
    /// Which objects nobody needs, by `need`. Looks at the store anew.
    ///
    /// # Errors
    /// Whatever the store reports.
    pub async fn plan_trim(&self, need: &LogNeed) -> LogResult<TrimPlan> {
        let listing = self.list(&name::folder(self.target())).await?;
        let over: BTreeSet<(u64, u64)> =
            need.superfluous(&listing.chain).into_iter().map(|piece| (piece.start.epoch, piece.end.offset)).collect();
        // What a merged piece holds as well is over when that is.
        let last = over.iter().next_back().copied();
        let mut plan = TrimPlan::default();
        let mut gone: Vec<_> = Vec::new();
        let mut epochs_left = BTreeSet::new();
        for listed in &listing.pieces {
            let place = (listed.piece.end.epoch, listed.piece.end.offset);
            if last.is_some_and(|last| place <= last) && need.is_over(&listed.piece) {
                plan.objects += 1;
                plan.bytes += listed.info.bytes;
                gone.push((place, listed.info.key.clone()));
            } else {
                plan.objects_left += 1;
                plan.bytes_left += listed.info.bytes;
                epochs_left.insert(place.0);
            }
        }
        gone.sort();
        // Claims say where epochs start that no longer are; they go last.
        let epochs: BTreeSet<u64> = gone.iter().map(|((epoch, _), _)| *epoch).collect();
        let claims =
            epochs.difference(&epochs_left).map(|epoch| self.sealer.key_of(&ObjectName::Claim { epoch: *epoch }));
        plan.keys = gone.into_iter().map(|(_, key)| key).chain(claims).collect();
        Ok(plan)
    }

    /// Removes what `plan` says. The repository is locked exclusively: a restore may be reading.
    ///
    /// # Errors
    /// Whatever the store reports; the rest stays then.
    pub async fn trim(&self, plan: &TrimPlan) -> LogResult<()> {
        for key in &plan.keys {
            self.store.delete(key).await?;
            // One that comes back with a power cut would lie alone, behind a hole.
            self.store.settle(key.rsplit_once('/').map_or("", |(folder, _)| folder)).await?;
        }
        Ok(())
    }
}
