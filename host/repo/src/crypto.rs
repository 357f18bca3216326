//! Sealing: AES-256-CTR and Poly1305-AES, as restic's repository format v2 has it.
//!
//! ```text
//!   sealed = IV (16, random) ‖ AES-256-CTR(encrypt, IV, plaintext) ‖ MAC (16)
//!   MAC    = Poly1305(clamp(r) ‖ AES-128(k, IV), ciphertext)
//! ```
//!
//! References: restic's design document ("Keys, Encryption and MAC"); Bernstein, "The
//! Poly1305-AES message-authentication code".

use crate::{RepoError, RepoErrorKind, Result};
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use base64::{Engine, prelude::BASE64_STANDARD};
use poly1305::{Block, Poly1305, universal_hash::UniversalHash};
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes before the ciphertext.
pub const IV_BYTES: usize = 16;
/// Bytes after the ciphertext.
pub const MAC_BYTES: usize = 16;
/// How much longer the sealed form is.
pub const SEAL_OVERHEAD: usize = IV_BYTES + MAC_BYTES;

/// A password. Wiped when dropped, never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Password(String);

impl Password {
    /// Takes the password as it is; a line end that a file brings along is the caller's to cut.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// 32 bytes of encryption key, 16 of `k`, 16 of `r`: what scrypt yields and what a key file holds.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct KeyBytes {
    encrypt: [u8; 32],
    k: [u8; 16],
    r: [u8; 16],
}

/// The key that everything in a repository is sealed with.
///
/// ```
/// # use backstay_repo::MasterKey;
/// let key = MasterKey::random();
/// let sealed = key.seal(b"page");
/// assert_eq!(key.open(&sealed).unwrap(), b"page");
/// ```
pub struct MasterKey {
    bytes: KeyBytes,
    // Both schedules are expanded once: a blob pays for neither.
    stream: EncryptingKey,
    nonce: aes::Aes128,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct KeyJson {
    mac: MacJson,
    encrypt: String,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct MacJson {
    k: String,
    r: String,
}

impl KeyBytes {
    pub(crate) fn from_kdf(bytes: &[u8; 64]) -> Self {
        let (mut encrypt, mut k, mut r) = ([0; 32], [0; 16], [0; 16]);
        encrypt.copy_from_slice(&bytes[..32]);
        k.copy_from_slice(&bytes[32..48]);
        r.copy_from_slice(&bytes[48..]);
        Self { encrypt, k, r }
    }
}

/// Fills `bytes` from the operating system's generator. AWS-LC's own gathers entropy for 30 ms first, in every process.
pub(crate) fn random_bytes(bytes: &mut [u8]) {
    // The only failure is an operating system without entropy; going on with guessable keys or
    // repeated counters would be worse than ending.
    #[allow(clippy::expect_used)]
    getrandom::fill(bytes).expect("the operating system yields random bytes");
}

impl MasterKey {
    /// A new key.
    pub fn random() -> Self {
        let mut bytes = Zeroizing::new([0; 64]);
        random_bytes(&mut bytes[..]);
        // Stored as clamped, as stock restic does.
        for i in [3, 7, 11, 15] {
            bytes[48 + i] &= 15;
        }
        for i in [4, 8, 12] {
            bytes[48 + i] &= 252;
        }
        Self::from_bytes(KeyBytes::from_kdf(&bytes))
    }

    pub(crate) fn from_bytes(bytes: KeyBytes) -> Self {
        // Both fail on a wrong key length alone, and the length is in the type.
        #[allow(clippy::expect_used)]
        let stream = UnboundCipherKey::new(&AES_256, &bytes.encrypt)
            .and_then(EncryptingKey::ctr)
            .expect("an AES-256 key has 32 bytes");
        let nonce = aes::Aes128::new(&bytes.k.into());
        Self { bytes, stream, nonce }
    }

    /// Reads the JSON inside a key file.
    pub(crate) fn from_json(json: &[u8]) -> Option<Self> {
        let json: KeyJson = serde_json::from_slice(json).ok()?;
        let decode = |text: &str| BASE64_STANDARD.decode(text).ok().map(Zeroizing::new);
        let (encrypt, k, r) = (decode(&json.encrypt)?, decode(&json.mac.k)?, decode(&json.mac.r)?);
        Some(Self::from_bytes(KeyBytes {
            encrypt: encrypt.as_slice().try_into().ok()?,
            k: k.as_slice().try_into().ok()?,
            r: r.as_slice().try_into().ok()?,
        }))
    }

    /// The JSON inside a key file; also what `restic cat masterkey` prints.
    pub(crate) fn to_json(&self) -> Zeroizing<Vec<u8>> {
        let json = KeyJson {
            mac: MacJson { k: BASE64_STANDARD.encode(self.bytes.k), r: BASE64_STANDARD.encode(self.bytes.r) },
            encrypt: BASE64_STANDARD.encode(self.bytes.encrypt),
        };
        // Three strings always serialise.
        Zeroizing::new(serde_json::to_vec(&json).unwrap_or_default())
    }

    /// Seals `plaintext`: [`SEAL_OVERHEAD`] bytes longer.
    pub fn seal(&self, plaintext: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(plaintext.len() + SEAL_OVERHEAD);
        sealed.resize(IV_BYTES, 0);
        sealed.extend_from_slice(plaintext);
        self.seal_tail(&mut sealed, 0);
        sealed
    }

    /// Seals what follows `start` in place and appends the MAC.
    ///
    /// `buffer[start..start + IV_BYTES]` is room for the IV, the plaintext comes after it. So a
    /// compressor can write straight into a pack.
    ///
    /// # Panics
    /// When there is no room for the IV.
    pub fn seal_tail(&self, buffer: &mut Vec<u8>, start: usize) {
        let (iv, text) = buffer[start..].split_at_mut(IV_BYTES);
        random_bytes(iv);
        let mut nonce = [0; IV_BYTES];
        nonce.copy_from_slice(iv);
        self.apply_stream(&nonce, text);
        let mac = self.mac(&nonce, text);
        buffer.extend_from_slice(&mac);
    }

    /// Opens what [`MasterKey::seal`] made, or tells that it is not that.
    ///
    /// # Errors
    /// [`RepoErrorKind::Damaged`] when it is too short or its MAC does not fit.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>> {
        let mut copy = self.verified(sealed)?.to_vec();
        self.apply_stream(&first(sealed), &mut copy);
        Ok(copy)
    }

    /// As [`MasterKey::open`], without a copy; yields the plaintext's place in `sealed`.
    ///
    /// # Errors
    /// As [`MasterKey::open`]; `sealed` is unchanged then.
    pub fn open_in_place<'a>(&self, sealed: &'a mut [u8]) -> Result<&'a mut [u8]> {
        self.verified(sealed)?;
        let end = sealed.len() - MAC_BYTES;
        let nonce = first(sealed);
        let text = &mut sealed[IV_BYTES..end];
        self.apply_stream(&nonce, text);
        Ok(text)
    }

    /// The ciphertext, once its MAC fits.
    fn verified<'a>(&self, sealed: &'a [u8]) -> Result<&'a [u8]> {
        if sealed.len() < SEAL_OVERHEAD {
            return Err(RepoError::new(RepoErrorKind::Damaged, "sealed bytes are cut short"));
        }
        let (text, mac) = sealed[IV_BYTES..].split_at(sealed.len() - SEAL_OVERHEAD);
        let expected = self.mac(&first(sealed), text);
        aws_lc_rs::constant_time::verify_slices_are_equal(mac, &expected)
            .map_err(|_| RepoError::new(RepoErrorKind::Damaged, "the authentication code does not fit"))?;
        Ok(text)
    }

    fn apply_stream(&self, nonce: &[u8; IV_BYTES], text: &mut [u8]) {
        if text.is_empty() {
            return;
        }
        // Counter mode takes any length and its own kind of context; nothing else can fail.
        #[allow(clippy::expect_used)]
        self.stream
            .less_safe_encrypt(text, EncryptionContext::Iv128(FixedLength::from(nonce)))
            .expect("counter mode takes any length");
    }

    fn mac(&self, nonce: &[u8; IV_BYTES], ciphertext: &[u8]) -> [u8; MAC_BYTES] {
        let mut once = Zeroizing::new([0; 32]);
        once[..16].copy_from_slice(&self.bytes.r);
        let mut block = (*nonce).into();
        self.nonce.encrypt_block(&mut block);
        once[16..].copy_from_slice(&block);
        let mut mac = Poly1305::new(&(*once).into());
        // Whole blocks in one call: the vector code takes four at a time.
        let (blocks, rest) = Block::slice_as_chunks(ciphertext);
        mac.update(blocks);
        mac.compute_unpadded(rest).into()
    }
}

fn first(sealed: &[u8]) -> [u8; IV_BYTES] {
    let mut nonce = [0; IV_BYTES];
    nonce.copy_from_slice(&sealed[..IV_BYTES]);
    nonce
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn poly1305_aes_matches_its_authors_test_vector() {
        // Bernstein, "The Poly1305-AES message-authentication code", appendix B, first vector.
        let mut bytes = KeyBytes { encrypt: [0; 32], k: [0; 16], r: [0; 16] };
        bytes.k.copy_from_slice(&hex::decode("ec074c835580741701425b623235add6").unwrap());
        bytes.r.copy_from_slice(&hex::decode("851fc40c3467ac0be05cc20404f3f700").unwrap());
        let nonce: [u8; 16] = hex::decode("fb447350c4e868c52ac3275cf9d4327e").unwrap().try_into().unwrap();
        let mac = MasterKey::from_bytes(bytes).mac(&nonce, &hex::decode("f3f6").unwrap());
        assert_eq!(hex::encode(mac), "f4c633c3044fc145f84f335cb81953de");
    }

    #[test]
    fn every_length_round_trips() {
        let key = MasterKey::random();
        for length in (0..200).chain([8191, 8192, 8193, 1 << 20]) {
            let plaintext: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
            let mut sealed = key.seal(&plaintext);
            assert_eq!(sealed.len(), length + SEAL_OVERHEAD);
            assert_eq!(key.open(&sealed).unwrap(), plaintext);
            assert_eq!(key.open_in_place(&mut sealed).unwrap(), plaintext);
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let key = MasterKey::random();
        let sealed = key.seal(b"forty-two bytes of plaintext, or nearly so");
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open(&bad).unwrap_err().kind(), RepoErrorKind::Damaged, "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(key.open(&sealed[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn a_key_survives_its_json() {
        let key = MasterKey::random();
        let again = MasterKey::from_json(&key.to_json()).unwrap();
        assert_eq!(again.open(&key.seal(b"x")).unwrap(), b"x");
        assert!(MasterKey::from_json(br#"{"mac":{"k":"","r":""},"encrypt":""}"#).is_none());
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?} {:?}", Password::new("hunter2"), MasterKey::random()), "Password(…) MasterKey(…)");
    }
}
