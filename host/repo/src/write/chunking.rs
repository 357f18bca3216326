//! Where a stream is cut into blobs. Readers never look at it.

use crate::limits::{BATCH_BYTES, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN};
use crate::{RepoError, RepoErrorKind, Result};
use fastcdc::v2020::FastCDC;

/// How files are cut. Keep it the same from backup to backup: other cuts find no duplicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunking {
    /// At every multiple of so many bytes, for files of pages that change in place. A multiple
    /// of 16 KiB, at most 8 MiB. A smaller one uploads less for scattered changes and costs more
    /// index: docs/decisions/0003-own-restic-writer.md has the numbers.
    Fixed {
        /// Bytes of a chunk.
        bytes: usize,
    },
    /// Where the content says so, around so many bytes, for streams in which bytes move.
    Content {
        /// Bytes of an average chunk.
        average_bytes: usize,
    },
}

impl Default for Chunking {
    /// 128 KiB, fixed.
    fn default() -> Self {
        Self::Fixed { bytes: 128 << 10 }
    }
}

impl Chunking {
    pub(crate) fn validate(self) -> Result<()> {
        let fits = match self {
            Self::Fixed { bytes } => {
                (CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&bytes) && bytes % CHUNK_BYTES_MIN == 0
            }
            // The longest chunk is four times the average.
            Self::Content { average_bytes } => {
                average_bytes.is_power_of_two() && (CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX / 4).contains(&average_bytes)
            }
        };
        if fits {
            return Ok(());
        }
        Err(RepoError::new(RepoErrorKind::InvalidConfig, format!("failed to use {self:?} for cutting files")).advise(
            "use a multiple of 16 KiB up to 8 MiB for fixed chunks, a power of two from 16 KiB to 2 MiB for others",
        ))
    }

    fn longest(self) -> usize {
        match self {
            Self::Fixed { bytes } => bytes,
            Self::Content { average_bytes } => average_bytes * 4,
        }
    }
}

/// Whole chunks, back to back.
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    /// Where each chunk ends.
    pub(crate) ends: Vec<usize>,
}

impl Batch {
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end])
    }
}

/// Collects a stream and yields batches of chunks.
pub(crate) struct Cutter {
    chunking: Chunking,
    buffer: Vec<u8>,
    /// Bytes of a full buffer.
    full: usize,
}

impl Cutter {
    pub(crate) fn new(chunking: Chunking) -> Self {
        let full = match chunking {
            Chunking::Fixed { bytes } => bytes * (BATCH_BYTES / bytes).max(1),
            // So that about a batch can be cut before less than a longest chunk is left.
            Chunking::Content { .. } => BATCH_BYTES + chunking.longest(),
        };
        Self { chunking, buffer: Vec::new(), full }
    }

    /// Takes as much of `bytes` as there is room for; the rest comes back after a batch.
    pub(crate) fn fill(&mut self, bytes: &mut bytes::Bytes) -> Option<Batch> {
        if self.buffer.capacity() == 0 {
            // Small files stay small, others get the whole buffer at once.
            self.buffer.reserve_exact(if bytes.len() >= self.full / 4 { self.full } else { bytes.len() });
        }
        let room = self.full - self.buffer.len();
        let part = bytes.split_to(room.min(bytes.len()));
        self.buffer.extend_from_slice(&part);
        (self.buffer.len() == self.full).then(|| self.cut(false))
    }

    /// What is left at the end.
    pub(crate) fn finish(mut self) -> Option<Batch> {
        (!self.buffer.is_empty()).then(|| self.cut(true))
    }

    fn cut(&mut self, last: bool) -> Batch {
        let mut bytes = std::mem::take(&mut self.buffer);
        let mut ends = Vec::new();
        let mut start = 0;
        while start < bytes.len() {
            let rest = &bytes[start..];
            if rest.len() < self.chunking.longest() && !last {
                break;
            }
            start += match self.chunking {
                Chunking::Fixed { bytes } => bytes.min(rest.len()),
                Chunking::Content { average_bytes } => {
                    let cutter = FastCDC::new(rest, average_bytes / 4, average_bytes, average_bytes * 4);
                    cutter.cut(0, rest.len()).1.max(1)
                }
            };
            ends.push(start);
        }
        if start < bytes.len() {
            self.buffer.reserve_exact(self.full);
            self.buffer.extend_from_slice(&bytes[start..]);
            bytes.truncate(start);
        }
        Batch { bytes, ends }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::Bytes;

    fn cut_all(chunking: Chunking, parts: &[Bytes]) -> Vec<Vec<u8>> {
        let mut cutter = Cutter::new(chunking);
        let mut chunks = Vec::new();
        for part in parts {
            let mut part = part.clone();
            while !part.is_empty() {
                if let Some(batch) = cutter.fill(&mut part) {
                    chunks.extend(batch.chunks().map(<[u8]>::to_vec));
                }
            }
        }
        if let Some(batch) = cutter.finish() {
            chunks.extend(batch.chunks().map(<[u8]>::to_vec));
        }
        chunks
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as u8
            })
            .collect()
    }

    #[test]
    fn cuts_depend_on_content_and_not_on_how_it_arrives() {
        let bytes = Bytes::from(noise(5_000_001));
        for chunking in
            [Chunking::default(), Chunking::Fixed { bytes: 3 << 20 }, Chunking::Content { average_bytes: 64 << 10 }]
        {
            let whole = cut_all(chunking, std::slice::from_ref(&bytes));
            let parts: Vec<Bytes> = bytes.chunks(77_777).map(Bytes::copy_from_slice).collect();
            assert_eq!(whole, cut_all(chunking, &parts));
            assert_eq!(whole.concat(), bytes);
            assert!(whole.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= chunking.longest()));
            chunking.validate().unwrap();
        }
    }

    #[test]
    fn content_chunks_find_moved_bytes_again() {
        let bytes = noise(3 << 20);
        let chunking = Chunking::Content { average_bytes: 64 << 10 };
        let before = cut_all(chunking, &[Bytes::from(bytes.clone())]);
        let after = cut_all(chunking, &[Bytes::from([b"moved".to_vec(), bytes].concat())]);
        let found = after.iter().filter(|chunk| before.contains(chunk)).count();
        assert!(found + 3 >= after.len(), "{found} of {}", after.len());
    }

    #[test]
    fn cuts_that_make_no_sense_are_refused() {
        for bytes in [0, 1, 8192, (16 << 10) + 1, 16 << 20] {
            assert!(Chunking::Fixed { bytes }.validate().is_err(), "{bytes}");
            assert!(Chunking::Content { average_bytes: bytes }.validate().is_err(), "{bytes}");
        }
    }
}
