//! Every bound of this crate, with its reason.

/// Largest body of an ordinary message from a server: rows of system views, parameter
/// status, timeline history files (a line for each failover, far below this).
pub const ORDINARY_BODY_BYTES_MAX: usize = 4 << 20;

/// Largest body of one `CopyData`. A server sends base backups in pieces of 32 KiB and WAL in
/// pieces of 128 KiB; the room above is for servers built with other block sizes.
pub const COPY_DATA_BYTES_MAX: usize = 16 << 20;

/// Largest body before the session is authenticated: an error text or a SASL message. An
/// unauthenticated peer can make us hold no more than this. libpq uses 30,000 for errors.
pub const STARTUP_BODY_BYTES_MAX: usize = 64 << 10;

/// Most columns in a row; PostgreSQL's own bound is 1,664.
pub const COLUMNS_MAX: usize = 2048;

/// Most fields in one error or notice; the protocol defines 18.
pub const ERROR_FIELDS_MAX: usize = 64;

/// Longest text kept of one field of an error or notice; the rest is cut off.
pub const ERROR_FIELD_BYTES_MAX: usize = 8 << 10;

/// Fewest SCRAM iterations accepted. RFC 7677 asks for 4,096; PostgreSQL lets the operator go
/// down to 1 (`scram_iterations`), which we refuse only at zero since the server's policy is
/// not ours to set.
pub const SCRAM_ITERATIONS_MIN: u32 = 1;

/// Most SCRAM iterations accepted: about two seconds of computing in the sandbox. A hostile
/// server could otherwise keep us busy for hours.
pub const SCRAM_ITERATIONS_MAX: u32 = 2_000_000;

/// Longest SCRAM salt accepted, decoded. PostgreSQL sends 16 bytes.
pub const SCRAM_SALT_BYTES_MAX: usize = 1024;

/// Longest identifier PostgreSQL keeps (`NAMEDATALEN - 1`).
pub const IDENTIFIER_BYTES_MAX: usize = 63;

/// Longest long name or pax header of a tar entry: room for two paths of 4,096 bytes and
/// the few records writers add.
pub const TAR_EXTENSION_BYTES_MAX: usize = 64 << 10;

/// Longest path of a tar entry, as the host's contract has it.
pub const TAR_PATH_BYTES_MAX: usize = 4096;

/// Longest log record: what PostgreSQL allocates at most (1 GiB less one), of which it writes
/// a little less. A length above it means that the bytes are not log.
pub const WAL_RECORD_BYTES_MAX: u32 = (1 << 30) - 1;

/// Largest backup manifest that is read whole: a plugin has 256 MiB of memory, and parsing
/// takes about as much again. A file takes about 150 bytes: room for 600,000 files.
pub const MANIFEST_BYTES_MAX: usize = 96 << 20;

/// Most lines of a history file: one for each failover in the cluster's life.
pub const HISTORY_LINES_MAX: usize = 65_536;

/// Most blocks of one data file: 16 GiB in blocks of 8 KiB. Servers have 131,072 unless they were
/// built with another `--with-segsize`. An incremental file's list of blocks takes 8 MiB at most.
pub const SEGMENT_BLOCKS_MAX: u32 = 2 << 20;
