//! Key files: passwords to the one master key.
//!
//! A key file is plain JSON whose `data` is the sealed master key; the sealing key comes from
//! the password by scrypt. Several key files are several passwords.

use crate::crypto::{KeyBytes, random_bytes};
use crate::limits::{INIT_ABANDONED, KDF_MEMORY_BYTES_MAX, KDF_WORK_MAX, KEYS_MAX};
use crate::{Id, MasterKey, Password, RepoError, RepoErrorKind, Result, Store, document, origin::Origin};
use backstay_core::Timestamp;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// What guessing a password costs: scrypt's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdfCost {
    /// Binary logarithm of N.
    pub log_n: u8,
    /// Block size.
    pub r: u32,
    /// Parallelism.
    pub p: u32,
}

impl Default for KdfCost {
    /// What stock restic calibrates to on a common machine: 32 MiB, about a quarter of a second.
    fn default() -> Self {
        Self { log_n: 15, r: 8, p: 4 }
    }
}

impl KdfCost {
    /// For throw-away repositories of tests: a millisecond.
    pub const TRIVIAL: Self = Self { log_n: 4, r: 8, p: 1 };
}

/// A key file, as people see it.
#[derive(Clone, Debug)]
pub struct KeyInfo {
    /// Its name.
    pub id: Id,
    /// When it was made.
    pub created: Timestamp,
    /// On which machine.
    pub hostname: String,
    /// By which user.
    pub username: String,
    /// Whether this session was opened with it.
    pub current: bool,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct KeyFile {
    #[serde(default)]
    created: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    hostname: String,
    kdf: String,
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
    salt: String,
    data: String,
}

impl KeyFile {
    /// Seals `master` with `password`; blocks for as long as `cost` says.
    pub(crate) fn new(master: &MasterKey, password: &Password, cost: KdfCost) -> Result<Self> {
        let mut salt = [0; 64];
        random_bytes(&mut salt);
        let key = derive(password, &salt, &bounded(cost)?)?;
        let origin = Origin::here();
        Ok(Self {
            created: Timestamp::from(std::time::SystemTime::now()).to_string(),
            username: origin.username,
            hostname: origin.hostname,
            kdf: "scrypt".to_owned(),
            n: 1 << cost.log_n,
            r: cost.r,
            p: cost.p,
            salt: BASE64_STANDARD.encode(salt),
            data: BASE64_STANDARD.encode(key.seal(&master.to_json())),
        })
    }

    /// Salt, sealed master key, and how the password becomes a key.
    pub(crate) fn parts(&self) -> Result<(Vec<u8>, Vec<u8>, scrypt::Params)> {
        let damaged = |why: &str| RepoError::new(RepoErrorKind::Damaged, why);
        if self.kdf != "scrypt" || !self.n.is_power_of_two() {
            return Err(damaged("its key derivation is not scrypt"));
        }
        let decode =
            |text: &str| BASE64_STANDARD.decode(text).map_err(|_| damaged("it is not base64 where it should be"));
        let cost = KdfCost { log_n: self.n.ilog2() as u8, r: self.r, p: self.p };
        Ok((decode(&self.salt)?, decode(&self.data)?, bounded(cost)?))
    }

    /// The master key, if `password` opens it; blocks.
    pub(crate) fn open(&self, password: &Password) -> Result<Option<MasterKey>> {
        let (salt, data, params) = self.parts()?;
        let key = derive(password, &salt, &params)?;
        let Ok(json) = key.open(&data).map(Zeroizing::new) else { return Ok(None) };
        MasterKey::from_json(&json)
            .map(Some)
            .ok_or_else(|| RepoError::new(RepoErrorKind::Damaged, "what it seals is no master key"))
    }

    fn info(self, id: Id, current: Option<Id>) -> KeyInfo {
        KeyInfo {
            id,
            created: self.created.parse().unwrap_or(Timestamp::EPOCH),
            hostname: self.hostname,
            username: self.username,
            current: current == Some(id),
        }
    }
}

fn senseless() -> RepoError {
    RepoError::new(RepoErrorKind::Damaged, "its scrypt parameters make no sense")
}

/// scrypt's parameters, within bounds: they come from a file that nobody has vouched for yet.
fn bounded(cost: KdfCost) -> Result<scrypt::Params> {
    let n = 1u64.checked_shl(cost.log_n.into()).ok_or_else(senseless)?;
    let memory = n.checked_mul(128).and_then(|m| m.checked_mul(cost.r.into()));
    let work = n.checked_mul(cost.r.into()).and_then(|w| w.checked_mul(cost.p.into()));
    if memory.is_none_or(|m| m > KDF_MEMORY_BYTES_MAX) || work.is_none_or(|w| w > KDF_WORK_MAX) {
        return Err(senseless());
    }
    scrypt::Params::new(cost.log_n, cost.r, cost.p).map_err(|_| senseless())
}

fn derive(password: &Password, salt: &[u8], params: &scrypt::Params) -> Result<MasterKey> {
    let mut bytes = Zeroizing::new([0; 64]);
    scrypt::scrypt(password.as_bytes(), salt, params, &mut bytes[..]).map_err(|_| senseless())?;
    Ok(MasterKey::from_bytes(KeyBytes::from_kdf(&bytes)))
}

/// Writes a key file for `password`; yields its id.
pub(crate) async fn add(store: &Store, master: &MasterKey, password: &Password, cost: KdfCost) -> Result<Id> {
    // Copies of both, because a blocking thread outlives a cancelled caller.
    let (copy, password) = (master.to_json(), password.clone());
    let bytes = tokio::task::spawn_blocking(move || {
        let master = MasterKey::from_json(&copy)
            .ok_or_else(|| RepoError::new(RepoErrorKind::Internal, "failed to copy the master key"))?;
        document::to_json(&KeyFile::new(&master, &password, cost)?)
    })
    .await??;
    let id = Id::of(&bytes);
    store.put_new(&id.key("keys"), bytes).await?;
    Ok(id)
}

/// Removes key files of an `init` that died before it wrote `config`: they hold another master key.
///
/// # Errors
/// [`RepoErrorKind::Conflict`] when they are so young that it may still be under way.
pub(crate) async fn clear_abandoned(store: &Store) -> Result<()> {
    let now = Timestamp::from(std::time::SystemTime::now()).as_micros();
    for key in store.list("keys").await? {
        if now.saturating_sub(key.modified.as_micros()) < INIT_ABANDONED.as_micros() as u64 {
            return Err(RepoError::new(
                RepoErrorKind::Conflict,
                format!("failed to make a repository: {} has keys already", store.address()),
            )
            .advise("if no other `init` is under way, wait ten minutes or empty the folder, and try again"));
        }
        store.delete(&key.key).await?;
    }
    Ok(())
}

/// Tries `password` on every key file; the right master key also opens `config`.
pub(crate) async fn open(store: &Store, password: &Password, config: &[u8]) -> Result<(Id, MasterKey)> {
    let keys = store.list("keys").await?;
    let mut damage = None;
    for id in keys.iter().filter_map(|key| Id::from_key(&key.key)).take(KEYS_MAX) {
        let file = match load(store, id).await {
            Ok(file) => file,
            // Another key file may do.
            Err(error) if error.kind() == RepoErrorKind::Damaged => {
                damage = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        let password = password.clone();
        match tokio::task::spawn_blocking(move || file.open(&password)).await? {
            Ok(Some(master)) if master.open(config).is_ok() => return Ok((id, master)),
            Ok(Some(_)) => damage = Some(RepoError::damaged("config", "the master key does not open it")),
            Ok(None) => {}
            Err(error) => damage = Some(RepoError::damaged(id.key("keys"), error)),
        }
    }
    if keys.is_empty() {
        return Err(RepoError::damaged(store.address(), "it has no key files"));
    }
    Err(damage.unwrap_or_else(|| {
        RepoError::new(RepoErrorKind::WrongPassword, format!("failed to open {}: wrong password", store.address()))
            .advise("check the repository's password")
    }))
}

/// All key files.
pub(crate) async fn list(store: &Store, current: Option<Id>) -> Result<Vec<KeyInfo>> {
    let mut infos = Vec::new();
    for id in store.list("keys").await?.iter().filter_map(|key| Id::from_key(&key.key)).take(KEYS_MAX) {
        infos.push(load(store, id).await?.info(id, current));
    }
    infos.sort_by_key(|info| info.created);
    Ok(infos)
}

pub(crate) async fn load(store: &Store, id: Id) -> Result<KeyFile> {
    let key = id.key("keys");
    let bytes = store.get(&key, 1 << 20).await?;
    if Id::of(&bytes) != id {
        return Err(RepoError::damaged(key, "its content does not fit its name"));
    }
    document::from_json(&bytes).map_err(|error| RepoError::damaged(key, error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_file_opens_with_its_password_alone() {
        let master = MasterKey::random();
        let file = KeyFile::new(&master, &Password::new("right"), KdfCost::TRIVIAL).unwrap();
        let opened = file.open(&Password::new("right")).unwrap().unwrap();
        assert_eq!(opened.open(&master.seal(b"x")).unwrap(), b"x");
        assert!(file.open(&Password::new("wrong")).unwrap().is_none());
    }

    #[test]
    fn a_key_file_cannot_ask_for_all_memory() {
        let mut file = KeyFile::new(&MasterKey::random(), &Password::new(""), KdfCost::TRIVIAL).unwrap();
        for (n, r, p) in
            [(1 << 30, 8, 1), (1 << 15, 1 << 20, 1), (1 << 15, 8, u32::MAX), (3, 8, 1), (0, 8, 1), (16, 0, 1)]
        {
            (file.n, file.r, file.p) = (n, r, p);
            assert_eq!(file.open(&Password::new("")).map(drop).unwrap_err().kind(), RepoErrorKind::Damaged);
        }
    }
}
