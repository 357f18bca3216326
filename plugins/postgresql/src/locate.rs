//! `locate`: from what people write to a place in the log.
//!
//! | target | written as | the place |
//! |---|---|---|
//! | position | `0/3000028`, or `2:0/3000028` on timeline 2 | itself |
//! | transaction | an xid as `pg_current_xact_id()` or the log shows it, with or without its epoch | the end of its commit or abort |
//! | name | as given to `pg_create_restore_point` | the end of its record |

use backstay_postgresql_wire::lsn::Lsn;
use backstay_postgresql_wire::wal::{Detail, Record};
use backstay_sdk::{Error, ErrorKind, LogReader, Place, RecoveryTarget, Result};

use crate::log_scan::Line;

/// The smallest xid of an ordinary transaction.
const FIRST_NORMAL_XID: u32 = 3;

/// Longest name of a restore point (`MAXFNAMELEN - 1`).
const NAME_BYTES_MAX: usize = 63;

/// Finds a position, transaction or name; nothing: it is not in the log.
pub async fn locate(target: &RecoveryTarget, logs: Option<&LogReader>) -> Result<Option<Place>> {
    match target {
        RecoveryTarget::Position(text) => position(text).map(Some),
        RecoveryTarget::Transaction(text) => {
            let xid = xid(text)?;
            find(logs, |record| is_end_of(record, xid)).await
        }
        RecoveryTarget::Name(name) => {
            check_name(name)?;
            find(logs, |record| is_restore_point(record, name)).await
        }
        RecoveryTarget::BackupEnd | RecoveryTarget::Latest | RecoveryTarget::Time(_) => {
            Err(Error::new(ErrorKind::Internal, "the host finds this target itself"))
        }
    }
}

async fn find(logs: Option<&LogReader>, wanted: impl FnMut(&Record) -> bool) -> Result<Option<Place>> {
    let Some(logs) = logs else { return Ok(None) };
    let line = Line::read(logs).await?;
    let found = line.find(logs, 0, wanted).await?;
    Ok(found.map(|(epoch, record)| Place { epoch: Some(epoch), offset: record.end }))
}

/// A transaction's end: PostgreSQL stops at either kind.
fn is_end_of(record: &Record, wanted: u32) -> bool {
    match record.detail {
        Some(Detail::Commit { xid, .. } | Detail::Abort { xid, .. }) => xid == wanted,
        _ => false,
    }
}

fn is_restore_point(record: &Record, wanted: &str) -> bool {
    matches!(&record.detail, Some(Detail::RestorePoint { name, .. }) if name == wanted)
}

/// Reads a position as people write it.
pub(crate) fn position(text: &str) -> Result<Place> {
    let wrong = || {
        Error::new(ErrorKind::BadConfig, format!("{text:?} is not a position in the log"))
            .hint("write it as 0/3000028, or with its timeline as 2:0/3000028")
    };
    let (timeline, lsn) = match text.trim().split_once(':') {
        None => (None, text.trim()),
        Some((timeline, lsn)) => {
            let timeline: u32 = timeline.parse().ok().filter(|&timeline| timeline > 0).ok_or_else(wrong)?;
            (Some(u64::from(timeline)), lsn)
        }
    };
    let lsn: Lsn = lsn.parse().map_err(|_| wrong())?;
    Ok(Place { epoch: timeline, offset: lsn.0 })
}

/// Reads an xid, 32 bits or 64 with its epoch: the log knows the lower half.
pub(crate) fn xid(text: &str) -> Result<u32> {
    text.trim()
        .parse::<u64>()
        .ok()
        // The lower half is what is asked for.
        .map(|xid| xid as u32)
        .filter(|&xid| xid >= FIRST_NORMAL_XID)
        .ok_or_else(|| {
            Error::new(ErrorKind::BadConfig, format!("{text:?} is not a transaction"))
                .hint("write its number, as pg_current_xact_id() shows it")
        })
}

/// Whether a restore point can have that name.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains('\0') {
        return Ok(());
    }
    Err(Error::new(ErrorKind::BadConfig, format!("{name:?} cannot be a restore point"))
        .hint("names of restore points have 1 to 63 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_may_name_their_timeline() {
        let place = |epoch, offset| Place { epoch, offset };
        assert_eq!(position("0/3000028").unwrap(), place(None, 0x300_0028));
        assert_eq!(position(" 12:1/a ").unwrap(), place(Some(12), 0x1_0000_000a));
        for bad in ["", "0", "x", "0:0/1", ":0/1", "1:2:0/1", "-1:0/1", "1:"] {
            assert_eq!(position(bad).unwrap_err().kind, ErrorKind::BadConfig, "{bad}");
        }
    }

    #[test]
    fn transactions_may_carry_their_epoch() {
        assert_eq!(xid("742").unwrap(), 742);
        assert_eq!(xid("4294968038").unwrap(), 742);
        for bad in ["", "0", "2", "4294967298", "-3", "7x", "18446744073709551616"] {
            assert!(xid(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_that_no_restore_point_can_have_are_refused() {
        assert!(check_name("before the upgrade").is_ok());
        assert!(check_name("").is_err());
        assert!(check_name(&"x".repeat(64)).is_err());
    }
}
