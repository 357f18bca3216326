//! Paths inside a backup or a granted folder.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest path, in bytes: Linux's `PATH_MAX`.
const PATH_BYTES_MAX: usize = 4096;
/// Longest part, in bytes: `NAME_MAX` of every common file system.
const NAME_BYTES_MAX: usize = 255;

/// A relative, `/`-separated path with no empty, `.` or `..` part and no NUL.
///
/// Plugins and stored trees hand in paths; this is the one place that decides
/// whether such a path may be used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelativePath(String);

/// A path that could leave its folder, or that no file system would take.
#[derive(Debug, thiserror::Error)]
#[error("path `{}` is not allowed: {reason}", path.escape_default())]
pub struct InvalidPath {
    path: String,
    reason: &'static str,
}

impl RelativePath {
    /// Checks and keeps `path`.
    pub fn new(path: impl Into<String>) -> Result<Self, InvalidPath> {
        let path = path.into();
        let refuse = |reason| Err(InvalidPath { path: path.chars().take(200).collect(), reason });
        if path.is_empty() {
            return refuse("it is empty");
        }
        if path.len() > PATH_BYTES_MAX {
            return refuse("it is longer than 4096 bytes");
        }
        if path.contains('\0') {
            return refuse("it holds a NUL");
        }
        for part in path.split('/') {
            match part {
                "" => return refuse("it has an empty part"),
                "." | ".." => return refuse("it has a `.` or `..` part"),
                _ if part.len() > NAME_BYTES_MAX => return refuse("a part is longer than 255 bytes"),
                _ => {}
            }
        }
        Ok(Self(path))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parts, outermost first; at least one.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The last part.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// All but the last part; nothing at the top.
    pub fn parent(&self) -> Option<RelativePath> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }

    /// `self/below`.
    pub fn join(&self, below: &RelativePath) -> Result<RelativePath, InvalidPath> {
        Self::new(format!("{}/{}", self.0, below.0))
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RelativePath {
    type Error = InvalidPath;

    fn try_from(path: String) -> Result<Self, InvalidPath> {
        Self::new(path)
    }
}

impl From<RelativePath> for String {
    fn from(path: RelativePath) -> String {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_their_folder_are_refused() {
        for bad in ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\0b"] {
            assert!(RelativePath::new(bad).is_err(), "{bad:?} was taken");
        }
        assert!(RelativePath::new("x".repeat(256)).is_err());
    }

    #[test]
    fn a_path_knows_its_parts() {
        let path = RelativePath::new("base/1/2601").unwrap();
        assert_eq!(path.name(), "2601");
        assert_eq!(path.parent().unwrap().as_str(), "base/1");
        assert_eq!(path.parts().count(), 3);
    }
}
