//! Freeing what nothing refers to.
//!
//! ```text
//!   exclusive lock ► snapshots ► trees: which blobs are used ► plan
//!     ► what is used of packs to repack ► new packs ► their index      durable
//!     ► the rest of the old index, written anew                        durable
//!     ► old index files removed ► packs removed
//! ```
//!
//! What the store keeps for a while, whoever wants it gone (Object Lock), is no part of the plan until its time is over;
//! what it refuses to remove all the same stays whole: a pack that an index file names which stayed, stays.
//!
//! Whatever moment it ends at, everything that a snapshot needs is in a pack that an index file names; what is left over
//! goes the next time.

mod perform;
mod plan;
mod usage;

pub use plan::{PruneOptions, PrunePlan, Repack, Waiting};

use crate::lock::{Lock, LockKind};
use crate::{RepoError, RepoErrorKind, Repository, Result};
use backstay_core::BackupId;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How far a prune is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PruneProgress {
    /// Looking which blobs the backups use: so many trees so far.
    Marking {
        /// Trees walked.
        trees: u64,
    },
    /// Copying what is used out of packs that go.
    Repacking {
        /// Packs done.
        packs_done: u64,
        /// Packs in all.
        packs_total: u64,
        /// Stored bytes copied.
        bytes: u64,
    },
    /// Removing packs.
    Removing {
        /// Packs done.
        packs_done: u64,
        /// Packs in all.
        packs_total: u64,
    },
}

/// What a prune did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PruneReport {
    /// Packs removed.
    pub packs_removed: u64,
    /// Their bytes.
    pub bytes_removed: u64,
    /// Stored bytes that were copied into new packs.
    pub bytes_repacked: u64,
    /// Index files replaced.
    pub index_files_replaced: u64,
    /// Objects that the store would not let go, though their time was over as far as we know: they go with a later
    /// prune.
    pub refused: u64,
}

impl Repository {
    /// What a prune would do now. Without an exclusive lock it is a look at what may change the next moment.
    ///
    /// # Errors
    /// [`RepoErrorKind::Damaged`] when it cannot be told what is used: nothing may be removed then.
    pub async fn plan_prune(
        &self,
        options: &PruneOptions,
        progress: &(dyn Fn(PruneProgress) + Send + Sync),
    ) -> Result<PrunePlan> {
        plan::plan(self, options, &BTreeSet::new(), progress).await
    }

    /// How many bytes a prune would free once `forgotten` are forgotten. A look, which walks the trees of all other
    /// backups.
    ///
    /// # Errors
    /// As [`Repository::plan_prune`]; whatever a prune beside it takes away meanwhile.
    pub async fn bytes_freed_without(
        &self,
        forgotten: &BTreeSet<BackupId>,
        options: &PruneOptions,
        progress: &(dyn Fn(PruneProgress) + Send + Sync),
    ) -> Result<u64> {
        Ok(plan::plan(self, options, forgotten, progress).await?.bytes_freed())
    }

    /// Does what `plan` says. `lock` is exclusive and was held when the plan was made.
    ///
    /// # Errors
    /// [`RepoErrorKind::LockLost`]; [`RepoErrorKind::Damaged`] when a blob to be copied is, and whatever the store
    /// reports. Nothing that a backup needs is gone then, and the next prune goes on.
    pub async fn prune(
        &self,
        lock: &Arc<Lock>,
        plan: PrunePlan,
        progress: &(dyn Fn(PruneProgress) + Send + Sync),
    ) -> Result<PruneReport> {
        if lock.kind() != LockKind::Exclusive {
            return Err(RepoError::new(RepoErrorKind::Internal, "failed to prune: the lock is not exclusive"));
        }
        perform::perform(self, lock, plan, progress).await
    }
}
