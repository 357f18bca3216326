//! The checksums a manifest can name.

use std::fmt;
use std::fmt::Write as _;

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

use crate::{Error, ErrorKind, Result};

/// How a checksum is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// CRC-32C (Castagnoli), its four bytes in the server's order (little-endian).
    Crc32c,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crc32c => "CRC32C",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        })
    }
}

/// A file's checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    /// How it is computed.
    pub algorithm: Algorithm,
    /// Its bytes, as many as the algorithm makes.
    pub value: Vec<u8>,
}

/// Computes a [`Checksum`] while the bytes come.
#[derive(Debug, Clone)]
pub enum Hasher {
    /// See [`Algorithm`].
    Crc32c(u32),
    /// See [`Algorithm`].
    Sha224(Sha224),
    /// See [`Algorithm`].
    Sha256(Sha256),
    /// See [`Algorithm`].
    Sha384(Sha384),
    /// See [`Algorithm`].
    Sha512(Sha512),
}

impl Hasher {
    /// One that has seen no bytes.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Crc32c => Self::Crc32c(0),
            Algorithm::Sha224 => Self::Sha224(Sha224::new()),
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha384 => Self::Sha384(Sha384::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc32c(sum) => *sum = crc32c::crc32c_append(*sum, bytes),
            Self::Sha224(sha) => sha.update(bytes),
            Self::Sha256(sha) => sha.update(bytes),
            Self::Sha384(sha) => sha.update(bytes),
            Self::Sha512(sha) => sha.update(bytes),
        }
    }

    /// The checksum of all bytes so far.
    #[must_use]
    pub fn finish(self) -> Checksum {
        let (algorithm, value) = match self {
            Self::Crc32c(sum) => (Algorithm::Crc32c, sum.to_le_bytes().to_vec()),
            Self::Sha224(sha) => (Algorithm::Sha224, sha.finalize().to_vec()),
            Self::Sha256(sha) => (Algorithm::Sha256, sha.finalize().to_vec()),
            Self::Sha384(sha) => (Algorithm::Sha384, sha.finalize().to_vec()),
            Self::Sha512(sha) => (Algorithm::Sha512, sha.finalize().to_vec()),
        };
        Checksum { algorithm, value }
    }
}

impl Checksum {
    /// The checksum of `bytes`.
    #[must_use]
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Reads a manifest's two fields.
    pub(super) fn parse(algorithm: &str, value: &str) -> Result<Self> {
        let (algorithm, bytes) = match algorithm {
            "CRC32C" => (Algorithm::Crc32c, 4),
            "SHA224" => (Algorithm::Sha224, 28),
            "SHA256" => (Algorithm::Sha256, 32),
            "SHA384" => (Algorithm::Sha384, 48),
            "SHA512" => (Algorithm::Sha512, 64),
            other => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format_args!("the backup manifest has checksums of the unknown kind {other:?}"),
                ));
            }
        };
        match unhex(value) {
            Some(value) if value.len() == bytes => Ok(Self { algorithm, value }),
            _ => Err(Error::malformed(format_args!("the backup manifest has {value:?} as a checksum"))),
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs
        // Two digits make a byte.
        .map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8))
        .collect()
}
