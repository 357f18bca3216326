//! Retention: removing log that nobody needs any more.
//!
//! The oldest piece goes first and one after another: wherever it ends, what is left is one stretch without a hole.

use super::{LogChain, LogResult, name, name::ObjectName};
use crate::lock::Lock;
use crate::store::folder_of;
use crate::{ObjectInfo, RepoErrorKind};
use backstay_core::{LogNeed, Timestamp};
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
    /// Of those that stay: objects nobody needs that the store keeps for a while, or that lie behind one.
    pub objects_waiting: u64,
    /// Their stored bytes.
    pub bytes_waiting: u64,
    /// When all of them may go.
    pub waiting_until: Option<Timestamp>,
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
        let mut over_now: Vec<_> = Vec::new();
        let mut epochs_left = BTreeSet::new();
        for listed in &listing.pieces {
            let place = (listed.piece.end.epoch, listed.piece.end.offset);
            if last.is_some_and(|last| place <= last) && need.is_over(&listed.piece) {
                over_now.push((place, &listed.info));
            } else {
                plan.objects_left += 1;
                plan.bytes_left += listed.info.bytes;
                epochs_left.insert(place.0);
            }
        }
        over_now.sort_by(|a, b| (a.0, &a.1.key).cmp(&(b.0, &b.1.key)));
        // One that stays ends it: behind it there would be a hole.
        let is_kept = |(_, info): &(_, &ObjectInfo)| self.store.kept_until(info).is_some();
        let waiting = over_now.split_off(over_now.iter().position(is_kept).unwrap_or(over_now.len()));
        for (place, info) in waiting {
            epochs_left.insert(place.0);
            (plan.objects_left, plan.bytes_left) = (plan.objects_left + 1, plan.bytes_left + info.bytes);
            (plan.objects_waiting, plan.bytes_waiting) = (plan.objects_waiting + 1, plan.bytes_waiting + info.bytes);
            plan.waiting_until = plan.waiting_until.max(self.store.kept_until(info));
        }
        plan.objects = over_now.len() as u64;
        plan.bytes = over_now.iter().map(|(_, info)| info.bytes).sum();
        let gone: Vec<((u64, u64), String)> =
            over_now.into_iter().map(|(place, info)| (place, info.key.clone())).collect();
        // Claims say where epochs start that no longer are; they go last.
        let epochs: BTreeSet<u64> = gone.iter().map(|((epoch, _), _)| *epoch).collect();
        let claims =
            epochs.difference(&epochs_left).map(|epoch| self.sealer.key_of(&ObjectName::Claim { epoch: *epoch }));
        plan.keys = gone.into_iter().map(|(_, key)| key).chain(claims).collect();
        Ok(plan)
    }

    /// Removes what `plan` says under an exclusive lock of the repository: a restore may be reading. Answers how many
    /// objects are left because the store would not let one go: that one, and all that come after it.
    ///
    /// # Errors
    /// [`RepoErrorKind::LockLost`], whatever the store reports; the rest stays then.
    pub async fn trim(&self, lock: &Lock, plan: &TrimPlan) -> LogResult<u64> {
        for (done, key) in plan.keys.iter().enumerate() {
            lock.check_valid().await?;
            match self.store.delete(key).await {
                Err(error) if error.kind() == RepoErrorKind::Retained => {
                    tracing::warn!(%error, "log stays for now");
                    return Ok((plan.keys.len() - done) as u64);
                }
                gone => gone?,
            }
            // One that comes back with a power cut would lie alone, behind a hole.
            self.store.settle(folder_of(key)).await?;
        }
        Ok(0)
    }
}
