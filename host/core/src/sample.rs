//! Made-up log and backups for tests.

use crate::{Backup, BackupManifest, Position, Segment, Timestamp};

/// How much log one made-up database file holds.
const FILE_BYTES: u64 = 64;

pub(crate) fn place(epoch: u64, offset: u64) -> Position {
    Position { epoch, offset, label: format!("{epoch}:{offset}") }
}

/// A piece whose commits happened at second `start` and second `end - 1`.
pub(crate) fn piece(epoch: u64, start: u64, end: u64) -> Segment {
    Segment {
        start: place(epoch, start),
        end: place(epoch, end),
        follows: None,
        first_commit: Some(second(start)),
        last_commit: Some(second(end - 1)),
        file: format!("{epoch:04}-{:04}", start / FILE_BYTES),
        file_offset: start % FILE_BYTES,
    }
}

pub(crate) fn second(second: u64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000)
}

/// A backup whose log starts at `log_from` and that is consistent at `end`, at second `end.offset`.
pub(crate) fn backup(number: u64, log_from: Position, end: Position) -> Backup {
    let time = second(end.offset);
    Backup {
        id: format!("{number:064x}").parse().unwrap_or_else(|_| unreachable!("64 digits")),
        manifest: BackupManifest {
            format: 1,
            target: "shop".parse().unwrap_or_else(|_| unreachable!("a plain name")),
            engine: "postgresql".into(),
            engine_version: "0.1.0".into(),
            database_version: "15.1".into(),
            identity: "1".into(),
            method: "stream".into(),
            started: time,
            finished: time,
            start: log_from.clone(),
            consistent_at: Some(time),
            end,
            log_from,
            main: "data".into(),
            volumes: vec![],
            bytes: 1 << 30,
            files: 1000,
            findings: Vec::new(),
            more_findings: 0,
            notes: "{}".into(),
        },
    }
}
