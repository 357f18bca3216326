//! Writing plaintext to its places.

use super::scan::{failed, open_file};
use crate::Result;
use crate::aligned::{ALIGNMENT, AlignedBuffer, DIRECT, is_lawful, is_unable};
use crate::limits::DIRECT_RUN_BYTES_MIN;
use crate::local_reader::read_cached;
use crate::node_path::NodePath;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use rustix::fs::Advice;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

/// The files below a folder that one thread writes. The last one stays open: what comes next is most often for it.
///
/// Long runs go past the page cache. Through it a restore would cost a copy, and end with minutes of waiting for what is
/// not on the disk yet: a disk takes large direct writes several times as fast as a kernel hands pages over. The server
/// that reads the files later pays for its first look at each.
pub(crate) struct Landing<'a> {
    into: &'a Dir,
    /// Set once the file system turns out to have no direct writes.
    unable: &'a AtomicBool,
    last: Option<Open>,
}

struct Open {
    number: u32,
    cached: File,
    direct: Option<File>,
}

impl<'a> Landing<'a> {
    pub(crate) fn new(into: &'a Dir, unable: &'a AtomicBool) -> Self {
        Self { into, unable, last: None }
    }

    /// Writes `bytes` at `offset` of the file with this number and path; answers how many of them went through the page
    /// cache.
    pub(crate) fn write_at(&mut self, number: u32, path: &NodePath, offset: u64, bytes: &[u8]) -> Result<u64> {
        let last = open(&mut self.last, self.into, number, path)?;
        let whole = bytes.len() - bytes.len() % ALIGNMENT;
        let mut direct = 0;
        if is_lawful(bytes, offset) && whole >= DIRECT_RUN_BYTES_MIN && !self.unable.load(Ordering::Relaxed) {
            match write_directly(self.into, path, last, offset, &bytes[..whole]) {
                Ok(()) => direct = whole,
                Err(error) if is_unable(&error) => {
                    tracing::debug!(%path, %error, "no direct writes here");
                    self.unable.store(true, Ordering::Relaxed);
                }
                Err(error) => return Err(failed(path)(error)),
            }
        }
        let rest = &bytes[direct..];
        last.cached.write_all_at(rest, offset + direct as u64).map_err(failed(path))?;
        Ok(rest.len() as u64)
    }

    /// The same for a file that was there before: of what the page cache has of it, right blocks are left alone.
    /// A page that rotted is a small part of its chunk, and a disk is the busier the more it is told to write. `there` is
    /// for what the file has.
    pub(crate) fn mend_at(
        &mut self,
        number: u32,
        path: &NodePath,
        offset: u64,
        bytes: &[u8],
        there: &mut AlignedBuffer,
    ) -> Result<u64> {
        let last = open(&mut self.last, self.into, number, path)?;
        there.clear();
        // Whatever keeps it from being read: then all is written.
        let read = read_cached(&last.cached, there.extend(bytes.len()), offset).unwrap_or(0);
        let mut cached = 0;
        for run in differing(&there.bytes()[..read], bytes, offset) {
            cached += self.write_at(number, path, offset + run.start as u64, &bytes[run])?;
        }
        Ok(cached)
    }
}

/// The file with this number, as the last one that was opened.
fn open<'a>(last: &'a mut Option<Open>, into: &Dir, number: u32, path: &NodePath) -> Result<&'a mut Open> {
    Ok(match last.take() {
        Some(open) if open.number == number => last.insert(open),
        _ => {
            let cached = open_file(into, path)?.into_std();
            // Bytes that are looked at should not bring their neighbours.
            let _ = rustix::fs::fadvise(&cached, 0, None, Advice::Random);
            last.insert(Open { number, cached, direct: None })
        }
    })
}

/// Runs of blocks in which `wanted` is not `there`, which may be shorter; both lie at `offset` of a file, whose blocks count.
fn differing<'a>(there: &'a [u8], wanted: &'a [u8], offset: u64) -> impl Iterator<Item = Range<usize>> + 'a {
    let block = move |start: usize| {
        let rest = ALIGNMENT - (offset as usize + start) % ALIGNMENT;
        start..(start + rest).min(wanted.len())
    };
    let differs = move |block: &Range<usize>| there.get(block.clone()) != Some(&wanted[block.clone()]);
    let mut at = 0;
    std::iter::from_fn(move || {
        let mut run: Option<Range<usize>> = None;
        while at < wanted.len() {
            let next = block(at);
            at = next.end;
            match (&mut run, differs(&next)) {
                (None, true) => run = Some(next),
                (Some(run), true) => run.end = next.end,
                (Some(_), false) => break,
                (None, false) => {}
            }
        }
        run
    })
}

fn write_directly(into: &Dir, path: &NodePath, file: &mut Open, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let direct = match &file.direct {
        Some(direct) => direct,
        None => {
            let mut options = OpenOptions::new();
            options.write(true).custom_flags(DIRECT);
            file.direct.insert(into.open_with(path.as_path(), &options)?.into_std())
        }
    };
    direct.write_all_at(bytes, offset)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn blocks_that_are_right_are_left_alone() {
        let wanted: Vec<u8> = (0..5 * ALIGNMENT).map(|at| ((at * 31) >> 3) as u8).collect();
        let runs = |wrong: &[usize], offset: u64, length: usize| {
            let mut there = wanted.clone();
            wrong.iter().for_each(|at| there[*at] ^= 1);
            let runs: Vec<_> = differing(&there[..length], &wanted, offset).map(|run| (run.start, run.end)).collect();
            runs
        };
        let (block, all) = (ALIGNMENT, wanted.len());
        assert_eq!(runs(&[], 0, all), []);
        assert_eq!(runs(&[0], 0, all), [(0, block)]);
        assert_eq!(runs(&[block - 1, block, 4 * block], 0, all), [(0, 2 * block), (4 * block, all)]);
        // Blocks of the file count, wherever the bytes begin.
        assert_eq!(runs(&[block], 4096 + 100, all), [(block - 100, 2 * block - 100)]);
        assert_eq!(runs(&[all - 1], 100, all), [(all - 100, all)]);
        // What is not known is written.
        assert_eq!(runs(&[block], 0, 3 * block + 1), [(block, 2 * block), (3 * block, all)]);
        assert_eq!(runs(&[], 0, 0), [(0, all)]);
    }

    #[test]
    fn a_file_that_was_there_is_mended_whatever_the_cache_has_of_it() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let into = Dir::open_ambient_dir(folder.path(), cap_std::ambient_authority()).unwrap();
        let (bytes, unable) = (4 * DIRECT_RUN_BYTES_MIN, AtomicBool::new(false));
        let wanted: Vec<u8> = (0..bytes).map(|at| ((at * 31) >> 3) as u8).collect();
        let path = NodePath::new(None, b"file").unwrap();
        let mut buffer = AlignedBuffer::default();
        buffer.extend(bytes).copy_from_slice(&wanted);
        let mut there = AlignedBuffer::default();
        for (wrong, warm) in
            [(0..1, bytes), (5000..5001, bytes), (5000..90_000, bytes), (0..bytes, bytes), (7..8, 0), (7..8, 9000)]
        {
            let mut damaged = wanted.clone();
            damaged[wrong.clone()].iter_mut().for_each(|byte| *byte ^= 1);
            std::fs::write(folder.path().join("file"), &damaged).unwrap();
            let file = File::open(folder.path().join("file")).unwrap();
            file.sync_all().unwrap();
            rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
            file.read_exact_at(&mut vec![0; warm], 0).unwrap();
            Landing::new(&into, &unable).mend_at(0, &path, 0, buffer.bytes(), &mut there).unwrap();
            assert!(std::fs::read(folder.path().join("file")).unwrap() == wanted, "{wrong:?}, {warm} bytes cached");
        }
    }

    #[test]
    fn bytes_land_where_they_belong_whichever_way_they_take() {
        // Not in memory: what is tried here is a disk.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let into = Dir::open_ambient_dir(folder.path(), cap_std::ambient_authority()).unwrap();
        let noise: Vec<u8> = (0..5 * DIRECT_RUN_BYTES_MIN).map(|at| ((at * 31) >> 3) as u8).collect();
        for unable in [false, true] {
            let unable = AtomicBool::new(unable);
            let mut landing = Landing::new(&into, &unable);
            for (number, (offset, length)) in (0..).zip([
                (0, DIRECT_RUN_BYTES_MIN),
                (ALIGNMENT, 2 * DIRECT_RUN_BYTES_MIN + 1),
                (1, 2 * DIRECT_RUN_BYTES_MIN),
                (3 * ALIGNMENT, 4 * DIRECT_RUN_BYTES_MIN - 1),
                (0, 10),
            ]) {
                let path = NodePath::new(None, format!("{number}").as_bytes()).unwrap();
                let mut buffer = AlignedBuffer::default();
                buffer.extend(length).copy_from_slice(&noise[..length]);
                std::fs::write(folder.path().join(path.as_path()), [7; 9000]).unwrap();
                landing.write_at(number, &path, offset as u64, buffer.bytes()).unwrap();
                let mut expected = vec![7; 9000];
                expected.resize(expected.len().max(offset + length), 0);
                expected[offset..offset + length].copy_from_slice(&noise[..length]);
                assert!(
                    std::fs::read(folder.path().join(path.as_path())).unwrap() == expected,
                    "{length} bytes at {offset}"
                );
            }
        }
    }
}
