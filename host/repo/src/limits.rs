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

/// Read from a pack's end to get its header: one request for a pack of 1,500 blobs, which is more than chunks of the
/// usual size make.
pub const PACK_TAIL_BYTES: u64 = 64 << 10;
/// What is missing of one backup that a repair's plan names; the rest is counted.
pub const MISSING_MAX: usize = 20;

/// A copy makes what it sent durable and indexes it whenever so much was sent: that is what an interrupted one sends
/// again at most. The pause for it is a few packs long.
pub const COPY_ROUND_BYTES: u64 = 1 << 30;

/// Attempts at a store operation: more than fit before [`STORE_DEADLINE`], so that it decides.
pub const STORE_ATTEMPTS_MAX: u32 = 60;
/// So many attempts there are whatever time they took: one pack on a slow line may take longer than the deadline.
pub const STORE_ATTEMPTS_MIN: u32 = 3;
/// A store operation that has not succeeded after this long fails. Longer than the restart of a
/// self-hosted store, shorter than a lock's life.
pub const STORE_DEADLINE: Duration = Duration::from_secs(180);
/// First pause between two attempts; doubles, with jitter.
pub const STORE_BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two attempts.
pub const STORE_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A request that has moved no byte for this long is given up (and tried again).
pub const STORE_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Slowest line that may be asked for, in bytes a second.
pub const STORE_PACE_MIN: u64 = 64 << 10;
/// What is sent at once of a body: a second of the slowest line.
pub const PIECE_BYTES: usize = 64 << 10;
/// Requests besides those: small ones, so that a lock is refreshed while packs take their time.
pub const STORE_SMALL_REQUESTS: usize = 1;
/// Requests to one store at the same time when nothing else is asked for: more than reads and uploads together ever are.
pub const STORE_CONNECTIONS_MAX: usize = 64;
/// Longest pause that a store may ask for at once; if that was too short it will ask again.
pub const STORE_THROTTLE_MAX: Duration = Duration::from_secs(60);
/// Longest retention of a store that may be configured: a hundred years.
pub const OBJECT_LOCK_DAYS_MAX: u32 = 36_500;
/// How long a WebDAV server keeps a claim whose holder is gone: shorter than [`STORE_DEADLINE`], so that the next writer
/// outlasts it.
pub const WEBDAV_CLAIM: Duration = Duration::from_secs(120);
/// How long its holder works under it; the rest is for a request that is still on its way.
pub const WEBDAV_CLAIMED_WORK: Duration = Duration::from_secs(45);
/// Objects of a local folder from this size on are written past the page cache: packs and large pieces of log.
pub const DIRECT_BYTES_MIN: usize = 4 << 20;
/// What one direct write takes: long enough for a disk's full rate with a few at once.
pub const DIRECT_BUFFER_BYTES: usize = 2 << 20;
/// Parts of a local folder's objects from this size on are read past the page cache, where it does not have them.
pub const DIRECT_READ_BYTES_MIN: u64 = 1 << 20;
/// Runs of a restored file from this size on are written past the page cache: less than a chunk is not worth it.
pub const DIRECT_RUN_BYTES_MIN: usize = 64 << 10;
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
/// Plaintext of an index, snapshot or lock file. Stock restic's index files stay below 8 MiB
/// stored; JSON of ids compresses two to one.
pub const PLAIN_DOCUMENT_BYTES_MAX: usize = 256 << 20;
/// Compression of everything: the fastest level of zstd that is not a compromise, 1.5 GB/s a
/// core on database pages; level 3 saves a few per cent and costs a third of the rate.
pub const ZSTD_LEVEL: i32 = 1;

/// A blob of which so much is left was hard to compress, in thousandths: its neighbour is passed over lightly.
pub const HARD_THOUSANDTHS: usize = 800;
/// How much more may be left of the neighbour for the light pass to count.
pub const SAME_THOUSANDTHS: usize = 10;
/// After so many blobs one is looked at in full again.
pub const LIGHT_PASSES_MAX: usize = 8;
/// How lightly: zstd's step between places it looks at where nothing matches. Twice the rate, the same size on pages
/// of noise; more gains little.
pub const LIGHT_ACCELERATION: u32 = 4;

/// Stored size a pack is closed at. Large enough that a request is cheap for its bytes, small
/// enough that a few of them in flight are no burden.
pub const PACK_BYTES: usize = 32 << 20;
/// Largest such size that may be asked for: a pack must be readable whole.
pub const PACK_BYTES_MAX: usize = 256 << 20;
/// Smallest: about one blob. No use on a real store, where a request costs what a megabyte does; tests of crashes want
/// many packs of little.
pub const PACK_BYTES_MIN: usize = 1 << 10;
/// Blobs in a pack: keeps the header below 1 MiB whatever the blobs' size.
pub const PACK_BLOBS_MAX: usize = 25_000;
/// Blobs in an index file we write: at about 130 bytes of JSON each that stays below 8 MiB.
pub const INDEX_BLOBS_MAX: usize = 50_000;
/// Smallest fixed chunk: a page of any database we know of, several times.
pub const CHUNK_BYTES_MIN: usize = 16 << 10;
/// Largest fixed chunk: what stock restic would cut at most.
pub const CHUNK_BYTES_MAX: usize = 8 << 20;
/// Plaintext that one job on a blocking thread works on: a job costs about 10 µs to start, and sixteen chunks of 128 KiB
/// are hashed side by side.
pub const BATCH_BYTES: usize = 2 << 20;
/// Batches of a file that one such job takes, one after another, so that a thread does not wait for its next after each:
/// else cores idle for a tenth of the time in which unchanged files are read again.
pub const RUN_BATCHES_MAX: u64 = 4;
/// Such jobs at the same time, however many cores there are. All may wait for an upload, which needs threads of the same pool:
/// it has to have more of them.
pub const BATCHES_MAX: u32 = 128;
/// How often a file that shrinks and grows again while it is read is read anew.
pub const LOCAL_READS_MAX: u32 = 5;
/// How often a range is read until whoever looks at it is content: a page that a database is just writing is whole
/// a moment later.
pub const LOOKS_MAX: u32 = 3;
/// The pause before a range is read again: a write of a page takes microseconds, under load milliseconds.
pub const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Chunks of the parent read ahead while a file is patched: hides the latency of a store, costs 2 MiB.
pub const PATCH_READS_MAX: usize = 16;
/// Packs on their way to a store at the same time: enough to hide latency of S3.
pub const UPLOADS_MAX: usize = 6;
/// The same to a folder: a disk has enough with two, while the third waits for its pair. Each takes memory.
pub const FOLDER_UPLOADS_MAX: usize = 3;
const _: () = assert!(UPLOADS_MAX >= 2 && FOLDER_UPLOADS_MAX >= 2, "a pack waits for its pair");
/// Longest content list of one file: 2 TiB of 128 KiB chunks.
pub const FILE_CHUNKS_MAX: usize = 16 << 20;
/// Objects loaded at the same time when an index or the snapshots are read.
pub const LOADS_MAX: usize = 8;
/// How deep folders may nest. A path has at most 4096 bytes, so at most 2048 parts; real
/// databases use five. Each level costs stack.
pub const TREE_DEPTH_MAX: usize = 256;

/// Longest reason of a pin: a sentence or two.
pub const PIN_REASON_BYTES_MAX: usize = 1024;
/// Largest pin that makes sense: the reason, escaped, and little more.
pub const PIN_BYTES_MAX: u64 = 16 << 10;

/// Packs below this are joined when there are many: an eighth of a whole one.
pub const SMALL_PACK_BYTES: u64 = (PACK_BYTES / 8) as u64;
/// So many of them may lie about: each is a request and an index entry more for whoever reads.
pub const SMALL_PACKS_MAX: usize = 16;
/// Index files that are not even a quarter full and may lie about: each is a request when a repository is opened.
pub const SMALL_INDEX_FILES_MAX: usize = 8;
/// Objects removed at the same time.
pub const DELETES_AT_ONCE: usize = 16;
/// Packs that are copied at the same time: one is read while another is verified.
pub const REPACKS_AT_ONCE: usize = 2;

/// One coalesced read of a pack.
pub const READ_BYTES_MAX: u64 = 8 << 20;
/// Bytes read in vain to save a request.
pub const READ_GAP_BYTES_MAX: u64 = 256 << 10;
/// Reads in flight: with [`READ_BYTES_MAX`] this bounds memory of a restore to about 150 MiB.
pub const READS_MAX: usize = 8;
/// What one thread looks at of a file that is there: a table of a gigabyte occupies all cores.
pub const LOOK_AT_ONCE_BYTES: u64 = 64 << 20;
/// So many missing blobs are fetched before the rest of a folder is looked at: some 32 MiB. All that is found while
/// those are on their way is fetched together next, in the order of the packs.
pub const WANTS_AT_ONCE: usize = 256;
/// A restore tells the disk to begin whenever so much has landed: a second's work of a good disk.
pub const SYNC_EVERY_BYTES: u64 = 256 << 20;
/// Bytes of packs that are read whole and held at the same time, however many cores look at them.
pub const WHOLE_PACKS_BYTES_MAX: u64 = 256 << 20;
/// Problems a check reports by name; the rest is counted.
pub const PROBLEMS_MAX: usize = 1000;
/// Backups named with something damaged that they need: a line has room for so many.
pub const AFFECTED_LISTED_MAX: usize = 5;
/// What is wrong with one pack, said in full; the rest is counted.
pub const CAUSES_LISTED_MAX: usize = 4;

/// A lock is refreshed this often, as stock restic does.
pub const LOCK_REFRESH: Duration = Duration::from_secs(5 * 60);
/// A lock this old belongs to nobody, as stock restic has it.
pub const LOCK_STALE: Duration = Duration::from_secs(30 * 60);
/// Our own lock counts as lost a little before others may call it stale: clocks differ.
pub const LOCK_VALID: Duration = Duration::from_secs(25 * 60);
/// Pause between writing a lock and looking whether another came at the same moment.
pub const LOCK_SETTLE: Duration = Duration::from_millis(200);
/// Key files without a `config` that are older than this were left by an `init` that died.
pub const INIT_ABANDONED: Duration = Duration::from_secs(600);
/// Patience with the first operation on a store: a mistyped address should be told soon.
pub const FIRST_CONTACT_DEADLINE: Duration = Duration::from_secs(15);
