//! A granted folder.

use crate::{ByteStream, FileAttributes, Node, NodeStream, Result, platform};

/// A granted folder; no path, link or `..` leaves it.
pub struct Directory(pub(crate) platform::Directory);

impl Directory {
    /// Everything below `path` (empty: the folder itself), parents before children.
    pub fn entries(&self, path: &str) -> NodeStream {
        NodeStream(self.0.entries(path))
    }

    /// The node at `path`, links not followed; nothing where there is none.
    pub async fn stat(&self, path: &str) -> Result<Option<Node>> {
        self.0.stat(path).await
    }

    /// `length` bytes from `offset`, or all that follow.
    pub fn read(&self, path: &str, offset: u64, length: Option<u64>) -> ByteStream {
        ByteStream(self.0.read(path, offset, length))
    }

    /// A whole small file; refused when it is longer than `max` bytes.
    pub async fn read_all(&self, path: &str, max: usize) -> Result<Vec<u8>> {
        self.read(path, 0, None).read_all(path, max).await
    }

    /// Writes a whole file durably and atomically.
    pub async fn write_all(&self, path: &str, attributes: FileAttributes, bytes: &[u8]) -> Result<u64> {
        let mut writer = crate::FileWriter::new(self.0.write(path, attributes));
        writer.write(bytes).await?;
        writer.finish().await
    }

    /// Makes one folder; its parent exists. Fine where it exists already.
    pub async fn create(&self, path: &str, attributes: FileAttributes) -> Result<()> {
        self.0.create(path, attributes).await
    }

    /// A symbolic link at `path` to a volume of the restore job.
    pub async fn link(&self, path: &str, volume: &str) -> Result<()> {
        self.0.link(path, volume).await
    }

    /// Removes one file, link or empty folder; fine where there is none.
    pub async fn remove(&self, path: &str) -> Result<()> {
        self.0.remove(path).await
    }

    /// Within this folder.
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.0.rename(from, to).await
    }
}
