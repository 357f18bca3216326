//! A file system after a power cut, as POSIX lets it be.
//!
//! - A file's content is durable as it was when the file was synced last; later writes may be lost, in part or whole.
//! - A name that appeared or went is durable once its folder was synced. Until then each name has its own luck.
//!
//! That is stricter than ext4 or XFS are today, and what a program may rely on anywhere.

use crate::world::{Object, Objects};
use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

#[derive(Clone, Default)]
struct File {
    data: Vec<u8>,
    durable: Vec<u8>,
    synced: bool,
}

/// A change of a name that is not durable.
#[derive(Clone)]
struct Change {
    path: String,
    before: Option<Node>,
    when: usize,
}

/// Files and folders, as they are and as they are certain to stay.
#[derive(Clone, Default)]
pub struct Disk {
    files: Vec<File>,
    names: BTreeMap<String, Node>,
    pending: Vec<Change>,
    /// Number of the last change.
    clock: usize,
}

/// What a power cut does to what is not durable.
pub struct Luck<'a> {
    /// Whether a name's change stays.
    pub name: &'a mut dyn FnMut() -> bool,
    /// How many of so many bytes that were not synced stay.
    pub bytes: &'a mut dyn FnMut(usize) -> usize,
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl Disk {
    fn set(&mut self, path: &str, node: Option<Node>) {
        let before = match node {
            Some(node) => self.names.insert(path.into(), node),
            None => self.names.remove(path),
        };
        self.clock += 1;
        self.pending.push(Change { path: path.into(), before, when: self.clock });
    }

    /// The number of the last change.
    pub fn clock(&self) -> usize {
        self.clock
    }

    /// A file, made if it is not there; answers its number.
    pub fn open(&mut self, path: &str, truncate: bool) -> usize {
        let file = match self.names.get(path) {
            Some(Node::File(file)) => *file,
            _ => {
                self.files.push(File::default());
                self.set(path, Some(Node::File(self.files.len() - 1)));
                self.files.len() - 1
            }
        };
        if truncate {
            self.files[file].data.clear();
            self.files[file].synced = false;
        }
        file
    }

    /// Whether there is such a folder.
    pub fn is_folder(&self, path: &str) -> bool {
        self.names.get(path) == Some(&Node::Folder)
    }

    /// The file of that name.
    pub fn file(&self, path: &str) -> Option<usize> {
        match self.names.get(path) {
            Some(Node::File(file)) => Some(*file),
            _ => None,
        }
    }

    /// A folder that nothing takes away.
    pub fn durable_folder(&mut self, path: &str) {
        self.names.insert(path.into(), Node::Folder);
    }

    /// Makes a folder.
    pub fn make_folder(&mut self, path: &str) {
        self.set(path, Some(Node::Folder));
    }

    /// Writes into a file.
    pub fn write(&mut self, file: usize, offset: usize, bytes: &[u8]) {
        let file = &mut self.files[file];
        let end = offset + bytes.len();
        if file.data.len() < end {
            file.data.resize(end, 0);
        }
        file.data[offset..end].copy_from_slice(bytes);
        file.synced = false;
    }

    /// Cuts a file, or makes it longer.
    pub fn resize(&mut self, file: usize, bytes: usize) {
        self.files[file].data.resize(bytes, 0);
        self.files[file].synced = false;
    }

    /// A second name.
    pub fn link(&mut self, from: &str, to: &str) {
        self.set(to, self.names.get(from).copied());
    }

    /// Another name, in place of whatever has it.
    pub fn rename(&mut self, from: &str, to: &str) {
        self.link(from, to);
        self.set(from, None);
    }

    /// Removes a name.
    pub fn remove(&mut self, path: &str) {
        self.set(path, None);
    }

    /// Syncs a file.
    pub fn sync_file(&mut self, file: usize) {
        let file = &mut self.files[file];
        (file.durable, file.synced) = (file.data.clone(), true);
    }

    /// Syncs a folder: what changed in it up to `when` is durable.
    pub fn sync_folder(&mut self, path: &str, when: usize) {
        self.pending.retain(|change| parent(&change.path) != path || change.when > when);
    }

    /// The objects below `root` that a power cut leaves now.
    pub fn after_power_cut(&self, root: &str, luck: &mut Luck<'_>) -> Objects {
        let mut names = self.names.clone();
        let mut lost = BTreeSet::new();
        for change in &self.pending {
            if !lost.contains(&change.path) && !(luck.name)() {
                lost.insert(change.path.clone());
                match change.before {
                    Some(node) => drop(names.insert(change.path.clone(), node)),
                    None => drop(names.remove(&change.path)),
                }
            }
        }
        let reachable = |path: &str| {
            let mut above = parent(path);
            loop {
                if names.get(above) != Some(&Node::Folder) {
                    return false;
                }
                if above == root {
                    return true;
                }
                above = parent(above);
            }
        };
        let mut objects = Objects::new();
        for (path, node) in &names {
            let Some(key) = path.strip_prefix(root).and_then(|rest| rest.strip_prefix('/')) else { continue };
            // What is being written: the store lists none of these.
            let (Node::File(file), false) = (node, key.contains('#')) else { continue };
            if !reachable(path) {
                continue;
            }
            let file = &self.files[*file];
            let bytes = if file.synced {
                file.data.clone()
            } else {
                let kept = (luck.bytes)(file.data.len());
                if kept == 0 { file.durable.clone() } else { file.data[..kept].to_vec() }
            };
            objects.insert(key.into(), Object { bytes: bytes.into(), modified: SystemTime::UNIX_EPOCH });
        }
        objects
    }
}
