//! The write-ahead log, scanned while it streams by.
//!
//! ```text
//!   segment file (1 MiB to 1 GiB)
//!   ┌ page, 8 KiB ───────────────┬ page ────────────────────┬ …
//!   │ long header │ record │ rec │ header │ ord │ record │  │
//!   └─────────────┴────────┴─────┴────────┴─────┴────────┴──┘
//!                            └─ continues ─┘
//! ```
//!
//! A [`Scanner`] is told where its bytes start and yields a [`Record`] for each log record
//! that it saw whole. Bodies are skipped without a copy; looked into are only those that a
//! recovery can stop at (commits, aborts, restore points) or that mark a place in a
//! timeline's life (checkpoints, the end of a recovery or a backup).
//!
//! Checksums of records are not checked: log that came from a server's sender was valid
//! there, and the host keeps its own digests. Bytes that are not log are errors all the same,
//! for lengths and page headers no longer agree. After an error a scanner looks for the next
//! page where a record begins and goes on.
//!
//! Follows `access/xlog_internal.h` and `access/xlogrecord.h`, versions 13 to 18, as written
//! on little-endian machines with blocks of 8 KiB (PostgreSQL's default).

mod detail;
mod page;
mod scanner;

pub use page::{PAGE_BYTES, PageHeader, major_version};
pub use scanner::Scanner;

/// The resource manager of checkpoints, restore points and the like.
pub const RMGR_XLOG: u8 = 0;
/// The resource manager of transactions.
pub const RMGR_TRANSACTION: u8 = 1;

/// One record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its first byte: what PostgreSQL compares a target position with.
    pub start: u64,
    /// Where the next record may begin: the end, rounded up to 8 bytes; behind a switch of
    /// segments, the end of the segment.
    pub end: u64,
    /// The resource manager.
    pub rmgr: u8,
    /// The resource manager's bits of the info byte's upper half, PostgreSQL's in the lower.
    pub info: u8,
    /// The transaction that wrote it; 0 for none. For the end of a prepared transaction see
    /// [`Detail::Commit`].
    pub xid: u32,
    /// What it says, where that matters to a recovery.
    pub detail: Option<Detail>,
}

/// What a record says. Times are microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail {
    /// A transaction committed.
    Commit {
        /// Which; of a prepared transaction the one that was prepared.
        xid: u32,
        /// When, by the server's clock.
        time: u64,
    },
    /// A transaction was rolled back.
    Abort {
        /// Which; of a prepared transaction the one that was prepared.
        xid: u32,
        /// When, by the server's clock.
        time: u64,
    },
    /// A named restore point (`pg_create_restore_point`).
    RestorePoint {
        /// Its name; bytes that are not UTF-8 are replaced.
        name: String,
        /// When, by the server's clock.
        time: u64,
    },
    /// A checkpoint.
    Checkpoint {
        /// Where replay from this checkpoint begins.
        redo: u64,
        /// The timeline it lies on.
        timeline: u32,
        /// The timeline before; the same unless this is the first record of a timeline.
        previous_timeline: u32,
        /// Whether the server shut down with it.
        shutdown: bool,
    },
    /// A recovery ended here: a timeline begins.
    EndOfRecovery {
        /// When, by the server's clock.
        time: u64,
        /// The timeline that begins.
        timeline: u32,
        /// The timeline it leaves.
        previous_timeline: u32,
    },
    /// A base backup is consistent from here on.
    BackupEnd {
        /// Where that backup started.
        start: u64,
    },
    /// The rest of the segment is empty.
    Switch,
}

#[cfg(test)]
mod tests;
