//! One sealed object of the log. Specified to the byte in `docs/src/formats/log.md`.
//!
//! ```text
//!   magic (8) │ H: u32 LE │ sealed header (H) │ sealed body (the rest)
//!                            JSON                zstd frame
//! ```
//!
//! The header names the repository, the target and the object itself, so bytes that
//! were moved to another place do not open there.

use super::{
    error::LogResult,
    limits::{HEADER_BYTES_MAX, OBJECT_BYTES_MAX, PARALLEL_BYTES_MIN, ZSTD_LEVEL},
    name::ObjectName,
};
use crate::{
    MasterKey, RepoError,
    compression::decompress,
    crypto::{IV_BYTES, SEAL_OVERHEAD},
};
use backstay_core::{Position, SEGMENT_BYTES_MAX, Segment, TargetName, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// First bytes of every object; the last one is the format's version.
const MAGIC: &[u8; 8] = b"BKSTLOG\x01";
/// Magic and length.
pub(crate) const PREFIX_BYTES: usize = 12;

/// What an object says about itself. Field names are the stored ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    repository: String,
    target: String,
    pub(super) object: String,
    /// Plaintext bytes.
    pub(crate) length: u64,
    /// Of the plaintext, lower-case hexadecimal.
    pub(crate) sha256: String,
    /// Sealed bytes that follow the header.
    pub(super) body: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    piece: Option<PieceHeader>,
}

/// A piece as stored; times in microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PieceHeader {
    epoch: u64,
    start: u64,
    start_label: String,
    end: u64,
    end_label: String,
    follows: Option<FollowsHeader>,
    first_commit: Option<u64>,
    last_commit: Option<u64>,
    file: String,
    file_offset: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FollowsHeader {
    epoch: u64,
    offset: u64,
    label: String,
}

/// Seals and opens the objects of one target's log.
#[derive(Clone)]
pub(crate) struct Sealer {
    pub(crate) key: Arc<MasterKey>,
    pub(crate) repository: Arc<str>,
    pub(crate) target: TargetName,
}

impl Header {
    /// The piece it heads.
    pub(crate) fn segment(&self) -> Option<Segment> {
        self.piece.clone().map(Segment::from)
    }
}

impl From<PieceHeader> for Segment {
    fn from(piece: PieceHeader) -> Self {
        let epoch = piece.epoch;
        Self {
            start: Position { epoch, offset: piece.start, label: piece.start_label },
            end: Position { epoch, offset: piece.end, label: piece.end_label },
            follows: piece.follows.map(|follows| Position {
                epoch: follows.epoch,
                offset: follows.offset,
                label: follows.label,
            }),
            first_commit: piece.first_commit.map(Timestamp::from_micros),
            last_commit: piece.last_commit.map(Timestamp::from_micros),
            file: piece.file,
            file_offset: piece.file_offset,
        }
    }
}

impl From<&Segment> for PieceHeader {
    fn from(piece: &Segment) -> Self {
        Self {
            epoch: piece.start.epoch,
            start: piece.start.offset,
            start_label: piece.start.label.clone(),
            end: piece.end.offset,
            end_label: piece.end.label.clone(),
            follows: piece.follows.as_ref().map(|follows| FollowsHeader {
                epoch: follows.epoch,
                offset: follows.offset,
                label: follows.label.clone(),
            }),
            first_commit: piece.first_commit.map(Timestamp::as_micros),
            last_commit: piece.last_commit.map(Timestamp::as_micros),
            file: piece.file.clone(),
            file_offset: piece.file_offset,
        }
    }
}

/// SHA-256 as stored.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
}

impl Sealer {
    /// The object's bytes, and the plaintext's digest. Hashing and compressing run off the async threads.
    pub(crate) async fn seal(
        &self,
        name: &ObjectName,
        piece: Option<&Segment>,
        body: Bytes,
    ) -> LogResult<(Bytes, String)> {
        if body.len() < PARALLEL_BYTES_MIN {
            let (sealer, name, piece) = (self.clone(), name.clone(), piece.cloned());
            return tokio::task::spawn_blocking(move || sealer.seal_here(&name, piece.as_ref(), &body)).await?;
        }
        let (name, piece) = (name.to_string(), piece.map(PieceHeader::from));
        let hashed = body.clone();
        let hash = tokio::task::spawn_blocking(move || digest(&hashed));
        let (packer, length) = (self.clone(), body.len());
        let packed = tokio::task::spawn_blocking(move || packer.pack(&body)).await??;
        self.assemble(name, piece, length, hash.await?, packed)
    }

    /// As [`Sealer::seal`], on this thread.
    pub(crate) fn seal_here(
        &self,
        name: &ObjectName,
        piece: Option<&Segment>,
        body: &[u8],
    ) -> LogResult<(Bytes, String)> {
        let (packed, digest) = (self.pack(body)?, digest(body));
        self.assemble(name.to_string(), piece.map(PieceHeader::from), body.len(), digest, packed)
    }

    /// Compressed and sealed.
    fn pack(&self, body: &[u8]) -> LogResult<Vec<u8>> {
        let mut packed = vec![0; IV_BYTES + zstd::zstd_safe::compress_bound(body.len())];
        let length = zstd::bulk::Compressor::new(ZSTD_LEVEL)
            .and_then(|mut zstd| {
                zstd.include_contentsize(true)?;
                zstd.compress_to_buffer(body, &mut packed[IV_BYTES..])
            })
            .map_err(|error| RepoError::io("failed to compress log", error))?;
        packed.truncate(IV_BYTES + length);
        self.key.seal_tail(&mut packed, 0);
        Ok(packed)
    }

    fn assemble(
        &self,
        object: String,
        piece: Option<PieceHeader>,
        length: usize,
        sha256: String,
        body: Vec<u8>,
    ) -> LogResult<(Bytes, String)> {
        let header = Header {
            repository: self.repository.to_string(),
            target: self.target.to_string(),
            object,
            length: length as u64,
            sha256,
            body: body.len() as u64,
            piece,
        };
        let json = serde_json::to_vec(&header).map_err(|error| {
            RepoError::new(crate::RepoErrorKind::Internal, "failed to write a log header").because(error)
        })?;
        let sealed = self.key.seal(&json);
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + sealed.len() + body.len());
        bytes.extend_from_slice(MAGIC);
        // At most 64 KiB: labels and names are bounded.
        bytes.extend_from_slice(&(sealed.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&sealed);
        bytes.extend_from_slice(&body);
        Ok((bytes.into(), header.sha256))
    }

    /// How many bytes from the front hold the header; `front` has at least [`PREFIX_BYTES`].
    pub(crate) fn header_end(&self, name: &ObjectName, front: &[u8]) -> Result<usize, RepoError> {
        let damaged = |why| RepoError::damaged(self.key_of(name), why);
        let (magic, rest) = front.split_at_checked(MAGIC.len()).ok_or_else(|| damaged("it is cut short"))?;
        if magic[..7] != MAGIC[..7] {
            return Err(damaged("it is not a log object"));
        }
        if magic != MAGIC {
            return Err(damaged("its format is of a later version").advise("use a newer backstay"));
        }
        let length: [u8; 4] =
            rest.get(..4).and_then(|b| b.try_into().ok()).ok_or_else(|| damaged("it is cut short"))?;
        let length = u32::from_le_bytes(length) as usize;
        if !(SEAL_OVERHEAD..=HEADER_BYTES_MAX + SEAL_OVERHEAD).contains(&length) {
            return Err(damaged("its header's length makes no sense"));
        }
        Ok(PREFIX_BYTES + length)
    }

    /// The header of `name`, from the object's front, for an object of `size` bytes.
    pub(crate) fn open_header(&self, name: &ObjectName, front: &[u8], size: u64) -> Result<Header, RepoError> {
        let damaged = |why: &str| RepoError::damaged(self.key_of(name), why);
        let end = self.header_end(name, front)?;
        let sealed = front.get(PREFIX_BYTES..end).ok_or_else(|| damaged("it is cut short"))?;
        let json = self.key.open(sealed).map_err(|error| damaged(&format!("its header does not open: {error}")))?;
        let header: Header =
            serde_json::from_slice(&json).map_err(|error| damaged(&format!("its header makes no sense: {error}")))?;
        if *header.repository != *self.repository
            || header.target != self.target.as_str()
            || header.object != name.to_string()
        {
            return Err(damaged(&format!(
                "it was written as {}/{} of repository {}, and copied here",
                header.target,
                header.object,
                header.repository.get(..8).unwrap_or_default()
            )));
        }
        if header.body.checked_add(end as u64) != Some(size) {
            return Err(damaged(&format!(
                "it has {size} bytes, its header says {}",
                header.body.saturating_add(end as u64)
            )));
        }
        if header.length > SEGMENT_BYTES_MAX {
            return Err(damaged("its length makes no sense"));
        }
        if matches!(name, ObjectName::Appended { .. } | ObjectName::Merged { .. }) {
            let piece = header.segment().ok_or_else(|| damaged("its header names no piece"))?;
            piece.validate().map_err(|error| damaged(&error.to_string()))?;
            if !name.fits(&piece) || piece.length() != header.length {
                return Err(damaged("its header contradicts its name or length"));
            }
        }
        Ok(header)
    }

    /// A whole object: header and verified plaintext.
    pub(crate) async fn open(&self, name: &ObjectName, object: Bytes) -> LogResult<(Header, Bytes)> {
        let (sealer, name) = (self.clone(), name.clone());
        Ok(tokio::task::spawn_blocking(move || sealer.open_here(&name, &object)).await??)
    }

    /// As [`Sealer::open`], on this thread.
    pub(crate) fn open_here(&self, name: &ObjectName, object: &[u8]) -> Result<(Header, Bytes), RepoError> {
        let header = self.open_header(name, object, object.len() as u64)?;
        let end = self.header_end(name, object)?;
        let damaged = |why: String| RepoError::damaged(self.key_of(name), why);
        let packed =
            self.key.open(&object[end..]).map_err(|error| damaged(format!("its body does not open: {error}")))?;
        // The header is authentic and the length was bounded with it.
        let body = decompress(&packed, header.length as usize)
            .map_err(|error| damaged(format!("its body does not decompress: {error}")))?;
        if body.len() as u64 != header.length || digest(&body) != header.sha256 {
            return Err(damaged("its content is not what its header says".into()));
        }
        Ok((header, body.into()))
    }

    /// The object's name in the repository.
    pub(crate) fn key_of(&self, name: &ObjectName) -> String {
        format!("{}/{name}", super::name::folder(&self.target))
    }
}

const _: () = assert!(OBJECT_BYTES_MAX > SEGMENT_BYTES_MAX + HEADER_BYTES_MAX as u64);
