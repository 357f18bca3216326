//! The names of a log's objects, below `logs/<target>/`.

use backstay_core::{Segment, TargetName};
use std::fmt;

/// The name of one object. Numbers have 20 digits, so that names sort as numbers do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ObjectName {
    /// `<epoch>/<start>`: a piece as an archiver appended it. Its start alone is the name,
    /// so that of two archivers exactly one can create it.
    Appended { epoch: u64, start: u64 },
    /// `<epoch>/<start>-<end>-<file>`: pieces of one database file, merged.
    Merged { epoch: u64, start: u64, end: u64, file: String },
    /// `<epoch>/claim`: where the epoch starts and what it follows.
    Claim { epoch: u64 },
    /// `identity`: which database this is.
    Identity,
    /// `confirmed`: how far the log is complete though nothing was logged.
    Confirmed,
    /// `index`: the headers of merged pieces, so that they need not be read one by one.
    Index,
    /// `notes/<name>`: a note.
    Note(String),
}

const IDENTITY: &str = "identity";
const CONFIRMED: &str = "confirmed";
const INDEX: &str = "index";
const CLAIM: &str = "claim";
const NOTES: &str = "notes";
const DIGITS: usize = 20;

impl ObjectName {
    pub(crate) fn appended(piece: &Segment) -> Self {
        Self::Appended { epoch: piece.start.epoch, start: piece.start.offset }
    }

    pub(crate) fn merged(piece: &Segment) -> Self {
        Self::Merged {
            epoch: piece.start.epoch,
            start: piece.start.offset,
            end: piece.end.offset,
            file: piece.file.clone(),
        }
    }

    /// Reads what [`ObjectName`]'s `Display` writes; nothing where it is another kind of name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name.split_once('/') {
            None if name == IDENTITY => Some(Self::Identity),
            None if name == CONFIRMED => Some(Self::Confirmed),
            None if name == INDEX => Some(Self::Index),
            None => None,
            Some((NOTES, note)) => Segment::is_file_name(note).then(|| Self::Note(note.to_owned())),
            Some((epoch, rest)) => {
                let epoch = number(epoch)?;
                if rest == CLAIM {
                    return Some(Self::Claim { epoch });
                }
                let Some((start, rest)) = rest.split_once('-') else {
                    return Some(Self::Appended { epoch, start: number(rest)? });
                };
                let (end, file) = rest.split_once('-')?;
                let (start, end) = (number(start)?, number(end)?);
                (start < end && Segment::is_file_name(file)).then(|| Self::Merged {
                    epoch,
                    start,
                    end,
                    file: file.to_owned(),
                })
            }
        }
    }

    /// Epoch and offset that a piece of this name begins at.
    pub(crate) fn place(&self) -> Option<(u64, u64)> {
        match self {
            Self::Appended { epoch, start } | Self::Merged { epoch, start, .. } => Some((*epoch, *start)),
            _ => None,
        }
    }

    /// Whether `piece` is what this name promises.
    pub(crate) fn fits(&self, piece: &Segment) -> bool {
        match self {
            Self::Appended { .. } => *self == Self::appended(piece),
            Self::Merged { .. } => *self == Self::merged(piece),
            _ => false,
        }
    }

    pub(crate) fn is_merged(&self) -> bool {
        matches!(self, Self::Merged { .. })
    }
}

fn number(digits: &str) -> Option<u64> {
    let plain = digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Appended { epoch, start } => write!(f, "{epoch:020}/{start:020}"),
            Self::Merged { epoch, start, end, file } => write!(f, "{epoch:020}/{start:020}-{end:020}-{file}"),
            Self::Claim { epoch } => write!(f, "{epoch:020}/{CLAIM}"),
            Self::Identity => f.write_str(IDENTITY),
            Self::Confirmed => f.write_str(CONFIRMED),
            Self::Index => f.write_str(INDEX),
            Self::Note(name) => write!(f, "{NOTES}/{name}"),
        }
    }
}

/// The folder of a target's log.
pub(crate) fn folder(target: &TargetName) -> String {
    format!("logs/{target}")
}

/// The folder of its notes.
pub(crate) fn notes_folder(target: &TargetName) -> String {
    format!("logs/{target}/{NOTES}")
}

/// The folder of one epoch.
pub(crate) fn epoch_folder(target: &TargetName, epoch: u64) -> String {
    format!("logs/{target}/{epoch:020}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        let merged = ObjectName::Merged { epoch: 1, start: 0, end: u64::MAX, file: "0000-1.partial".into() };
        for name in [
            ObjectName::Appended { epoch: 2, start: 77 },
            merged,
            ObjectName::Claim { epoch: 3 },
            ObjectName::Identity,
            ObjectName::Confirmed,
            ObjectName::Index,
            ObjectName::Note("00000002.history".into()),
        ] {
            assert_eq!(ObjectName::parse(&name.to_string()), Some(name));
        }
    }

    #[test]
    fn foreign_names_are_nobody() {
        let digits = "0".repeat(20);
        for name in [
            "",
            "x",
            "notes/../x",
            "1/2",
            "notes/",
            &digits,
            &format!("{digits}/"),
            &format!("{digits}/{digits}-x"),
            &format!("{digits}/{digits}-{digits}-f"),
            &format!("{digits}/{digits}-{digits}1-f"),
            &format!("{}/{digits}", "9".repeat(20)),
            &format!("{digits}/claim/x"),
        ] {
            assert_eq!(ObjectName::parse(name), None, "{name:?}");
        }
    }
}
