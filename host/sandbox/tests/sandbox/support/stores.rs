//! A backup and a log in memory: what the pipeline does on a repository, and as strict.

use async_trait::async_trait;
use backstay_core::{Chain, Finding, Position, RelativePath, Segment, Timestamp};
use backstay_sandbox::{
    Attributes, BackupSink, BackupSource, Body, EngineError, EngineErrorKind, Found, LogSink, Node, NodeKind, Patch,
    Patched, Placed, Witness,
};
use bytes::Bytes;
use cap_std::fs::{Dir, OpenOptions};
use futures::{StreamExt, stream};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    sync::{Arc, Mutex},
};

/// A backup being written, and read back.
#[derive(Default)]
pub(crate) struct MemoryBackup(Mutex<Stored>);

#[derive(Default)]
struct Stored {
    identity: Option<String>,
    files: BTreeMap<String, (Attributes, Vec<u8>)>,
    nodes: BTreeMap<String, Node>,
    found: Vec<Finding>,
    /// Files whose body ended with an error, or whose call was given up.
    unfinished: usize,
}

impl MemoryBackup {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn identity(&self) -> Option<String> {
        self.0.lock().unwrap().identity.clone()
    }

    /// The bytes of a file.
    pub(crate) fn file(&self, path: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap().files.get(path).map(|(_, bytes)| bytes.clone())
    }

    /// Paths of all files.
    pub(crate) fn files(&self) -> Vec<String> {
        self.0.lock().unwrap().files.keys().cloned().collect()
    }

    /// Paths of all folders and links.
    pub(crate) fn node_paths(&self) -> Vec<String> {
        self.0.lock().unwrap().nodes.keys().cloned().collect()
    }

    pub(crate) fn found(&self) -> Vec<Finding> {
        self.0.lock().unwrap().found.clone()
    }

    pub(crate) fn unfinished(&self) -> usize {
        self.0.lock().unwrap().unfinished
    }

    /// Whether nothing at all came in.
    pub(crate) fn is_empty(&self) -> bool {
        let stored = self.0.lock().unwrap();
        stored.files.is_empty() && stored.nodes.is_empty()
    }
}

/// Counts a file as unfinished unless it is told otherwise.
struct Unfinished<'a>(&'a MemoryBackup, bool);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.1 {
            self.0.0.lock().unwrap().unfinished += 1;
        }
    }
}

#[async_trait]
impl BackupSink for MemoryBackup {
    async fn identify(&self, identity: &str) -> Result<(), EngineError> {
        self.0.lock().unwrap().identity = Some(identity.to_owned());
        Ok(())
    }

    async fn put_file(&self, path: RelativePath, attributes: Attributes, mut body: Body) -> Result<u64, EngineError> {
        let mut unfinished = Unfinished(self, true);
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| failed(&error))?);
        }
        unfinished.1 = false;
        let length = bytes.len() as u64;
        self.0.lock().unwrap().files.insert(path.to_string(), (attributes, bytes));
        Ok(length)
    }

    async fn put_local(
        &self,
        path: RelativePath,
        attributes: Attributes,
        mut file: File,
        witness: Option<Arc<dyn Witness>>,
    ) -> Result<u64, EngineError> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes).map_err(|error| failed(&error))?;
        if let Some(witness) = witness {
            // On a thread that may block, as a repository does.
            let shown = bytes.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let fine = witness.look(0, &shown, false)?;
                if !fine {
                    witness.look(0, &shown, true)?;
                }
                Ok::<_, EngineError>(())
            });
            looked.await.unwrap()?;
        }
        let length = bytes.len() as u64;
        self.0.lock().unwrap().files.insert(path.to_string(), (attributes, bytes));
        Ok(length)
    }

    async fn put_node(&self, node: Node) -> Result<(), EngineError> {
        self.0.lock().unwrap().nodes.insert(node.path.to_string(), node);
        Ok(())
    }

    /// A backup of its own is its own parent, for tests.
    async fn put_patched(
        &self,
        path: RelativePath,
        attributes: Attributes,
        patch: Patch,
        mut body: Body,
    ) -> Result<Patched, EngineError> {
        let mut bytes = self.file(path.as_str()).unwrap_or_default();
        bytes.resize(patch.bytes as usize, 0);
        let mut patches = Vec::new();
        while let Some(chunk) = body.next().await {
            patches.extend_from_slice(&chunk.map_err(|error| failed(&error))?);
        }
        let mut patches = patches.as_slice();
        for range in &patch.ranges {
            let (now, rest) = patches.split_at((range.end - range.start) as usize);
            bytes[range.start as usize..range.end as usize].copy_from_slice(now);
            patches = rest;
        }
        let patched = Patched { bytes: patch.bytes, crc32c: crc32c::crc32c(&bytes) };
        self.0.lock().unwrap().files.insert(path.to_string(), (attributes, bytes));
        Ok(patched)
    }

    fn found(&self, found: Found) {
        self.0.lock().unwrap().found.extend(found.named);
    }

    fn parent_notes(&self) -> Option<String> {
        None
    }

    fn parent_read(&self, path: RelativePath) -> Body {
        let bytes = self.file(path.as_str()).unwrap_or_default();
        stream::iter([Ok(Bytes::from(bytes))]).boxed()
    }
}

#[async_trait]
impl BackupSource for MemoryBackup {
    fn notes(&self) -> String {
        "{}".to_owned()
    }

    async fn nodes(&self) -> Result<Vec<Node>, EngineError> {
        let stored = self.0.lock().unwrap();
        let files = stored.files.iter().map(|(path, (attributes, bytes))| Node {
            path: RelativePath::new(path.clone()).unwrap(),
            kind: NodeKind::File(bytes.len() as u64),
            attributes: *attributes,
        });
        let mut nodes: Vec<Node> = stored.nodes.values().cloned().chain(files).collect();
        nodes.sort_by(|a, b| a.path.as_str().cmp(b.path.as_str()));
        Ok(nodes)
    }

    fn read(&self, path: RelativePath) -> Body {
        let Some(bytes) = self.file(path.as_str()) else {
            return stream::iter([Err(io::Error::from(io::ErrorKind::NotFound))]).boxed();
        };
        // Pieces of an odd size, so that nothing lines up with anybody's buffer.
        let pieces: Vec<_> = bytes.chunks(100_003).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        stream::iter(pieces).boxed()
    }

    async fn place(
        &self,
        subtree: RelativePath,
        into: Arc<Dir>,
        except: Vec<RelativePath>,
    ) -> Result<Placed, EngineError> {
        let nodes = self.nodes().await?;
        if !nodes.iter().any(|node| node.path == subtree) {
            return Err(EngineError::new(EngineErrorKind::Internal, format!("the backup has no {subtree}")));
        }
        let mut placed = Placed::default();
        for node in nodes {
            let below = node.path.as_str().strip_prefix(subtree.as_str()).and_then(|rest| rest.strip_prefix('/'));
            let Some(below) = below else { continue };
            if except.iter().any(|path| path.as_str() == below) {
                continue;
            }
            match &node.kind {
                NodeKind::Directory => into.create_dir(below).map_err(|error| failed(&error))?,
                NodeKind::Symlink(target) => into.symlink_contents(target, below).map_err(|error| failed(&error))?,
                NodeKind::File(length) => {
                    let bytes = self.file(node.path.as_str()).unwrap();
                    let mut options = OpenOptions::new();
                    let mut file =
                        into.open_with(below, options.write(true).create_new(true)).map_err(|error| failed(&error))?;
                    file.write_all(&bytes).map_err(|error| failed(&error))?;
                    placed.files += 1;
                    placed.bytes += length;
                }
            }
        }
        Ok(placed)
    }
}

/// A target's log, growing.
#[derive(Default)]
pub(crate) struct MemoryLog(Mutex<Log>);

#[derive(Default)]
struct Log {
    identity: Option<String>,
    chain: Chain,
    bytes: Vec<u8>,
    notes: BTreeMap<String, Bytes>,
    confirmed: Option<Position>,
}

impl MemoryLog {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// All bytes, in order.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().bytes.clone()
    }

    pub(crate) fn pieces(&self) -> usize {
        self.0.lock().unwrap().chain.iter().count()
    }

    pub(crate) fn notes(&self) -> usize {
        self.0.lock().unwrap().notes.len()
    }

    pub(crate) fn confirmed(&self) -> Option<u64> {
        self.0.lock().unwrap().confirmed.as_ref().map(|position| position.offset)
    }
}

#[async_trait]
impl LogSink for MemoryLog {
    async fn identify(&self, identity: &str) -> Result<(), EngineError> {
        self.0.lock().unwrap().identity = Some(identity.to_owned());
        Ok(())
    }

    fn tail(&self) -> Option<Position> {
        self.0.lock().unwrap().chain.tail().cloned()
    }

    async fn append(&self, segment: Segment, body: Bytes) -> Result<(), EngineError> {
        assert_eq!(body.len() as u64, segment.length(), "the sandbox passed on a body of another length");
        let mut log = self.0.lock().unwrap();
        log.chain.push(segment).map_err(|error| EngineError::new(EngineErrorKind::Gap, error.to_string()))?;
        log.bytes.extend_from_slice(&body);
        Ok(())
    }

    async fn confirm(&self, at: Position, _when: Timestamp) -> Result<(), EngineError> {
        self.0.lock().unwrap().confirmed = Some(at);
        Ok(())
    }

    async fn put_note(&self, name: &str, bytes: Bytes) -> Result<(), EngineError> {
        self.0.lock().unwrap().notes.insert(name.to_owned(), bytes);
        Ok(())
    }
}

fn failed(error: &io::Error) -> EngineError {
    EngineError::new(EngineErrorKind::Internal, error.to_string())
}
