//! Every bound of the log, with its reason.

use std::time::Duration;

/// Plaintext of one sealed header: three labels of 1 KiB, escaped at worst sixfold, and slack.
pub const HEADER_BYTES_MAX: usize = 64 << 10;
/// Read from the front of an object to get its header: one request for all but odd labels.
pub const HEADER_READ_BYTES: u64 = 2 << 10;
/// Objects whose headers are read at once while loading: hides a store's latency, and stays
/// below the connections that stores allow one client.
pub const HEADERS_AT_ONCE: usize = 48;
/// Pieces read at once while files are placed; each takes up to twice 64 MiB of memory.
pub const PIECES_AT_ONCE: usize = 4;
/// Objects removed at once.
pub const DELETES_AT_ONCE: usize = 16;
/// Largest note; the contract's bound.
pub const NOTE_BYTES_MAX: usize = 1 << 20;
/// Notes of one target: PostgreSQL makes one per failover.
pub const NOTES_MAX: usize = 100_000;
/// Largest identity; a system identifier has 19 digits, a server's UUID 36.
pub const IDENTITY_BYTES_MAX: usize = 4 << 10;
/// A sealed object: body of 64 MiB that does not compress, header, frame overheads.
pub const OBJECT_BYTES_MAX: u64 = (64 << 20) + (1 << 20);
/// How often a whole listing is read anew because a compactor removed what it named.
pub const LOAD_ATTEMPTS_MAX: usize = 5;
/// Bodies from this size on are hashed and compressed on two cores.
pub const PARALLEL_BYTES_MIN: usize = 1 << 20;
/// zstd level: at level 1 one core keeps up with the log of a busy database.
pub const ZSTD_LEVEL: i32 = 1;

/// An archiver that has not seen the log for this long looks again before it believes that
/// the place it wrote was free: the piece that held the place may have been merged away.
pub const SIGHT_MAX: Duration = Duration::from_secs(120);
/// A compactor leaves younger objects alone. Longer than [`SIGHT_MAX`] by enough to bear
/// clocks that differ by minutes.
pub const COMPACT_AGE_MIN: Duration = Duration::from_secs(600);
/// Pieces below this size count as small.
pub const SMALL_BYTES: u64 = 1 << 20;
/// Small pieces that may pile up in the database file that is still growing.
pub const SMALL_PIECES_MAX: usize = 64;
/// So many merged pieces that the index does not know are worth writing it anew: below that,
/// reading their headers takes a second on a distant store.
pub const INDEX_PIECES_MIN: usize = 256;
/// Pieces in the index; more are read one by one. At 64 MiB each these are 6 TiB of log, and
/// the index itself stays below what an object may hold.
pub const INDEX_PIECES_MAX: usize = 100_000;
