//! Files that people name, read up to a bound.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// A file's bytes, when they are no more than so many: whole mebibytes.
pub(super) fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("it is longer than {} MiB", bytes_max >> 20)));
    }
    Ok(bytes)
}

/// The same of a file that holds text.
pub(super) fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    String::from_utf8(read(path, bytes_max)?).map_err(|_| io::Error::other("it is not UTF-8"))
}
