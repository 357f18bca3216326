//! Files of the backup before with some ranges replaced.
//!
//! ```text
//!   parent's chunks ─┬─ no range touches it ─► its id, shared, not read
//!                    └─ touched ─► read ahead ─► ranges from the body ─► hash ► compress ► seal
//! ```
//!
//! The sum of the new file follows from the sum of the old one: CRCs are linear, so a changed chunk changes it by
//! the difference of the chunk's sums, moved over the bytes that follow. Only where the old sum is not known, or the
//! file became shorter, is all of it read.

use super::chunking::{Batch, Chunking};
use super::{BackupSession, Collected, FileAttributes, Working};
use crate::index::Place;
use crate::limits::{FILE_CHUNKS_MAX, PATCH_READS_MAX};
use crate::pack::BlobKind;
use crate::read::fetch;
use crate::{Id, RepoError, RepoErrorKind, Result};
use backstay_core::RelativePath;
use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt, stream};
use std::collections::VecDeque;
use std::ops::Range;

/// How a file differs from the parent's.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    /// Bytes that the file has in the end.
    pub bytes: u64,
    /// How much of the parent's file, from its begin, still counts. What lies behind, or behind the parent's file's
    /// end, and in no range is zeros.
    pub inherited: u64,
    /// What is replaced: ascending, not overlapping, inside `bytes`.
    pub ranges: Vec<Range<u64>>,
    /// CRC-32C of the parent's file, where it is known.
    pub parent_crc32c: Option<u32>,
}

/// A file that was put as a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchedFile {
    /// Plaintext bytes.
    pub bytes: u64,
    /// Bytes that its new chunks take on the store.
    pub uploaded: u64,
    /// Of all its bytes.
    pub crc32c: u32,
}

/// A chunk of the parent's file.
#[derive(Clone, Copy)]
struct Old {
    start: u64,
    place: Place,
}

impl Old {
    fn end(&self) -> u64 {
        self.start + u64::from(self.place.blob.plain_length())
    }
}

/// A chunk of the new file, with its old bytes where they are needed; zeros where there were none.
struct Next {
    start: u64,
    length: usize,
    /// The parent's chunk with the same bounds, where no range touches it.
    shared: Option<Id>,
    old: Vec<u8>,
}

impl BackupSession {
    /// Stores the parent's file of this path with `patch` applied; `body` is what belongs into the ranges, back to
    /// back.
    ///
    /// A future that is dropped before its end leaves no file.
    ///
    /// # Errors
    /// [`RepoErrorKind::NotFound`] when there is no parent or it has no such file, [`RepoErrorKind::Source`] when
    /// `body` fails or does not fit the ranges, [`RepoErrorKind::InvalidConfig`] for ranges that make no sense, else
    /// as [`BackupSession::put_file`].
    pub async fn put_patched<S>(
        &self,
        path: &RelativePath,
        attributes: FileAttributes,
        patch: Patch,
        body: S,
    ) -> Result<PatchedFile>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    {
        let Chunking::Fixed { bytes: chunk_bytes } = self.shared.chunking else {
            let what = "failed to patch files: chunks that follow the content cannot be patched";
            return Err(RepoError::new(RepoErrorKind::InvalidConfig, what).advise("use fixed chunks"));
        };
        let _active = self.activate(path)?;
        self.root(|root| root.check_free(path))?;
        validate(path, &patch, chunk_bytes)?;
        let old = self.old_chunks(path).await?;
        let old_bytes = old.last().map_or(0, Old::end);
        let sum = match patch.parent_crc32c {
            Some(crc) if patch.bytes.min(patch.inherited) >= old_bytes => {
                Sum::Moved(extended(crc, patch.bytes - old_bytes))
            }
            _ => Sum::Whole(0),
        };
        let nexts = plan(&patch, &old, chunk_bytes);
        let whole = matches!(sum, Sum::Whole(_));
        let mut nexts =
            stream::iter(nexts).map(|next| self.read_old(&old, next, patch.inherited, whole)).buffered(PATCH_READS_MAX);
        let mut body = Patches { body, held: Bytes::new(), ranges: &patch.ranges, taken: 0 };
        let mut sum = sum;
        let mut file = Collected::default();
        let mut pending = VecDeque::new();
        while let Some(next) = nexts.next().await {
            let Next { start, length, shared, old } = next?;
            match shared {
                Some(id) => {
                    sum.keep(&old);
                    pending.push_back(Pending::Shared(id, length));
                }
                None => {
                    let mut new = old.clone();
                    body.fill(path, start, &mut new).await?;
                    sum.change(&old, &new, patch.bytes - start - length as u64);
                    let batch = Batch { ends: vec![new.len()], bytes: new };
                    pending.push_back(Pending::Working(self.work_on(batch).await?));
                }
            }
            while pending.front().is_some_and(Pending::is_finished) {
                self.collect_pending(&mut pending, &mut file).await?;
            }
        }
        drop(nexts);
        body.finish(path).await?;
        while !pending.is_empty() {
            self.collect_pending(&mut pending, &mut file).await?;
        }
        let collected = file;
        let stored = self.put_collected(path, attributes, collected, None)?;
        Ok(PatchedFile { bytes: stored.bytes, uploaded: stored.uploaded, crc32c: sum.get() })
    }

    /// A file's bytes in the parent.
    ///
    /// # Errors
    /// [`RepoErrorKind::NotFound`] when there is no parent or it has no such file. The stream's errors carry a
    /// [`RepoError`] as their source.
    pub async fn parent_read(
        &self,
        path: &RelativePath,
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin + use<>> {
        self.parent(path)?.reader().read(path).await
    }

    fn parent(&self, path: &RelativePath) -> Result<&super::parent::OpenParent> {
        self.shared.parent.as_ref().ok_or_else(|| {
            RepoError::new(
                RepoErrorKind::NotFound,
                format!("failed to find {path} in the backup before: there is none"),
            )
        })
    }

    async fn old_chunks(&self, path: &RelativePath) -> Result<Vec<Old>> {
        let parent = self.parent(path)?;
        let content = parent.content(path).await?.ok_or_else(|| {
            RepoError::new(
                RepoErrorKind::NotFound,
                format!("failed to find {path} in the backup before: it is not there"),
            )
        })?;
        let mut start = 0;
        let chunk = |id: &Id| {
            let old = Old { start, place: parent.reader().index().require(BlobKind::Data, id)? };
            start = old.end();
            Ok(old)
        };
        content.iter().map(chunk).collect()
    }

    /// Fetches what a chunk needs of the old file.
    async fn read_old(&self, old: &[Old], mut next: Next, inherited: u64, whole: bool) -> Result<Next> {
        if next.shared.is_some() && !whole {
            return Ok(next);
        }
        next.old.resize(next.length, 0);
        let (start, end) = (next.start, (next.start + next.length as u64).min(inherited));
        let first = old.partition_point(|chunk| chunk.end() <= start);
        let repository = &self.shared.repository;
        let index = match &self.shared.parent {
            Some(parent) => parent.reader().index(),
            None => return Ok(next),
        };
        for chunk in old[first..].iter().take_while(|chunk| chunk.start < end) {
            let id = chunk.place.blob.id;
            let bytes =
                fetch::read_blob(repository.store(), repository.shared_key(), index, BlobKind::Data, &id).await?;
            let (from, to) = (chunk.start.max(start), chunk.end().min(end));
            let source = &bytes[(from - chunk.start) as usize..(to - chunk.start) as usize];
            next.old[(from - start) as usize..(to - start) as usize].copy_from_slice(source);
        }
        Ok(next)
    }

    async fn collect_pending(&self, pending: &mut VecDeque<Pending>, file: &mut Collected) -> Result<()> {
        match pending.pop_front() {
            Some(Pending::Shared(id, length)) => {
                file.bytes += length as u64;
                file.content.push(id);
                Ok(())
            }
            Some(Pending::Working(job)) => self.collect_job(job, file).await,
            None => Ok(()),
        }
    }
}

/// A chunk of the new file, in the order of the file.
enum Pending {
    Shared(Id, usize),
    Working(Working),
}

impl Pending {
    fn is_finished(&self) -> bool {
        match self {
            Self::Shared(..) => true,
            Self::Working(job) => job.is_finished(),
        }
    }
}

/// The sum of a file that is being patched.
enum Sum {
    /// Of all the new file, as changed so far.
    Moved(u32),
    /// Of what was seen so far: everything is.
    Whole(u32),
}

impl Sum {
    fn change(&mut self, old: &[u8], new: &[u8], bytes_after: u64) {
        match self {
            Self::Moved(crc) => {
                let difference = crc32c::crc32c(old) ^ crc32c::crc32c(new);
                // The crate's function answers its first argument when nothing follows.
                *crc = match bytes_after {
                    0 => difference ^ *crc,
                    _ => crc32c::crc32c_combine(difference, *crc, bytes_after as usize),
                };
            }
            Self::Whole(crc) => *crc = crc32c::crc32c_append(*crc, new),
        }
    }

    fn keep(&mut self, old: &[u8]) {
        if let Self::Whole(crc) = self {
            *crc = crc32c::crc32c_append(*crc, old);
        }
    }

    fn get(&self) -> u32 {
        match self {
            Self::Moved(crc) | Self::Whole(crc) => *crc,
        }
    }
}

/// The sum of a file after so many zeros were put at its end.
fn extended(mut crc: u32, mut zeros: u64) -> u32 {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while zeros > 0 {
        let part = zeros.min(ZEROS.len() as u64);
        crc = crc32c::crc32c_append(crc, &ZEROS[..part as usize]);
        zeros -= part;
    }
    crc
}

fn validate(path: &RelativePath, patch: &Patch, chunk_bytes: usize) -> Result<()> {
    let refused = |what: &str| RepoError::new(RepoErrorKind::InvalidConfig, format!("failed to patch {path}: {what}"));
    let mut end = 0;
    for range in &patch.ranges {
        if range.start < end || range.end <= range.start || range.end > patch.bytes {
            return Err(refused("its ranges are not in order, overlap, or lie outside"));
        }
        end = range.end;
    }
    if patch.bytes.div_ceil(chunk_bytes as u64) > FILE_CHUNKS_MAX as u64 {
        return Err(refused("it has too many chunks"));
    }
    Ok(())
}

/// The new file's chunks: which are the old ones.
fn plan<'a>(patch: &'a Patch, old: &'a [Old], chunk_bytes: usize) -> impl Iterator<Item = Next> + 'a {
    (0..patch.bytes).step_by(chunk_bytes).map(move |start| {
        let length = (chunk_bytes as u64).min(patch.bytes - start);
        let end = start + length;
        let at = patch.ranges.partition_point(|range| range.end <= start);
        let touched = patch.ranges.get(at).is_some_and(|range| range.start < end);
        let same = old.binary_search_by_key(&start, |chunk| chunk.start).ok().map(|at| old[at]);
        let shared = same
            .filter(|chunk| !touched && chunk.end() == end && end <= patch.inherited)
            .map(|chunk| chunk.place.blob.id);
        Next { start, length: length as usize, shared, old: Vec::new() }
    })
}

/// The body, put into ranges.
struct Patches<'a, S> {
    body: S,
    held: Bytes,
    /// What is still to come; the first may be partly taken.
    ranges: &'a [Range<u64>],
    /// Bytes of the first that were taken.
    taken: u64,
}

impl<S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin> Patches<'_, S> {
    /// Puts into `chunk`, which starts at `start`, all that belongs there.
    async fn fill(&mut self, path: &RelativePath, start: u64, chunk: &mut [u8]) -> Result<()> {
        let end = start + chunk.len() as u64;
        while let Some(range) = self.ranges.first() {
            let from = range.start + self.taken;
            if from >= end {
                break;
            }
            if self.held.is_empty() && !self.receive(path).await? {
                return Err(source(path, "its patches are shorter than their ranges"));
            }
            let length = (range.end.min(end) - from).min(self.held.len() as u64) as usize;
            let to = (from - start) as usize;
            self.held.copy_to_slice(&mut chunk[to..to + length]);
            self.taken += length as u64;
            if range.start + self.taken == range.end {
                (self.ranges, self.taken) = (&self.ranges[1..], 0);
            }
        }
        Ok(())
    }

    async fn receive(&mut self, path: &RelativePath) -> Result<bool> {
        while self.held.is_empty() {
            match self.body.next().await {
                Some(part) => {
                    self.held = part.map_err(|error| source(path, "its patches cannot be read").because(error))?;
                }
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Nothing may follow.
    async fn finish(mut self, path: &RelativePath) -> Result<()> {
        if self.held.is_empty() && !self.receive(path).await? {
            return Ok(());
        }
        Err(source(path, "its patches are longer than their ranges"))
    }
}

fn source(path: &RelativePath, what: &str) -> RepoError {
    RepoError::new(RepoErrorKind::Source, format!("failed to patch {path}: {what}"))
}
