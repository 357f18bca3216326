//! Somebody who sees a file's bytes before they are stored.

use crate::Result;

/// Looks at the bytes of a file of this machine on their way into a backup. Called from the threads that read,
/// for many files and parts at once.
pub trait Witness: Send + Sync {
    /// Sees the bytes from `offset` on; answers whether they look right.
    ///
    /// Bytes that do not are read again after a pause, for the database may have been writing to them.
    /// `last` says that these are stored whatever the answer.
    ///
    /// # Errors
    /// Any error ends the file.
    fn look(&self, offset: u64, bytes: &[u8], last: bool) -> Result<bool>;
}
