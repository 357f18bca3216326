//! Reading files that are there already.

use super::scan::failed;
use crate::Result;
use crate::aligned::{ALIGNMENT, AlignedBuffer};
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use rustix::fs::OFlags;
use rustix::io::ReadWriteFlags;
use std::fs::File;
use std::io::{self, ErrorKind, IoSliceMut};
use std::os::unix::fs::FileExt;

/// A file that is read once, from its begin to its end: from the page cache where it is there, else past it. To fill
/// the cache with what is looked at once costs several times the read, and pushes out what somebody uses.
pub(crate) struct LocalReader {
    cached: File,
    /// Nothing where the file system has no direct reads.
    direct: Option<File>,
}

impl LocalReader {
    pub(crate) fn open(into: &Dir, path: &str) -> Result<Self> {
        let cached = into.open_with(path, OpenOptions::new().read(true)).map_err(failed(path))?.into_std();
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlags::DIRECT.bits() as i32);
        // Why it cannot be opened so does not matter.
        let direct = into.open_with(path, &options).ok().map(cap_std::fs::File::into_std);
        Ok(Self { cached, direct })
    }

    /// Appends `bytes` bytes from `offset` on.
    ///
    /// # Errors
    /// [`ErrorKind::UnexpectedEof`] when there are fewer.
    pub(crate) fn read_onto(&mut self, buffer: &mut AlignedBuffer, offset: u64, bytes: usize) -> io::Result<()> {
        let room = buffer.extend(bytes.next_multiple_of(ALIGNMENT));
        let mut filled = read_cached(&self.cached, &mut room[..bytes], offset);
        // Past the cache, from the last lawful place on.
        filled -= filled % ALIGNMENT;
        while filled < bytes
            && offset.is_multiple_of(ALIGNMENT as u64)
            && let Some(direct) = &self.direct
        {
            match direct.read_at(&mut room[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => {
                    filled += read;
                    if !filled.is_multiple_of(ALIGNMENT) {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The file system, or the address.
                Err(error) if error.kind() == ErrorKind::InvalidInput => self.direct = None,
                Err(error) => return Err(error),
            }
        }
        if filled < bytes {
            self.cached.read_exact_at(&mut room[filled..bytes], offset + filled as u64)?;
        }
        buffer.give_back(bytes.next_multiple_of(ALIGNMENT) - bytes);
        Ok(())
    }
}

/// Reads what the page cache has; answers how much that is.
fn read_cached(file: &File, room: &mut [u8], offset: u64) -> usize {
    let mut filled = 0;
    while filled < room.len() {
        let mut rest = [IoSliceMut::new(&mut room[filled..])];
        match rustix::io::preadv2(file, &mut rest, offset + filled as u64, ReadWriteFlags::NOWAIT) {
            Ok(0) | Err(_) => break,
            Ok(read) => filled += read,
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn whatever_is_in_the_cache_the_bytes_are_those_of_the_file() {
        // Not in memory: what is tried here is a disk.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let into = Dir::open_ambient_dir(folder.path(), cap_std::ambient_authority()).unwrap();
        let noise: Vec<u8> = (0..3_000_001).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let path = folder.path().join("file");
        std::fs::write(&path, &noise).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        for warm in [0, 1, 40_000, noise.len()] {
            for (offset, bytes) in [(0, 0), (0, 1), (0, 100_000), (8192, 1 << 20), (5, 70_000), (2_990_000, 10_001)] {
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
                file.read_exact_at(&mut vec![0; warm], 0).unwrap();
                let mut reader = LocalReader::open(&into, "file").unwrap();
                let mut buffer = AlignedBuffer::default();
                reader.read_onto(&mut buffer, offset, bytes).unwrap();
                assert!(buffer.bytes() == &noise[offset as usize..][..bytes], "{bytes} from {offset}, {warm} warm");
                reader.read_onto(&mut buffer, 0, 10).unwrap();
                assert_eq!(buffer.bytes()[bytes..], noise[..10]);
            }
        }
        let mut reader = LocalReader::open(&into, "file").unwrap();
        let beyond = reader.read_onto(&mut AlignedBuffer::default(), 2_990_000, 10_002);
        assert_eq!(beyond.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
