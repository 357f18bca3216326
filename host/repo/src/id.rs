//! Names of stored things: SHA-256, 64 lower-case hexadecimal digits.

use backstay_core::BackupId;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};
use std::{fmt, str::FromStr};

/// SHA-256 of a blob's plaintext, or of an object's stored bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; 32]);

impl Id {
    /// The id of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        let mut id = [0; 32];
        id.copy_from_slice(digest.as_ref());
        Self(id)
    }

    /// The ids of many byte strings: neighbours of about one length take a fraction of the time they would take alone.
    pub fn of_each(parts: &[&[u8]]) -> Vec<Self> {
        backstay_audited::sha256_each(parts).into_iter().map(Self).collect()
    }

    /// From its 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight digits: what people see.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }

    /// The name of the object with this id in `folder`.
    pub(crate) fn key(&self, folder: &str) -> String {
        format!("{folder}/{self}")
    }

    /// The name of the pack with this id: in the subfolder of its first two digits.
    pub(crate) fn pack_key(&self) -> String {
        format!("data/{:02x}/{self}", self.0[0])
    }

    /// The id in the last part of an object's name.
    pub(crate) fn from_key(key: &str) -> Option<Self> {
        key.rsplit('/').next()?.parse().ok()
    }
}

/// Text that is not an id.
#[derive(Debug, thiserror::Error)]
#[error("an id has 64 lower-case hexadecimal digits")]
pub struct InvalidId;

impl FromStr for Id {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let mut id = [0; 32];
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(InvalidId);
        }
        hex::decode_to_slice(text, &mut id).map_err(|_| InvalidId)?;
        Ok(Self(id))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 64];
        // 64 is twice 32.
        let _ = hex::encode_to_slice(self.0, &mut text);
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Id;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 lower-case hexadecimal digits")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Id, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl From<&BackupId> for Id {
    fn from(id: &BackupId) -> Self {
        // Both have exactly 64 lower-case digits.
        id.as_str().parse().unwrap_or(Self([0; 32]))
    }
}

impl From<Id> for BackupId {
    fn from(id: Id) -> Self {
        // Both have exactly 64 lower-case digits.
        #[allow(clippy::expect_used)]
        id.to_string().parse().expect("an id is a backup id")
    }
}
