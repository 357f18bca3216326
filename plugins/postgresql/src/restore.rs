//! `restore`: a backup, the log up to the target, and what the server needs to replay it.
//!
//! ```text
//!   backup:  data/ ───────────────▶ the folder
//!            tablespaces/<oid>/ ──▶ volumes, linked from pg_tblspc/<oid>
//!   log ─────────────────────────▶ pg_wal/, with the timelines' histories
//!   target ──────────────────────▶ postgresql.auto.conf, recovery.signal
//! ```
//!
//! The server does the rest when it starts: replays, stops at the target, promotes itself to
//! a new timeline. All log is laid out beforehand, so nothing of Backstay is needed then.
//!
//! A server fails to start when its log ends before the target it was told. So a target that
//! no record lies behind is not told: all log is replayed, which comes to the same.

mod recovery_settings;

use backstay_postgresql_wire::backup_label::BackupLabel;
use backstay_postgresql_wire::history;
use backstay_postgresql_wire::limits::MANIFEST_BYTES_MAX;
use backstay_postgresql_wire::manifest::Manifest;
use backstay_postgresql_wire::tablespace_map::{self, Tablespace};
use backstay_sdk::{
    BackupReader, Directory, Error, ErrorKind, FileAttributes, LogReader, NodeKind, RecoveryTarget, RestoreJob,
    RestoreReport, Result, Volume, host,
};

use self::recovery_settings::{Recovery, Stop, stop_at, waits_for_standby};
use crate::backup::{MAIN, Notes, TABLESPACES};
use crate::locate;
use crate::log_scan::Line;
use crate::refusal::from_wire;

/// Largest settings file or map that is read; servers write a few KiB.
const SMALL_FILE_BYTES_MAX: usize = 1 << 20;

/// Mode of the server's folders, unless the backup's are readable by the group.
const FOLDER_MODE: u32 = 0o700;

const AUTO_CONF: &str = "postgresql.auto.conf";
const PG_WAL: &str = "pg_wal";
const TABLESPACE_MAP: &str = "tablespace_map";
const BACKUP_MANIFEST: &str = "backup_manifest";

/// Puts a backup, and the log up to the target, into a folder.
pub async fn restore(
    job: &RestoreJob,
    from: &BackupReader,
    logs: Option<&LogReader>,
    into: &Directory,
) -> Result<RestoreReport> {
    let notes = Notes::from_json(&from.notes())?;
    // Errors in the target are told before anything is changed.
    stop_at(&job.target)?;
    let maps = volumes(&job.volumes)?;
    check_destination(job, &notes, into).await?;
    for (volume, oid) in &maps {
        check_tablespace(job, volume, *oid, into).await?;
    }

    from.place(MAIN, into, &[]).await?;
    for (volume, _) in &maps {
        let folder = host::open_directory(&volume.name)?;
        from.place(&volume.name, &folder, &[]).await?;
    }
    let mode = file_mode(into).await?;
    link_tablespaces(&maps, mode, into).await?;

    let label = into.read_all("backup_label", SMALL_FILE_BYTES_MAX).await?;
    let label = BackupLabel::parse(&label).map_err(from_wire)?;
    if let Some(logs) = logs {
        lay_out_log(logs, notes.segment_bytes, mode, into).await?;
    }
    let timeline = match job.epoch {
        Some(epoch) if epoch != u64::from(label.timeline) => epoch.to_string(),
        // As the number would, but without asking for the timeline's history file.
        _ => "current".to_owned(),
    };
    let stop = match stop_at(&job.target)? {
        Some(stop) if reaches(job, logs).await? => Some(stop),
        _ => None,
    };
    let recovery = Recovery { stop, inclusive: job.inclusive, timeline };
    let settings = write_settings(&recovery, mode, into).await?;
    // A backup taken from a standby would come up as one.
    into.remove("standby.signal").await?;
    into.write_all("recovery.signal", attributes(mode), b"").await?;
    Ok(RestoreReport { next_steps: next_steps(&notes, &recovery, &settings, into).await? })
}

/// The job's volumes with their OIDs.
fn volumes(volumes: &[Volume]) -> Result<Vec<(&Volume, u32)>> {
    let oid = |volume: &Volume| {
        let oid = volume.name.strip_prefix(TABLESPACES)?.strip_prefix('/')?;
        oid.parse().ok().filter(|&oid| oid > 0)
    };
    volumes
        .iter()
        .map(|volume| {
            let oid = oid(volume).ok_or_else(|| {
                Error::new(ErrorKind::BadConfig, format!("the backup has no volume {:?}", volume.name))
            })?;
            if !volume.location.starts_with('/') || volume.location.contains('\0') {
                return Err(Error::new(
                    ErrorKind::BadConfig,
                    format!("tablespace {} cannot lie at {:?}", volume.title, volume.location),
                )
                .hint("give the absolute path of a folder"));
            }
            Ok((volume, oid))
        })
        .collect()
}

/// Refuses what would destroy something: a running server, another cluster, any other files.
async fn check_destination(job: &RestoreJob, notes: &Notes, into: &Directory) -> Result<()> {
    if into.stat("postmaster.pid").await?.is_some() {
        return Err(Error::new(ErrorKind::Conflict, "a server may be running on the folder: it holds postmaster.pid")
            .hint("stop the server; if none runs, remove postmaster.pid"));
    }
    let is_empty = into.entries("").next().await?.is_none();
    if is_empty {
        return Ok(());
    }
    if !job.delta {
        return Err(Error::new(ErrorKind::BadConfig, "the folder is not empty").hint("restore into an empty folder"));
    }
    if into.stat("PG_VERSION").await?.is_none() {
        return Err(Error::new(ErrorKind::BadConfig, "the folder is not empty, and is no PostgreSQL data folder")
            .hint("restore into an empty folder, or one that holds an older state of this database"));
    }
    if into.stat("global/pg_control").await?.is_some() {
        let mut head = Vec::new();
        let mut bytes = into.read("global/pg_control", 0, Some(8));
        while let Some(part) = bytes.next().await? {
            head.extend_from_slice(part);
        }
        let identity = <[u8; 8]>::try_from(head).map(u64::from_le_bytes);
        // Servers on big-endian machines do not exist for the versions we speak to.
        if let Ok(identity) = identity
            && identity.to_string() != notes.system_identifier
        {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "the folder holds another cluster: system identifier {identity}, the backup's is {}",
                    notes.system_identifier
                ),
            )
            .hint("restore into an empty folder"));
        }
    }
    Ok(())
}

/// Refuses to clear a folder that is no tablespace of the older state: what lies there would be lost.
async fn check_tablespace(job: &RestoreJob, volume: &Volume, oid: u32, into: &Directory) -> Result<()> {
    if host::open_directory(&volume.name)?.entries("").next().await?.is_none() {
        return Ok(());
    }
    let link = into.stat(&format!("pg_tblspc/{oid}")).await?.map(|node| node.kind);
    if job.delta
        && let Some(NodeKind::Symlink(location)) = link
        && location.trim_end_matches('/') == volume.location.trim_end_matches('/')
    {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::BadConfig,
        format!("{} is not empty, and is not where the folder's tablespace {} lies", volume.location, volume.title),
    )
    .hint("map the tablespace to an empty folder"))
}

/// The mode of the data folder's files: a cluster may let its group read.
async fn file_mode(into: &Directory) -> Result<u32> {
    let version = into
        .stat("PG_VERSION")
        .await?
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the backup is no data folder: it has no PG_VERSION"))?;
    Ok(version.attributes.mode & 0o640 | 0o600)
}

fn attributes(mode: u32) -> FileAttributes {
    FileAttributes { mode, modified: host::now() }
}

/// Links each tablespace to where it lies now. The server makes the links anew from
/// `tablespace_map`, so that has to agree, and the manifest with it.
async fn link_tablespaces(volumes: &[(&Volume, u32)], mode: u32, into: &Directory) -> Result<()> {
    if volumes.is_empty() {
        return Ok(());
    }
    let folder = FileAttributes { mode: FOLDER_MODE | (mode & 0o040) >> 3 | mode & 0o040, ..attributes(mode) };
    if into.stat("pg_tblspc").await?.is_none() {
        into.create("pg_tblspc", folder).await?;
    }
    for (volume, oid) in volumes {
        let link = format!("pg_tblspc/{oid}");
        match into.stat(&link).await?.map(|node| node.kind) {
            None => {}
            Some(NodeKind::Symlink(_)) => into.remove(&link).await?,
            Some(_) => {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("the backup has {link}, where a tablespace's link belongs"),
                ));
            }
        }
        into.link(&link, &volume.name).await?;
    }
    let map = volumes.iter().map(|(volume, oid)| Tablespace { oid: *oid, location: volume.location.clone() });
    let map = tablespace_map::to_bytes(&map.collect::<Vec<_>>());
    let there = into.stat(TABLESPACE_MAP).await?.is_some();
    if there && into.read_all(TABLESPACE_MAP, SMALL_FILE_BYTES_MAX).await? == map {
        return Ok(());
    }
    into.write_all(TABLESPACE_MAP, attributes(mode), &map).await?;
    if there && into.stat(BACKUP_MANIFEST).await?.is_some() {
        let manifest = into.read_all(BACKUP_MANIFEST, MANIFEST_BYTES_MAX).await?;
        let mut manifest = Manifest::parse(&manifest).map_err(from_wire)?;
        manifest.replace(TABLESPACE_MAP, &map, host::now() / 1_000_000).map_err(from_wire)?;
        into.write_all(BACKUP_MANIFEST, attributes(mode), &manifest.to_bytes()).await?;
    }
    Ok(())
}

async fn lay_out_log(logs: &LogReader, segment_bytes: u64, mode: u32, into: &Directory) -> Result<()> {
    logs.place(into, PG_WAL, segment_bytes).await?;
    for name in logs.notes().await? {
        if history::parse_file_name(&name).is_some() {
            let history = logs.read_note(&name).await?;
            into.write_all(&format!("{PG_WAL}/{name}"), attributes(mode), &history).await?;
        }
    }
    Ok(())
}

/// Whether the log has what makes a server stop at the target.
async fn reaches(job: &RestoreJob, logs: Option<&LogReader>) -> Result<bool> {
    match &job.target {
        RecoveryTarget::Latest => Ok(false),
        RecoveryTarget::BackupEnd => Ok(true),
        // They were found in the log.
        RecoveryTarget::Transaction(_) | RecoveryTarget::Name(_) => Ok(true),
        // A server stops at the first end of a transaction behind the time.
        RecoveryTarget::Time(time) => {
            let Some(logs) = logs else { return Ok(false) };
            let last = Line::read(logs).await?.last_commit();
            Ok(last.is_some_and(|last| if job.inclusive { last > *time } else { last >= *time }))
        }
        // A server stops at the first record that starts at the position or behind it.
        RecoveryTarget::Position(text) => {
            let Some(logs) = logs else { return Ok(false) };
            let wanted = locate::position(text)?.offset;
            let line = Line::read(logs).await?;
            let found = line.find(logs, wanted, |record| record.start >= wanted).await?;
            Ok(found.is_some())
        }
    }
}

/// Answers all settings of the file.
async fn write_settings(recovery: &Recovery, mode: u32, into: &Directory) -> Result<String> {
    let before = if into.stat(AUTO_CONF).await?.is_some() {
        into.read_all(AUTO_CONF, SMALL_FILE_BYTES_MAX).await?
    } else {
        Vec::new()
    };
    let before = String::from_utf8(before)
        .map_err(|_| Error::new(ErrorKind::Unsupported, format!("the backup's {AUTO_CONF} is not UTF-8")))?;
    let text = recovery.write(&before);
    into.write_all(AUTO_CONF, attributes(mode), text.as_bytes()).await?;
    Ok(text)
}

async fn next_steps(notes: &Notes, recovery: &Recovery, settings: &str, into: &Directory) -> Result<Vec<String>> {
    let mut steps = Vec::new();
    let major = notes.version.split('.').next().unwrap_or_default();
    let mut options = String::new();
    if into.stat("postgresql.conf").await?.is_none() {
        // Debian's settings name the old folder, and that beats `-D`.
        let file = format!("/etc/postgresql/{major}/main/postgresql.conf");
        options = format!(" -o \"-c config_file={file} -c data_directory=FOLDER -c external_pid_file=''\"");
        steps.push(format!(
            "postgresql.conf is not in the folder, on Debian it is {file}: start with it as below, and keep \
             data_directory there, for the file names the old folder"
        ));
    } else if into.stat("pg_hba.conf").await?.is_none() {
        steps.push("pg_hba.conf is not in the folder: put a copy there, or name it with `-c hba_file=…`".to_owned());
    }
    if waits_for_standby(settings) {
        steps.push(
            "synchronous_standby_names is set: commits of the restored server wait for that \
             standby; empty it unless one will be there"
                .to_owned(),
        );
    }
    let until = match &recovery.stop {
        None => "the end of the log",
        Some(Stop::Immediate) => "where the backup is consistent",
        Some(_) => "the target",
    };
    steps.push(format!(
        "start PostgreSQL {major} on the folder, as the user who owns it: pg_ctl -D FOLDER{options} -t 86400 -w start"
    ));
    steps.push(format!("it replays the log up to {until}, then opens for writing on a new timeline"));
    Ok(steps)
}
