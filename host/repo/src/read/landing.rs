//! Writing plaintext to its places.

use super::scan::{failed, open_file};
use crate::Result;
use crate::aligned::{ALIGNMENT, DIRECT, is_lawful, is_unable};
use crate::limits::DIRECT_RUN_BYTES_MIN;
use crate::node_path::NodePath;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use std::fs::File;
use std::io;
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
        let last = match &mut self.last {
            Some(last) if last.number == number => last,
            _ => {
                let cached = open_file(self.into, path)?.into_std();
                self.last.insert(Open { number, cached, direct: None })
            }
        };
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
    use crate::aligned::AlignedBuffer;

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
