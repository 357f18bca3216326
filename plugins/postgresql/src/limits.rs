//! Every bound of sessions, looks and backups, with its reason. Archiving has its own table.

/// Most rows kept of one result: nothing here asks for more than slots, settings or tablespaces.
pub const ROWS_MAX: usize = 10_000;

/// Most notices shown of one session: a server may write one for each file.
pub const NOTICES_MAX: u32 = 100;

/// Most settings remembered that a server reports by itself; it has about fifteen.
pub const PARAMETERS_MAX: usize = 100;

/// Most messages of the server in one login; SCRAM takes three.
pub const LOGIN_MESSAGES_MAX: u32 = 8;

/// The longest wait for the answer to a question, in microseconds. All are looks at system
/// views or short commands; a base backup is not asked for in this way.
pub const ANSWER_US_MAX: u64 = 120_000_000;

/// How many bytes of a backup pass between two signs of progress.
pub const PROGRESS_BYTES: u64 = 16 << 20;

/// Files that the host is finishing while the next ones come: most of a cluster's files are
/// small, and waiting for each would cost a round trip a file.
pub const FINISHING_MAX: usize = 16;

/// The longest `backup_label` that is looked into; it has a dozen short lines.
pub const LABEL_BYTES_MAX: u64 = 64 << 10;

/// How often `pg_control` is read until its checksum fits: the server writes it in one go, but a
/// reader may meet that moment.
pub const CONTROL_READS_MAX: u32 = 10;

/// The pause between two such reads, in microseconds.
pub const CONTROL_WAIT_US: u64 = 100_000;

/// Most unlogged relations that are left out one by one, at two rules each; a host takes a list of 4096.
pub const UNLOGGED_MAX: usize = 1500;

/// The longest timeline history; each failover adds some 40 bytes.
pub const HISTORY_BYTES_MAX: usize = 1 << 20;

/// Most commits of a backup's log that are remembered one by one, at 16 bytes each. A log
/// file of 16 MiB holds at most half as many.
pub const COMMITS_MAX: usize = 1 << 20;

/// Bytes of a manifest in one message to the server, which takes up to a gigabyte: what a connection moves at once.
pub const UPLOAD_BYTES: usize = 64 << 10;

/// Rows of one answer about cuts; below [`ROWS_MAX`].
pub const CUT_ROWS: usize = 5_000;

/// Most cuts between two backups, at 24 bytes each: every table of a very large cluster, several times.
pub const CUTS_MAX: usize = 2_000_000;
