//! Pins: backups that no policy takes away.
//!
//! One sealed object for each, `pins/<backup id>`; stock restic ignores the folder. They are not tags of the snapshot,
//! because a snapshot that is tagged becomes another one, with another id.

use crate::limits::{LOADS_MAX, PIN_BYTES_MAX, PIN_REASON_BYTES_MAX};
use crate::{Id, RepoError, RepoErrorKind, Repository, Result, document};
use backstay_core::{BackupId, Timestamp};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why a backup is pinned. Field names are the stored ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The backup.
    pub backup: BackupId,
    /// Why, as whoever pinned it wrote it; may be empty.
    pub reason: String,
    /// When.
    pub time: Timestamp,
}

/// The object's name.
pub(crate) fn key(backup: &BackupId) -> String {
    Id::from(backup).key("pins")
}

impl Repository {
    /// Pins a backup that is there; a pin it has already is replaced.
    ///
    /// # Errors
    /// [`RepoErrorKind::NotFound`] when there is no such backup, [`RepoErrorKind::InvalidConfig`] when the reason is too
    /// long, whatever the store reports.
    pub async fn pin(&self, backup: &BackupId, reason: &str) -> Result<()> {
        if reason.len() > PIN_REASON_BYTES_MAX {
            let what = format!("failed to pin a backup: the reason is longer than {PIN_REASON_BYTES_MAX} bytes");
            return Err(RepoError::new(RepoErrorKind::InvalidConfig, what));
        }
        if !self.store().exists(&Id::from(backup).key("snapshots")).await? {
            return Err(RepoError::new(RepoErrorKind::NotFound, format!("there is no backup {}", backup.short())));
        }
        let time = std::time::SystemTime::now().into();
        self.put_pin(&Pin { backup: backup.clone(), reason: reason.to_owned(), time }).await
    }

    /// Writes a pin over whatever is there.
    pub(crate) async fn put_pin(&self, pin: &Pin) -> Result<()> {
        let sealed = self.master_key().seal(&document::to_json(pin)?);
        self.store().put_overwrite(&key(&pin.backup), sealed).await
    }

    /// Takes a pin away; answers whether there was one.
    ///
    /// # Errors
    /// Whatever the store reports.
    pub async fn unpin(&self, backup: &BackupId) -> Result<bool> {
        let there = self.store().exists(&key(backup)).await?;
        self.store().delete(&key(backup)).await?;
        Ok(there)
    }

    /// All pins. One that cannot be read holds its backup all the same: the object's name says which.
    ///
    /// # Errors
    /// Whatever the store reports.
    pub async fn pins(&self) -> Result<BTreeMap<BackupId, Pin>> {
        let ids: Vec<Id> =
            self.store().list("pins").await?.iter().filter_map(|object| Id::from_key(&object.key)).collect();
        let pins = futures::stream::iter(ids).map(|id| async move {
            let name = id.key("pins");
            let stored = match self.store().get(&name, PIN_BYTES_MAX).await {
                // Taken away while we look.
                Err(error) if error.kind() == RepoErrorKind::NotFound => return Ok::<_, RepoError>(None),
                Err(error) if error.kind() == RepoErrorKind::Damaged => Err(error),
                stored => Ok(stored?),
            };
            let read = stored.and_then(|stored| self.read(id, &stored));
            let pin = read.unwrap_or_else(|error| {
                tracing::warn!("a pin holds its backup though it is damaged: {error}");
                Pin { backup: id.into(), reason: "its reason cannot be read".to_owned(), time: Timestamp::EPOCH }
            });
            Ok(Some((pin.backup.clone(), pin)))
        });
        let pins: Vec<Option<(BackupId, Pin)>> = pins.buffer_unordered(LOADS_MAX).try_collect().await?;
        Ok(pins.into_iter().flatten().collect())
    }

    fn read(&self, id: Id, stored: &[u8]) -> Result<Pin> {
        let name = id.key("pins");
        let opened = self.master_key().open(stored).and_then(|json| document::from_json(&json));
        let pin: Pin = opened.map_err(|error| RepoError::damaged(&name, error))?;
        match Id::from(&pin.backup) == id {
            true => Ok(pin),
            false => Err(RepoError::damaged(&name, "it is the pin of another backup")),
        }
    }
}
