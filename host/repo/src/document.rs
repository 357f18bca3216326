//! Sealed JSON objects: index, snapshot and lock files.
//!
//! The plaintext is byte 2 and a zstd frame, or raw JSON that starts with `{` or `[`. The
//! object's name is the SHA-256 of the stored bytes.

use crate::compression::{compress, decompress};
use crate::limits::{OBJECT_BYTES_MAX, PLAIN_DOCUMENT_BYTES_MAX};
use crate::{Id, MasterKey, RepoError, RepoErrorKind, Result, Store};
use serde::{Serialize, de::DeserializeOwned};

/// First byte of a compressed document.
const COMPRESSED: u8 = 2;

/// Seals `value` for storage; yields its id too.
pub(crate) fn seal(key: &MasterKey, value: &impl Serialize) -> Result<(Id, Vec<u8>)> {
    let json = to_json(value)?;
    let mut plain = vec![COMPRESSED];
    plain.extend_from_slice(&compress(&json)?);
    let sealed = key.seal(&plain);
    Ok((Id::of(&sealed), sealed))
}

/// Writes `value` into `folder`.
pub(crate) async fn save(store: &Store, key: &MasterKey, folder: &str, value: &impl Serialize) -> Result<Id> {
    let (id, sealed) = seal(key, value)?;
    store.put_new(&id.key(folder), sealed).await?;
    Ok(id)
}

/// Reads the document `id` of `folder` and checks its name.
pub(crate) async fn load<T: DeserializeOwned + Send + 'static>(
    store: &Store,
    key: &MasterKey,
    folder: &str,
    id: Id,
) -> Result<T> {
    let name = id.key(folder);
    let stored = store.get(&name, OBJECT_BYTES_MAX).await?;
    if Id::of(&stored) != id {
        return Err(RepoError::damaged(name, "its content does not fit its name"));
    }
    open(key, &stored).map_err(|error| RepoError::damaged(name, error))
}

/// Reads a sealed document from its stored bytes.
pub(crate) fn open<T: DeserializeOwned>(key: &MasterKey, stored: &[u8]) -> Result<T> {
    let plain = key.open(stored)?;
    let json = match plain.first() {
        Some(&COMPRESSED) => decompress(&plain[1..], PLAIN_DOCUMENT_BYTES_MAX)?,
        Some(b'{' | b'[') => plain,
        _ => return Err(RepoError::new(RepoErrorKind::Damaged, "its encoding is not known")),
    };
    from_json(&json)
}

pub(crate) fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|error| RepoError::new(RepoErrorKind::Internal, "failed to write JSON").because(error))
}

pub(crate) fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(json)
        .map_err(|error| RepoError::new(RepoErrorKind::Damaged, "its JSON makes no sense").because(error))
}
