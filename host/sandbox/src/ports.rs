//! Where bytes go and come from: what the pipeline plugs in.

use crate::{error::EngineError, inspection::Found};
use async_trait::async_trait;
use backstay_core::{Position, RelativePath, Segment, Timestamp};
use bytes::Bytes;
use cap_std::fs::Dir;
use futures::stream::BoxStream;
use std::{fs::File, ops::Range, sync::Arc};

/// Bytes on their way. An `Err` means they are not whole.
pub type Body = BoxStream<'static, std::io::Result<Bytes>>;

/// What a file keeps beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits only.
    pub mode: u32,
    /// Time of last change.
    pub modified: Timestamp,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A file of that many bytes.
    File(u64),
    /// A folder.
    Directory,
    /// A link with that target.
    Symlink(String),
}

/// One entry of a folder or of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it lies.
    pub path: RelativePath,
    /// What it is.
    pub kind: NodeKind,
    /// Its mode and time.
    pub attributes: Attributes,
}

/// What a placement did, in files and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Files in place.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were already right.
    pub kept_bytes: u64,
}

/// Somebody who sees a file's bytes before they are stored; called from threads that may block.
pub trait Witness: Send + Sync + 'static {
    /// Sees the bytes from `offset` on; answers whether they look right. Bytes that do not are read and shown
    /// again, unless this is the `last` time.
    fn look(&self, offset: u64, bytes: &[u8], last: bool) -> Result<bool, EngineError>;
}

/// How a file differs from the previous backup's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Bytes that it has in the end.
    pub bytes: u64,
    /// How much of the previous file, from its begin, still counts; the rest is zeros where no range lies.
    pub inherited: u64,
    /// What is replaced: ascending, not overlapping, inside `bytes`.
    pub ranges: Vec<Range<u64>>,
    /// CRC-32C of the previous backup's file, where it is known.
    pub parent_crc32c: Option<u32>,
}

/// What was stored of a patched file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patched {
    /// Its bytes.
    pub bytes: u64,
    /// Their CRC-32C.
    pub crc32c: u32,
}

/// The backup being written.
#[async_trait]
pub trait BackupSink: Send + Sync + 'static {
    /// Refused with `conflict` when the target is known to be another database.
    async fn identify(&self, identity: &str) -> Result<(), EngineError>;
    /// Stores one file; answers its bytes.
    async fn put_file(&self, path: RelativePath, attributes: Attributes, body: Body) -> Result<u64, EngineError>;
    /// Stores one file of this machine, read on all cores; answers its bytes.
    async fn put_local(
        &self,
        path: RelativePath,
        attributes: Attributes,
        file: File,
        witness: Option<Arc<dyn Witness>>,
    ) -> Result<u64, EngineError>;
    /// Stores the previous backup's file with some ranges replaced by `body`.
    async fn put_patched(
        &self,
        path: RelativePath,
        attributes: Attributes,
        patch: Patch,
        body: Body,
    ) -> Result<Patched, EngineError>;
    /// Keeps with the backup what was found in it.
    fn found(&self, found: Found);
    /// Stores a folder or a link.
    async fn put_node(&self, node: Node) -> Result<(), EngineError>;
    /// The engine's notes on the previous backup.
    fn parent_notes(&self) -> Option<String>;
    /// One file's bytes of the previous backup.
    fn parent_read(&self, path: RelativePath) -> Body;
}

/// The end of a target's log.
#[async_trait]
pub trait LogSink: Send + Sync + 'static {
    /// Refused with `conflict` when the target is known to be another database.
    async fn identify(&self, identity: &str) -> Result<(), EngineError>;
    /// The end of the last durable piece of the newest epoch.
    fn tail(&self) -> Option<Position>;
    /// Durable once it answers. `body` has `segment.length()` bytes.
    async fn append(&self, segment: Segment, body: Bytes) -> Result<(), EngineError>;
    /// The log is complete up to there.
    async fn confirm(&self, at: Position, when: Timestamp) -> Result<(), EngineError>;
    /// A note: a small file beside the log.
    async fn put_note(&self, name: &str, bytes: Bytes) -> Result<(), EngineError>;
}

/// A stretch of log.
#[async_trait]
pub trait LogSource: Send + Sync + 'static {
    /// The pieces, oldest first.
    fn segments(&self) -> Vec<Segment>;
    /// Bytes of one epoch from there on.
    fn read(&self, start: Position) -> Body;
    /// Whole log files into `into/path`; answers their bytes.
    async fn place(&self, into: Arc<Dir>, path: Option<RelativePath>, file_size: u64) -> Result<u64, EngineError>;
    /// The names of the notes.
    async fn notes(&self) -> Result<Vec<String>, EngineError>;
    /// One note.
    async fn read_note(&self, name: &str) -> Result<Vec<u8>, EngineError>;
}

/// A committed backup.
#[async_trait]
pub trait BackupSource: Send + Sync + 'static {
    /// The engine's notes.
    fn notes(&self) -> String;
    /// All nodes, parents before children.
    async fn nodes(&self) -> Result<Vec<Node>, EngineError>;
    /// One file's bytes.
    fn read(&self, path: RelativePath) -> Body;
    /// Makes `into` equal to the folder `subtree`.
    async fn place(
        &self,
        subtree: RelativePath,
        into: Arc<Dir>,
        except: Vec<RelativePath>,
    ) -> Result<Placed, EngineError>;
}

/// Where what a plugin says goes.
pub trait Reporter: Send + Sync + 'static {
    /// How far the job is; bytes.
    fn progress(&self, phase: &str, done: u64, total: Option<u64>);
    /// The time.
    fn now(&self) -> Timestamp;
}
