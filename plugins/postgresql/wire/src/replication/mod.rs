//! The streaming replication protocol: commands, and what travels inside copied data.
//!
//! ```text
//!   Replication session:
//!     IDENTIFY_SYSTEM, SHOW, …_REPLICATION_SLOT, TIMELINE_HISTORY ──▶ rows
//!     START_REPLICATION ──▶ CopyBoth: StreamMessage in, StandbyStatus out
//!     UPLOAD_MANIFEST   ──▶ CopyIn: an earlier backup's manifest out (≥ 17)
//!     BASE_BACKUP       ──▶ rows, rows, CopyOut: BackupMessage (≥ 15)
//!                                  or one tar a CopyOut (≤ 14), rows
//! ```
//!
//! Log positions are plain byte offsets here, times microseconds since 1970 (UTC).
//!
//! Follows "Streaming Replication Protocol", versions 13 to 18.

mod backup_stream;
mod command;
mod quote;
mod stream;
mod version;

pub use backup_stream::BackupMessage;
pub use command::{
    BaseBackup, CHECKPOINT_FAST_NAME, Checkpoint, IDENTIFY_SYSTEM, UPLOAD_MANIFEST, create_physical_slot, drop_slot,
    read_slot, show, start_replication, timeline_history,
};
pub use quote::{identifier, literal, slot_name};
pub use stream::{StandbyStatus, StreamMessage, from_server_time, to_server_time};
pub use version::ServerVersion;
