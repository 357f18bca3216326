//! Trees: one blob of JSON for each folder.
//!
//! ```text
//!   {"nodes":[{"name":…,"type":"file|dir|symlink",…},…]} and a line end
//! ```
//!
//! Names are unique, strictly increasing bytewise, and escaped as [`crate::quote`] says. `mode`
//! has Go's `FileMode` bits. The sizes of a file's blobs add up to its `size`: stock restic does
//! not compare them, so writer and check here do.

use crate::node_path::NodePath;
use crate::quote::{quote, unquote};
use crate::stamp::FileStamp;
use crate::{Id, RepoError, RepoErrorKind, Result, document};
use backstay_core::Timestamp;
use serde::{Deserialize, Serialize};

/// Go's `os.ModeDir`.
const GO_DIR: u32 = 1 << 31;
/// Go's `os.ModeSymlink`.
const GO_SYMLINK: u32 = 1 << 27;
/// Go's set-uid, set-gid and sticky bits, and the Unix bits they stand for.
const GO_SPECIAL: [(u32, u32); 3] = [(1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000)];

/// A folder's nodes as stored.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<TreeNode>,
}

/// One node as stored. Fields we do not write are read past.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TreeNode {
    /// Escaped.
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    mode: u32,
    #[serde(default = "never")]
    mtime: String,
    #[serde(default = "never")]
    atime: String,
    #[serde(default = "never")]
    ctime: String,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    inode: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    links: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    linktarget: String,
    /// Present, if only as `[]`, in every file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<Vec<Id>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subtree: Option<Id>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the shape serde asks for
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Go's zero time.
fn never() -> String {
    "0001-01-01T00:00:00Z".to_owned()
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A file of this many bytes.
    File {
        /// Bytes.
        bytes: u64,
        /// Its blobs in order.
        content: Vec<Id>,
    },
    /// A folder.
    Directory {
        /// The tree that holds its nodes.
        subtree: Id,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, as written.
        target: String,
    },
    /// A device, pipe or socket that another program stored.
    Other {
        /// restic's word for it.
        kind: String,
    },
}

/// A node of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it is, from the top of the snapshot.
    pub path: NodePath,
    /// Permission bits, with set-uid, set-gid and sticky (`0o7777`).
    pub mode: u32,
    /// When its content last changed.
    pub modified: Timestamp,
    /// What it is.
    pub kind: NodeKind,
    /// Of a file that was read from a machine: what tells that it has not changed since.
    pub stamp: Option<FileStamp>,
}

impl Tree {
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = document::to_json(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a tree and checks the order of its names.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let tree: Self = document::from_json(bytes)?;
        let names: Option<Vec<Vec<u8>>> = tree.nodes.iter().map(|node| unquote(&node.name)).collect();
        let names = names.ok_or_else(|| RepoError::new(RepoErrorKind::Damaged, "a name in it is not escaped right"))?;
        if names.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(RepoError::new(RepoErrorKind::Damaged, "its names are not in order"));
        }
        Ok(tree)
    }
}

impl TreeNode {
    pub(crate) fn new(name: &str, mode: u32, modified: Timestamp, kind: NodeKind) -> Self {
        let mut node = Self {
            name: quote(name.as_bytes()),
            kind: String::new(),
            mode: go_mode(mode),
            mtime: modified.to_string(),
            atime: modified.to_string(),
            ctime: modified.to_string(),
            uid: 0,
            gid: 0,
            inode: 0,
            size: 0,
            links: 0,
            linktarget: String::new(),
            content: None,
            subtree: None,
        };
        match kind {
            NodeKind::File { bytes, content } => {
                "file".clone_into(&mut node.kind);
                node.size = bytes;
                node.links = 1;
                node.content = Some(content);
            }
            NodeKind::Directory { subtree } => {
                "dir".clone_into(&mut node.kind);
                node.mode |= GO_DIR;
                node.subtree = Some(subtree);
            }
            NodeKind::Symlink { target } => {
                "symlink".clone_into(&mut node.kind);
                node.mode |= GO_SYMLINK;
                node.links = 1;
                node.linktarget = target;
            }
            NodeKind::Other { kind } => node.kind = kind,
        }
        node
    }

    /// With what tells whether the file it was read from has changed.
    pub(crate) fn stamped(mut self, stamp: Option<FileStamp>) -> Self {
        if let Some(FileStamp { inode, modified, changed }) = stamp {
            self.inode = inode;
            self.mtime = modified.to_string();
            self.ctime = changed.to_string();
        }
        self
    }

    fn stamp(&self) -> Option<FileStamp> {
        Some(FileStamp {
            inode: Some(self.inode).filter(|inode| *inode != 0)?,
            modified: self.mtime.parse().ok()?,
            changed: self.ctime.parse().ok()?,
        })
    }

    /// The node as a reader wants it; refuses names that could leave the folder.
    pub(crate) fn read(self, parent: Option<&NodePath>) -> Result<Node> {
        let damaged = |why: String| RepoError::new(RepoErrorKind::Damaged, why);
        let path = unquote(&self.name).and_then(|name| NodePath::new(parent, &name));
        let path = path.ok_or_else(|| damaged(format!("the name `{}` may not be used", self.name.escape_debug())))?;
        let stamp = self.stamp();
        let kind = match self.kind.as_str() {
            "file" => NodeKind::File { bytes: self.size, content: self.content.unwrap_or_default() },
            "dir" => NodeKind::Directory {
                subtree: self.subtree.ok_or_else(|| damaged(format!("folder {path} has no tree")))?,
            },
            "symlink" => NodeKind::Symlink { target: self.linktarget },
            _ => NodeKind::Other { kind: self.kind },
        };
        // Times before 1970 mean that nobody knew.
        let modified = self.mtime.parse().unwrap_or(Timestamp::EPOCH);
        Ok(Node { path, mode: unix_mode(self.mode), modified, kind, stamp })
    }
}

fn go_mode(unix: u32) -> u32 {
    GO_SPECIAL.iter().filter(|(_, bit)| unix & bit != 0).fold(unix & 0o777, |mode, (go, _)| mode | go)
}

fn unix_mode(go: u32) -> u32 {
    GO_SPECIAL.iter().filter(|(bit, _)| go & bit != 0).fold(go & 0o777, |mode, (_, unix)| mode | unix)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_node_survives_its_json() {
        let time = "2026-11-22T03:04:05.678901Z".parse().unwrap();
        let file = NodeKind::File { bytes: 0, content: vec![] };
        let node = TreeNode::new("a \"b\"", 0o4640, time, file.clone());
        let bytes = Tree { nodes: vec![node] }.to_bytes().unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains(r#""content":[]"#) && text.ends_with("}]}\n"), "{text}");
        let node = Tree::from_bytes(&bytes).unwrap().nodes.remove(0).read(None).unwrap();
        let path = node.path.as_bytes();
        assert_eq!((path, node.mode, node.modified, node.kind), (&b"a \"b\""[..], 0o4640, time, file));
    }

    #[test]
    fn trees_that_could_leave_their_folder_are_refused() {
        for name in ["..", ".", "", "a/b", "a\\x00"] {
            let json = format!(r#"{{"nodes":[{{"name":{},"type":"file"}}]}}"#, serde_json::to_string(name).unwrap());
            let node = Tree::from_bytes(json.as_bytes()).unwrap().nodes.remove(0);
            assert_eq!(node.read(None).unwrap_err().kind(), RepoErrorKind::Damaged, "{name}");
        }
        let unsorted = br#"{"nodes":[{"name":"b","type":"file"},{"name":"a","type":"file"}]}"#;
        assert!(Tree::from_bytes(unsorted).is_err());
    }
}
