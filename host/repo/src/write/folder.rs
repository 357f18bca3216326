//! The folders of a backup in the making.

use crate::stamp::FileStamp;
use crate::tree::{NodeKind, Tree, TreeNode};
use crate::{Id, RepoError, RepoErrorKind, Result};
use backstay_core::{RelativePath, Timestamp};
use std::collections::BTreeMap;

/// Permissions and time of a file, folder or link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileAttributes {
    /// Permission bits, with set-uid, set-gid and sticky (`0o7777`).
    pub mode: u32,
    /// When its content last changed.
    pub modified: Timestamp,
}

/// One folder: its entries by name, which a map of strings keeps in the order trees want.
pub(crate) struct Folder {
    /// Nothing for a folder that is only implied by what lies in it.
    attributes: Option<FileAttributes>,
    entries: BTreeMap<String, Entry>,
}

pub(crate) enum Entry {
    File { attributes: FileAttributes, bytes: u64, content: Vec<Id>, stamp: Option<FileStamp> },
    Symlink { attributes: FileAttributes, target: String },
    Folder(Folder),
}

impl Folder {
    /// A folder that nobody described.
    pub(crate) fn implied() -> Self {
        Self { attributes: None, entries: BTreeMap::new() }
    }

    /// Whether something was put at `path`; an implied folder was not.
    pub(crate) fn check_free(&self, path: &RelativePath) -> Result<()> {
        let mut folder = self;
        let mut parts = path.parts();
        loop {
            let Some(name) = parts.next() else { return Ok(()) };
            match folder.entries.get(name) {
                None => return Ok(()),
                Some(Entry::Folder(below)) => folder = below,
                Some(_) => return Err(conflict(path)),
            }
        }
    }

    /// Puts a file or link.
    pub(crate) fn put(&mut self, path: &RelativePath, entry: Entry) -> Result<()> {
        let mut folder = self;
        if let Some(parent) = path.parent() {
            for name in parent.parts() {
                folder = folder.below(name).ok_or_else(|| conflict(path))?;
            }
        }
        if folder.entries.contains_key(path.name()) {
            return Err(conflict(path));
        }
        folder.entries.insert(path.name().to_owned(), entry);
        Ok(())
    }

    /// Puts a folder, or describes one that was implied.
    pub(crate) fn put_folder(&mut self, path: &RelativePath, attributes: FileAttributes) -> Result<()> {
        let mut folder = self;
        for name in path.parts() {
            folder = folder.below(name).ok_or_else(|| conflict(path))?;
        }
        if folder.attributes.is_some() {
            return Err(conflict(path));
        }
        folder.attributes = Some(attributes);
        Ok(())
    }

    fn below(&mut self, name: &str) -> Option<&mut Folder> {
        let entry = self.entries.entry(name.to_owned()).or_insert_with(|| Entry::Folder(Folder::implied()));
        match entry {
            Entry::Folder(folder) => Some(folder),
            _ => None,
        }
    }

    /// Stores the folder's tree and all below; each is given to `store` when its subtrees are.
    pub(crate) fn store(self, store: &mut impl FnMut(&[u8]) -> Result<Id>) -> Result<Id> {
        self.store_described(store).map(|(id, _)| id)
    }

    /// A folder that nobody described is for the owner alone and as old as the newest thing in
    /// it: the same content makes the same tree.
    fn store_described(self, store: &mut impl FnMut(&[u8]) -> Result<Id>) -> Result<(Id, FileAttributes)> {
        let mut tree = Tree::default();
        let mut newest = Timestamp::EPOCH;
        for (name, entry) in self.entries {
            let mut stamped = None;
            let (attributes, kind) = match entry {
                Entry::File { attributes, bytes, content, stamp } => {
                    stamped = stamp;
                    (attributes, NodeKind::File { bytes, content })
                }
                Entry::Symlink { attributes, target } => (attributes, NodeKind::Symlink { target }),
                Entry::Folder(folder) => {
                    let (subtree, attributes) = folder.store_described(store)?;
                    (attributes, NodeKind::Directory { subtree })
                }
            };
            newest = newest.max(attributes.modified);
            tree.nodes.push(TreeNode::new(&name, attributes.mode, attributes.modified, kind).stamped(stamped));
        }
        let id = store(&tree.to_bytes()?)?;
        Ok((id, self.attributes.unwrap_or(FileAttributes { mode: 0o700, modified: newest })))
    }
}

fn conflict(path: &RelativePath) -> RepoError {
    RepoError::new(RepoErrorKind::Conflict, format!("failed to store {path}: something else was stored there"))
}
