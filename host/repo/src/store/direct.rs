//! Large objects of a local folder, written past the page cache.
//!
//! ```text
//!   body ─► aligned, or made so ─► disk       name#n ─► fsync ─► hard link: name ─► remove name#n ─► fsync of the folder
//! ```
//!
//! Long parts of them are read the same way, where the page cache does not have them.
//!
//! A pack is written once and not read soon. Through the page cache it would cost a copy, which is a fifth of a
//! backup's work, and push out what the database next to it keeps there. File systems that cannot do it say so, and
//! then objects are written as all others.

use crate::aligned::{ALIGNMENT, AlignedBuffer, DIRECT, is_lawful, is_unable};
use crate::limits::{DIRECT_BUFFER_BYTES, DIRECT_BYTES_MIN};
use crate::local_reader::LocalReader;
use crate::store::Names;
use async_trait::async_trait;
use bytes::Bytes;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    ops::Range,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

/// The folder of a local store, and what its file system can do.
#[derive(Debug)]
pub(crate) struct Direct {
    folder: PathBuf,
    unable: AtomicBool,
    /// Temporary names of this process.
    next: AtomicU64,
}

/// How a direct write ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Whole,
    /// Another object has that name.
    Exists,
    /// To be written the usual way.
    Not,
}

impl Direct {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, unable: AtomicBool::new(false), next: AtomicU64::new(0) }
    }

    /// Whether it is worth trying for so many bytes.
    pub(crate) fn fits(&self, bytes: usize) -> bool {
        bytes >= DIRECT_BYTES_MIN && !self.unable.load(Ordering::Relaxed)
    }

    /// Writes an object that is not there yet, into a folder that is: atomically, durably. Blocks.
    pub(crate) fn put_new(&self, key: &str, body: &Bytes) -> io::Result<Written> {
        let place = self.folder.join(key);
        let Some(parent) = place.parent() else { return Ok(Written::Not) };
        // As the object store below names what is not whole yet: no listing shows it.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let beside = PathBuf::from(format!("{}#{}{number:06}", place.display(), std::process::id()));
        let linked = match self.write(&beside, body) {
            Ok(true) => fs::hard_link(&beside, &place).map(|()| true),
            other => other,
        };
        // Whatever happened: half an object, or a second name of a whole one.
        let removed = match fs::remove_file(&beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        let linked = match linked {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Written::Exists),
            other => other?,
        };
        removed?;
        if !linked {
            return Ok(Written::Not);
        }
        Self::sync_folder(parent)?;
        Ok(Written::Whole)
    }

    /// Reads part of an object; nothing where that has to be done the usual way, whatever the reason. Blocks.
    pub(crate) fn get_range(&self, key: &str, range: Range<u64>) -> Option<Bytes> {
        let place = self.folder.join(key);
        let cached = File::open(&place).ok()?;
        let direct = OpenOptions::new().read(true).custom_flags(DIRECT).open(&place).ok();
        let lead = (range.start % ALIGNMENT as u64) as usize;
        let bytes = lead + usize::try_from(range.end.checked_sub(range.start)?).ok()?;
        let mut buffer = AlignedBuffer::with_room(bytes.next_multiple_of(ALIGNMENT));
        let reader = LocalReader::new(cached, direct);
        reader.read_onto(&mut buffer, range.start - lead as u64, bytes).ok()?;
        Some(buffer.into_bytes(lead))
    }

    /// Answers whether it could be done.
    fn write(&self, beside: &Path, body: &Bytes) -> io::Result<bool> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).custom_flags(DIRECT);
        let mut file = match options.open(beside) {
            // A new folder's own name must be durable too: the usual way sees to that.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) if is_unable(&error) => return Ok(self.give_up(&error)),
            opened => opened?,
        };
        let mut buffer = AlignedBuffer::default();
        for part in body.chunks(DIRECT_BUFFER_BYTES) {
            let whole = part.len().next_multiple_of(ALIGNMENT);
            // Straight from where it lies, if it may lie there.
            let lawful = if is_lawful(part, 0) && whole == part.len() {
                part
            } else {
                buffer.clear();
                let room = buffer.extend(whole);
                room[..part.len()].copy_from_slice(part);
                room[part.len()..].fill(0);
                buffer.bytes()
            };
            match file.write_all(lawful) {
                Err(error) if is_unable(&error) => return Ok(self.give_up(&error)),
                written => written?,
            }
        }
        file.set_len(body.len() as u64)?;
        file.sync_all()?;
        Ok(true)
    }

    /// Syncs a folder, if there is one. Blocks.
    fn sync_folder(folder: &Path) -> io::Result<()> {
        match File::open(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            opened => opened?.sync_all(),
        }
    }

    fn give_up(&self, error: &io::Error) -> bool {
        tracing::debug!(%error, folder = %self.folder.display(), "no direct writes here");
        self.unable.store(true, Ordering::Relaxed);
        false
    }
}

/// File systems that one kernel alone has in hand, by what statfs(2) calls them, and overlays of these. Others may show late
/// what another machine did.
const LOCAL_FILE_SYSTEMS: [(&str, u64); 8] = [
    ("ext", 0xef53),
    ("xfs", 0x5846_5342),
    ("btrfs", 0x9123_683e),
    ("zfs", 0x2fc1_2fc1),
    ("f2fs", 0xf2f5_2010),
    ("bcachefs", 0xca45_1a4e),
    ("tmpfs", 0x0102_1994),
    ("overlay", 0x794c_7630),
];

#[async_trait]
impl Names for Direct {
    async fn show_at_once(&self) -> bool {
        let folder = self.folder.clone();
        let asked = tokio::task::spawn_blocking(move || rustix::fs::statfs(&folder)).await;
        let Ok(Ok(system)) = asked else { return false };
        LOCAL_FILE_SYSTEMS.iter().any(|(_, number)| u64::try_from(system.f_type) == Ok(*number))
    }

    async fn settle(&self, folder: &str) -> io::Result<()> {
        let folder = self.folder.join(folder);
        tokio::task::spawn_blocking(move || Self::sync_folder(&folder)).await?
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn noise(length: usize) -> Bytes {
        (0..length).map(|at| ((at * 31) >> 3) as u8).collect::<Vec<u8>>().into()
    }

    #[test]
    fn objects_of_any_length_are_whole_and_alone() {
        let folder = tempfile::tempdir().unwrap();
        let direct = Direct::new(folder.path().to_owned());
        assert_eq!(direct.put_new("data/ab/1", &noise(1)).unwrap(), Written::Not, "its folder would not be durable");
        fs::create_dir_all(folder.path().join("data/ab")).unwrap();
        for length in [1, 4095, 4096, 4097, DIRECT_BUFFER_BYTES, DIRECT_BUFFER_BYTES + 1, 3 * DIRECT_BUFFER_BYTES - 1] {
            let (key, body) = (format!("data/ab/{length}"), noise(length));
            match direct.put_new(&key, &body).unwrap() {
                Written::Whole => assert_eq!(fs::read(folder.path().join(&key)).unwrap(), body),
                // The folder for temporary files may lie in memory.
                Written::Not => assert!(!direct.fits(usize::MAX) && !folder.path().join(&key).exists()),
                Written::Exists => panic!("{key} was there"),
            }
        }
        let names = fs::read_dir(folder.path().join("data/ab")).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(names.into_iter().all(|name| !name.to_string_lossy().contains('#')), "something is left over");
    }

    #[test]
    fn any_part_of_an_object_reads_back() {
        // Not in memory: what is tried here is a disk.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let direct = Direct::new(folder.path().to_owned());
        let body = noise(3 * DIRECT_BUFFER_BYTES + 17);
        direct.put_new("key", &body).unwrap();
        let end = body.len() as u64;
        for range in [0..end, 0..1, 4096..8192, 4095..4098, end - 1..end, end - 100_000..end, 5..5] {
            let part = direct.get_range("key", range.clone()).unwrap();
            assert!(part == body[range.start as usize..range.end as usize], "{range:?}");
        }
        assert!(direct.get_range("key", 0..end + 1).is_none() && direct.get_range("other", 0..1).is_none());
    }

    #[tokio::test]
    async fn file_systems_of_this_kernel_show_names_at_once_and_others_are_not_trusted_to() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        assert!(Direct::new(folder.path().to_owned()).show_at_once().await);
        assert!(!Direct::new("/proc/self".into()).show_at_once().await);
        assert!(!Direct::new(folder.path().join("absent")).show_at_once().await);
    }

    #[test]
    fn an_object_that_is_there_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let direct = Direct::new(folder.path().to_owned());
        fs::write(folder.path().join("key"), "first").unwrap();
        let again = direct.put_new("key", &noise(5000)).unwrap();
        assert!(again != Written::Whole, "{again:?}");
        assert_eq!(fs::read(folder.path().join("key")).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
