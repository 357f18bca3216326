//! Reading files that are there already.

use crate::aligned::{ALIGNMENT, AlignedBuffer, is_lawful, is_unable};
use rustix::fs::Advice;
use rustix::io::ReadWriteFlags;
use std::fs::File;
use std::io::{self, ErrorKind, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

/// A file that is read once: from the page cache where it is there, else past it. To fill the cache with what is looked
/// at once costs several times the read, and pushes out what somebody uses.
pub(crate) struct LocalReader {
    cached: File,
    /// Nothing where the file system has no direct reads.
    direct: Option<File>,
}

impl LocalReader {
    /// The file, opened twice: as usual and with `O_DIRECT`.
    pub(crate) fn new(cached: File, direct: Option<File>) -> Self {
        // A look whether something is cached brings the page that was looked at, and not all around it.
        let _ = rustix::fs::fadvise(&cached, 0, None, Advice::Random);
        Self { cached, direct }
    }

    /// Appends `bytes` bytes from `offset` on.
    ///
    /// # Errors
    /// [`ErrorKind::UnexpectedEof`] when there are fewer.
    pub(crate) fn read_onto(&self, buffer: &mut AlignedBuffer, offset: u64, bytes: usize) -> io::Result<()> {
        let room = buffer.extend(bytes.next_multiple_of(ALIGNMENT));
        let filled = match &self.direct {
            Some(direct) if is_lawful(room, offset) && !is_cached(&self.cached, offset) => {
                let read = read_past_cache(direct, room, offset);
                // The look brought this page: left there, it would say next time that all of it is cached.
                let _ = rustix::fs::fadvise(&self.cached, offset, NonZeroU64::new(ALIGNMENT as u64), Advice::DontNeed);
                read?
            }
            _ => 0,
        };
        if filled < bytes {
            self.cached.read_exact_at(&mut room[filled..bytes], offset + filled as u64)?;
        }
        buffer.give_back(bytes.next_multiple_of(ALIGNMENT) - bytes);
        Ok(())
    }
}

/// Answers how many bytes it got: fewer at the end of the file, none where the file system cannot do it.
fn read_past_cache(file: &File, room: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < room.len() && filled.is_multiple_of(ALIGNMENT) {
        match file.read_at(&mut room[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if is_unable(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Whether the page cache has this place, and so most likely what follows.
fn is_cached(file: &File, offset: u64) -> bool {
    !read_cached(file, &mut [0], offset).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Reads what the page cache has from `offset` on, without waiting for the disk.
///
/// # Errors
/// [`ErrorKind::WouldBlock`] when it has not even the first byte.
pub(crate) fn read_cached(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    Ok(rustix::io::preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::OpenOptionsExt;

    fn open(path: &std::path::Path) -> LocalReader {
        let direct = File::options().read(true).custom_flags(crate::aligned::DIRECT).open(path);
        LocalReader::new(File::open(path).unwrap(), direct.ok())
    }

    #[test]
    fn whatever_is_in_the_cache_the_bytes_are_those_of_the_file() {
        // Not in memory: what is tried here is a disk.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let noise: Vec<u8> = (0..3_000_001).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let path = folder.path().join("file");
        std::fs::write(&path, &noise).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        for warm in [0, 1, 40_000, noise.len()] {
            for (offset, bytes) in [(0, 0), (0, 1), (0, 100_000), (8192, 1 << 20), (5, 70_000), (2_990_000, 10_001)] {
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
                file.read_exact_at(&mut vec![0; warm], 0).unwrap();
                let reader = open(&path);
                let mut buffer = AlignedBuffer::default();
                reader.read_onto(&mut buffer, offset, bytes).unwrap();
                assert!(buffer.bytes() == &noise[offset as usize..][..bytes], "{bytes} from {offset}, {warm} warm");
                reader.read_onto(&mut buffer, 0, 10).unwrap();
                assert_eq!(buffer.bytes()[bytes..], noise[..10]);
            }
        }
        let reader = open(&path);
        let beyond = reader.read_onto(&mut AlignedBuffer::default(), 2_990_000, 10_002);
        assert_eq!(beyond.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
