//! zstd, as blobs and documents use it.

use crate::limits::{SAMPLE_PART_BYTES, SAMPLE_PARTS, SAMPLED_BYTES_MIN, ZSTD_LEVEL};
use crate::{RepoError, RepoErrorKind, Result};
use std::cell::RefCell;
use std::io::{Cursor, Read};

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
    sample: Vec<u8>,
    /// Whether the last blob was not worth it: its neighbour is likely to be the same.
    in_vain: bool,
}

impl Compressor {
    pub(crate) fn new() -> Result<Self> {
        let context = zstd::bulk::Compressor::new(ZSTD_LEVEL)
            .map_err(|error| RepoError::new(RepoErrorKind::Internal, "failed to set up compression").because(error))?;
        Ok(Self { context, frame: Vec::new(), sample: Vec::new(), in_vain: false })
    }

    /// The frame, when it is smaller than `plain` by enough to be worth decompressing. After a blob that was not, a
    /// sample tells whether to try.
    pub(crate) fn compress(&mut self, plain: &[u8]) -> Result<Option<&[u8]>> {
        if self.in_vain && plain.len() >= SAMPLED_BYTES_MIN && !self.sample_pays(plain)? {
            return Ok(None);
        }
        let length = self.compress_to_frame(plain)?;
        self.in_vain = !pays(length, plain.len());
        Ok((!self.in_vain).then(|| &self.frame[..length]))
    }

    fn sample_pays(&mut self, plain: &[u8]) -> Result<bool> {
        let mut sample = std::mem::take(&mut self.sample);
        sample.clear();
        // From everywhere: a page has its header at one end and its rows at the other.
        let stride = plain.len() / SAMPLE_PARTS;
        sample.extend(plain.chunks_exact(stride).flat_map(|part| &part[..SAMPLE_PART_BYTES]));
        let length = self.compress_to_frame(&sample);
        let sampled = sample.len();
        self.sample = sample;
        Ok(pays(length?, sampled))
    }

    fn compress_to_frame(&mut self, plain: &[u8]) -> Result<usize> {
        let bound = zstd::zstd_safe::compress_bound(plain.len());
        if self.frame.len() < bound {
            self.frame.resize(bound, 0);
        }
        self.context
            .compress_to_buffer(plain, &mut self.frame[..])
            .map_err(|error| RepoError::new(RepoErrorKind::Internal, "failed to compress").because(error))
    }
}

/// Whether a frame is smaller by enough to be worth decompressing.
fn pays(frame: usize, plain: usize) -> bool {
    frame + plain / 32 < plain
}

thread_local! {
    /// Setting one up costs as much as decompressing a small blob.
    static CONTEXT: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Appends the plaintext, of known length, of a frame.
pub(crate) fn decompress_onto(frame: &[u8], length: usize, plain: &mut Vec<u8>) -> Result<()> {
    // zstd cannot expand more than this; a claim beyond it is not worth an allocation.
    let credible = frame.len().saturating_mul(1 << 16).max(1 << 20);
    if length > credible {
        return Err(RepoError::new(RepoErrorKind::Damaged, "its length is not credible"));
    }
    let before = plain.len();
    plain.reserve(length);
    let mut end = Cursor::new(&mut *plain);
    end.set_position(before as u64);
    let decompressed = CONTEXT.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            None => context.insert(zstd::bulk::Decompressor::new()?),
        };
        context.decompress_to_buffer(frame, &mut end)
    });
    let got =
        decompressed.map_err(|error| RepoError::new(RepoErrorKind::Damaged, "failed to decompress").because(error))?;
    if got != length {
        return Err(RepoError::new(RepoErrorKind::Damaged, format!("it has {got} bytes, not {length}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut noise = vec![0; length];
        crate::crypto::random_bytes(&mut noise);
        noise
    }

    #[test]
    fn what_compresses_is_compressed_whatever_came_before() {
        let mut compressor = Compressor::new().unwrap();
        let texts = b"to be, or not to be, that is the question ".repeat(3000);
        let mut halves = noise(texts.len());
        halves[texts.len() / 2..].copy_from_slice(&texts[texts.len() / 2..]);
        for plain in [&texts, &halves] {
            for _ in 0..3 {
                assert!(compressor.compress(&noise(texts.len())).unwrap().is_none());
            }
            assert!(compressor.compress(plain).unwrap().is_some());
        }
        for length in [0, 1, 100, SAMPLED_BYTES_MIN - 1, SAMPLED_BYTES_MIN, SAMPLED_BYTES_MIN + 1] {
            assert!(compressor.compress(&noise(100_000)).unwrap().is_none());
            let frame = compressor.compress(&noise(length)).unwrap();
            assert!(frame.is_none(), "{length} bytes of noise became smaller");
        }
    }
}
