//! Forgetting: backups are removed, and what they alone referred to stays until a prune.

use crate::{Id, ObjectInfo, RepoError, RepoErrorKind, Repository, Result, pin};
use backstay_core::{BackupId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

impl Repository {
    /// Backups that the store keeps for a while, whoever wants them gone, and until when.
    ///
    /// # Errors
    /// Whatever the store reports.
    pub async fn retained_backups(&self) -> Result<BTreeMap<BackupId, Timestamp>> {
        if self.store().retention().is_none() {
            return Ok(BTreeMap::new());
        }
        let listed = self.store().list("snapshots").await?;
        let kept = |object: &ObjectInfo| Some((Id::from_key(&object.key)?.into(), self.store().kept_until(object)?));
        Ok(listed.iter().filter_map(kept).collect())
    }

    /// Removes backups: their snapshots, and their pins. What they alone referred to stays until a prune. Answers those
    /// that the store would not let go. `relied_on` are backups because of which these may go: all of them must still be
    /// there.
    ///
    /// # Errors
    /// [`RepoErrorKind::Locked`] while somebody holds the repository exclusively; [`RepoErrorKind::Conflict`] when one
    /// that is relied on went meanwhile, or one of `backups` was pinned: the plan is to be made anew; whatever the store
    /// reports.
    pub async fn forget(&self, backups: &[BackupId], relied_on: &[BackupId]) -> Result<Vec<BackupId>> {
        let lock = self.lock(crate::LockKind::Shared).await?;
        let forgotten = async {
            self.expect_all(relied_on).await?;
            lock.confirm().await?;
            let mut refused = Vec::new();
            for backup in backups {
                if self.store().exists(&pin::key(backup)).await? {
                    return Err(changed(format!("backup {} was pinned meanwhile", backup.short())));
                }
                match self.store().delete(&Id::from(backup).key("snapshots")).await {
                    Err(error) if error.kind() == RepoErrorKind::Retained => {
                        tracing::warn!(%error, "a backup stays for now");
                        refused.push(backup.clone());
                    }
                    gone => {
                        gone?;
                        self.store().delete(&pin::key(backup)).await?;
                    }
                }
            }
            Ok(refused)
        };
        let forgotten = forgotten.await;
        lock.release().await?;
        forgotten
    }

    async fn expect_all(&self, backups: &[BackupId]) -> Result<()> {
        let listed = self.store().list("snapshots").await?;
        let there: BTreeSet<Id> = listed.iter().filter_map(|object| Id::from_key(&object.key)).collect();
        match backups.iter().find(|backup| !there.contains(&Id::from(*backup))) {
            None => Ok(()),
            Some(gone) => Err(changed(format!("backup {}, which was to stay, went meanwhile", gone.short()))),
        }
    }
}

fn changed(what: String) -> RepoError {
    RepoError::new(RepoErrorKind::Conflict, what).advise("start again: the plan is made anew")
}
