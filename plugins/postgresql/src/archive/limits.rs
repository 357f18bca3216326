//! Every bound of archiving, with its reason.

/// Where a piece ends at the latest. The host takes 64 MiB at most; smaller pieces keep the
/// plugin's memory small, and larger ones no longer make storing cheaper.
pub(super) const PIECE_BYTES: usize = 16 << 20;

/// So much may be pending before no more is taken in: one piece beside the one on its way.
pub(super) const PENDING_BYTES_MAX: usize = 2 * PIECE_BYTES;

/// The longest between two messages about how far we are. Servers hang up after
/// `wal_sender_timeout`, a minute by default.
pub(super) const STATUS_INTERVAL_US: u64 = 10_000_000;

/// The same while the end of the log is not yet confirmed: an idle server's recovery window
/// shall reach the present soon.
pub(super) const UNCONFIRMED_INTERVAL_US: u64 = 2_000_000;

/// How long the end of the log must stand still before its time is believed. A commit's time is
/// taken before its record is flushed and sent, so what stands behind it may show an earlier one.
pub(super) const STANDSTILL_US: u64 = 1_500_000;

/// The longest silence before a connection counts as dead: six unanswered requests.
pub(super) const SILENCE_US_MAX: u64 = 60_000_000;

/// The first pause before another attempt.
pub(super) const BACKOFF_US_MIN: u64 = 500_000;

/// The longest pause before another attempt: a server that comes back shall not wait long.
pub(super) const BACKOFF_US_MAX: u64 = 30_000_000;

/// How long another session may hold our slot when we start: one of ours that died a moment
/// ago, whose end the server has yet to notice.
pub(super) const SLOT_TAKEN_US_MAX: u64 = 8_000_000;

/// The same after a connection of this job broke: until the server's `wal_sender_timeout`, with
/// room to spare.
pub(super) const SLOT_TAKEN_AGAIN_US_MAX: u64 = 150_000_000;

/// The pause between two looks at a slot that is taken.
pub(super) const SLOT_TAKEN_PAUSE_US: u64 = 1_000_000;

/// Most lines about log that cannot be understood, of one stream.
pub(super) const TROUBLES_MAX: u32 = 5;

/// How long after the start the server is told how far we are, where nothing came before.
pub(super) const FIRST_STATUS_US: u64 = 1_000_000;
