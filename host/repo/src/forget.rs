//! Forgetting: backups are removed, and what they alone referred to stays until a prune.

use crate::{Id, ObjectInfo, RepoErrorKind, Repository, Result, pin};
use backstay_core::{BackupId, Timestamp};
use std::collections::BTreeMap;

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
    /// that the store would not let go.
    ///
    /// # Errors
    /// [`RepoErrorKind::Locked`] while somebody holds the repository exclusively, whatever the store reports.
    pub async fn forget(&self, backups: &[BackupId]) -> Result<Vec<BackupId>> {
        let lock = self.lock(crate::LockKind::Shared).await?;
        let forgotten = async {
            lock.confirm().await?;
            let mut refused = Vec::new();
            for backup in backups {
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
}
