//! What can be wrong with a configuration file.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

/// One thing that is wrong in a configuration file. Always one line; never holds a secret.
///
/// Retrying cannot help: somebody edits the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A place in the file that says something wrong. Editors understand `file:line:column:`.
    #[error("{}:{line}:{column}: {message}", file.display())]
    At {
        /// The file as it was named.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
        /// What is wrong and what would be right.
        message: String,
    },
    /// The file cannot be read at all.
    #[error("{}: {reason}", file.display())]
    Unreadable {
        /// The file as it was named.
        file: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// There is no file in any of the usual places.
    #[error("no configuration file: looked for {looked_for}")]
    Missing {
        /// The places, joined for people.
        looked_for: String,
    },
}

/// A file's text and name: turns byte ranges into places that people can find.
pub(crate) struct Source {
    /// The file as it was named.
    pub(crate) file: PathBuf,
    /// Its whole text.
    pub(crate) text: String,
}

impl Source {
    /// An error at the start of `span`.
    pub(crate) fn error(&self, span: Range<usize>, message: impl Into<String>) -> ConfigError {
        let (line, column) = self.place(span.start);
        ConfigError::At { file: self.file.clone(), line, column, message: message.into() }
    }

    /// Line and column (in characters) of a byte offset, both from 1.
    pub(crate) fn place(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The folder that relative paths in this file start from.
    pub(crate) fn folder(&self) -> &Path {
        match self.file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }
}
