//! How much there is of a log.

use super::{LogChain, LogResult, name};
use serde::Serialize;

/// How much there is of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LogUsage {
    /// Pieces in the chain.
    pub pieces: u64,
    /// Plaintext bytes of log, each counted once.
    pub bytes: u64,
    /// Objects on the store, with those that a longer one replaces and the small ones beside the pieces.
    pub objects: u64,
    /// Bytes on the store.
    pub stored_bytes: u64,
}

impl LogChain {
    /// How much there is, of the chain as it was loaded last and of objects as they are now.
    ///
    /// # Errors
    /// Whatever the store reports.
    pub async fn usage(&self) -> LogResult<LogUsage> {
        let mut usage = LogUsage::default();
        for info in self.store.list(&name::folder(self.target())).await? {
            usage.objects += 1;
            usage.stored_bytes += info.bytes;
        }
        for epoch in self.chain.epochs() {
            let mut at = 0;
            for piece in self.chain.pieces(epoch) {
                usage.pieces += 1;
                usage.bytes += piece.end.offset.saturating_sub(at.max(piece.start.offset));
                at = piece.end.offset;
            }
        }
        Ok(usage)
    }
}
