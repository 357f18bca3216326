//! Replication commands, in the dialect of each version.

use std::fmt::Write as _;

use super::{ServerVersion, identifier, literal, slot_name};
use crate::lsn::Lsn;
use crate::{Error, ErrorKind, Result};

/// Asks who the server is: `systemid`, `timeline`, `xlogpos`, `dbname`.
pub const IDENTIFY_SYSTEM: &str = "IDENTIFY_SYSTEM";

/// Offers the manifest of an earlier backup, as a copy from us: an incremental one that is asked for
/// in the same session builds on it. Servers know it as of 17.
pub const UPLOAD_MANIFEST: &str = "UPLOAD_MANIFEST";

/// The word for a checkpoint that does not wait.
pub const CHECKPOINT_FAST_NAME: &str = "fast";

/// Asks for one setting. Names are letters, digits, `_` and `.`.
pub fn show(setting: &str) -> Result<String> {
    let lawful = !setting.is_empty() && setting.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'));
    if lawful {
        return Ok(format!("SHOW {setting}"));
    }
    Err(Error::new(ErrorKind::BadArgument, format_args!("{setting:?} is not a name of a setting")))
}

/// Creates a physical slot whose WAL is kept from this moment on. A temporary one goes with
/// the session.
pub fn create_physical_slot(version: ServerVersion, name: &str, temporary: bool) -> Result<String> {
    let name = identifier(slot_name(name)?)?;
    let temporary = if temporary { " TEMPORARY" } else { "" };
    let reserve = if version.has_bracketed_options() { "(RESERVE_WAL)" } else { "RESERVE_WAL" };
    Ok(format!("CREATE_REPLICATION_SLOT {name}{temporary} PHYSICAL {reserve}"))
}

/// Drops a slot that nobody uses.
pub fn drop_slot(name: &str) -> Result<String> {
    Ok(format!("DROP_REPLICATION_SLOT {}", identifier(slot_name(name)?)?))
}

/// Asks for a slot's `slot_type`, `restart_lsn`, `restart_tli`; nothing before version 15.
pub fn read_slot(version: ServerVersion, name: &str) -> Result<Option<String>> {
    if version.major < 15 {
        return Ok(None);
    }
    Ok(Some(format!("READ_REPLICATION_SLOT {}", identifier(slot_name(name)?)?)))
}

/// Asks for a timeline's history file: `filename`, `content`.
#[must_use]
pub fn timeline_history(timeline: u32) -> String {
    format!("TIMELINE_HISTORY {timeline}")
}

/// Follows the log of `timeline` from `start` on.
pub fn start_replication(slot: Option<&str>, start: u64, timeline: u32) -> Result<String> {
    let slot = match slot {
        Some(name) => format!("SLOT {} ", identifier(slot_name(name)?)?),
        None => String::new(),
    };
    Ok(format!("START_REPLICATION {slot}PHYSICAL {} TIMELINE {timeline}", Lsn(start)))
}

/// How the checkpoint before a base backup goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checkpoint {
    /// At once, with a burst of writes.
    #[default]
    Fast,
    /// Over minutes, as the server's own checkpoints.
    Spread,
}

/// A base backup to ask for: all tablespaces with their map, a manifest with CRC-32C checksums.
#[derive(Debug, Clone, Copy)]
pub struct BaseBackup<'a> {
    /// What `backup_label` calls it.
    pub label: &'a str,
    /// How the checkpoint before it goes about it.
    pub checkpoint: Checkpoint,
    /// Kilobytes a second, 32 to 1,048,576; nothing: as fast as it goes.
    pub max_rate_kib: Option<u32>,
    /// Whether the server estimates the size first, which costs it a walk over all files.
    pub progress: bool,
    /// Whether the WAL that makes the backup consistent is inside.
    pub wal: bool,
    /// Whether only blocks come that changed since the backup whose manifest the session offered with
    /// [`UPLOAD_MANIFEST`]. As of 17, and only where `summarize_wal` is on.
    pub incremental: bool,
}

impl BaseBackup<'_> {
    /// The command in `version`'s dialect.
    ///
    /// The server is told not to wait for its own `archive_command`: the WAL comes inside, or
    /// through replication.
    pub fn command(&self, version: ServerVersion) -> Result<String> {
        let label = literal(self.label)?;
        if let Some(rate) = self.max_rate_kib
            && !(32..=1_048_576).contains(&rate)
        {
            return Err(Error::new(ErrorKind::BadArgument, format_args!("a rate of {rate} kB/s is out of range"))
                .with_hint("use 32 to 1048576 kB/s"));
        }
        if self.incremental && !version.has_incremental_backups() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format_args!("the server is PostgreSQL {version}, which makes no incremental backups"),
            )
            .with_hint("make a full backup, or upgrade the server to PostgreSQL 17 or later"));
        }
        let bracketed = version.has_bracketed_options();
        let mut options = vec![format!("LABEL {label}")];
        if self.progress {
            options.push("PROGRESS".to_owned());
        }
        match (self.checkpoint, bracketed) {
            (Checkpoint::Fast, true) => options.push(format!("CHECKPOINT '{CHECKPOINT_FAST_NAME}'")),
            (Checkpoint::Fast, false) => options.push("FAST".to_owned()),
            (Checkpoint::Spread, true) => options.push("CHECKPOINT 'spread'".to_owned()),
            (Checkpoint::Spread, false) => {}
        }
        if self.wal {
            options.push("WAL".to_owned());
        }
        options.push(if bracketed { "WAIT 0" } else { "NOWAIT" }.to_owned());
        if let Some(rate) = self.max_rate_kib {
            options.push(format!("MAX_RATE {rate}"));
        }
        options.push("TABLESPACE_MAP".to_owned());
        options.push("MANIFEST 'yes'".to_owned());
        options.push("MANIFEST_CHECKSUMS 'CRC32C'".to_owned());
        if self.incremental {
            options.push("INCREMENTAL".to_owned());
        }
        let mut command = "BASE_BACKUP ".to_owned();
        // Writing to a String cannot fail.
        let _ = if bracketed {
            write!(command, "({})", options.join(", "))
        } else {
            write!(command, "{}", options.join(" "))
        };
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const V14: ServerVersion = ServerVersion { major: 14, minor: 9 };
    const V15: ServerVersion = ServerVersion { major: 15, minor: 1 };

    fn backup() -> BaseBackup<'static> {
        BaseBackup {
            label: "it's",
            checkpoint: Checkpoint::Fast,
            max_rate_kib: Some(1024),
            progress: true,
            wal: true,
            incremental: false,
        }
    }

    #[test]
    fn a_base_backup_is_asked_for_in_each_dialect() {
        assert_eq!(
            backup().command(V14).unwrap(),
            "BASE_BACKUP LABEL 'it''s' PROGRESS FAST WAL NOWAIT MAX_RATE 1024 TABLESPACE_MAP \
             MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'"
        );
        assert_eq!(
            backup().command(V15).unwrap(),
            "BASE_BACKUP (LABEL 'it''s', PROGRESS, CHECKPOINT 'fast', WAL, WAIT 0, MAX_RATE 1024, \
             TABLESPACE_MAP, MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C')"
        );
    }

    #[test]
    fn an_incremental_backup_is_asked_for_where_there_is_one() {
        let backup = BaseBackup { incremental: true, max_rate_kib: None, ..backup() };
        for major in [17, 18] {
            let command = backup.command(ServerVersion { major, minor: 0 }).unwrap();
            assert!(command.ends_with("MANIFEST_CHECKSUMS 'CRC32C', INCREMENTAL)"), "{command}");
        }
        for version in [V14, V15, ServerVersion { major: 16, minor: 9 }] {
            let error = backup.command(version).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn a_rate_that_the_server_would_refuse_is_refused_here() {
        for rate in [0, 31, 1_048_577] {
            let backup = BaseBackup { max_rate_kib: Some(rate), ..backup() };
            assert!(backup.command(V15).is_err());
        }
    }

    #[test]
    fn slots_are_made_in_each_dialect() {
        assert_eq!(
            create_physical_slot(V14, "b1", true).unwrap(),
            "CREATE_REPLICATION_SLOT \"b1\" TEMPORARY PHYSICAL RESERVE_WAL"
        );
        assert_eq!(
            create_physical_slot(V15, "b1", false).unwrap(),
            "CREATE_REPLICATION_SLOT \"b1\" PHYSICAL (RESERVE_WAL)"
        );
        assert!(create_physical_slot(V15, "b\" LOGICAL", false).is_err());
        assert_eq!(read_slot(V14, "b1").unwrap(), None);
        assert!(show("a; DROP").is_err());
    }

    #[test]
    fn replication_starts_at_a_place_on_a_timeline() {
        assert_eq!(
            start_replication(Some("s"), 0x1_0300_0028, 3).unwrap(),
            "START_REPLICATION SLOT \"s\" PHYSICAL 1/3000028 TIMELINE 3"
        );
    }
}
