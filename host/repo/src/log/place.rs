//! Writing whole log files into a folder, for a restore.

use super::{LogChain, LogResult, limits::PIECES_AT_ONCE, read::unbroken};
use crate::RepoError;
use backstay_core::{RelativePath, Segment};
use bytes::Bytes;
use cap_std::fs::{Dir, File, FileExt, OpenOptions, OpenOptionsExt};
use futures::{StreamExt, TryStreamExt, stream};
use std::{collections::BTreeMap, sync::Arc};

/// Log files are for the database's user alone.
const FILE_MODE: u32 = 0o600;

impl LogChain {
    /// Writes the database files that `pieces` belong to into `folder`, below `path` (nothing:
    /// the folder itself), in parallel. A file shorter than `file_size` is filled up with
    /// zeros; an existing file is replaced. Durable once it answers. Answers how many bytes
    /// of log were written.
    ///
    /// # Errors
    /// [`LogError::Gap`] when bytes are missing between two pieces of a file; damaged or
    /// missing pieces; whatever the store or the file system reports. Files may be left half
    /// written then.
    pub async fn place(
        &self,
        pieces: &[Segment],
        folder: &Dir,
        path: Option<&RelativePath>,
        file_size: u64,
    ) -> LogResult<u64> {
        let into = Arc::new(open_folder(folder, path)?);
        let mut files: BTreeMap<(u64, String), Vec<Segment>> = BTreeMap::new();
        for piece in pieces {
            files.entry((piece.start.epoch, piece.file.clone())).or_default().push(piece.clone());
        }
        let written = stream::iter(files)
            .map(|((_, name), parts)| self.write_durable_file(into.clone(), name, parts, file_size))
            .buffer_unordered(PIECES_AT_ONCE)
            .try_fold(0u64, |sum, bytes| async move { Ok(sum + bytes) })
            .await?;
        blocking(move || sync_folder(&into)).await?;
        Ok(written)
    }

    /// Writes one database file as [`LogChain::place`] does, into `folder` under `name`, but
    /// does not make it durable. False where the log does not hold the file.
    ///
    /// # Errors
    /// As [`LogChain::place`].
    pub async fn place_file(&self, file: &str, folder: &Dir, name: &str, file_size: u64) -> LogResult<bool> {
        let pieces: Vec<Segment> = self.file_pieces(file).into_iter().cloned().collect();
        if pieces.is_empty() {
            return Ok(false);
        }
        let into = Arc::new(open_folder(folder, None)?);
        self.write_file(into, name, pieces, file_size).await?;
        Ok(true)
    }

    async fn write_durable_file(
        &self,
        into: Arc<Dir>,
        name: String,
        pieces: Vec<Segment>,
        file_size: u64,
    ) -> LogResult<u64> {
        let (file, written) = self.write_file(into, &name, pieces, file_size).await?;
        blocking(move || {
            file.sync_all().map_err(|error| RepoError::io(format!("failed to make log file {name} durable"), error))
        })
        .await?;
        Ok(written)
    }

    /// One file, piece by piece: one open file and one piece in memory at a time.
    async fn write_file(
        &self,
        into: Arc<Dir>,
        name: &str,
        pieces: Vec<Segment>,
        file_size: u64,
    ) -> LogResult<(Arc<File>, u64)> {
        unbroken(&pieces)?;
        let made = name.to_owned();
        let file = Arc::new(blocking(move || create(&into, &made, file_size)).await?);
        let mut written = 0;
        for piece in pieces {
            let (body, file, offset, name) =
                (self.read(&piece).await?, file.clone(), piece.file_offset, name.to_owned());
            written += blocking(move || write(&file, &name, offset, &body)).await?;
        }
        Ok((file, written))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, RepoError> + Send + 'static) -> LogResult<T> {
    Ok(tokio::task::spawn_blocking(work).await??)
}

fn open_folder(folder: &Dir, path: Option<&RelativePath>) -> Result<Dir, RepoError> {
    let failed = |error| RepoError::io("failed to open the folder for log files", error);
    let Some(path) = path else { return folder.try_clone().map_err(failed) };
    folder.create_dir_all(path.as_str()).map_err(failed)?;
    folder.open_dir(path.as_str()).map_err(failed)
}

fn create(folder: &Dir, name: &str, file_size: u64) -> Result<File, RepoError> {
    let failed = |error| RepoError::io(format!("failed to create log file {name}"), error);
    match folder.remove_file(name) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(FILE_MODE);
    let file = folder.open_with(name, &options).map_err(failed)?;
    file.set_len(file_size).map_err(failed)?;
    Ok(file)
}

fn write(file: &File, name: &str, offset: u64, body: &Bytes) -> Result<u64, RepoError> {
    file.write_all_at(body, offset)
        .map_err(|error| RepoError::io(format!("failed to write log file {name}"), error))?;
    Ok(body.len() as u64)
}

fn sync_folder(folder: &Dir) -> Result<(), RepoError> {
    folder
        .open(".")
        .and_then(|folder| folder.sync_all())
        .map_err(|error| RepoError::io("failed to make the folder of log files durable", error))
}
