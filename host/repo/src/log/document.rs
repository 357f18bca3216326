//! Small sealed objects beside the pieces: identity, confirmation, notes.

use super::{
    LogChain, LogError, LogResult,
    limits::{IDENTITY_BYTES_MAX, NOTE_BYTES_MAX, NOTES_MAX},
    name,
    name::ObjectName,
    object::digest,
};
use crate::{RepoError, RepoErrorKind};
use backstay_core::{Confirmed, Position, Segment, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Which database a target is. Field names are the stored ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The engine's name.
    pub engine: String,
    /// What stays the same for the life of the database.
    pub identity: String,
}

/// Stored form of [`Confirmed`]; time in microseconds since 1970.
#[derive(Serialize, Deserialize)]
pub(super) struct ConfirmedDocument {
    epoch: u64,
    offset: u64,
    label: String,
    time: u64,
}

impl LogChain {
    /// Says which database this is. The first to say it decides for ever.
    ///
    /// # Errors
    /// [`LogError::Conflict`] when the target belongs to another database.
    pub async fn identify(&mut self, engine: &str, identity: &str) -> LogResult<()> {
        if identity.len() + engine.len() > IDENTITY_BYTES_MAX {
            return Err(LogError::Invalid("the identity is longer than 4 KiB".into()));
        }
        let came = Identity { engine: engine.to_owned(), identity: identity.to_owned() };
        if self.put_document(&ObjectName::Identity, &came).await? {
            return Ok(());
        }
        let Some(known) = self.identity().await? else {
            return Err(LogError::rival("the identity was removed while it was read"));
        };
        if known == came {
            return Ok(());
        }
        Err(LogError::Conflict {
            what: format!(
                "target {} belongs to {} database {}, but another one answers: {} database {}",
                self.target(),
                known.engine,
                known.identity,
                came.engine,
                came.identity
            ),
            advice: "give the new database a target name of its own",
        })
    }

    /// Which database this is, where that was said.
    ///
    /// # Errors
    /// When it is damaged, and whatever the store reports.
    pub async fn identity(&self) -> LogResult<Option<Identity>> {
        self.get_document(&ObjectName::Identity).await
    }

    /// The log is complete up to `at`, and the database's clock showed `time` there.
    ///
    /// # Errors
    /// [`LogError::Invalid`] when the log does not reach `at`.
    pub async fn confirm(&self, at: &Position, time: Timestamp) -> LogResult<()> {
        if !self.chain.covers(at) {
            return Err(LogError::Invalid(format!("the log was confirmed up to {at}, which it does not reach")));
        }
        let document =
            ConfirmedDocument { epoch: at.epoch, offset: at.offset, label: at.label.clone(), time: time.as_micros() };
        let object = self.seal_document(&ObjectName::Confirmed, &document).await?;
        Ok(self.store.put_overwrite(&self.sealer.key_of(&ObjectName::Confirmed), object).await?)
    }

    /// The last confirmation.
    ///
    /// # Errors
    /// When it is damaged, and whatever the store reports.
    pub async fn confirmed(&self) -> LogResult<Option<Confirmed>> {
        let document = self.get_document::<ConfirmedDocument>(&ObjectName::Confirmed).await?;
        Ok(document.map(|document| Confirmed {
            position: Position { epoch: document.epoch, offset: document.offset, label: document.label },
            time: Timestamp::from_micros(document.time),
        }))
    }

    /// Stores a note. A name stands for one content for ever.
    ///
    /// # Errors
    /// [`LogError::Conflict`] when the name has other content.
    pub async fn put_note(&self, note: &str, body: Bytes) -> LogResult<()> {
        if !Segment::is_file_name(note) {
            return Err(LogError::Invalid(format!("`{}` is not a name for a note", note.escape_default())));
        }
        if body.len() > NOTE_BYTES_MAX {
            return Err(LogError::Invalid(format!("note {note} is longer than 1 MiB")));
        }
        let (name, came) = (ObjectName::Note(note.to_owned()), digest(&body));
        let (object, _) = self.sealer.seal(&name, None, body).await?;
        match self.store.put_new(&self.sealer.key_of(&name), object).await {
            Err(error) if error.kind() == RepoErrorKind::AlreadyExists => {}
            other => return Ok(other?),
        }
        let there = self.store.head(&self.sealer.key_of(&name)).await?;
        if self.header(&name, there.bytes).await?.sha256 == came {
            // Who wrote it may have ended before its name was durable.
            return Ok(self.store.settle(&name::notes_folder(self.target())).await?);
        }
        Err(LogError::Conflict {
            what: format!("note {note} is stored already, with other content"),
            advice: "give the new database a target name of its own if this is another one",
        })
    }

    /// The names of the notes, sorted.
    ///
    /// # Errors
    /// Whatever the store reports.
    pub async fn notes(&self) -> LogResult<Vec<String>> {
        let root = format!("{}/", name::folder(self.target()));
        let listed = self.store.list(&name::notes_folder(self.target())).await?;
        let names = listed.iter().filter_map(|info| info.key.strip_prefix(&root).and_then(ObjectName::parse));
        let notes = names.filter_map(|name| match name {
            ObjectName::Note(note) => Some(note),
            _ => None,
        });
        Ok(notes.take(NOTES_MAX).collect())
    }

    /// One note.
    ///
    /// # Errors
    /// [`RepoErrorKind::NotFound`] below when there is none of that name.
    pub async fn read_note(&self, note: &str) -> LogResult<Bytes> {
        let name = ObjectName::Note(note.to_owned());
        let found = if Segment::is_file_name(note) { self.get_if_there(&name).await? } else { None };
        let absent = || RepoError::new(RepoErrorKind::NotFound, format!("there is no note {}", note.escape_default()));
        Ok(found.ok_or_else(absent)?.1)
    }

    async fn seal_document(&self, name: &ObjectName, document: &impl Serialize) -> LogResult<Bytes> {
        let json = serde_json::to_vec(document)
            .map_err(|error| RepoError::new(RepoErrorKind::Internal, "failed to write a document").because(error))?;
        Ok(self.sealer.seal(name, None, json.into()).await?.0)
    }

    /// Creates a document; false where there is one already.
    pub(super) async fn put_document(&self, name: &ObjectName, document: &impl Serialize) -> LogResult<bool> {
        let object = self.seal_document(name, document).await?;
        match self.store.put_new(&self.sealer.key_of(name), object).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == RepoErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn get_document<T: DeserializeOwned>(&self, name: &ObjectName) -> LogResult<Option<T>> {
        let Some((_, json)) = self.get_if_there(name).await? else { return Ok(None) };
        let document = serde_json::from_slice(&json).map_err(|error| {
            RepoError::damaged(self.sealer.key_of(name), format!("its content makes no sense: {error}"))
        })?;
        Ok(Some(document))
    }
}
