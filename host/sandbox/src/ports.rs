//! Where bytes go and come from: what the pipeline plugs in.

use crate::error::EngineError;
use async_trait::async_trait;
use backstay_core::{Position, RelativePath, Segment, Timestamp};
use bytes::Bytes;
use cap_std::fs::Dir;
use futures::stream::BoxStream;
use std::{fs::File, sync::Arc};

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

/// The backup being written.
#[async_trait]
pub trait BackupSink: Send + Sync + 'static {
    /// Refused with `conflict` when the target is known to be another database.
    async fn identify(&self, identity: &str) -> Result<(), EngineError>;
    /// Stores one file; answers its bytes.
    async fn put_file(&self, path: RelativePath, attributes: Attributes, body: Body) -> Result<u64, EngineError>;
    /// Stores one file of this machine, read on all cores; answers its bytes.
    async fn put_local(&self, path: RelativePath, attributes: Attributes, file: File) -> Result<u64, EngineError>;
    /// Stores a folder or a link.
    async fn put_node(&self, node: Node) -> Result<(), EngineError>;
    /// The engine's notes on the previous backup.
    fn parent_notes(&self) -> Option<String>;
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
    /// A small side file.
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
