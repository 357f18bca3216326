//! What a check found.

use crate::limits::{AFFECTED_LISTED_MAX, PROBLEMS_MAX};
use crate::{RepoErrorKind, Result};
use backstay_core::BackupId;
use std::fmt;

/// The backups that need something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// The newest of them, at most [`AFFECTED_LISTED_MAX`].
    pub listed: Vec<BackupId>,
    /// How many there are.
    pub count: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The object, by its name in the repository; for a tree that makes no sense `tree` and its id.
    pub object: String,
    /// What is wrong with it: `is damaged: …`, `does not belong there`.
    pub what: String,
    /// The backups that need what is damaged, none perhaps; nothing where it is not a part of backups, such as a key.
    pub affected: Option<Affected>,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// What is wrong; at most [`PROBLEMS_MAX`].
    pub errors: Vec<Problem>,
    /// Problems beyond those listed.
    pub errors_unlisted: u64,
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Packs on the store.
    pub packs: u64,
    /// Packs that no index names: harmless, what an interrupted backup leaves.
    pub unreferenced_packs: u64,
    /// Different blobs in the index.
    pub blobs: u64,
    /// Bytes of all packs.
    pub bytes: u64,
    /// Packs that were read.
    pub packs_read: u64,
    /// Bytes that were read and verified.
    pub bytes_read: u64,
}

impl Affected {
    /// This one alone.
    pub(super) fn one(id: BackupId) -> Self {
        Self { listed: vec![id], count: 1 }
    }

    /// One more; the newest come first.
    pub(super) fn add(&mut self, id: &BackupId) {
        self.count += 1;
        if self.listed.len() < AFFECTED_LISTED_MAX {
            self.listed.push(id.clone());
        }
    }
}

impl fmt::Display for Affected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short: Vec<&str> = self.listed.iter().map(BackupId::short).collect();
        match self.count {
            0 => return f.write_str("no backup is harmed"),
            1 => write!(f, "needed by backup {}", short.join(", "))?,
            _ => write!(f, "needed by backups {}", short.join(", "))?,
        }
        match self.count - self.listed.len() as u64 {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.object, self.what)?;
        match &self.affected {
            Some(affected) => write!(f, "; {affected}"),
            None => Ok(()),
        }
    }
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.errors.is_empty()
    }

    /// Takes a problem in; answers its place in the list, if it got one.
    pub(super) fn problem(
        &mut self,
        object: &str,
        what: impl Into<String>,
        affected: Option<Affected>,
    ) -> Option<usize> {
        if self.errors.len() == PROBLEMS_MAX {
            self.errors_unlisted += 1;
            return None;
        }
        self.errors.push(Problem { object: object.to_owned(), what: what.into(), affected });
        Some(self.errors.len() - 1)
    }

    /// An object with a name that nothing has there.
    pub(super) fn stranger(&mut self, key: &str) {
        self.problem(key, "does not belong there", None);
    }

    /// Takes an error about the stored bytes of `object` into the report; others end the check.
    pub(super) fn note<T>(&mut self, object: &str, affected: Option<Affected>, found: Result<T>) -> Result<Option<T>> {
        match found {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == RepoErrorKind::Damaged => {
                let text = error.to_string();
                let what = text
                    .strip_prefix(&format!("{object} "))
                    .map_or_else(|| format!("is damaged: {text}"), str::to_owned);
                self.problem(object, what, affected);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_problem_is_one_line_that_names_the_first_backups_and_counts_the_rest() {
        let mut affected = Affected::default();
        let problem = |affected: &Affected| {
            Problem {
                object: "data/ab".into(),
                what: "is damaged: it is missing".into(),
                affected: Some(affected.clone()),
            }
            .to_string()
        };
        assert_eq!(problem(&affected), "data/ab is damaged: it is missing; no backup is harmed");
        for digit in "1234567".chars() {
            affected.add(&digit.to_string().repeat(64).parse().unwrap());
            if digit == '1' {
                assert_eq!(problem(&affected), "data/ab is damaged: it is missing; needed by backup 11111111");
            }
        }
        let listed = "needed by backups 11111111, 22222222, 33333333, 44444444, 55555555 and 2 more";
        assert_eq!(problem(&affected), format!("data/ab is damaged: it is missing; {listed}"));
    }
}
