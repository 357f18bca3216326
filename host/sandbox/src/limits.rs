//! Every bound of the sandbox in one table, each with its reason.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Largest component file. The largest known, a Python plugin with its interpreter, has 20 MB.
pub(crate) const COMPONENT_BYTES_MAX: u64 = 64 << 20;
/// Address space of the process that compiles; Cranelift needs some 20 times the component.
pub(crate) const COMPILE_ADDRESS_BYTES_MAX: u64 = 8 << 30;
/// CPU seconds of the process that compiles: a 20 MB component takes 20.
pub(crate) const COMPILE_CPU_SECONDS_MAX: u64 = 300;
/// Wall clock for compiling, with a machine under load in mind.
pub(crate) const COMPILE_WALL: Duration = Duration::from_secs(600);

/// Linear memories of one store: a plugin's own, and room for adapters of other languages.
pub(crate) const MEMORIES_MAX: usize = 4;
/// Core instances of one store: wit-component makes a handful.
pub(crate) const INSTANCES_MAX: usize = 32;
/// Tables of one store.
pub(crate) const TABLES_MAX: usize = 32;
/// Elements of all tables: function pointers of a large plugin.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Bytes a single call may make the host copy out of a plugin.
pub(crate) const HOSTCALL_BYTES_MAX: usize = 4 << 20;
/// Handles (resources, streams, futures) a plugin may hold.
pub(crate) const HANDLES_MAX: usize = 1024;

/// How often a running plugin yields to the host.
pub(crate) const EPOCH_TICK: Duration = Duration::from_millis(10);

/// Most bytes moved per poll of a stream: throughput is flat from 64 KiB on.
pub(crate) const STREAM_BYTES_MAX: usize = 256 << 10;
/// Chunks between a plugin's stream and the repository: one being taken, one ready, two on their way.
pub(crate) const STREAM_CHUNKS_MAX: usize = 4;
/// Items (nodes, segments) handed over per poll.
pub(crate) const STREAM_ITEMS_MAX: usize = 256;
/// Most bytes one `connection.read` answers.
pub(crate) const READ_BYTES_MAX: u32 = 1 << 20;
/// Most bytes one `random` answers.
pub(crate) const RANDOM_BYTES_MAX: u32 = 64 << 10;
/// Longest `sleep`.
pub(crate) const SLEEP_MAX: Duration = Duration::from_secs(3600);
/// Connections open at once: a session for commands, one for copying, one for watching.
pub(crate) const CONNECTIONS_MAX: usize = 16;
/// Tools running at once.
pub(crate) const PROCESSES_MAX: usize = 4;
/// How long dialling may take, name resolution included.
pub(crate) const DIAL: Duration = Duration::from_secs(20);
/// How long a TLS handshake may take.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(20);
/// How long a tool has to end after it was asked to.
pub(crate) const TERMINATE: Duration = Duration::from_secs(10);
/// How long what a tool said last is waited for once it has ended: it lies in a pipe already.
pub(crate) const STDERR_REST: Duration = Duration::from_secs(1);
/// What is kept of a tool's standard error.
pub(crate) const STDERR_BYTES_MAX: usize = 64 << 10;
/// Files of a granted folder being stored at once.
pub(crate) const TREE_FILES_AT_ONCE: usize = 8;

/// Bytes of a file shown to `inspect-part` at once; the contract's number.
pub(crate) const INSPECTED_BYTES_MAX: usize = 1 << 20;
/// Findings of a backup that are kept by file and place; the rest is counted. A disk that rots in more places than
/// this needs no list.
pub(crate) const FINDINGS_MAX: usize = 1000;
/// What `put-tree` passes on to `inspect-part`; the contract's number.
pub(crate) const CONTEXT_BYTES_MAX: usize = 64 << 10;
/// Ranges of one patch; the contract's number: every second page of a file of 4 GiB.
pub(crate) const PATCH_RANGES_MAX: usize = 262_144;

/// Log lines a plugin may write in a burst; refilled at [`LOG_LINES_PER_SECOND`].
pub(crate) const LOG_LINES_BURST: u32 = 200;
/// Steady rate of log lines.
pub(crate) const LOG_LINES_PER_SECOND: u32 = 20;
/// Longest log line.
pub(crate) const LOG_LINE_BYTES_MAX: usize = 2048;
/// Longest text (message, hint, label, warning) taken from a plugin.
pub(crate) const TEXT_BYTES_MAX: usize = 4096;
/// Longest label of a position; the contract's number.
pub(crate) const LABEL_BYTES_MAX: usize = 1024;
/// Longest identity of a database; PostgreSQL's has 20 digits.
pub(crate) const IDENTITY_BYTES_MAX: usize = 1024;
/// Most entries of a list (methods, warnings, steps) taken from a plugin.
pub(crate) const LIST_ITEMS_MAX: usize = 4096;
/// Longest notes of a backup.
pub(crate) const NOTES_BYTES_MAX: usize = 1 << 20;

/// Wall clock for `describe`: it computes nothing.
pub(crate) const DESCRIBE_WALL: Duration = Duration::from_secs(10);
/// Wall clock for `inspect`: a few round trips.
pub(crate) const INSPECT_WALL: Duration = Duration::from_secs(120);

/// Limits an operator may change per target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Limits {
    /// Linear memory of a plugin, all memories together, in MiB.
    pub memory_mib: u32,
    /// Seconds a plugin may compute without moving a byte: one that loops for ever is ended by this.
    pub stall_seconds: u32,
    /// Seconds a backup, a restore or a search may go by with nothing moving: one that waits for ever is
    /// ended by this.
    pub idle_seconds: u32,
    /// Seconds an archiver has to hand over what it has once it was asked to stop.
    pub drain_seconds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_mib: 256,
            stall_seconds: 30,
            // A server may spread the checkpoint before a backup over its `checkpoint_timeout`, up to an hour in practice.
            idle_seconds: 3600,
            // The repository gives up on its store after 180 seconds; then the job has its reason, and time to say it.
            drain_seconds: 240,
        }
    }
}
