//! Making a folder equal to a part of a backup.
//!
//! ```text
//!   sweep ► folders ► fill: files looked at, what is missing fetched and written ► finish
//! ```
//!
//! A file is finished (mode, time) when its last blob has landed, folders at the end, deepest first, and then all of it
//! is made durable at once. After an error or a crash the folder is incomplete; placing again goes on with what is there.

use super::fill::Content;
use super::{SnapshotReader, scan};
use crate::aligned::AlignedBuffer;
use crate::limits::SYNC_EVERY_BYTES;
use crate::node_path::NodePath;
use crate::tree::{Node, NodeKind};
use crate::{RepoError, RepoErrorKind, Result};
use backstay_core::{RelativePath, Timestamp};
use cap_std::fs::{Dir, File, Permissions, PermissionsExt};
use rustix::fs::{AtFlags, Timespec, Timestamps};
use scan::failed;
use std::collections::{BTreeSet, HashMap};
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
pub(super) struct Target {
    pub(super) path: NodePath,
    mode: u32,
    modified: Timestamp,
    /// Whether it was made just now: what is not written reads as zeros.
    pub(super) fresh: AtomicBool,
    /// Parts that nobody has looked at, and blobs that have not landed: with the last of them it is finished.
    pub(super) missing: AtomicUsize,
}

pub(super) struct Placing {
    pub(super) reader: SnapshotReader,
    pub(super) into: Dir,
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
    pub(super) no_direct: AtomicBool,
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
        let (targets, contents) = split(files)?;
        let placing = Arc::new(Placing {
            reader: self.clone(),
            into: into.try_clone().map_err(failed("."))?,
            // `Dir` itself may be a handle that only names the folder.
            disk: into.open(".").map_err(failed("."))?,
            lost: Mutex::default(),
            progress: options.progress,
            bytes_total: contents.iter().map(|content| content.bytes).fold(0, u64::saturating_add),
            files_total: targets.len() as u64,
            bytes_done: AtomicU64::new(0),
            files_done: AtomicU64::new(0),
            unsynced: AtomicU64::new(0),
            syncing: AtomicBool::new(false),
            no_direct: AtomicBool::new(false),
            spare: Mutex::default(),
        });
        let keep = targets.iter().map(|target| (target.path.clone(), false));
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
        let kept_bytes = placing.fill(targets, contents).await?;
        let here = Arc::clone(&placing);
        tokio::task::spawn_blocking(move || here.finish_others(&others)).await??;
        Ok(PlaceSummary { files: placing.files_total, bytes: placing.bytes_total, kept_bytes })
    }
}

/// Where files go, and what they have; both in the same order.
fn split(files: Vec<Listed>) -> Result<(Vec<Target>, Vec<Content>)> {
    let both = files.into_iter().map(|(path, node)| {
        let NodeKind::File { bytes, content } = node.kind else {
            return Err(RepoError::new(RepoErrorKind::Internal, format!("{path} is not a file")));
        };
        let (fresh, missing) = (AtomicBool::default(), AtomicUsize::default());
        let target = Target { path, mode: node.mode, modified: node.modified, fresh, missing };
        Ok((target, Content { bytes, ids: content }))
    });
    both.collect()
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

    pub(super) fn spare(&self) -> MutexGuard<'_, Vec<AlignedBuffer>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mode and time.
    pub(super) fn finish(&self, target: &Target) -> Result<()> {
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
    pub(super) fn sync_now_and_then(self: &Arc<Self>, bytes: u64) {
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

    pub(super) fn advance(&self, bytes: u64, files: u64) {
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
