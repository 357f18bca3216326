//! Filling the files of a folder.
//!
//! ```text
//!   file ► [part] ► look: which blobs are missing ► wants ─┐
//!                   the next parts are looked at meanwhile ├► reads of packs, coalesced ► verified ► written
//! ```
//!
//! What is missing is fetched while the rest is still looked at: the one waits for the disk, the other for the cores.
//! Every blob is verified before it is written.

use super::fetch::{self, Read, Reads};
use super::landing::Landing;
use super::place::{Placing, Target};
use super::scan::{self, Before};
use crate::index::Place;
use crate::limits::{LOOK_AT_ONCE_BYTES, READS_MAX, WANTS_AT_ONCE};
use crate::{Id, RepoError, Result};
use futures::stream::{self, FuturesUnordered};
use futures::{Stream, StreamExt, TryStreamExt};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a file is to have.
pub(super) struct Content {
    pub(super) bytes: u64,
    pub(super) ids: Vec<Id>,
}

/// A blob to be written: its number in the index, the file's number, the offset.
#[derive(Clone, Copy)]
struct Want {
    blob: u32,
    file: u32,
    at: u64,
}

/// Blobs of a file, one after another, that one thread looks at.
struct Part {
    file: u32,
    /// Nothing: the file was made just now, and has none of them.
    before: Option<Arc<Before>>,
    /// Number in the index.
    blobs: Vec<u32>,
    /// Where the first one begins.
    at: u64,
}

/// What looking at a part found.
struct Looked {
    wants: Vec<Want>,
    /// Bytes that are right.
    kept: u64,
}

impl Placing {
    /// Fills all files; answers how many bytes were right before.
    pub(super) async fn fill(self: &Arc<Self>, targets: Vec<Target>, contents: Vec<Content>) -> Result<u64> {
        let targets: Arc<[Target]> = targets.into();
        let mut looks = std::pin::pin!(self.look_at_all(&targets, contents).fuse());
        let (mut found, mut kept) = (Vec::new(), 0);
        let mut reads = FuturesUnordered::new();
        let mut next = self.reads(&mut found);
        loop {
            while reads.len() < READS_MAX {
                if let Some(read) = next.next() {
                    reads.push(Arc::clone(self).fetch_one(Arc::clone(&targets), read));
                } else if found.len() >= WANTS_AT_ONCE || (looks.is_done() && !found.is_empty()) {
                    next = self.reads(&mut found);
                } else {
                    break;
                }
            }
            tokio::select! {
                Some(looked) = looks.next() => {
                    let Looked { wants, kept: right } = looked?;
                    found.extend(wants);
                    kept += right;
                }
                Some(fetched) = reads.next() => fetched?,
                else => if looks.is_done() && found.is_empty() { return Ok(kept) },
            }
        }
    }

    /// So many parts or blobs of a file are done.
    fn settle(&self, target: &Target, done: usize) -> Result<()> {
        if target.missing.fetch_sub(done, Ordering::AcqRel) == done {
            self.finish(target)?;
            self.advance(0, 1);
        }
        Ok(())
    }

    /// Looks at what is there, at many parts at once, in no order.
    fn look_at_all(
        self: &Arc<Self>,
        targets: &Arc<[Target]>,
        contents: Vec<Content>,
    ) -> impl Stream<Item = Result<Looked>> {
        // Some wait for the disk.
        let at_once = 2 * std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let (here, all) = (Arc::clone(self), Arc::clone(targets));
        let parts = stream::iter(contents.into_iter().zip(0u32..)).map(move |(content, file)| {
            let (here, targets) = (Arc::clone(&here), Arc::clone(&all));
            async move { tokio::task::spawn_blocking(move || here.parts(&targets, file, &content)).await? }
        });
        let parts = parts.buffered(at_once).map_ok(|parts| stream::iter(parts).map(Ok)).try_flatten();
        let (here, all) = (Arc::clone(self), Arc::clone(targets));
        let looks = parts.map(move |part: Result<Part>| {
            let (here, targets) = (Arc::clone(&here), Arc::clone(&all));
            async move {
                let part = part?;
                tokio::task::spawn_blocking(move || here.look(&targets, &part)).await?
            }
        });
        looks.buffer_unordered(at_once)
    }

    /// A file, at its place and with its length, in parts.
    fn parts(&self, targets: &[Target], file: u32, content: &Content) -> Result<Vec<Part>> {
        let (index, target) = (&self.reader.index, &targets[file as usize]);
        let blobs: Vec<u32> = content.ids.iter().map(|id| index.number(id)).collect::<Result<_>>()?;
        let length = |number: &u32| u64::from(index.place(*number).blob.plain_length());
        let sum: u64 = blobs.iter().map(length).sum();
        if sum != content.bytes {
            let what = format!("its content has {sum} bytes, not {}", content.bytes);
            return Err(RepoError::damaged(&target.path, what));
        }
        let before = scan::place_file(&self.into, &target.path, content.bytes)?.map(Arc::new);
        target.fresh.store(before.is_none(), Ordering::Release);
        let part = |at| Part { file, before: before.clone(), blobs: Vec::new(), at };
        let (mut parts, mut last, mut end) = (Vec::new(), part(0), 0);
        for blob in blobs {
            if end - last.at >= LOOK_AT_ONCE_BYTES {
                parts.push(std::mem::replace(&mut last, part(end)));
            }
            end += length(&blob);
            last.blobs.push(blob);
        }
        parts.push(last);
        target.missing.store(parts.len(), Ordering::Release);
        Ok(parts)
    }

    /// Finds out what of a part is missing.
    fn look(&self, targets: &[Target], part: &Part) -> Result<Looked> {
        let (index, target) = (&self.reader.index, &targets[part.file as usize]);
        let places = part.blobs.iter().map(|number| index.place(*number).blob);
        let wanted: Vec<_> = places.map(|blob| (blob.id, blob.plain_length())).collect();
        let missing = match &part.before {
            None => (0..wanted.len()).collect(),
            Some(before) => {
                let mut buffer = self.spare().pop().unwrap_or_default();
                let missing = before.missing(&target.path, part.at, &wanted, &mut buffer);
                self.spare().push(buffer);
                missing?
            }
        };
        let mut missing = missing.into_iter().peekable();
        let mut looked = Looked { wants: Vec::new(), kept: 0 };
        let mut at = part.at;
        for (number, (_, length)) in wanted.iter().enumerate() {
            match missing.next_if_eq(&number) {
                Some(_) => looked.wants.push(Want { blob: part.blobs[number], file: part.file, at }),
                None => looked.kept += u64::from(*length),
            }
            at += u64::from(*length);
        }
        target.missing.fetch_add(looked.wants.len(), Ordering::AcqRel);
        self.advance(looked.kept, 0);
        self.settle(target, 1)?;
        Ok(looked)
    }

    /// What was found, as reads of packs in their order; nothing is left of it.
    fn reads(&self, found: &mut Vec<Want>) -> Reads<Want, impl Iterator<Item = (Place, Want)> + use<>> {
        let index = Arc::clone(&self.reader.index);
        let mut wants = std::mem::take(found);
        wants.sort_unstable_by_key(|want| {
            let place = index.place(want.blob);
            (place.pack, place.blob.offset, want.file, want.at)
        });
        Reads::new(wants.into_iter().map(move |want| (index.place(want.blob), want)))
    }

    async fn fetch_one(self: Arc<Self>, targets: Arc<[Target]>, read: Read<Want>) -> Result<()> {
        let pack = self.reader.index.pack(read.pack).pack_key();
        let repository = &self.reader.repository;
        let bytes = fetch::get(repository.store(), &pack, read.range.clone()).await?;
        let key = Arc::clone(repository.shared_key());
        let here = Arc::clone(&self);
        tokio::task::spawn_blocking(move || {
            let mut plain = here.spare().pop().unwrap_or_default();
            let mut landing = Landing::new(&here.into, &here.no_direct);
            let landed = fetch::open_all(&key, &pack, read, bytes, &mut plain, |plain, wants| {
                here.land(&targets, &mut landing, plain, &wants)
            });
            here.spare().push(plain);
            landed
        })
        .await?
    }

    /// Writes a group of blobs: `wants` says which part of `plain` goes where.
    fn land(
        self: &Arc<Self>,
        targets: &[Target],
        landing: &mut Landing<'_>,
        plain: &[u8],
        wants: &[(Want, Range<usize>)],
    ) -> Result<()> {
        // What lies side by side here and there is written at once.
        let runs = wants.chunk_by(|(one, from), (next, to)| {
            one.file == next.file && one.at + from.len() as u64 == next.at && from.end == to.start
        });
        for run in runs {
            let [(first, from), ..] = run else { continue };
            let target = &targets[first.file as usize];
            let to = run.last().map_or(from.end, |(_, last)| last.end);
            let bytes = &plain[from.start..to];
            let cached = match target.fresh.load(Ordering::Acquire) {
                // A file that was just made reads as zeros.
                true if scan::is_zero(bytes) => 0,
                true => landing.write_at(first.file, &target.path, first.at, bytes)?,
                false => {
                    let mut there = self.spare().pop().unwrap_or_default();
                    let cached = landing.mend_at(first.file, &target.path, first.at, bytes, &mut there);
                    self.spare().push(there);
                    cached?
                }
            };
            self.sync_now_and_then(cached);
            self.advance(bytes.len() as u64, 0);
            self.settle(target, run.len())?;
        }
        Ok(())
    }
}
