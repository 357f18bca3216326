//! What travels inside the copied data of `START_REPLICATION`.

use crate::protocol::{Cursor, frontend};
use crate::{Error, Result};

/// 2000-01-01, PostgreSQL's beginning of time, in microseconds since 1970.
const SERVER_EPOCH_US: u64 = 946_684_800_000_000;

/// Microseconds since 1970 from the server's own count; times before 1970 become 0.
#[must_use]
pub fn from_server_time(time: i64) -> u64 {
    SERVER_EPOCH_US.saturating_add_signed(time)
}

/// The server's count from microseconds since 1970.
#[must_use]
pub fn to_server_time(time: u64) -> i64 {
    i64::try_from(i128::from(time) - i128::from(SERVER_EPOCH_US)).unwrap_or(i64::MAX)
}

/// One message from a server that streams its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamMessage<'a> {
    /// Log.
    XLogData {
        /// Where the data starts.
        start: u64,
        /// The end of the log on the server.
        server_end: u64,
        /// The server's clock when it sent this, in microseconds since 1970.
        sent_at: u64,
        /// The log's bytes.
        data: &'a [u8],
    },
    /// A sign of life.
    Keepalive {
        /// The end of the log on the server.
        server_end: u64,
        /// The server's clock when it sent this, in microseconds since 1970.
        sent_at: u64,
        /// The server wants a [`StandbyStatus`] at once, or it hangs up after `wal_sender_timeout`.
        reply_requested: bool,
    },
}

impl<'a> StreamMessage<'a> {
    /// Reads one piece of copied data.
    pub fn parse(copied: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor::new("replication", copied);
        match cursor.u8()? {
            b'w' => {
                let start = cursor.u64()?;
                let server_end = cursor.u64()?;
                let sent_at = from_server_time(cursor.u64()?.cast_signed());
                let data = cursor.rest();
                if start.checked_add(data.len() as u64).is_none() {
                    return Err(Error::malformed("the server sent log beyond the end of all log"));
                }
                Ok(Self::XLogData { start, server_end, sent_at, data })
            }
            b'k' => {
                let server_end = cursor.u64()?;
                let sent_at = from_server_time(cursor.u64()?.cast_signed());
                let reply_requested = cursor.u8()? != 0;
                cursor.end()?;
                Ok(Self::Keepalive { server_end, sent_at, reply_requested })
            }
            other => Err(Error::malformed(format_args!(
                "the server sent the unknown replication message {:?}",
                char::from(other)
            ))),
        }
    }
}

/// How far we are. What is `flushed` may vanish on the server, and synchronous commits that
/// wait for it return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandbyStatus {
    /// The end of what came.
    pub written: u64,
    /// The end of what is durable.
    pub flushed: u64,
    /// The end of what is visible to queries; an archiver has none and repeats `flushed`.
    pub applied: u64,
    /// Our clock, in microseconds since 1970.
    pub now: u64,
    /// Whether the server shall answer with a keepalive at once.
    pub reply_requested: bool,
}

impl StandbyStatus {
    /// The whole message, framed.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut data = [0; 34];
        data[0] = b'r';
        data[1..9].copy_from_slice(&self.written.to_be_bytes());
        data[9..17].copy_from_slice(&self.flushed.to_be_bytes());
        data[17..25].copy_from_slice(&self.applied.to_be_bytes());
        data[25..33].copy_from_slice(&to_server_time(self.now).to_be_bytes());
        data[33] = u8::from(self.reply_requested);
        frontend::copy_data(&data)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn log_data_knows_its_place() {
        let mut copied = vec![b'w'];
        copied.extend_from_slice(&0x300_0000u64.to_be_bytes());
        copied.extend_from_slice(&0x300_0100u64.to_be_bytes());
        copied.extend_from_slice(&1i64.to_be_bytes());
        copied.extend_from_slice(b"log");
        assert_eq!(
            StreamMessage::parse(&copied).unwrap(),
            StreamMessage::XLogData {
                start: 0x300_0000,
                server_end: 0x300_0100,
                sent_at: 946_684_800_000_001,
                data: b"log",
            }
        );
    }

    #[test]
    fn a_keepalive_may_ask_for_an_answer() {
        let mut copied = vec![b'k'];
        copied.extend_from_slice(&7u64.to_be_bytes());
        copied.extend_from_slice(&0i64.to_be_bytes());
        copied.push(1);
        assert!(matches!(
            StreamMessage::parse(&copied).unwrap(),
            StreamMessage::Keepalive { server_end: 7, reply_requested: true, .. }
        ));
        copied.pop();
        assert!(StreamMessage::parse(&copied).is_err());
    }

    #[test]
    fn log_past_the_end_of_all_log_is_malformed() {
        let mut copied = vec![b'w'];
        copied.extend_from_slice(&u64::MAX.to_be_bytes());
        copied.extend_from_slice(&[0; 16]);
        copied.extend_from_slice(b"xx");
        assert!(StreamMessage::parse(&copied).is_err());
    }

    #[test]
    fn a_status_has_the_shape_of_the_protocol() {
        let status =
            StandbyStatus { written: 3, flushed: 2, applied: 2, now: SERVER_EPOCH_US + 5, reply_requested: true };
        let bytes = status.encode().unwrap();
        assert_eq!(bytes.len(), 39);
        assert_eq!(bytes[..6], *b"d\0\0\0\x26r");
        assert_eq!(bytes[30..38], 5i64.to_be_bytes());
        assert_eq!(bytes[38], 1);
    }

    proptest! {
        #[test]
        fn any_copied_data_is_a_message_or_an_error(copied in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = StreamMessage::parse(&copied);
        }

        #[test]
        fn times_go_there_and_back(time in 0..(i64::MAX as u64)) {
            prop_assert_eq!(from_server_time(to_server_time(time)), time);
        }
    }
}
