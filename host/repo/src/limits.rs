//! Every bound of this crate, with its reason.
//!
//! What is *not* limited: the number of files in a backup and of blobs in a repository. A blob
//! costs about 70 bytes in memory while a repository is open, a file about 300 bytes while a
//! backup runs, a folder nothing besides its entries.

use std::time::Duration;

/// Largest object read whole into memory (index, snapshot, key, lock, log piece). Stock restic
/// keeps index files below 8 MiB, log pieces are at most 64 MiB of plaintext; the rest is slack.
pub const OBJECT_BYTES_MAX: u64 = 512 << 20;

/// Longest plaintext of one blob. Stock restic writes at most 8 MiB of data; a tree of a folder
/// with many entries is one blob and may be far longer.
pub const BLOB_BYTES_MAX: usize = 256 << 20;

/// Objects in one listing: 16 million packs of 32 MiB are half an exabyte.
pub const LIST_OBJECTS_MAX: usize = 16 << 20;

/// Sealed pack header; the format's own bound.
pub const PACK_HEADER_BYTES_MAX: usize = 16 << 20;

/// How often a failed store operation is tried again before the deadline is looked at.
pub const STORE_ATTEMPTS_MAX: u32 = 12;
/// A store operation that has not succeeded after this long fails. Longer than the restart of a
/// self-hosted store, shorter than a lock's life.
pub const STORE_DEADLINE: Duration = Duration::from_secs(180);
/// First pause between two attempts; doubles, with jitter.
pub const STORE_BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two attempts.
pub const STORE_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A request that has moved no byte for this long is given up (and tried again).
pub const STORE_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// A whole request, sized for 64 MiB over a line of 1 Mbit/s.
pub const STORE_REQUEST_TIMEOUT: Duration = Duration::from_secs(600);
/// Time to connect.
pub const STORE_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts for an error of the local file system that has no name: a disk that failed once is
/// worth one more look, not minutes of them.
pub const LOCAL_ATTEMPTS_MAX: u32 = 2;

/// Memory scrypt may take for a key file: four times what stock restic ever calibrates to.
/// A key file comes from the store and is not trusted yet.
pub const KDF_MEMORY_BYTES_MAX: u64 = 1 << 30;
/// Work (`N·r·p`) scrypt may take: about a minute of one core.
pub const KDF_WORK_MAX: u64 = 1 << 26;
/// Key files tried with one password.
pub const KEYS_MAX: usize = 256;
