//! Every wait of the harness, with its reason. A test that waits longer has found something.

use std::time::Duration;

/// A server that has nothing to recover starts in about a second; a loaded machine may need many.
pub const SERVER_START: Duration = Duration::from_secs(60);
/// Recovery replays at most a few hundred megabytes of log in these tests.
pub const RECOVERY: Duration = Duration::from_secs(180);
/// A fast shutdown writes a checkpoint and waits for walsenders.
pub const SERVER_STOP: Duration = Duration::from_secs(60);
/// One `backstay` command, the largest of which moves two gigabytes in a dev build.
pub const COMMAND: Duration = Duration::from_secs(600);
/// What the archiver may take from SIGTERM to its exit: it drains what the server has.
pub const ARCHIVE_STOP: Duration = Duration::from_secs(60);
/// How long the archiver may lag behind an idle server.
pub const ARCHIVE_CATCH_UP: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
pub const POLL: Duration = Duration::from_millis(50);
/// Python and Node import for several seconds before a store's server listens.
pub const STORE_START: Duration = Duration::from_secs(60);
/// Lines of a server's or a command's log that a failure shows.
pub const LOG_LINES: usize = 40;
/// Bytes of a request body the fault proxy holds: more than any pack or part.
pub const PROXY_BODY: usize = 256 << 20;
/// Bytes of an HTTP head.
pub const PROXY_HEAD: usize = 64 << 10;
