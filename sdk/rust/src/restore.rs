//! A committed backup, being restored.

use crate::{ByteStream, Directory, Node, PlaceSummary, Result, platform};

/// The backup to restore.
pub struct BackupReader(pub(crate) platform::BackupReader);

/// Nodes that arrive over time.
pub struct NodeStream(pub(crate) platform::NodeStream);

impl NodeStream {
    /// The next node; nothing at a sound end.
    pub async fn next(&mut self) -> Result<Option<Node>> {
        self.0.next().await
    }
}

impl BackupReader {
    /// What the engine reported as notes when it made the backup.
    pub fn notes(&self) -> String {
        self.0.notes()
    }

    /// All nodes, parents before children.
    pub fn nodes(&self) -> NodeStream {
        NodeStream(self.0.nodes())
    }

    /// One file's bytes.
    pub fn read(&self, path: &str) -> ByteStream {
        ByteStream(self.0.read(path))
    }

    /// A whole small file; refused when it is longer than `max` bytes.
    pub async fn read_all(&self, path: &str, max: usize) -> Result<Vec<u8>> {
        self.read(path).read_all(path, max).await
    }

    /// The host makes a folder equal to the backup's folder `subtree`.
    pub async fn place(&self, subtree: &str, into: &Directory, except: &[String]) -> Result<PlaceSummary> {
        self.0.place(subtree, &into.0, except).await
    }
}
