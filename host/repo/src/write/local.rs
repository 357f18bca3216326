//! Files of this machine, read by the threads that store them.
//!
//! ```text
//!   put_local ► [run] ► thread, batch after batch: read ► cut ► hash ► compress ► seal      no copy between steps
//! ```

use super::chunking::Chunking;
use super::{BackupSession, Collected, FileAttributes, StoredFile, Witness, Working};
use crate::aligned::AlignedBuffer;
use crate::limits::{BATCH_BYTES, LOCAL_READS_MAX, LOOK_PAUSE, LOOKS_MAX, RUN_BATCHES_MAX};
use crate::pack::BlobKind;
use crate::stamp::FileStamp;
use crate::{Id, RepoError, RepoErrorKind, Result};
use backstay_core::RelativePath;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl BackupSession {
    /// Stores a file of this machine as long as it is when the call begins, in runs that are read and stored
    /// on all cores. A file that is cut short meanwhile is stored as short as it was seen. A file that has length,
    /// inode and times of the session's parent is not read: its chunks are known.
    ///
    /// A future that is dropped before its end leaves no file.
    ///
    /// # Errors
    /// [`RepoErrorKind::Source`] when it cannot be read, else as [`BackupSession::put_file`]; what `witness` answers.
    pub async fn put_local(
        &self,
        path: &RelativePath,
        attributes: FileAttributes,
        file: File,
        witness: Option<Arc<dyn Witness>>,
    ) -> Result<StoredFile> {
        let Chunking::Fixed { bytes: chunk_bytes } = self.shared.chunking else {
            // Cuts that follow the content depend on all that comes before.
            return self.put_file(path, attributes, in_order(path.clone(), file, witness)).await;
        };
        let _active = self.activate(path)?;
        self.root(|root| root.check_free(path))?;
        let metadata = file.metadata().map_err(|error| unread(path, error))?;
        // Taken before the first byte is read: a write from here on shows.
        let stamp = FileStamp::of(&metadata);
        if let Some(content) = self.unchanged(path, metadata.len(), stamp).await {
            let known = Collected { bytes: metadata.len(), uploaded: 0, content };
            self.shared.totals.unread_bytes.fetch_add(known.bytes, Ordering::Relaxed);
            let stored = self.put_collected(path, attributes, known, stamp)?;
            return Ok(StoredFile { unread: true, ..stored });
        }
        let local = Arc::new(Local { path: path.clone(), file, witness });
        for _ in 0..LOCAL_READS_MAX {
            if let Some(stored) = self.read_local(&local, chunk_bytes).await? {
                return self.put_collected(path, attributes, stored, stamp);
            }
            tracing::debug!(%path, "the file shrank and grew while it was read: again");
        }
        let changing = io::Error::other("it shrinks and grows all the time");
        Err(unread(path, changing))
    }

    /// The file's chunks, when the parent has it as it is.
    async fn unchanged(&self, path: &RelativePath, bytes: u64, stamp: Option<FileStamp>) -> Option<Vec<Id>> {
        let parent = self.shared.parent.as_ref()?;
        parent.unchanged(path, bytes, stamp?).await.unwrap_or_else(|error| {
            tracing::warn!(%path, %error, "failed to read the backup before: the file is read again");
            None
        })
    }

    /// One pass over the file; nothing when the runs do not join.
    async fn read_local(&self, local: &Arc<Local>, chunk_bytes: usize) -> Result<Option<Collected>> {
        let length = local.file.metadata().map_err(|error| unread(&local.path, error))?.len();
        let batch_bytes = (chunk_bytes * (BATCH_BYTES / chunk_bytes).max(1)) as u64;
        // As many batches as let everybody have a run.
        let share = length / u64::from(self.shared.batches_max) / batch_bytes;
        let run_bytes = share.clamp(1, RUN_BATCHES_MAX) * batch_bytes;
        let mut working = VecDeque::new();
        let mut joined = Joined { collected: Collected::default(), short: false };
        let mut start = 0;
        while start < length {
            let run = start..length.min(start + run_bytes);
            start = run.end;
            working.push_back((run.end - run.start, self.store_run(local, run, batch_bytes, chunk_bytes).await?));
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

    /// Adds the oldest run; answers whether it follows on what is there.
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

    /// Hands a run to a blocking thread, once one is free for it. What is not as long as it was ends it.
    async fn store_run(
        &self,
        local: &Arc<Local>,
        run: Range<u64>,
        batch_bytes: u64,
        chunk_bytes: usize,
    ) -> Result<Working> {
        let permit = self.permit().await?;
        let packer = Arc::clone(&self.shared.packer);
        let runtime = tokio::runtime::Handle::current();
        let local = Arc::clone(local);
        Ok(tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut all = Vec::new();
            let mut start = run.start;
            while start < run.end {
                let bytes = batch_bytes.min(run.end - start);
                let read = |plain: &mut AlignedBuffer| local.read(start, bytes as usize, plain);
                let stored = packer.store_from(&runtime, BlobKind::Data, chunk_bytes, read)?;
                let got: u64 = stored.iter().map(|chunk| chunk.bytes).sum();
                all.extend(stored);
                if got < bytes {
                    break;
                }
                start += bytes;
            }
            Ok(all)
        }))
    }
}

/// A file being read.
struct Local {
    path: RelativePath,
    file: File,
    witness: Option<Arc<dyn Witness>>,
}

impl Local {
    /// Reads so many bytes from `start` on as the witness accepts them, or as they were in the end.
    fn read(&self, start: u64, bytes: usize, plain: &mut AlignedBuffer) -> Result<()> {
        for last in 1..=LOOKS_MAX {
            plain.clear();
            let read = read_at_most(&self.file, plain.extend(bytes), start);
            let read = read.map_err(|error| unread(&self.path, error))?;
            plain.give_back(bytes - read);
            let Some(witness) = &self.witness else { break };
            if read == 0 || witness.look(start, plain.bytes(), last == LOOKS_MAX)? {
                break;
            }
            std::thread::sleep(LOOK_PAUSE);
        }
        Ok(())
    }
}

/// What a pass has so far.
struct Joined {
    collected: Collected,
    /// A run was shorter than the file once was: nothing may follow it.
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
fn in_order(
    path: RelativePath,
    file: File,
    witness: Option<Arc<dyn Witness>>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Unpin {
    stream::unfold(Some((Local { path, file, witness }, 0)), |state| async move {
        let (file, start) = state?;
        let read = tokio::task::spawn_blocking(move || {
            let mut plain = AlignedBuffer::default();
            file.read(start, BATCH_BYTES, &mut plain).map_err(io::Error::other)?;
            Ok((file, plain.into_bytes(0)))
        });
        match read.await.map_err(io::Error::other).flatten() {
            Ok((_, plain)) if plain.is_empty() => None,
            Ok((file, plain)) => {
                let next = start + plain.len() as u64;
                Some((Ok(plain), Some((file, next))))
            }
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}
