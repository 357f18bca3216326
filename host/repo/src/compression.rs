//! zstd, as blobs and documents use it.

use crate::limits::ZSTD_LEVEL;
use crate::{RepoError, RepoErrorKind, Result};
use std::cell::RefCell;
use std::io::Read;

/// One frame with the repository's level.
pub(crate) fn compress(plain: &[u8]) -> Result<Vec<u8>> {
    zstd::bulk::compress(plain, ZSTD_LEVEL)
        .map_err(|error| RepoError::new(RepoErrorKind::Internal, "failed to compress").because(error))
}

/// Reads a frame of unknown length, of at most `bytes_max` bytes of plaintext. Memory grows with
/// what the frame really yields, whatever its header claims.
pub(crate) fn decompress(frame: &[u8], bytes_max: usize) -> Result<Vec<u8>> {
    let damaged = |error| RepoError::new(RepoErrorKind::Damaged, "failed to decompress").because(error);
    let mut decoder = zstd::stream::Decoder::with_buffer(frame).map_err(damaged)?;
    // A window larger than any writer of this format uses is an attack on memory.
    decoder.window_log_max(27).map_err(damaged)?;
    let mut plain = Vec::new();
    decoder.take(bytes_max as u64 + 1).read_to_end(&mut plain).map_err(damaged)?;
    if plain.len() > bytes_max {
        return Err(RepoError::new(RepoErrorKind::Damaged, format!("it decompresses to more than {bytes_max} bytes")));
    }
    Ok(plain)
}

/// Compresses blob after blob with one context and one buffer.
pub(crate) struct Compressor {
    context: zstd::bulk::Compressor<'static>,
    frame: Vec<u8>,
}

impl Compressor {
    pub(crate) fn new() -> Result<Self> {
        let context = zstd::bulk::Compressor::new(ZSTD_LEVEL)
            .map_err(|error| RepoError::new(RepoErrorKind::Internal, "failed to set up compression").because(error))?;
        Ok(Self { context, frame: Vec::new() })
    }

    /// The frame, when it is smaller than `plain` by enough to be worth decompressing.
    pub(crate) fn compress(&mut self, plain: &[u8]) -> Result<Option<&[u8]>> {
        let bound = zstd::zstd_safe::compress_bound(plain.len());
        if self.frame.len() < bound {
            self.frame.resize(bound, 0);
        }
        let length = self
            .context
            .compress_to_buffer(plain, &mut self.frame[..])
            .map_err(|error| RepoError::new(RepoErrorKind::Internal, "failed to compress").because(error))?;
        let pays = length + plain.len() / 32 < plain.len();
        Ok(pays.then(|| &self.frame[..length]))
    }
}

thread_local! {
    /// Setting one up costs as much as decompressing a small blob.
    static CONTEXT: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Decompresses blobs of known length.
pub(crate) fn decompress_exact(frame: &[u8], length: usize) -> Result<Vec<u8>> {
    // zstd cannot expand more than this; a claim beyond it is not worth an allocation.
    let credible = frame.len().saturating_mul(1 << 16).max(1 << 20);
    if length > credible {
        return Err(RepoError::new(RepoErrorKind::Damaged, "its length is not credible"));
    }
    let plain = CONTEXT.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            None => context.insert(zstd::bulk::Decompressor::new()?),
        };
        context.decompress(frame, length)
    });
    let plain = plain.map_err(|error| RepoError::new(RepoErrorKind::Damaged, "failed to decompress").because(error))?;
    if plain.len() != length {
        return Err(RepoError::new(RepoErrorKind::Damaged, format!("it has {} bytes, not {length}", plain.len())));
    }
    Ok(plain)
}
