//! Where both kinds of plugin put their bytes: straight into a repository.

use async_trait::async_trait;
use backstay_core::{RelativePath, Timestamp};
use backstay_repo::{BackupSession, RepoError};
use backstay_sandbox::{
    Attributes, BackupSink, Body, EngineError, EngineErrorKind, Found, Node, NodeKind, Patch, Patched, Witness,
};
use backstay_sdk::{StoredFile, native};
use bytes::Bytes;
use futures::StreamExt;
use std::{fs::File, io, rc::Rc, sync::Arc};

/// A backup session as the sandbox's port.
pub(crate) struct SessionSink(BackupSession);

impl SessionSink {
    pub(crate) fn new(session: BackupSession) -> Self {
        Self(session)
    }

    pub(crate) fn into_session(self) -> BackupSession {
        self.0
    }
}

fn stored(attributes: Attributes) -> backstay_repo::FileAttributes {
    backstay_repo::FileAttributes { mode: attributes.mode, modified: attributes.modified }
}

fn failed(error: RepoError) -> EngineError {
    EngineError::new(EngineErrorKind::Internal, error.to_string())
}

#[async_trait]
impl BackupSink for SessionSink {
    async fn identify(&self, _: &str) -> Result<(), EngineError> {
        Ok(())
    }

    async fn put_file(&self, path: RelativePath, attributes: Attributes, body: Body) -> Result<u64, EngineError> {
        Ok(self.0.put_file(&path, stored(attributes), body).await.map_err(failed)?.bytes)
    }

    async fn put_local(
        &self,
        path: RelativePath,
        attributes: Attributes,
        file: File,
        _: Option<Arc<dyn Witness>>,
    ) -> Result<u64, EngineError> {
        Ok(self.0.put_local(&path, stored(attributes), file, None).await.map_err(failed)?.bytes)
    }

    async fn put_patched(&self, _: RelativePath, _: Attributes, _: Patch, _: Body) -> Result<Patched, EngineError> {
        Err(EngineError::new(EngineErrorKind::Unsupported, "the bench makes first backups"))
    }

    fn found(&self, _: Found) {}

    async fn put_node(&self, node: Node) -> Result<(), EngineError> {
        let attributes = stored(node.attributes);
        match &node.kind {
            NodeKind::Directory => self.0.put_directory(&node.path, attributes).await,
            NodeKind::Symlink(target) => self.0.put_symlink(&node.path, target, attributes.modified).await,
            NodeKind::File(_) => return Err(EngineError::new(EngineErrorKind::Internal, "a file needs bytes")),
        }
        .map_err(failed)
    }

    fn parent_notes(&self) -> Option<String> {
        None
    }

    fn parent_read(&self, _: RelativePath) -> Body {
        futures::stream::empty().boxed()
    }
}

/// The same, as the SDK's native backend wants it.
pub(crate) struct NativeSink(pub(crate) Arc<SessionSink>);

fn told(error: EngineError) -> backstay_sdk::Error {
    backstay_sdk::Error::new(backstay_sdk::ErrorKind::Internal, error.message)
}

fn path(text: &str) -> backstay_sdk::Result<RelativePath> {
    RelativePath::new(text)
        .map_err(|error| backstay_sdk::Error::new(backstay_sdk::ErrorKind::Internal, error.to_string()))
}

fn attributes(from: backstay_sdk::FileAttributes) -> Attributes {
    Attributes { mode: from.mode, modified: Timestamp::from_micros(from.modified) }
}

impl native::BackupSink for NativeSink {
    fn identify(&self, _: &str) -> native::Answer<()> {
        Box::pin(async { Ok(()) })
    }

    fn put_file(
        &self,
        name: &str,
        with: backstay_sdk::FileAttributes,
        body: native::Incoming,
    ) -> native::Answer<StoredFile> {
        let (sink, name) = (Arc::clone(&self.0), path(name));
        // As the sandbox does: storing goes on whether or not the plugin asks how far it is.
        let stored = tokio::spawn(async move {
            let mut crc32c = 0;
            let body = body.map(|bytes| Ok(Bytes::from(bytes)));
            // As the sandbox does, too.
            let summed = body.inspect(|chunk: &io::Result<Bytes>| {
                if let Ok(bytes) = chunk {
                    crc32c = crc32c::crc32c_append(crc32c, bytes);
                }
            });
            let file = sink.0.put_file(&name?, stored(attributes(with)), summed).await;
            Ok(StoredFile { bytes: file.map_err(|error| told(failed(error)))?.bytes, crc32c })
        });
        Box::pin(async move {
            stored.await.map_err(|error| {
                backstay_sdk::Error::new(backstay_sdk::ErrorKind::Internal, format!("storing a file ended: {error}"))
            })?
        })
    }

    fn put_node(&self, node: backstay_sdk::Node) -> native::Answer<()> {
        let (sink, name) = (Arc::clone(&self.0), path(&node.path));
        Box::pin(async move {
            let kind = match node.kind {
                backstay_sdk::NodeKind::File(bytes) => NodeKind::File(bytes),
                backstay_sdk::NodeKind::Directory => NodeKind::Directory,
                backstay_sdk::NodeKind::Symlink(target) => NodeKind::Symlink(target),
            };
            let node = Node { path: name?, kind, attributes: attributes(node.attributes) };
            sink.put_node(node).await.map_err(told)
        })
    }

    fn put_tree(
        &self,
        _: &str,
        _: Rc<dyn native::DirectoryBackend>,
        _: &[backstay_sdk::Rule],
        _: &str,
    ) -> native::Answer<backstay_sdk::TreeSummary> {
        let error = backstay_sdk::Error::new(backstay_sdk::ErrorKind::Unsupported, "the bench backs up over the wire");
        Box::pin(async { Err(error) })
    }

    fn put_patched(
        &self,
        _: &str,
        _: backstay_sdk::FileAttributes,
        _: backstay_sdk::Patch,
        _: native::Incoming,
    ) -> native::Answer<StoredFile> {
        let error = backstay_sdk::Error::new(backstay_sdk::ErrorKind::Unsupported, "the bench makes first backups");
        Box::pin(async { Err(error) })
    }

    fn parent_notes(&self) -> Option<String> {
        None
    }

    fn parent_read(&self, _: &str) -> native::Items<Vec<u8>> {
        Box::pin(futures::stream::empty())
    }
}
