//! One byte connection to one granted endpoint.

use crate::{ByteStream, Result, TlsVerification, platform};

/// One byte connection to one granted endpoint. The host resolves, dials and does TLS.
pub struct Connection(pub(crate) platform::Connection);

impl Connection {
    /// At least one byte, at most `max`; empty at the end.
    pub async fn read(&self, max: u32) -> Result<Vec<u8>> {
        self.0.read(max).await
    }

    /// Done when the operating system has taken all bytes.
    pub async fn write(&self, bytes: Vec<u8>) -> Result<()> {
        self.0.write(bytes).await
    }

    /// Upgrades in place. Answers the certificate hash for channel binding, where it has one.
    pub async fn start_tls(&self, verification: TlsVerification) -> Result<Option<Vec<u8>>> {
        self.0.start_tls(verification).await
    }

    /// All further incoming bytes; `read` is refused afterwards, `write` goes on working.
    pub fn receive(&self) -> ByteStream {
        ByteStream(self.0.receive())
    }
}
