//! Where a node of a backup lies. Its names are bytes: what another program stored need not be text.

use crate::quote::quote;
use backstay_core::RelativePath;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::{fmt, path::Path};

/// Longest path, in bytes: Linux's `PATH_MAX`.
const PATH_BYTES_MAX: usize = 4096;
/// Longest name, in bytes: `NAME_MAX` of every common file system.
const NAME_BYTES_MAX: usize = 255;

/// A `/`-separated path from the top of a backup, no part of it empty, `.`, `..` or with a NUL. As
/// [`RelativePath`], but for its bytes: they are those of a file system, which need not be UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodePath(Vec<u8>);

impl NodePath {
    /// The node `name` in the folder `parent`, or at the top; nothing when no file may be called or lie so.
    pub(crate) fn new(parent: Option<&NodePath>, name: &[u8]) -> Option<Self> {
        let allowed = !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, 0 | b'/'));
        if !allowed || name.len() > NAME_BYTES_MAX {
            return None;
        }
        let path = match parent {
            Some(parent) => [&parent.0, &b"/"[..], name].concat(),
            None => name.to_vec(),
        };
        (path.len() <= PATH_BYTES_MAX).then_some(Self(path))
    }

    /// The path as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as the file system takes it.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The parts, outermost first; at least one.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/')
    }

    /// The same as text; nothing where it is none.
    pub fn to_relative(&self) -> Option<RelativePath> {
        RelativePath::new(std::str::from_utf8(&self.0).ok()?).ok()
    }

    /// What an entry of a folder on this machine has for a path there.
    pub(crate) fn of_entry(folder: Option<&NodePath>, name: &OsStr) -> Self {
        Self(match folder {
            Some(folder) => [&folder.0, &b"/"[..], name.as_bytes()].concat(),
            None => name.as_bytes().to_vec(),
        })
    }

    /// The path from `folder` on, which it lies below.
    pub(crate) fn from_folder(&self, folder: &RelativePath) -> Self {
        Self(self.0.get(folder.as_str().len() + 1..).unwrap_or_default().to_vec())
    }

    /// Whether it is `folder` or lies below it.
    pub(crate) fn is_within(&self, folder: &RelativePath) -> bool {
        let rest = self.0.strip_prefix(folder.as_str().as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }

    /// Whether it is a folder that `path` lies below.
    pub(crate) fn holds(&self, path: &RelativePath) -> bool {
        path.as_str().as_bytes().strip_prefix(self.0.as_slice()).is_some_and(|rest| rest.starts_with(b"/"))
    }

    /// The last part.
    pub fn name(&self) -> &[u8] {
        self.parts().next_back().unwrap_or(&self.0)
    }
}

/// Escaped, so that any path is one line.
impl fmt::Display for NodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote(&self.0))
    }
}

impl fmt::Debug for NodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl From<&RelativePath> for NodePath {
    fn from(path: &RelativePath) -> Self {
        Self(path.as_str().as_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_that_leave_their_folder_are_refused() {
        let parent = NodePath::new(None, b"a\xff").unwrap();
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", &[b'x'; 256]] {
            assert!(NodePath::new(None, bad).is_none() && NodePath::new(Some(&parent), bad).is_none(), "{bad:?}");
        }
        let mut deep = parent;
        while let Some(deeper) = NodePath::new(Some(&deep), &[b'x'; 255]) {
            deep = deeper;
        }
        assert!(deep.as_bytes().len() > PATH_BYTES_MAX - 256);
    }

    #[test]
    fn a_path_is_bytes_and_shown_as_one_line() {
        let path = NodePath::new(Some(&NodePath::new(None, b"a\xff\n").unwrap()), b" ").unwrap();
        assert_eq!((path.as_bytes(), path.name()), (&b"a\xff\n/ "[..], &b" "[..]));
        assert_eq!(path.to_string(), "a\\xff\\n/ ");
        assert!(path.to_relative().is_none());
        let text = RelativePath::new("é/\n").unwrap();
        assert_eq!(NodePath::from(&text).to_relative(), Some(text));
    }

    #[test]
    fn a_path_knows_what_it_lies_in() {
        let path = |text: &str| RelativePath::new(text).unwrap();
        let node = NodePath::from(&path("a/b/c"));
        assert!(["a", "a/b", "a/b/c"].iter().all(|folder| node.is_within(&path(folder))));
        assert!(
            ["b", "a/bb", "a/b/", "a/b/c/d"]
                .iter()
                .all(|folder| { RelativePath::new(*folder).is_err() || !node.is_within(&path(folder)) })
        );
        assert!(node.holds(&path("a/b/c/d")) && !node.holds(&path("a/b/c")) && !node.holds(&path("a/b/cd")));
        assert_eq!(node.from_folder(&path("a")).as_bytes(), b"b/c");
    }
}
