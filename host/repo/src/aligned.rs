//! Reads and writes past the page cache: what they ask for, and memory that fits.

use backstay_audited::{LARGE_PAGE_BYTES, ask_for_large_pages};
use bytes::Bytes;
use rustix::fs::OFlags;
use std::io::{Error, ErrorKind};

/// What address, offset and length of a direct read or write must be a multiple of, on every disk we know of.
pub const ALIGNMENT: usize = 4096;

/// What a file is opened with for them, as `custom_flags` takes it.
pub const DIRECT: i32 = OFlags::DIRECT.bits() as i32;

/// Whether these bytes may be read or written directly at `offset`, as far as they are whole blocks.
pub(crate) fn is_lawful(bytes: &[u8], offset: u64) -> bool {
    offset.is_multiple_of(ALIGNMENT as u64) && bytes.as_ptr().addr().is_multiple_of(ALIGNMENT)
}

/// What file systems answer that have no direct reads and writes, or ask for more.
pub(crate) fn is_unable(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported)
}

/// A buffer whose first byte lies at a multiple of [`ALIGNMENT`]. Made to be used again: fresh memory costs a page
/// fault for every 4 KiB.
///
/// What the kernel copies belongs into one: some processors copy to 16 bytes behind the beginning of a page, where an
/// allocator puts whatever is large, at a quarter of the rate.
///
/// A large one lies in large pages, where there are such. What a disk gets from pages of 4 KiB, which lie anywhere, comes
/// to it in as many parts: some take large parts at twice the rate.
///
/// ```
/// use backstay_repo::aligned::{ALIGNMENT, AlignedBuffer};
/// let mut buffer = AlignedBuffer::with_room(10_000);
/// buffer.extend(3).copy_from_slice(b"one");
/// assert_eq!(buffer.bytes(), b"one");
/// assert!(buffer.bytes().as_ptr().addr().is_multiple_of(ALIGNMENT));
/// ```
#[derive(Default)]
pub struct AlignedBuffer {
    /// With room to begin at a lawful address.
    room: Vec<u8>,
    begin: usize,
    bytes: usize,
}

impl AlignedBuffer {
    /// Room for so many bytes without moving.
    pub fn with_room(bytes: usize) -> Self {
        let is_large = bytes >= LARGE_PAGE_BYTES;
        let alignment = if is_large { LARGE_PAGE_BYTES } else { ALIGNMENT };
        let mut room = vec![0; bytes + alignment];
        let begin = room.as_ptr().align_offset(alignment);
        if is_large {
            ask_for_large_pages(&mut room[begin..begin + bytes]);
        }
        Self { room, begin, bytes: 0 }
    }

    /// Nothing is in it any more; its room stays.
    pub fn clear(&mut self) {
        self.bytes = 0;
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// What is in it.
    pub fn bytes(&self) -> &[u8] {
        &self.room[self.begin..self.begin + self.bytes]
    }

    /// The bytes from `start` on, without a copy.
    pub(crate) fn into_bytes(self, start: usize) -> Bytes {
        Bytes::from(self.room).slice(self.begin + start..self.begin + self.bytes)
    }

    /// So many bytes fewer at the end.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// So many more bytes at the end, for the caller to overwrite: what they hold is of no meaning.
    pub fn extend(&mut self, bytes: usize) -> &mut [u8] {
        let (before, after) = (self.bytes, self.bytes + bytes);
        if self.begin + after > self.room.len() {
            let old = std::mem::replace(self, Self::with_room(after.next_power_of_two()));
            self.room[self.begin..self.begin + before].copy_from_slice(old.bytes());
        }
        self.bytes = after;
        &mut self.room[self.begin + before..self.begin + after]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_keeps_what_it_has_and_stays_where_it_may_lie() {
        let mut buffer = AlignedBuffer::default();
        for round in 0..3u8 {
            buffer.clear();
            assert!(buffer.bytes().is_empty());
            for part in 1..100u8 {
                buffer.extend(usize::from(part) * 100).fill(part ^ round);
                assert_eq!(buffer.bytes().as_ptr() as usize % ALIGNMENT, 0);
            }
            let expected: Vec<u8> = (1..100u8).flat_map(|part| vec![part ^ round; usize::from(part) * 100]).collect();
            assert_eq!(buffer.bytes(), expected);
            assert_eq!(buffer.len(), expected.len());
        }
        buffer.give_back(100);
        let (left, address) = (buffer.bytes()[5..].to_vec(), buffer.bytes()[5..].as_ptr());
        let bytes = buffer.into_bytes(5);
        assert_eq!((&bytes, bytes.as_ptr()), (&Bytes::from(left), address));
        assert!(bytes.try_into_mut().is_ok(), "nobody else has them");
    }
}
