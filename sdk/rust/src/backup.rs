//! The backup being written.

use crate::{ByteStream, CHUNK_BYTES, FileAttributes, Node, Patch, Result, Rule, StoredFile, TreeSummary, platform};
use futures::future::{Either, select};
use std::pin::pin;

/// The backup being written. It exists for readers only once `backup` answers ok.
pub struct BackupWriter(pub(crate) platform::BackupWriter);

impl BackupWriter {
    /// Says which database this is: must be the first call.
    pub async fn identify(&self, identity: &str) -> Result<()> {
        self.0.identify(identity).await
    }

    /// Starts a file. Several may be open at once; it is stored once [`FileWriter::finish`] answers ok.
    pub fn put_file(&self, path: &str, attributes: FileAttributes) -> FileWriter<StoredFile> {
        FileWriter::new(self.0.put_file(path, attributes))
    }

    /// Stores a whole small file.
    pub async fn put_all(&self, path: &str, attributes: FileAttributes, bytes: &[u8]) -> Result<StoredFile> {
        let mut file = self.put_file(path, attributes);
        file.write(bytes).await?;
        file.finish().await
    }

    /// Stores a folder or a link.
    pub async fn put_node(&self, node: Node) -> Result<()> {
        self.0.put_node(node).await
    }

    /// The host stores a whole granted folder below `path`. `context` is for [`crate::Engine::inspect_part`].
    pub async fn put_tree(
        &self,
        path: &str,
        source: &crate::Directory,
        rules: &[Rule],
        context: &str,
    ) -> Result<TreeSummary> {
        self.0.put_tree(path, &source.0, rules, context).await
    }

    /// Starts the previous backup's file of that path with some ranges replaced; what is written belongs into the
    /// ranges, back to back.
    pub fn put_patched(&self, path: &str, attributes: FileAttributes, patch: Patch) -> FileWriter<StoredFile> {
        FileWriter::new(self.0.put_patched(path, attributes, patch))
    }

    /// The engine's notes on the previous backup: the newest of this target by the same method, or by one that
    /// the method builds on.
    pub fn parent_notes(&self) -> Option<String> {
        self.0.parent_notes()
    }

    /// One file's bytes of the previous backup.
    pub fn parent_read(&self, path: &str) -> ByteStream {
        ByteStream(self.0.parent_read(path))
    }
}

/// Bytes on their way to the host, which answers `A` when it has them all: how many, where nothing
/// else is said. Dropped before `finish`, they were never sent.
pub struct FileWriter<A = u64> {
    sending: platform::Sending<A>,
    buffer: Vec<u8>,
}

impl<A: 'static> FileWriter<A> {
    pub(crate) fn new(sending: platform::Sending<A>) -> Self {
        Self { sending, buffer: Vec::new() }
    }

    /// Appends bytes. Small writes are gathered; answers the host's error as soon as there is one.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.buffer.capacity() == 0 {
                self.buffer.reserve_exact(bytes.len().min(CHUNK_BYTES));
            }
            if self.buffer.len() + bytes.len() > self.buffer.capacity() && self.buffer.capacity() < CHUNK_BYTES {
                self.buffer.reserve_exact(CHUNK_BYTES - self.buffer.len());
            }
            let taken = bytes.len().min(CHUNK_BYTES - self.buffer.len());
            let (now, later) = bytes.split_at(taken);
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == CHUNK_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        let full = std::mem::take(&mut self.buffer);
        let platform::Sending { call, body } = &mut self.sending;
        let sent = pin!(body.send(full));
        match select(sent, call).await {
            Either::Left((mut empty, _)) => {
                empty.clear();
                self.buffer = empty;
                Ok(())
            }
            // The host stopped taking bytes: only an error does that before the end.
            Either::Right((answer, _)) => Err(answer.err().unwrap_or_else(|| {
                crate::Error::new(crate::ErrorKind::Internal, "the host ended a file before its last byte")
            })),
        }
    }

    /// Sends what is left and answers what the host has.
    pub async fn finish(mut self) -> Result<A> {
        if !self.buffer.is_empty() {
            self.flush().await?;
        }
        let platform::Sending { call, body } = self.sending;
        drop(body);
        call.await
    }
}
