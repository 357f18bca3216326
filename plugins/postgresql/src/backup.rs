//! `backup`: a copy of the cluster and of the log that makes it consistent.
//!
//! | method | reads |
//! |---|---|
//! | `stream` | a base backup over the wire, every file's checksum verified |
//! | `files` | the granted data folder, on all cores, every page's checksum verified |
//! | `incremental` | over the wire, only blocks that changed since the backup before (≥ 17) |
//!
//! A temporary slot keeps the log that the backup needs until it is inside, so a stock restore of
//! the backup starts by itself.

mod base;
mod cuts;
mod files;
mod ledger;
mod notes;
mod pages;
mod patching;
mod stream;
mod unpack;
mod wal_watch;

use std::pin::pin;

use backstay_postgresql_wire::backup_label::BackupLabel;
use backstay_postgresql_wire::protocol::Backend;
use backstay_postgresql_wire::protocol::frontend::Purpose;
use backstay_postgresql_wire::replication::{create_physical_slot, show};
use backstay_postgresql_wire::wal_file::parse_segment_size;
use backstay_sdk::{BackupJob, BackupReport, BackupWriter, Error, ErrorKind, Level, Result, Volume, host};
use futures::future::{Either, select};

use crate::connection::{Rows, Session, unexpected};
use crate::refusal::{from_server, from_wire, wal_level_minimal};
use crate::settings::Settings;
use base::Base;
pub use files::{DATA, TABLESPACE_GRANT, WAL};
pub use notes::Notes;
pub use pages::inspect_part;
use stream::Scope;

/// The method that copies over the wire.
pub const STREAM: &str = "stream";

/// The method that reads the data folder.
pub const FILES: &str = "files";

/// The method that copies what changed over the wire.
pub const INCREMENTAL: &str = "incremental";

/// The folder in the backup that holds the main folder.
pub const MAIN: &str = "data";

/// The folder in the backup that holds tablespaces.
pub const TABLESPACES: &str = "tablespaces";

/// Makes a backup.
pub async fn backup(settings: &Settings, job: &BackupJob, into: &BackupWriter) -> Result<BackupReport> {
    let work = pin!(async {
        match job.method.as_str() {
            STREAM => stream::backup(settings, job, into, Scope::All).await,
            INCREMENTAL => stream::backup(settings, job, into, Scope::Changes(Base::of(into).await?)).await,
            FILES => files::backup(settings, job, into).await,
            other => Err(Error::new(ErrorKind::Unsupported, format!("there is no method {other:?}"))
                .hint(format!("use \"{STREAM}\", \"{FILES}\" or \"{INCREMENTAL}\""))),
        }
    });
    let stop = pin!(host::stop_requested());
    match select(work, stop).await {
        Either::Left((report, _)) => report,
        // Dropping the session ends the server's work and its temporary slot.
        Either::Right(((), _)) => Err(Error::new(ErrorKind::Cancelled, "the backup was stopped before its end")),
    }
}

/// What a backup needs to know of the server beforehand.
struct Server {
    /// The size of a log file.
    segment_bytes: u64,
    /// The permissions of its folders.
    folder_mode: u32,
    /// The temporary slot's name. It has a folder of that name below `pg_replslot`.
    slot: String,
}

impl Server {
    /// Checks what a backup needs, and keeps the log from here on for as long as the session lives.
    async fn prepare(session: &mut Session) -> Result<Self> {
        if setting(session, "wal_level").await? == "minimal" {
            return Err(wal_level_minimal());
        }
        let segment_bytes = setting(session, "wal_segment_size").await?;
        let segment_bytes = parse_segment_size(&segment_bytes).map_err(from_wire)?;
        let mode = setting(session, "data_directory_mode").await?;
        // PostgreSQL starts on a folder with one of these two only.
        let folder_mode = if mode.ends_with("750") { 0o750 } else { 0o700 };
        // A developers' option; servers without it do not know its name.
        let in_place = show("allow_in_place_tablespaces").map_err(from_wire)?;
        if let Ok(results) = session.try_query(&in_place).await?
            && results.first().and_then(|rows| rows.get(0, "allow_in_place_tablespaces")) == Some("on")
        {
            host::log(
                Level::Warn,
                "allow_in_place_tablespaces is on: the server leaves such tablespaces out of base backups",
            );
        }
        let suffix = host::random(6);
        let suffix: String = suffix.iter().map(|byte| format!("{byte:02x}")).collect();
        let slot = format!("backstay_backup_{suffix}");
        let create = create_physical_slot(session.version(), &slot, true).map_err(from_wire)?;
        session.query(&create).await?;
        Ok(Self { segment_bytes, folder_mode, slot })
    }
}

async fn setting(session: &mut Session, name: &str) -> Result<String> {
    let rows = session.rows(&show(name).map_err(from_wire)?).await?;
    Ok(rows.need(name)?.to_owned())
}

fn oid(text: &str) -> Result<u32> {
    text.parse()
        .ok()
        .filter(|oid| *oid > 0)
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the server's list of tablespaces cannot be read"))
}

/// The server went over to another timeline while it was backed up: log of one timeline does not make such a backup whole.
fn switched() -> Error {
    Error::new(ErrorKind::Unreachable, "the server changed its timeline during the backup").hint("start it again")
}

/// Reads up to where the server waits for a command: only then is the backup done for it.
async fn ready(session: &mut Session) -> Result<()> {
    loop {
        match session.next().await? {
            Backend::CommandComplete(_) => {}
            Backend::ReadyForQuery(_) => return Ok(()),
            Backend::ErrorResponse(error) => return Err(from_server(&error)),
            _ => return Err(unexpected("after a command")),
        }
    }
}

/// A time that no commit inside the backup is later than, by the server's clock.
///
/// That of the last commit in the log up to its end. Where there was none, all commits are
/// older than the start: its time is in the label, to the second and in the server's own time
/// zone. Where that is not UTC, the server is asked for its clock.
async fn consistent_at(settings: &Settings, last_commit: Option<u64>, label: &[u8]) -> Option<u64> {
    if last_commit.is_some() {
        return last_commit;
    }
    let label = BackupLabel::parse(label).ok();
    if let Some(time) = label.and_then(|label| start_time(&label.time?)) {
        return Some(time);
    }
    let mut session = Session::open(settings, Purpose::Sql).await.ok()?;
    let sql = "SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint AS now";
    let rows = session.rows(sql).await;
    session.close().await;
    rows.ok()?.get(0, "now")?.parse().ok()
}

/// The end of the second that a label calls `2026-11-22 21:16:49 UTC`, in microseconds since 1970.
fn start_time(text: &str) -> Option<u64> {
    let text = text.strip_suffix(" UTC").or_else(|| text.strip_suffix(" GMT"))?;
    let mut numbers = text.split(['-', ' ', ':']).map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    let (year, month, day) = (next()?, next()?, next()?);
    let (hour, minute, second) = (next()?, next()?, next()?);
    let lawful = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !lawful {
        return None;
    }
    // Years that begin in March end with the leap day, so months before it need no table.
    let (march_year, march_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = march_year / 4 - march_year / 100 + march_year / 400;
    let days = march_year * 365 + leap_days + (march_month * 153 + 2) / 5 + day - 1 - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(seconds * 1_000_000 + 999_999)
}

/// The tablespaces as the report tells them, with their names where a session in SQL may ask.
async fn volumes(settings: &Settings, outside: &[notes::Tablespace]) -> Vec<Volume> {
    if outside.is_empty() {
        return Vec::new();
    }
    let names = names(settings).await.unwrap_or_default();
    let title = |oid: u32| {
        (0..names.len())
            .find(|row| names.get(*row, "oid") == Some(&oid.to_string()))
            .and_then(|row| names.get(row, "spcname"))
            .map_or_else(|| oid.to_string(), str::to_owned)
    };
    outside
        .iter()
        .map(|tablespace| Volume {
            name: format!("{TABLESPACES}/{}", tablespace.oid),
            title: title(tablespace.oid),
            location: tablespace.location.clone(),
        })
        .collect()
}

async fn names(settings: &Settings) -> Result<Rows> {
    let mut session = Session::open(settings, Purpose::Sql).await?;
    let rows = session.rows("SELECT oid, spcname FROM pg_catalog.pg_tablespace").await;
    session.close().await;
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_backup_is_the_end_of_its_second() {
        for (text, seconds) in [
            ("1970-01-01 00:00:00 UTC", 0),
            ("2000-02-29 12:34:56 GMT", 951_827_696),
            ("2026-11-22 21:16:49 UTC", 1_795_382_209),
            ("2100-03-01 00:00:00 UTC", 4_107_542_400),
        ] {
            assert_eq!(start_time(text), Some(seconds * 1_000_000 + 999_999), "{text}");
        }
        for text in ["2026-11-22 21:16:49 CET", "", " UTC", "2026-13-01 00:00:00 UTC"] {
            assert_eq!(start_time(text), None, "{text}");
        }
    }
}
