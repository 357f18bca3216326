//! What travels inside copied data, and what a server says when it refuses.
#![no_main]

use backstay_postgresql_wire::error_fields::ServerError;
use backstay_postgresql_wire::replication::{BackupMessage, StreamMessage};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = BackupMessage::parse(bytes);
    if let Ok(StreamMessage::XLogData { start, data, .. }) = StreamMessage::parse(bytes) {
        assert!(start.checked_add(data.len() as u64).is_some());
    }
    if let Ok(error) = ServerError::parse(bytes) {
        assert!(!error.one_line().contains(|c: char| c.is_control()));
    }
});
