//! What a destination folder holds already, and what must go.

use crate::aligned::{AlignedBuffer, DIRECT};
use crate::limits::BATCH_BYTES;
use crate::local_reader::LocalReader;
use crate::node_path::NodePath;
use crate::{Id, RepoError, Result};
use backstay_core::RelativePath;
use cap_std::fs::{Dir, File, OpenOptions, OpenOptionsExt, Permissions, PermissionsExt};
use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;

/// A file that was there before.
pub(crate) struct Before {
    file: LocalReader,
    /// What it had of the bytes that it is to have.
    bytes: u64,
}

pub(crate) fn failed(path: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> RepoError {
    move |error| RepoError::io(format!("failed to place {path}"), error)
}

/// Whether `path` is one of `except` or lies below one.
pub(crate) fn is_except(path: &NodePath, except: &BTreeSet<RelativePath>) -> bool {
    except.iter().any(|spared| path.is_within(spared))
}

/// Removes what is neither in `keep` (path to: is it a folder) nor spared by `except`. `at` is where `folder` lies;
/// nothing: at the top.
pub(crate) fn sweep(
    folder: &Dir,
    at: Option<&NodePath>,
    keep: &HashMap<NodePath, bool>,
    except: &BTreeSet<RelativePath>,
) -> Result<()> {
    let shown = || at.map_or_else(|| ".".to_owned(), ToString::to_string);
    let entries = folder.entries().map_err(failed(shown()))?;
    for entry in entries {
        let entry = entry.map_err(failed(shown()))?;
        let name = entry.file_name();
        let path = NodePath::of_entry(at, &name);
        let kept = keep.get(&path);
        if is_except(&path, except) {
            continue;
        }
        let is_folder = entry.file_type().map_err(failed(&path))?.is_dir();
        let spares = except.iter().any(|spared| path.holds(spared));
        if is_folder && (spares || kept == Some(&true)) {
            sweep(&open_folder(folder, &name, &path)?, Some(&path), keep, except)?;
        } else if kept.is_none() && is_folder {
            // Its folders may forbid us to remove what is in them.
            sweep(&open_folder(folder, &name, &path)?, Some(&path), keep, except)?;
            folder.remove_dir(&name).map_err(failed(&path))?;
        } else if kept.is_none() {
            folder.remove_file(&name).map_err(failed(&path))?;
        }
    }
    Ok(())
}

fn open_folder(parent: &Dir, name: &std::ffi::OsStr, path: &NodePath) -> Result<Dir> {
    match parent.open_dir(name) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            parent.set_permissions(name, Permissions::from_mode(0o700)).map_err(failed(path))?;
            parent.open_dir(name).map_err(failed(path))
        }
        opened => opened.map_err(failed(path)),
    }
}

/// Makes sure that `path` is a folder that we may write to.
pub(crate) fn make_folder(into: &Dir, path: &NodePath) -> Result<()> {
    match into.symlink_metadata(path.as_path()) {
        Ok(there) if there.is_dir() => {
            return into.set_permissions(path.as_path(), Permissions::from_mode(0o700)).map_err(failed(path));
        }
        Ok(_) => into.remove_file(path.as_path()).map_err(failed(path))?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(path)(error)),
    }
    into.create_dir(path.as_path()).map_err(failed(path))?;
    into.set_permissions(path.as_path(), Permissions::from_mode(0o700)).map_err(failed(path))
}

/// Makes `path` a symbolic link to `target`.
pub(crate) fn make_link(into: &Dir, path: &NodePath, target: &str) -> Result<()> {
    if into.read_link_contents(path.as_path()).is_ok_and(|there| there.as_os_str() == target) {
        return Ok(());
    }
    clear(into, path)?;
    into.symlink_contents(target, path.as_path()).map_err(failed(path))
}

/// Removes whatever is at `path`.
fn clear(into: &Dir, path: &NodePath) -> Result<()> {
    match into.symlink_metadata(path.as_path()) {
        Ok(there) if there.is_dir() => into.remove_dir_all(path.as_path()).map_err(failed(path)),
        Ok(_) => into.remove_file(path.as_path()).map_err(failed(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(path)(error)),
    }
}

/// Opens the file at `path` for writing.
pub(crate) fn open_file(into: &Dir, path: &NodePath) -> Result<File> {
    into.open_with(path.as_path(), OpenOptions::new().read(true).write(true)).map_err(failed(path))
}

fn open_reader(into: &Dir, path: &NodePath) -> Result<LocalReader> {
    let cached = into.open_with(path.as_path(), OpenOptions::new().read(true)).map_err(failed(path))?;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(DIRECT);
    // Why it cannot be opened so does not matter.
    let direct = into.open_with(path.as_path(), &options).ok();
    Ok(LocalReader::new(cached.into_std(), direct.map(File::into_std)))
}

/// Brings the file at `path` to its length. Nothing: it was made just now, and reads as zeros.
pub(crate) fn place_file(into: &Dir, path: &NodePath, bytes: u64) -> Result<Option<Before>> {
    use cap_std::fs::MetadataExt;
    // A file with a second name is shared with somebody who does not expect it to change.
    let reusable = into.symlink_metadata(path.as_path()).ok().filter(|there| there.is_file() && there.nlink() == 1);
    let Some(before) = reusable.map(|there| there.len()) else {
        clear(into, path)?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        let file = into.open_with(path.as_path(), &options).map_err(failed(path))?;
        file.set_permissions(Permissions::from_mode(0o600)).map_err(failed(path))?;
        file.set_len(bytes).map_err(failed(path))?;
        return Ok(None);
    };
    into.set_permissions(path.as_path(), Permissions::from_mode(0o600)).map_err(failed(path))?;
    if before != bytes {
        open_file(into, path)?.set_len(bytes).map_err(failed(path))?;
    }
    Ok(Some(Before { file: open_reader(into, path)?, bytes: before.min(bytes) }))
}

impl Before {
    /// Which of `wanted`, ids and lengths of blobs in order from `offset` on, it does not have, by their number in the list.
    pub(crate) fn missing(
        &self,
        path: &NodePath,
        mut offset: u64,
        wanted: &[(Id, u32)],
        buffer: &mut AlignedBuffer,
    ) -> Result<Vec<usize>> {
        let mut missing = Vec::new();
        let mut number = 0;
        while number < wanted.len() {
            // Whole blobs that the file may have, as many as are hashed together.
            let mut parts = Vec::new();
            let mut group = 0;
            for (_, length) in &wanted[number..] {
                let end = group + *length as usize;
                if offset + end as u64 > self.bytes || (end > BATCH_BYTES && group > 0) {
                    break;
                }
                parts.push(group..end);
                group = end;
            }
            if parts.is_empty() {
                missing.push(number);
                offset += u64::from(wanted[number].1);
                number += 1;
                continue;
            }
            buffer.clear();
            self.file.read_onto(buffer, offset, group).map_err(failed(path))?;
            let parts: Vec<&[u8]> = parts.into_iter().map(|part| &buffer.bytes()[part]).collect();
            for id in Id::of_each(&parts) {
                if id != wanted[number].0 {
                    missing.push(number);
                }
                number += 1;
            }
            offset += group as u64;
        }
        Ok(missing)
    }
}

/// Whether a file that reads as zeros has them already.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (head, words, tail) = (bytes.len() % 16, bytes.chunks_exact(16), bytes.chunks_exact(16).remainder());
    debug_assert_eq!(head, tail.len());
    words.into_iter().all(|word| word == [0; 16]) && tail.iter().all(|byte| *byte == 0)
}
