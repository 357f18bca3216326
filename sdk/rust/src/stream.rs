//! Bytes that arrive over time.

use crate::{Result, platform};

/// How much a stream moves at a time: measured best between 64 and 256 KiB.
pub const CHUNK_BYTES: usize = 256 << 10;

/// Bytes from the host, with a companion that says whether the end is a real end.
pub struct ByteStream(pub(crate) platform::ByteStream);

impl ByteStream {
    /// The next bytes, at least one and at most [`CHUNK_BYTES`]; nothing at a sound end.
    ///
    /// An end that the host did not confirm is the host's error.
    pub async fn next(&mut self) -> Result<Option<&[u8]>> {
        self.0.next().await
    }

    /// All of it; refused when it is longer than `max` bytes. `what` names it in the error.
    pub async fn read_all(mut self, what: &str, max: usize) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            if all.len() + bytes.len() > max {
                let message = format!("{what} is longer than {max} bytes");
                return Err(crate::Error::new(crate::ErrorKind::Corrupt, message));
            }
            all.extend_from_slice(bytes);
        }
        Ok(all)
    }
}
