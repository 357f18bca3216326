//! `backup_label`: where the recovery of a base backup begins.
//!
//! Follows `build_backup_content` in `access/xlogbackup.c` and `read_backup_label` in
//! `access/xlogrecovery.c`. Lines that are not known are passed over, as servers do.

use crate::lsn::Lsn;
use crate::{Error, Result};

/// What a `backup_label` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupLabel {
    /// The backup's start: replay begins here.
    pub start: Lsn,
    /// The name of the log file that holds the start.
    pub start_file: String,
    /// The checkpoint that replay starts from.
    pub checkpoint: Lsn,
    /// `streamed`.
    pub method: String,
    /// `primary` or `standby`.
    pub from: String,
    /// The timeline of the start.
    pub timeline: u32,
    /// What the client called the backup.
    pub label: String,
    /// The start as the server's log would show it, in its time zone.
    pub time: Option<String>,
    /// Set in an incremental backup, which cannot be started from.
    pub incremental_from: Option<Predecessor>,
}

/// The start of the backup that an incremental one builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Predecessor {
    /// Where it lies in the log.
    pub start: Lsn,
    /// The timeline it lies on.
    pub timeline: u32,
}

/// The line that says where the backup before started.
const PREDECESSOR_LSN: &str = "INCREMENTAL FROM LSN";

/// The line that says on which timeline.
const PREDECESSOR_TIMELINE: &str = "INCREMENTAL FROM TLI";

impl BackupLabel {
    /// Reads the file.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = String::from_utf8_lossy(bytes);
        let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        let missing = |key: &str| Error::malformed(format_args!("backup_label has no lawful line {key:?}"));
        let required = |key| line(key).ok_or_else(|| missing(key));
        let lsn = |key, text: &str| text.parse::<Lsn>().map_err(|_error| missing(key));

        let key = "START WAL LOCATION";
        let (start, file) = required(key)?.split_once(" (file ").ok_or_else(|| missing(key))?;
        let start_file = file.strip_suffix(')').ok_or_else(|| missing(key))?;
        let timeline = match line("START TIMELINE") {
            Some(timeline) => timeline.parse().ok(),
            None => start_file.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()),
        };
        let incremental_from = match (line(PREDECESSOR_LSN), line(PREDECESSOR_TIMELINE)) {
            (None, None) => None,
            (Some(start), Some(timeline)) => Some(Predecessor {
                start: lsn(PREDECESSOR_LSN, start)?,
                timeline: timeline.parse().map_err(|_error| missing(PREDECESSOR_TIMELINE))?,
            }),
            (None, Some(_)) => return Err(missing(PREDECESSOR_LSN)),
            (Some(_), None) => return Err(missing(PREDECESSOR_TIMELINE)),
        };
        Ok(Self {
            start: lsn(key, start)?,
            start_file: start_file.to_owned(),
            checkpoint: lsn("CHECKPOINT LOCATION", required("CHECKPOINT LOCATION")?)?,
            method: line("BACKUP METHOD").unwrap_or_default().to_owned(),
            from: line("BACKUP FROM").unwrap_or_default().to_owned(),
            timeline: timeline.ok_or_else(|| missing("START TIMELINE"))?,
            label: line("LABEL").unwrap_or_default().to_owned(),
            time: line("START TIME").map(str::to_owned),
            incremental_from,
        })
    }
}

/// The label of the full backup that an incremental one makes together with those it builds on: the
/// same bytes without the lines that name the backup before. A server refuses to start with them.
///
/// Follows `write_backup_label` of `pg_combinebackup`.
#[must_use]
pub fn without_predecessor(bytes: &[u8]) -> Vec<u8> {
    let names_it = |line: &[u8]| {
        [PREDECESSOR_LSN, PREDECESSOR_TIMELINE]
            .iter()
            .any(|key| line.strip_prefix(key.as_bytes()).is_some_and(|rest| rest.starts_with(b": ")))
    };
    bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| !names_it(line)).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
        CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
        START TIME: 2026-11-22 21:16:47 UTC\nLABEL: nightly: all\nSTART TIMELINE: 1\n";

    #[test]
    fn a_label_says_where_to_begin() {
        let label = BackupLabel::parse(LABEL.as_bytes()).unwrap();
        assert_eq!(label.start, Lsn(0x200_0028));
        assert_eq!(label.checkpoint, Lsn(0x200_0060));
        assert_eq!(label.timeline, 1);
        assert_eq!(label.label, "nightly: all");
        assert_eq!(label.start_file, "000000010000000000000002");
        assert_eq!(label.incremental_from, None);
    }

    #[test]
    fn an_incremental_backup_names_the_one_before() {
        let text = format!("{LABEL}INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 3\n");
        let label = BackupLabel::parse(text.as_bytes()).unwrap();
        assert_eq!(label.incremental_from, Some(Predecessor { start: Lsn(0x100_0028), timeline: 3 }));
        for half in [
            "INCREMENTAL FROM LSN: 0/1000028\n",
            "INCREMENTAL FROM TLI: 3\n",
            "INCREMENTAL FROM LSN: x\nINCREMENTAL FROM TLI: 3\n",
        ] {
            assert!(BackupLabel::parse(format!("{LABEL}{half}").as_bytes()).is_err(), "{half}");
        }
    }

    #[test]
    fn only_the_lines_that_name_the_backup_before_go() {
        let text = format!("{LABEL}INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 3");
        assert_eq!(without_predecessor(text.as_bytes()), LABEL.as_bytes());
        for kept in [
            "",
            "\r\n\n",
            "INCREMENTAL FROM LSN\n",
            " INCREMENTAL FROM TLI: 3\n",
            "LABEL: INCREMENTAL FROM TLI: 3\n",
            "no end",
        ] {
            let text = format!("{LABEL}{kept}");
            assert_eq!(without_predecessor(text.as_bytes()), text.as_bytes(), "{kept:?}");
        }
    }

    #[test]
    fn a_label_without_its_places_is_malformed() {
        for missing in ["START WAL", "CHECKPOINT LOC", "(file"] {
            let broken = LABEL.replace(missing, "x");
            assert!(BackupLabel::parse(broken.as_bytes()).is_err(), "{missing}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_label_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = BackupLabel::parse(&bytes);
            let _ = BackupLabel::parse(&[LABEL.as_bytes(), &bytes].concat());
            let _ = BackupLabel::parse(&[&bytes, LABEL.as_bytes()].concat());
            let rest = without_predecessor(&bytes);
            prop_assert!(rest.len() <= bytes.len());
            prop_assert_eq!(without_predecessor(&rest), rest);
        }
    }
}
