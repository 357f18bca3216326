//! `backup`, method `stream`: a base backup over a replication session.
//!
//! ```text
//!   BASE_BACKUP ─▶ Session ─▶ parts (archive, manifest, data) ─▶ Unpacker ─▶ BackupWriter
//!                                                                   │  data/…
//!                                     checksum and size of each ◀───┤  tablespaces/<oid>/…
//!                                                                   │  data/backup_manifest
//!                                     Ledger ◀── Manifest ◀─────────┘
//! ```
//!
//! A temporary slot of the same session keeps the log that the backup needs until it is
//! inside, so a stock restore of the backup starts by itself. Every file's size and checksum is
//! compared with the server's manifest while it streams by, and the manifest with its own
//! checksum: what does not fit fails the backup.

mod ledger;
mod notes;
mod unpack;
mod wal_watch;

use std::pin::pin;

use backstay_postgresql_wire::backup_label::BackupLabel;
use backstay_postgresql_wire::protocol::Backend;
use backstay_postgresql_wire::protocol::frontend::Purpose;
use backstay_postgresql_wire::replication::{BackupMessage, BaseBackup, create_physical_slot, show};
use backstay_postgresql_wire::wal_file::parse_segment_size;
use backstay_sdk::{BackupJob, BackupReport, BackupWriter, Error, ErrorKind, Level, Result, Volume, host};
use futures::future::{Either, select};

use crate::connection::{Rows, Session, unexpected};
use crate::inspect::{System, timeline};
use crate::limits::PROGRESS_BYTES;
use crate::position::{parse_lsn, position};
use crate::refusal::{from_server, from_wire, wal_level_minimal};
use crate::settings::Settings;
pub use notes::Notes;
use unpack::{Unpacked, Unpacker};

/// The name of the method.
pub const STREAM: &str = "stream";

/// The folder in the backup that holds the main folder.
pub const MAIN: &str = "data";

/// The folder in the backup that holds tablespaces.
pub const TABLESPACES: &str = "tablespaces";

/// Makes a backup.
pub async fn backup(settings: &Settings, job: &BackupJob, into: &BackupWriter) -> Result<BackupReport> {
    if job.method != STREAM {
        return Err(Error::new(ErrorKind::Unsupported, format!("there is no method {:?}", job.method))
            .hint(format!("use \"{STREAM}\"")));
    }
    let work = pin!(stream(settings, job, into));
    let stop = pin!(host::stop_requested());
    match select(work, stop).await {
        Either::Left((report, _)) => report,
        // Dropping the session ends the server's work and its temporary slot.
        Either::Right(((), _)) => Err(Error::new(ErrorKind::Cancelled, "the backup was stopped before its end")),
    }
}

async fn stream(settings: &Settings, job: &BackupJob, into: &BackupWriter) -> Result<BackupReport> {
    let mut session = Session::open_replication(settings).await?;
    let system = System::identify(&mut session).await?;
    into.identify(&system.identity).await?;
    let Server { segment_bytes, folder_mode } = Server::prepare(&mut session).await?;

    let command = BaseBackup {
        label: &job.label,
        checkpoint: settings.checkpoint,
        max_rate_kib: settings.max_rate,
        progress: true,
        wal: true,
    };
    let command = command.command(session.version()).map_err(from_wire)?;
    host::progress("checkpoint", 0, None);
    session.command(&command).await?;
    let start = Place::read(&mut session).await?;
    let tablespaces = Tablespace::read(&mut session).await?;

    let mut unpacker = Unpacker::new(into, segment_bytes, folder_mode);
    receive(&mut session, &tablespaces, &mut unpacker).await?;
    let end = Place::read(&mut session).await?;
    finish(&mut session).await?;
    let version = session.version();
    session.close().await;
    let unpacked = unpacker.finish().await?;
    if let Some(listed) = unpacked.manifest.system_identifier
        && listed.to_string() != system.identity
    {
        return Err(Error::new(ErrorKind::Corrupt, "the backup's manifest names another cluster than the server"));
    }
    if end.timeline != start.timeline || end.lsn < start.lsn {
        return Err(Error::new(ErrorKind::Corrupt, "the server's backup ends before it starts"));
    }

    let notes = Notes {
        version: version.to_string(),
        system_identifier: system.identity,
        segment_bytes,
        tablespaces: tablespaces.iter().filter_map(Tablespace::noted).collect(),
        includes_wal: true,
    };
    Ok(BackupReport {
        start: position(start.timeline, start.lsn),
        end: position(end.timeline, end.lsn),
        // The log up to `end` is inside; going on needs whole log files from the one on
        // which `end` lies.
        log_from: position(end.timeline, end.lsn - end.lsn % segment_bytes),
        consistent_at: consistent_at(settings, &unpacked, &end).await,
        version: version.to_string(),
        main: MAIN.to_owned(),
        volumes: volumes(settings, &tablespaces).await,
        notes: notes.to_json()?,
    })
}

/// What a backup needs to know of the server beforehand.
struct Server {
    /// The size of a log file.
    segment_bytes: u64,
    /// The permissions of its folders.
    folder_mode: u32,
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
        Ok(Self { segment_bytes, folder_mode })
    }
}

async fn setting(session: &mut Session, name: &str) -> Result<String> {
    let rows = session.rows(&show(name).map_err(from_wire)?).await?;
    Ok(rows.need(name)?.to_owned())
}

/// A place in the log, as the server answers at a backup's start and end.
struct Place {
    timeline: u32,
    lsn: u64,
}

impl Place {
    async fn read(session: &mut Session) -> Result<Self> {
        let rows = session.result().await?;
        Ok(Self { lsn: parse_lsn(rows.need("recptr")?)?, timeline: timeline(rows.need("tli")?)? })
    }
}

/// One row of the server's list of what it will send. The main folder is one of them.
struct Tablespace {
    /// Nothing for the main folder.
    oid: Option<u32>,
    location: String,
    /// Roughly.
    bytes: u64,
}

impl Tablespace {
    async fn read(session: &mut Session) -> Result<Vec<Self>> {
        let rows = session.result().await?;
        (0..rows.len()).map(|row| Self::of(&rows, row)).collect()
    }

    fn of(rows: &Rows, row: usize) -> Result<Self> {
        let oid = match rows.get(row, "spcoid") {
            None => None,
            Some(text) => Some(oid(text)?),
        };
        let kib: u64 = rows.get(row, "size").and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(Self {
            oid,
            location: rows.get(row, "spclocation").unwrap_or_default().to_owned(),
            bytes: kib.saturating_mul(1024),
        })
    }

    /// What lies outside the main folder; a tablespace "in place" does not.
    fn noted(&self) -> Option<notes::Tablespace> {
        let oid = self.oid.filter(|_| self.location.starts_with('/'))?;
        Some(notes::Tablespace { oid, location: self.location.clone() })
    }
}

fn oid(text: &str) -> Result<u32> {
    text.parse()
        .ok()
        .filter(|oid| *oid > 0)
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the server's list of tablespaces cannot be read"))
}

/// Takes in all archives and the manifest.
async fn receive(session: &mut Session, tablespaces: &[Tablespace], unpacker: &mut Unpacker<'_>) -> Result<()> {
    let total: u64 = tablespaces.iter().map(|tablespace| tablespace.bytes).sum();
    let mut progress = Progress { total, done: 0, shown: 0 };
    progress.show();
    if session.version().has_bracketed_options() {
        receive_in_one(session, tablespaces, unpacker, &mut progress).await?;
    } else {
        receive_one_by_one(session, tablespaces, unpacker, &mut progress).await?;
    }
    progress.show();
    Ok(())
}

/// As of version 15: one copy, with messages inside that tell what begins.
async fn receive_in_one(
    session: &mut Session,
    tablespaces: &[Tablespace],
    unpacker: &mut Unpacker<'_>,
    progress: &mut Progress,
) -> Result<()> {
    match session.next().await? {
        Backend::CopyOut => {}
        Backend::ErrorResponse(error) => return Err(from_server(&error)),
        _ => return Err(unexpected("before the base backup")),
    }
    let mut archives = 0;
    loop {
        match session.next().await? {
            Backend::CopyData(copied) => match BackupMessage::parse(copied).map_err(from_wire)? {
                BackupMessage::Archive { name, location } => {
                    let oid = match name.strip_suffix(".tar") {
                        Some("base") => None,
                        Some(number) => Some(oid(number)?),
                        None => return Err(unexpected("in the base backup")),
                    };
                    archives += 1;
                    if !tablespaces.iter().any(|tablespace| tablespace.oid == oid) {
                        return Err(unexpected("about a tablespace that it had not announced"));
                    }
                    unpacker.begin_archive(oid, location).await?;
                }
                BackupMessage::Manifest => unpacker.begin_manifest().await?,
                BackupMessage::Data(data) => {
                    progress.add(data.len());
                    unpacker.data(data).await?;
                }
                BackupMessage::Progress { .. } => {}
            },
            Backend::CopyDone => break,
            Backend::ErrorResponse(error) => return Err(from_server(&error)),
            _ => return Err(unexpected("in the base backup")),
        }
    }
    if archives != tablespaces.len() {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("the server sent {archives} of {} archives", tablespaces.len()),
        ));
    }
    unpacker.end_part().await
}

/// Up to version 14: a copy for each archive, in the order of the list, then the manifest.
async fn receive_one_by_one(
    session: &mut Session,
    tablespaces: &[Tablespace],
    unpacker: &mut Unpacker<'_>,
    progress: &mut Progress,
) -> Result<()> {
    for part in tablespaces.iter().map(Some).chain([None]) {
        match session.next().await? {
            Backend::CopyOut => {}
            Backend::ErrorResponse(error) => return Err(from_server(&error)),
            _ => return Err(unexpected("before an archive")),
        }
        match part {
            Some(tablespace) => unpacker.begin_archive(tablespace.oid, &tablespace.location).await?,
            None => unpacker.begin_manifest().await?,
        }
        loop {
            match session.next().await? {
                Backend::CopyData(data) => {
                    progress.add(data.len());
                    unpacker.data(data).await?;
                }
                Backend::CopyDone => break,
                Backend::ErrorResponse(error) => return Err(from_server(&error)),
                _ => return Err(unexpected("in an archive")),
            }
        }
    }
    unpacker.end_part().await
}

/// Reads up to where the server waits for a command: only then is the backup done for it.
async fn finish(session: &mut Session) -> Result<()> {
    loop {
        match session.next().await? {
            Backend::CommandComplete(_) => {}
            Backend::ReadyForQuery(_) => return Ok(()),
            Backend::ErrorResponse(error) => return Err(from_server(&error)),
            _ => return Err(unexpected("after the base backup")),
        }
    }
}

/// A time that no commit inside the backup is later than, by the server's clock.
///
/// That of the last commit in the log up to `end`. Where there was none, all commits are
/// older than the start: its time is in the label, to the second and in the server's own time
/// zone. Where that is not UTC, the server is asked for its clock.
async fn consistent_at(settings: &Settings, unpacked: &Unpacked, end: &Place) -> Option<u64> {
    if let Some(time) = unpacked.last_commit_before(end.lsn) {
        return Some(time);
    }
    let label = BackupLabel::parse(&unpacked.label).ok();
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
async fn volumes(settings: &Settings, tablespaces: &[Tablespace]) -> Vec<Volume> {
    let outside: Vec<_> = tablespaces.iter().filter_map(Tablespace::noted).collect();
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
        .into_iter()
        .map(|tablespace| Volume {
            name: format!("{TABLESPACES}/{}", tablespace.oid),
            title: title(tablespace.oid),
            location: tablespace.location,
        })
        .collect()
}

async fn names(settings: &Settings) -> Result<Rows> {
    let mut session = Session::open(settings, Purpose::Sql).await?;
    let rows = session.rows("SELECT oid, spcname FROM pg_catalog.pg_tablespace").await;
    session.close().await;
    rows
}

/// Tells the host how far the backup is, not too often.
struct Progress {
    total: u64,
    done: u64,
    shown: u64,
}

impl Progress {
    fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.done - self.shown >= PROGRESS_BYTES {
            self.show();
        }
    }

    fn show(&mut self) {
        self.shown = self.done;
        // The estimate knows nothing of tar's headers and of the log that is added.
        host::progress("backup", self.done, Some(self.total.max(self.done)));
    }
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
