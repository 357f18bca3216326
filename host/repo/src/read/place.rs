//! Making a folder equal to a part of a backup.
//!
//! ```text
//!   sweep ► folders ► scan files (keep what is right) ► reads, many at once ► write ► finish
//! ```
//!
//! Every blob is verified before it is written. A file is finished (mode, time) when its last blob
//! has landed, folders at the end, deepest first, and then all of it is made durable at once. After
//! an error or a crash the folder is incomplete; placing again goes on with what is there.

use super::fetch::{self, Read, Reads};
use super::landing::Landing;
use super::{SnapshotReader, scan};
use crate::aligned::AlignedBuffer;
use crate::limits::{READS_MAX, SYNC_EVERY_BYTES};
use crate::node_path::NodePath;
use crate::tree::{Node, NodeKind};
use crate::{RepoError, RepoErrorKind, Result};
use backstay_core::{RelativePath, Timestamp};
use cap_std::fs::{Dir, File, Permissions, PermissionsExt};
use futures::{StreamExt, TryStreamExt};
use rustix::fs::{AtFlags, Timespec, Timestamps};
use scan::failed;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a folder is filled.
#[derive(Clone, Default)]
pub struct PlaceOptions {
    /// Paths, from the folder, that are neither placed nor removed, with all below them.
    pub except: BTreeSet<RelativePath>,
    /// Called as bytes land, from any thread.
    pub progress: Option<Arc<dyn Fn(PlaceProgress) + Send + Sync>>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlaceProgress {
    /// Bytes that are right already.
    pub bytes_done: u64,
    /// Bytes of all files.
    pub bytes_total: u64,
    /// Files that are finished.
    pub files_done: u64,
    /// All files.
    pub files_total: u64,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlaceSummary {
    /// Files in the folder.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were there before and right.
    pub kept_bytes: u64,
}

/// A file being placed.
struct Target {
    path: NodePath,
    mode: u32,
    modified: Timestamp,
    fresh: bool,
    /// Blobs that have not landed.
    missing: AtomicUsize,
}

/// A blob to be written: its number in the index, the file's number, the offset.
#[derive(Clone, Copy)]
struct Want {
    blob: u32,
    file: u32,
    at: u64,
}

struct Placing {
    reader: SnapshotReader,
    into: Dir,
    /// The folder, opened before anything was written: what the disk loses from then on is told to this handle, once.
    disk: File,
    /// What it told on the way.
    lost: Mutex<Option<RepoError>>,
    progress: Option<Arc<dyn Fn(PlaceProgress) + Send + Sync>>,
    bytes_total: u64,
    files_total: u64,
    bytes_done: AtomicU64,
    files_done: AtomicU64,
    /// Bytes in the page cache that landed since the disk was last told to begin.
    unsynced: AtomicU64,
    /// Whether it is at it.
    syncing: AtomicBool,
    /// Whether the file system turned out to have no direct writes.
    no_direct: AtomicBool,
    /// Buffers for plaintext that nobody uses.
    spare: Mutex<Vec<AlignedBuffer>>,
}

/// A file of the backup: path in the destination, node.
type Listed = (NodePath, Node);

impl SnapshotReader {
    /// Makes the folder `into` equal to the folder `subtree` of the backup.
    ///
    /// What is there and right stays and is not fetched; what does not belong there goes.
    ///
    /// # Errors
    /// [`RepoErrorKind::NotFound`] when `subtree` is no folder, [`RepoErrorKind::Full`],
    /// [`RepoErrorKind::Denied`], [`RepoErrorKind::Damaged`], whatever the store reports.
    pub async fn place(&self, subtree: &RelativePath, into: &Dir, options: PlaceOptions) -> Result<PlaceSummary> {
        let nodes = self.nodes_below(subtree).await?;
        let listed: Vec<Listed> = nodes
            .into_iter()
            .map(|node| (node.path.placed_in(subtree), node))
            .filter(|(path, _)| !scan::is_except(path, &options.except))
            .collect();
        let (files, others): (Vec<Listed>, Vec<Listed>) =
            listed.into_iter().partition(|(_, node)| matches!(node.kind, NodeKind::File { .. }));
        let sizes = files.iter().map(|(_, node)| file_bytes(node));
        let placing = Arc::new(Placing {
            reader: self.clone(),
            into: into.try_clone().map_err(failed("."))?,
            // `Dir` itself may be a handle that only names the folder.
            disk: into.open(".").map_err(failed("."))?,
            lost: Mutex::default(),
            progress: options.progress,
            bytes_total: sizes.fold(0, u64::saturating_add),
            files_total: files.len() as u64,
            bytes_done: AtomicU64::new(0),
            files_done: AtomicU64::new(0),
            unsynced: AtomicU64::new(0),
            syncing: AtomicBool::new(false),
            no_direct: AtomicBool::new(false),
            spare: Mutex::default(),
        });
        let keep = files.iter().map(|(path, _)| (path.clone(), false));
        let keep: HashMap<NodePath, bool> = keep
            .chain(others.iter().map(|(path, node)| (path.clone(), matches!(node.kind, NodeKind::Directory { .. }))))
            .collect();
        let (here, except) = (Arc::clone(&placing), options.except);
        let others = tokio::task::spawn_blocking(move || {
            scan::sweep(&here.into, None, &keep, &except)?;
            here.prepare(&others)?;
            Ok::<_, RepoError>(others)
        })
        .await??;
        let (targets, wants, kept_bytes) = placing.scan_all(files).await?;
        let targets = Arc::new(targets);
        placing.fetch_all(&targets, wants).await?;
        let here = Arc::clone(&placing);
        tokio::task::spawn_blocking(move || here.finish_others(&others)).await??;
        Ok(PlaceSummary { files: placing.files_total, bytes: placing.bytes_total, kept_bytes })
    }
}

fn file_bytes(node: &Node) -> u64 {
    match node.kind {
        NodeKind::File { bytes, .. } => bytes,
        _ => 0,
    }
}

impl Placing {
    /// Folders and links.
    fn prepare(&self, others: &[Listed]) -> Result<()> {
        for (path, node) in others {
            match &node.kind {
                NodeKind::Directory { .. } => scan::make_folder(&self.into, path)?,
                NodeKind::Symlink { target } => {
                    scan::make_link(&self.into, path, target)?;
                    let time = timestamps(node.modified);
                    rustix::fs::utimensat(&self.into, path.as_path(), &time, AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(|error| failed(path)(error.into()))?;
                }
                NodeKind::File { .. } => {}
                NodeKind::Other { kind } => tracing::warn!(%path, kind, "left out, not a file, folder or link"),
            }
        }
        Ok(())
    }

    /// Looks at what is there, many files at once.
    async fn scan_all(self: &Arc<Self>, files: Vec<Listed>) -> Result<(Vec<Target>, Vec<Want>, u64)> {
        // Some wait for the disk.
        let at_once = 2 * std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let mut scans = futures::stream::iter(files.into_iter().zip(0u32..))
            .map(|(file, number)| {
                let here = Arc::clone(self);
                async move { tokio::task::spawn_blocking(move || here.scan_one(file, number)).await? }
            })
            .buffered(at_once);
        let (mut targets, mut wants, mut kept) = (Vec::new(), Vec::new(), 0);
        while let Some((target, missing, right)) = scans.try_next().await? {
            targets.push(target);
            wants.extend(missing);
            kept += right;
        }
        Ok((targets, wants, kept))
    }

    fn scan_one(&self, (path, node): Listed, number: u32) -> Result<(Target, Vec<Want>, u64)> {
        let index = &self.reader.index;
        let NodeKind::File { bytes, content } = node.kind else {
            return Err(RepoError::new(RepoErrorKind::Internal, format!("{path} is not a file")));
        };
        let numbers: Vec<u32> = content.iter().map(|id| index.number(id)).collect::<Result<_>>()?;
        let wanted: Vec<_> =
            numbers.iter().map(|number| index.place(*number).blob).map(|blob| (blob.id, blob.plain_length())).collect();
        let sum: u64 = wanted.iter().map(|(_, length)| u64::from(*length)).sum();
        if sum != bytes {
            return Err(RepoError::damaged(&path, format!("its content has {sum} bytes, not {bytes}")));
        }
        let mut buffer = self.spare().pop().unwrap_or_default();
        let scanned = scan::scan_file(&self.into, &path, &wanted, &mut buffer);
        self.spare().push(buffer);
        let scanned = scanned?;
        let wants: Vec<Want> =
            scanned.missing.iter().map(|(blob, at)| Want { blob: numbers[*blob], file: number, at: *at }).collect();
        let missing: u64 = scanned.missing.iter().map(|(blob, _)| u64::from(wanted[*blob].1)).sum();
        let target = Target {
            path,
            mode: node.mode,
            modified: node.modified,
            fresh: scanned.fresh,
            missing: AtomicUsize::new(wants.len()),
        };
        if wants.is_empty() {
            self.finish(&target)?;
        }
        self.advance(bytes - missing, u64::from(wants.is_empty()));
        Ok((target, wants, bytes - missing))
    }

    /// Fetches what is missing, in the order of the packs.
    async fn fetch_all(self: &Arc<Self>, targets: &Arc<Vec<Target>>, mut wants: Vec<Want>) -> Result<()> {
        let index = Arc::clone(&self.reader.index);
        wants.sort_unstable_by_key(|want| {
            let place = index.place(want.blob);
            (place.pack, place.blob.offset, want.file, want.at)
        });
        let sorted = wants.into_iter().map(move |want| (index.place(want.blob), want));
        futures::stream::iter(Reads::new(sorted))
            .map(|read| {
                let (here, targets) = (Arc::clone(self), Arc::clone(targets));
                async move { here.fetch_one(targets, read).await }
            })
            .buffer_unordered(READS_MAX)
            .try_collect()
            .await
    }

    async fn fetch_one(self: Arc<Self>, targets: Arc<Vec<Target>>, read: Read<Want>) -> Result<()> {
        let pack = self.reader.index.pack(read.pack).pack_key();
        let repository = &self.reader.repository;
        let bytes = fetch::get(repository.store(), &pack, read.range.clone()).await?;
        let key = Arc::clone(repository.shared_key());
        let here = Arc::clone(&self);
        tokio::task::spawn_blocking(move || {
            let spare = here.spare().pop();
            let mut plain = spare.unwrap_or_default();
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
            // A file that was just made reads as zeros.
            if !(target.fresh && scan::is_zero(&plain[from.start..to])) {
                let cached = landing.write_at(first.file, &target.path, first.at, &plain[from.start..to])?;
                self.sync_now_and_then(cached);
            }
            let last = target.missing.fetch_sub(run.len(), Ordering::AcqRel) == run.len();
            if last {
                self.finish(target)?;
            }
            self.advance((to - from.start) as u64, u64::from(last));
        }
        Ok(())
    }

    fn spare(&self) -> MutexGuard<'_, Vec<AlignedBuffer>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mode and time.
    fn finish(&self, target: &Target) -> Result<()> {
        let path = &target.path;
        let file = scan::open_file(&self.into, path)?;
        file.set_permissions(Permissions::from_mode(target.mode)).map_err(failed(path))?;
        rustix::fs::futimens(&file, &timestamps(target.modified)).map_err(|error| failed(path)(error.into()))
    }

    /// Makes all that has landed durable; what the disk lost is remembered. One call for the whole file system: one for each of thousands of small
    /// files would wait as often for the disk.
    fn sync(&self) {
        // Held meanwhile: whoever is last has heard all.
        let mut lost = self.lost();
        if let Err(error) = rustix::fs::syncfs(&self.disk) {
            // The disk does not tell it again.
            lost.get_or_insert(failed(".")(error.into()));
        }
    }

    fn lost(&self) -> MutexGuard<'_, Option<RepoError>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the disk begin, once much has landed: at the end there is little to wait for.
    fn sync_now_and_then(self: &Arc<Self>, bytes: u64) {
        let landed = self.unsynced.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if landed < SYNC_EVERY_BYTES || self.syncing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.unsynced.store(0, Ordering::Relaxed);
        let here = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            here.sync();
            here.syncing.store(false, Ordering::Release);
        });
    }

    /// Folders, deepest first: a parent may forbid us to go below it.
    fn finish_others(&self, others: &[Listed]) -> Result<()> {
        for (path, node) in others.iter().rev().filter(|(_, node)| matches!(node.kind, NodeKind::Directory { .. })) {
            let folder = self.into.open(path.as_path()).map_err(failed(path))?;
            let system = |error: rustix::io::Errno| failed(path)(error.into());
            rustix::fs::futimens(&folder, &timestamps(node.modified)).map_err(system)?;
            rustix::fs::fchmod(&folder, rustix::fs::Mode::from_raw_mode(node.mode)).map_err(system)?;
        }
        self.sync();
        self.lost().take().map_or(Ok(()), Err)
    }

    fn advance(&self, bytes: u64, files: u64) {
        let bytes_done = self.bytes_done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let files_done = self.files_done.fetch_add(files, Ordering::Relaxed) + files;
        if let Some(progress) = &self.progress {
            let (bytes_total, files_total) = (self.bytes_total, self.files_total);
            progress(PlaceProgress { bytes_done, bytes_total, files_done, files_total });
        }
    }
}

fn timestamps(time: Timestamp) -> Timestamps {
    let time = Timespec {
        tv_sec: (time.as_micros() / 1_000_000) as i64,
        tv_nsec: (time.as_micros() % 1_000_000 * 1000) as i64,
    };
    Timestamps { last_access: time, last_modification: time }
}
