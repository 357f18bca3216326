//! A host that grants folders of this machine, natively.

#![allow(dead_code, clippy::unwrap_used)] // each test file uses a part

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use backstay_sdk::native::{Answer, ConnectionBackend, DirectoryBackend, HostBackend, Incoming, Items, ProcessBackend};
use backstay_sdk::{Credential, Error, ErrorKind, FileAttributes, Level, Node, NodeKind, Result, Timestamp};
use futures::future::LocalBoxFuture;
use futures::{StreamExt as _, stream};

use crate::native_host::NativeHost;

/// [`NativeHost`] with folders granted.
pub struct GrantingHost {
    pub host: Rc<NativeHost>,
    pub folders: BTreeMap<String, PathBuf>,
}

impl GrantingHost {
    /// Becomes the host of this thread.
    pub fn install(host: Rc<NativeHost>, folders: BTreeMap<String, PathBuf>) {
        backstay_sdk::native::install(Rc::new(Self { host, folders }));
    }
}

impl HostBackend for GrantingHost {
    fn config(&self) -> String {
        self.host.config()
    }
    fn login(&self, name: &str) -> Result<Credential> {
        self.host.login(name)
    }
    fn connect(&self, endpoint: &str) -> Answer<Rc<dyn ConnectionBackend>> {
        self.host.connect(endpoint)
    }
    fn open_directory(&self, name: &str) -> Result<Rc<dyn DirectoryBackend>> {
        match self.folders.get(name) {
            Some(folder) => Ok(Rc::new(Folder { path: folder.clone(), volumes: BTreeMap::new() })),
            None => Err(Error::new(ErrorKind::Denied, format!("no directory {name}"))),
        }
    }
    fn run(&self, tool: &str, arguments: &[String]) -> Answer<Rc<dyn ProcessBackend>> {
        self.host.run(tool, arguments)
    }
    fn log(&self, level: Level, message: &str) {
        self.host.log(level, message);
    }
    fn progress(&self, phase: &str, done: u64, total: Option<u64>) {
        self.host.progress(phase, done, total);
    }
    fn now(&self) -> Timestamp {
        self.host.now()
    }
    fn sleep(&self, microseconds: u64) -> LocalBoxFuture<'static, ()> {
        self.host.sleep(microseconds)
    }
    fn random(&self, length: u32) -> Vec<u8> {
        self.host.random(length)
    }
    fn stop_requested(&self) -> LocalBoxFuture<'static, ()> {
        self.host.stop_requested()
    }
}

/// A granted folder.
pub struct Folder {
    pub path: PathBuf,
    /// Where each volume lies.
    pub volumes: BTreeMap<String, PathBuf>,
}

impl Folder {
    pub fn directory(self) -> backstay_sdk::Directory {
        (Rc::new(self) as Rc<dyn DirectoryBackend>).into()
    }

    fn node(root: &Path, path: &Path) -> Option<Node> {
        let meta = std::fs::symlink_metadata(path).ok()?;
        let kind = if meta.is_dir() {
            NodeKind::Directory
        } else if meta.is_symlink() {
            NodeKind::Symlink(std::fs::read_link(path).unwrap().to_str().unwrap().to_owned())
        } else {
            NodeKind::File(meta.len())
        };
        let path = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let attributes = FileAttributes { mode: meta.permissions().mode() & 0o777, modified: 0 };
        Some(Node { path, kind, attributes })
    }

    fn walk(root: &Path, at: &Path, into: &mut Vec<Node>) {
        let mut names: Vec<_> =
            std::fs::read_dir(at).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        names.sort();
        for path in names {
            // A server that runs removes files all the time.
            let Some(node) = Self::node(root, &path) else { continue };
            let is_folder = node.kind == NodeKind::Directory;
            into.push(node);
            if is_folder {
                Self::walk(root, &path, into);
            }
        }
    }
}

fn done(result: std::io::Result<()>) -> Answer<()> {
    let result = result.map_err(|error| Error::new(ErrorKind::Internal, error.to_string()));
    Box::pin(async move { result })
}

impl DirectoryBackend for Folder {
    fn entries(&self, path: &str) -> Items<Node> {
        let mut nodes = Vec::new();
        Self::walk(&self.path, &self.path.join(path), &mut nodes);
        stream::iter(nodes.into_iter().map(Ok)).boxed_local()
    }

    fn stat(&self, path: &str) -> Answer<Option<Node>> {
        let node = Self::node(&self.path, &self.path.join(path));
        Box::pin(async move { Ok(node) })
    }

    fn read(&self, path: &str, offset: u64, length: Option<u64>) -> Items<Vec<u8>> {
        let bytes = std::fs::read(self.path.join(path)).unwrap();
        let end = length.map_or(bytes.len(), |length| bytes.len().min((offset + length) as usize));
        stream::iter([Ok(bytes[offset as usize..end].to_vec())]).boxed_local()
    }

    fn write(&self, path: &str, attributes: FileAttributes, mut body: Incoming) -> Answer<u64> {
        let path = self.path.join(path);
        Box::pin(async move {
            let mut bytes = Vec::new();
            while let Some(part) = body.next().await {
                bytes.extend(part);
            }
            std::fs::write(&path, &bytes).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(attributes.mode)).unwrap();
            Ok(bytes.len() as u64)
        })
    }

    fn create(&self, path: &str, _: FileAttributes) -> Answer<()> {
        done(std::fs::create_dir(self.path.join(path)))
    }

    fn link(&self, path: &str, volume: &str) -> Answer<()> {
        done(std::os::unix::fs::symlink(&self.volumes[volume], self.path.join(path)))
    }

    fn remove(&self, path: &str) -> Answer<()> {
        let path = self.path.join(path);
        done(match std::fs::symlink_metadata(&path) {
            Err(_) => Ok(()),
            Ok(meta) if meta.is_dir() => std::fs::remove_dir(path),
            Ok(_) => std::fs::remove_file(path),
        })
    }

    fn rename(&self, from: &str, to: &str) -> Answer<()> {
        done(std::fs::rename(self.path.join(from), self.path.join(to)))
    }

    fn location(&self) -> PathBuf {
        self.path.clone()
    }
}
