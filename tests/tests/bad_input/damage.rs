//! What can happen to the files of a repository.

use anyhow::{Context, Result};
use backstay_tests::backstay::TARGET;
use std::path::{Path, PathBuf};

/// The files below a folder, largest first.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() { waiting.push(path) } else { found.push(path) }
        }
    }
    found.sort_by_key(|path| std::cmp::Reverse(path.metadata().map(|metadata| metadata.len()).unwrap_or(0)));
    Ok(found)
}

/// Turns one byte of a file over.
pub fn flip(path: &Path, at: usize) -> Result<()> {
    let mut bytes = std::fs::read(path)?;
    bytes[at] ^= 0x10;
    writable(path)?;
    Ok(std::fs::write(path, bytes)?)
}

pub fn truncate(path: &Path) -> Result<()> {
    writable(path)?;
    let length = path.metadata()?.len();
    Ok(std::fs::OpenOptions::new().write(true).open(path)?.set_len(length / 2)?)
}

pub fn writable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?)
}

pub fn corrupt_packs(copy: &Path) -> Result<()> {
    for pack in files(&copy.join("data"))? {
        flip(&pack, 100)?;
    }
    Ok(())
}

/// A byte that every piece of log has in its header.
pub fn flip_header(path: &Path) -> Result<()> {
    flip(path, 100)
}

/// The middle byte of a file.
pub fn flip_middle(path: &Path) -> Result<()> {
    flip(path, path.metadata()?.len() as usize / 2)
}

/// A byte near the end of a file: of a piece of log, its body.
pub fn flip_end(path: &Path) -> Result<()> {
    flip(path, path.metadata()?.len() as usize - 20)
}

/// The piece of log that was stored last.
pub fn newest_piece(copy: &Path) -> Result<PathBuf> {
    let mut pieces = files(&copy.join("logs").join(TARGET).join(format!("{:020}", 1)))?;
    pieces.retain(|piece| piece.file_name().is_some_and(|name| name != "claim"));
    let stored = |piece: &PathBuf| piece.metadata().and_then(|metadata| metadata.modified());
    pieces.sort_by_key(|piece| stored(piece).ok());
    pieces.pop().context("no piece of log")
}

/// Nothing can be added below a folder any more.
pub fn close(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            close(&path)?;
        }
    }
    Ok(std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o500))?)
}
