//! What a plugin may put into a backup, and how much of it.

use crate::limits;
use backstay_core::RelativePath;
use backstay_sandbox::{EngineError, EngineErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};

/// The folder of the manifest, which is the host's word.
const RESERVED: &str = ".backstay";

/// The door of a backup: everything a plugin puts passes it once.
pub(crate) struct Admission {
    admitted: AtomicU64,
    nodes_max: u64,
}

impl Default for Admission {
    fn default() -> Self {
        Self { admitted: AtomicU64::new(0), nodes_max: limits::NODES_MAX }
    }
}

impl Admission {
    /// Lets one file, folder or link in.
    pub(crate) fn admit(&self, path: &RelativePath) -> Result<(), EngineError> {
        if path.parts().next() == Some(RESERVED) {
            let message = format!("the folder {RESERVED} is the host's");
            return Err(EngineError::new(EngineErrorKind::Internal, message));
        }
        if self.admitted.fetch_add(1, Ordering::Relaxed) >= self.nodes_max {
            let message = format!("a backup has at most {} files, folders and links", self.nodes_max);
            return Err(EngineError::new(EngineErrorKind::Unsupported, message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn path(text: &str) -> RelativePath {
        RelativePath::new(text).unwrap()
    }

    #[test]
    fn the_hosts_own_folder_is_closed() {
        let door = Admission::default();
        for bad in [".backstay", ".backstay/manifest.json"] {
            assert_eq!(door.admit(&path(bad)).unwrap_err().kind, EngineErrorKind::Internal);
        }
        for good in ["data/.backstay", ".backstays", "data"] {
            door.admit(&path(good)).unwrap();
        }
    }

    #[test]
    fn a_plugin_that_never_ends_putting_is_stopped() {
        let door = Admission { nodes_max: 3, ..Admission::default() };
        // Also of those that the repository refuses: each has cost something.
        (0..3).for_each(|_| door.admit(&path("same")).unwrap());
        let error = door.admit(&path("one")).unwrap_err();
        assert_eq!(error.message, "a backup has at most 3 files, folders and links");
        door.admit(&path("another")).unwrap_err();
    }
}
