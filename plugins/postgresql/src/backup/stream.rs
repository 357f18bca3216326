//! Method `stream`: a base backup over a replication session.
//!
//! ```text
//!   BASE_BACKUP ─▶ Session ─▶ parts (archive, manifest, data) ─▶ Unpacker ─▶ BackupWriter
//!                                                                   │  data/…
//!                                     checksum and size of each ◀───┤  tablespaces/<oid>/…
//!                                                                   │  data/backup_manifest
//!                                     Ledger ◀── Manifest ◀─────────┘
//! ```
//!
//! For the method `incremental` the manifest of the backup before goes up first. Blocks that changed since then come
//! in files of their own, which the host puts into the files that it has: what is stored is a full backup.
//!
//! Every file's size and checksum, as the host stored it, is compared with the server's manifest,
//! and the manifest with its own checksum: what does not fit fails the backup.

use backstay_postgresql_wire::protocol::Backend;
use backstay_postgresql_wire::relation_file::Layout;
use backstay_postgresql_wire::replication::{BackupMessage, BaseBackup};
use backstay_sdk::{BackupJob, BackupReport, BackupWriter, Error, ErrorKind, Level, Result, host};

use super::base::Base;
use super::cuts::Cuts;
use super::unpack::{Changes, Unpacker};
use super::{MAIN, Notes, Server, consistent_at, notes, oid, ready, switched, volumes};
use crate::connection::{Rows, Session, unexpected};
use crate::inspect::{System, timeline};
use crate::limits::PROGRESS_BYTES;
use crate::position::{parse_lsn, position};
use crate::refusal::{from_server, from_wire};
use crate::settings::Settings;

/// The manifest's path in the backup.
pub(super) const MANIFEST_PATH: &str = "data/backup_manifest";

/// What the server is asked to send.
pub(super) enum Scope {
    All,
    /// What changed since a backup; all, where there is none yet.
    Changes(Option<Base>),
}

/// Makes a backup.
pub(super) async fn backup(
    settings: &Settings,
    job: &BackupJob,
    into: &BackupWriter,
    scope: Scope,
) -> Result<BackupReport> {
    let mut session = Session::open_replication(settings).await?;
    let system = System::identify(&mut session).await?;
    into.identify(&system.identity).await?;
    let base = match scope {
        Scope::All => None,
        Scope::Changes(_) if !session.version().has_incremental_backups() => {
            let message = format!("the server is PostgreSQL {}, which makes no incremental backups", session.version());
            return Err(Error::new(ErrorKind::Unsupported, message)
                .hint("use the method stream or files, or upgrade the server to PostgreSQL 17 or later"));
        }
        // Where relations were cut is asked for on one timeline.
        Scope::Changes(Some(base)) if u64::from(base.timeline) != system.tail.epoch => {
            host::log(
                Level::Info,
                "the server changed its timeline since the backup before: this one copies everything",
            );
            None
        }
        Scope::Changes(base) => base,
    };
    let Server { segment_bytes, folder_mode, .. } = Server::prepare(&mut session).await?;

    let command = BaseBackup {
        label: &job.label,
        checkpoint: settings.checkpoint,
        max_rate_kib: settings.max_rate,
        progress: true,
        wal: true,
        incremental: base.is_some(),
    };
    let command = command.command(session.version()).map_err(from_wire)?;
    let layout = match &base {
        Some(base) => base.upload(&mut session).await?,
        None => Layout::default(),
    };
    host::progress("checkpoint", 0, None);
    session.command(&command).await?;
    let start = Place::read(&mut session).await?;
    let changes = match base {
        Some(base) => {
            if base.timeline != start.timeline {
                return Err(switched());
            }
            let cuts = Cuts::read(settings, base.timeline, base.start, start.lsn).await?;
            Some(Changes { layout, base, cuts })
        }
        None => None,
    };
    let tablespaces = Tablespace::read(&mut session).await?;

    let mut unpacker = Unpacker::new(into, segment_bytes, folder_mode, changes);
    receive(&mut session, &tablespaces, &mut unpacker).await?;
    let end = Place::read(&mut session).await?;
    ready(&mut session).await?;
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

    let outside: Vec<_> = tablespaces.iter().filter_map(Tablespace::noted).collect();
    let notes = Notes {
        version: version.to_string(),
        system_identifier: system.identity,
        segment_bytes,
        tablespaces: outside.clone(),
        includes_wal: true,
    };
    Ok(BackupReport {
        start: position(start.timeline, start.lsn),
        end: position(end.timeline, end.lsn),
        // The log up to `end` is inside; going on needs whole log files from the one on
        // which `end` lies.
        log_from: position(end.timeline, end.lsn - end.lsn % segment_bytes),
        consistent_at: consistent_at(settings, unpacked.last_commit_before(end.lsn), &unpacked.label).await,
        version: version.to_string(),
        main: MAIN.to_owned(),
        volumes: volumes(settings, &outside).await,
        notes: notes.to_json()?,
    })
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
