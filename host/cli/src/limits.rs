//! Every bound of the command line, with its reason.

use std::time::Duration;

/// Longest configuration file, in bytes. A thousand targets fit in a tenth of it.
pub(crate) const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Longest secret, in bytes: a password file that is longer is the wrong file.
pub(crate) const SECRET_BYTES_MAX: u64 = 4 << 10;
/// Longest file of certificates, in bytes: the ones of a whole machine have half of that.
pub(crate) const PEM_BYTES_MAX: u64 = 1 << 20;
/// Longest file of Amazon's profiles, in bytes: people write them.
pub(crate) const AWS_PROFILES_BYTES_MAX: u64 = 1 << 20;
/// Slowest `upload-limit` and `download-limit`, in bytes a second: the repository's own bound.
pub(crate) const RATE_MIN: u64 = backstay_repo::limits::STORE_PACE_MIN;
/// Most `connections`: the repository's own bound.
pub(crate) const CONNECTIONS_MAX: u32 = backstay_repo::limits::STORE_CONNECTIONS_MAX as u32;
/// Most `object-lock-days`: the repository's own bound.
pub(crate) const OBJECT_LOCK_DAYS_MAX: u32 = backstay_repo::limits::OBJECT_LOCK_DAYS_MAX;
/// How long a `password-command` may take. A password manager may ask a person, who may be slow.
pub(crate) const PASSWORD_COMMAND_MAX: Duration = Duration::from_secs(120);
/// How often a running `password-command` is looked at.
pub(crate) const PASSWORD_COMMAND_POLL: Duration = Duration::from_millis(20);
/// Furthest a suggestion may be from what was typed, as edits per letter of the longer word (a third).
pub(crate) const SUGGESTION_DISTANCE_DIVISOR: usize = 3;
/// Patience with a repository that has mirrors: another one can take its place, and whoever waits for one that is away
/// waits every time.
pub(crate) const MIRROR_CONTACT: Duration = Duration::from_secs(5);
/// Pause between two rounds of bringing log to a mirror: each costs a handful of requests.
pub(crate) const MIRROR_PAUSE: Duration = Duration::from_secs(2);
/// A mirror that is away is looked for this often, and one that is there is compared when nothing was heard for so long.
pub(crate) const MIRROR_RETRY: Duration = Duration::from_secs(30);
/// How often a mirror's small pieces of log are merged.
pub(crate) const MIRROR_COMPACT: Duration = Duration::from_secs(600);
/// An archiver that was asked to stop gives its mirrors so long to get the last of the log.
pub(crate) const MIRROR_FAREWELL: Duration = Duration::from_secs(20);
/// How often the progress line is drawn. Faster only burns terminal bandwidth.
pub(crate) const PROGRESS_DRAW_HZ: u8 = 8;
/// How many warnings and problems a human report prints before it says how many more there are.
pub(crate) const REPORT_LINES_MAX: usize = 100;
/// How often a lock that others hold is tried again: seldom beside how long a backup takes.
pub(crate) const LOCK_RETRY: Duration = Duration::from_secs(5);
