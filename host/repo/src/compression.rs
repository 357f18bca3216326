//! zstd, as blobs and documents use it.

use crate::aligned::AlignedBuffer;
use crate::frame::yield_bytes_max;
use crate::limits::{HARD_THOUSANDTHS, LIGHT_ACCELERATION, LIGHT_PASSES_MAX, SAME_THOUSANDTHS, ZSTD_LEVEL};
use crate::{RepoError, RepoErrorKind, Result};
use std::cell::RefCell;
use std::io::Cursor;
use zstd::zstd_safe::CParameter;

/// One frame with the repository's level.
pub(crate) fn compress(plain: &[u8]) -> Result<Vec<u8>> {
    zstd::bulk::compress(plain, ZSTD_LEVEL).map_err(failed)
}

/// Reads a frame of unknown length, of at most `bytes_max` bytes of plaintext. No more memory is set aside than it can
/// yield, whatever it claims.
pub(crate) fn decompress(frame: &[u8], bytes_max: usize) -> Result<Vec<u8>> {
    let most = yield_bytes_max(frame).ok_or_else(not_a_frame)?;
    let room = usize::try_from(most).map_or(bytes_max, |most| most.min(bytes_max));
    zstd::bulk::decompress(frame, room)
        .map_err(|error| RepoError::new(RepoErrorKind::Damaged, "failed to decompress").because(error))
}

fn not_a_frame() -> RepoError {
    RepoError::new(RepoErrorKind::Damaged, "failed to decompress: it is no frame, or claims more than it holds")
}

/// Compresses blob after blob with one context. Where the last blob became hardly smaller, the next is passed over
/// lightly first: twice as fast on what does not compress.
pub(crate) struct Compressor {
    context: zstd::bulk::Compressor<'static>,
    /// What was left of the last blob that was looked at in full, in thousandths.
    left: usize,
    /// Blobs since then.
    passed: usize,
}

impl Compressor {
    pub(crate) fn new() -> Result<Self> {
        let context = zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(failed)?;
        Ok(Self { context, left: 0, passed: 0 })
    }

    /// Appends the frame, when it is smaller than `plain` by enough to be worth decompressing; answers whether it is.
    pub(crate) fn compress_onto(&mut self, plain: &[u8], into: &mut Vec<u8>) -> Result<bool> {
        let start = into.len();
        let mut length = None;
        if self.left >= HARD_THOUSANDTHS && self.passed < LIGHT_PASSES_MAX {
            let light = self.compress_at(plain, into, start, LIGHT_ACCELERATION)?;
            let left = thousandths(light, plain);
            // As its neighbour was, so a full look would find no more; one that is easier gets it.
            length = Some(light).filter(|_| (HARD_THOUSANDTHS..=self.left + SAME_THOUSANDTHS).contains(&left));
            self.passed += 1;
        }
        let length = match length {
            Some(length) => length,
            None => {
                let length = self.compress_at(plain, into, start, 0)?;
                (self.left, self.passed) = (thousandths(length, plain), 0);
                length
            }
        };
        let pays = length + plain.len() / 32 < plain.len();
        into.truncate(start + if pays { length } else { 0 });
        Ok(pays)
    }

    /// Compresses to `start` of `into`; answers the frame's length.
    fn compress_at(&mut self, plain: &[u8], into: &mut Vec<u8>, start: usize, acceleration: u32) -> Result<usize> {
        into.truncate(start);
        into.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        let mut end = Cursor::new(into);
        end.set_position(start as u64);
        // Of the strategy that our level uses; 0 is the level's own.
        self.context.set_parameter(CParameter::TargetLength(acceleration)).map_err(failed)?;
        self.context.compress_to_buffer(plain, &mut end).map_err(failed)
    }
}

fn failed(error: std::io::Error) -> RepoError {
    RepoError::new(RepoErrorKind::Internal, "failed to compress").because(error)
}

/// What is left, in thousandths.
fn thousandths(frame: usize, plain: &[u8]) -> usize {
    frame * 1000 / plain.len().max(1)
}

thread_local! {
    /// Setting one up costs as much as decompressing a small blob.
    static CONTEXT: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Appends the plaintext, of known length, of a frame.
pub(crate) fn decompress_onto(frame: &[u8], length: usize, plain: &mut AlignedBuffer) -> Result<()> {
    // A claim beyond it is not worth an allocation.
    if length as u64 > yield_bytes_max(frame).ok_or_else(not_a_frame)? {
        return Err(RepoError::new(RepoErrorKind::Damaged, format!("it has fewer than {length} bytes")));
    }
    let decompressed = CONTEXT.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            None => context.insert(zstd::bulk::Decompressor::new()?),
        };
        context.decompress_to_buffer(frame, plain.extend(length))
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

    /// Six bits of entropy a byte: nothing but a count of bytes makes it smaller.
    fn base64(length: usize) -> Vec<u8> {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        noise(length).into_iter().map(|byte| alphabet[usize::from(byte % 64)]).collect()
    }

    #[test]
    fn what_compresses_is_compressed_whatever_came_before() {
        let mut compressor = Compressor::new().unwrap();
        let texts = b"to be, or not to be, that is the question ".repeat(3000);
        let mut halves = noise(texts.len());
        halves[texts.len() / 2..].copy_from_slice(&texts[texts.len() / 2..]);
        let mut compress = |plain: &[u8]| {
            let mut into = b"before".to_vec();
            let pays = compressor.compress_onto(plain, &mut into).unwrap();
            assert_eq!(into[..6], *b"before");
            into.drain(..6);
            assert_eq!(pays, !into.is_empty());
            pays.then_some(into)
        };
        for (plain, left) in [(&texts, 20), (&halves, 520), (&base64(texts.len()), 770)] {
            for _ in 0..3 {
                assert!(compress(&noise(texts.len())).is_none());
            }
            // What only a count of bytes makes smaller is found by the next full look.
            for _ in 0..LIGHT_PASSES_MAX {
                compress(plain);
            }
            for _ in 0..20 {
                let frame = compress(plain).unwrap();
                assert!(frame.len() * 1000 <= plain.len() * left, "{} of {}", frame.len(), plain.len());
                let mut again = AlignedBuffer::default();
                decompress_onto(&frame, plain.len(), &mut again).unwrap();
                assert!(again.bytes() == plain);
            }
        }
        for length in [0, 1, 100, 128 << 10] {
            assert!(compress(&noise(length)).is_none(), "{length} bytes of noise became smaller");
        }
    }
}
