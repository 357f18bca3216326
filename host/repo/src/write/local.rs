//! Files of this machine, read by the threads that store them.
//!
//! ```text
//!   put_local ► [range] ► thread: read ► cut ► hash ► compress ► seal      no copy between steps
//! ```

use super::chunking::Chunking;
use super::{BackupSession, Collected, FileAttributes, StoredFile, Working};
use crate::limits::BATCH_BYTES;
use crate::pack::BlobKind;
use crate::{RepoError, RepoErrorKind, Result};
use backstay_core::RelativePath;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// How often a file that shrinks and grows again while it is read is read anew.
const READS_MAX: u32 = 5;

impl BackupSession {
    /// Stores a file of this machine as long as it is when the call begins, in ranges that are read and stored
    /// on all cores. A file that is cut short meanwhile is stored as short as it was seen.
    ///
    /// A future that is dropped before its end leaves no file.
    ///
    /// # Errors
    /// [`RepoErrorKind::Source`] when it cannot be read, else as [`BackupSession::put_file`].
    pub async fn put_local(&self, path: &RelativePath, attributes: FileAttributes, file: File) -> Result<StoredFile> {
        let Chunking::Fixed { bytes: chunk_bytes } = self.shared.chunking else {
            // Cuts that follow the content depend on all that comes before.
            return self.put_file(path, attributes, in_order(file)).await;
        };
        let _active = self.activate(path)?;
        self.root(|root| root.check_free(path))?;
        let file = Arc::new(file);
        for _ in 0..READS_MAX {
            if let Some(stored) = self.read_local(path, &file, chunk_bytes).await? {
                return self.put_collected(path, attributes, stored);
            }
            tracing::debug!(%path, "the file shrank and grew while it was read: again");
        }
        let changing = io::Error::other("it shrinks and grows all the time");
        Err(unread(path, changing))
    }

    /// One pass over the file; nothing when the ranges do not join.
    async fn read_local(&self, path: &RelativePath, file: &Arc<File>, chunk_bytes: usize) -> Result<Option<Collected>> {
        let length = file.metadata().map_err(|error| unread(path, error))?.len();
        let range_bytes = (chunk_bytes * (BATCH_BYTES / chunk_bytes).max(1)) as u64;
        let mut working = VecDeque::new();
        let mut joined = Joined { collected: Collected::default(), short: false };
        let mut start = 0;
        while start < length {
            let range = Range { start, bytes: range_bytes.min(length - start) as usize, chunk_bytes };
            start += range.bytes as u64;
            working.push_back((range.bytes as u64, self.store_range(path, file, range).await?));
            while working.front().is_some_and(|(_, job)| job.is_finished()) {
                if !self.join(&mut working, &mut joined).await? {
                    return Ok(None);
                }
            }
        }
        while !working.is_empty() {
            if !self.join(&mut working, &mut joined).await? {
                return Ok(None);
            }
        }
        Ok(Some(joined.collected))
    }

    /// Adds the oldest range; answers whether it follows on what is there.
    async fn join(&self, working: &mut VecDeque<(u64, Working)>, joined: &mut Joined) -> Result<bool> {
        let Some((expected, job)) = working.pop_front() else { return Ok(true) };
        let before = joined.collected.bytes;
        self.collect_job(job, &mut joined.collected).await?;
        let got = joined.collected.bytes - before;
        if joined.short && got > 0 {
            return Ok(false);
        }
        joined.short |= got < expected;
        Ok(true)
    }

    /// Hands a range to a blocking thread, once one is free for it.
    async fn store_range(&self, path: &RelativePath, file: &Arc<File>, range: Range) -> Result<Working> {
        let permit = self.permit().await?;
        let packer = Arc::clone(&self.shared.packer);
        let runtime = tokio::runtime::Handle::current();
        let (file, path) = (Arc::clone(file), path.clone());
        Ok(tokio::task::spawn_blocking(move || {
            let _permit = permit;
            packer.store_from(&runtime, BlobKind::Data, range.chunk_bytes, |plain| {
                plain.resize(range.bytes, 0);
                let read = read_at_most(&file, plain, range.start).map_err(|error| unread(&path, error))?;
                plain.truncate(read);
                Ok(())
            })
        }))
    }
}

/// A part of a file that one thread reads and stores.
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    bytes: usize,
    chunk_bytes: usize,
}

/// What a pass has so far.
struct Joined {
    collected: Collected,
    /// A range was shorter than the file once was: nothing may follow it.
    short: bool,
}

fn unread(path: &RelativePath, error: io::Error) -> RepoError {
    RepoError::new(RepoErrorKind::Source, format!("failed to read the source of {path}")).because(error)
}

/// Fills `buffer` from `start` on, or up to the file's end.
fn read_at_most(file: &File, buffer: &mut [u8], start: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], start + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The file's bytes from its begin, for cuts that follow the content.
fn in_order(file: File) -> impl Stream<Item = io::Result<Bytes>> + Send + Unpin {
    stream::unfold(Some((file, 0)), |state| async move {
        let (file, start) = state?;
        let read = tokio::task::spawn_blocking(move || {
            let mut plain = vec![0; BATCH_BYTES];
            let count = read_at_most(&file, &mut plain, start)?;
            plain.truncate(count);
            Ok((file, plain))
        });
        match read.await.map_err(io::Error::other).flatten() {
            Ok((_, plain)) if plain.is_empty() => None,
            Ok((file, plain)) => {
                let next = start + plain.len() as u64;
                Some((Ok(Bytes::from(plain)), Some((file, next))))
            }
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}
