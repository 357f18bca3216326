//! What plugins say of themselves, kept beside their compiled forms: a plugin is asked once who it is, not before every job.

use crate::{header::read_component, plugin::name_of, report::Description};
use backstay_audited::precompiled;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Of what is kept: another version of this program may ask for more. The number is raised when the rules change within a
/// version.
const KEPT_AS: &str = concat!(env!("CARGO_PKG_VERSION"), "-1.description");

/// Where it is kept what a plugin said, as its file is now.
pub struct Described {
    path: PathBuf,
    cache: PathBuf,
    kept_at: PathBuf,
}

impl Described {
    /// Looks at the plugin's file; nothing when it cannot be read.
    pub fn look(path: &Path, cache: &Path) -> Option<Self> {
        let kept_at = precompiled::kept_beside(cache, &read_component(path).ok()?, KEPT_AS);
        Some(Self { path: path.to_owned(), cache: cache.to_owned(), kept_at })
    }

    /// What it said when it was asked; nothing when it never was, by this version of the program.
    pub fn known(&self) -> Option<Description> {
        let description: Description = serde_json::from_slice(&precompiled::read(&self.kept_at)?).ok()?;
        // The same bytes under another name are another engine's plugin.
        (description.name == name_of(&self.path)).then_some(description)
    }

    /// Keeps what it said. Not when its file has changed since it was looked at: nobody knows which one was asked.
    ///
    /// # Errors
    /// Whatever the file system reports; when others can write the folder.
    pub fn keep(&self, description: &Description) -> io::Result<()> {
        match Self::look(&self.path, &self.cache) {
            Some(now) if now.kept_at == self.kept_at => {
                precompiled::keep(&self.kept_at, &serde_json::to_vec(description)?)
            }
            _ => Ok(()),
        }
    }
}
