//! Relations that were cut since the backup before.
//!
//! ```text
//!   backup before          VACUUM cuts, COPY adds zeros            this backup
//!   ████████████      →    ████                      →             ████□□□□█     █ listed  □ zeros, not listed
//! ```
//!
//! Blocks that a bulk load adds are zeros that the log does not mention, so the server does not list them, and what
//! lay there before the cut would come back: rows that were deleted. The server's summaries of its log tell where a
//! relation was cut. A visibility map is not believed behind any cut of its relation: where it is zeros, nothing
//! relies on it.

use std::collections::HashMap;

use backstay_postgresql_wire::lsn::Lsn;
use backstay_postgresql_wire::protocol::frontend::Purpose;
use backstay_postgresql_wire::relation_file::segment_number;
use backstay_sdk::{Error, ErrorKind, Result};

use crate::connection::{Rows, Session};
use crate::limits::{CUT_ROWS, CUTS_MAX};
use crate::settings::Settings;

/// OIDs that never change: the tablespaces `pg_default` and `pg_global`.
const DEFAULT: u32 = 1663;
const GLOBAL: u32 = 1664;

/// Numbers of forks.
const MAIN: u8 = 0;
const VISIBILITY_MAP: u8 = 2;

/// A fork of a relation, as the log names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Fork {
    space: u32,
    database: u32,
    node: u32,
    fork: u8,
}

/// Where each relation was cut.
#[derive(Debug, Default)]
pub(super) struct Cuts(HashMap<Fork, u32>);

impl Cuts {
    /// Asks for all cuts between the starts of two backups on one timeline. The server has its summaries once it
    /// has said where the later one starts.
    pub(super) async fn read(settings: &Settings, timeline: u32, from: u64, to: u64) -> Result<Self> {
        let mut session = Session::open(settings, Purpose::Sql).await?;
        let cuts = Self::ask(&mut session, timeline, from, to).await.map_err(|error| match error.kind {
            ErrorKind::Denied => error.hint(
                "let the role read summaries, in the database that `dbname` names: GRANT EXECUTE ON FUNCTION \
                 pg_available_wal_summaries(), pg_wal_summary_contents(bigint, pg_lsn, pg_lsn) TO …",
            ),
            _ => error,
        });
        session.close().await;
        cuts
    }

    async fn ask(session: &mut Session, timeline: u32, from: u64, to: u64) -> Result<Self> {
        let (from, to) = (Lsn(from), Lsn(to));
        session.query("BEGIN READ ONLY").await?;
        // A cursor: very many relations may have been made and cut.
        let declare = format!(
            "DECLARE cuts NO SCROLL CURSOR FOR
             SELECT reltablespace AS space, reldatabase AS database, relfilenode AS node, relforknumber AS fork,
                    min(relblocknumber) AS block
             FROM pg_catalog.pg_available_wal_summaries() s,
                  pg_catalog.pg_wal_summary_contents(s.tli, s.start_lsn, s.end_lsn)
             WHERE is_limit_block AND s.tli = {timeline} AND s.start_lsn < '{to}' AND s.end_lsn > '{from}'
             GROUP BY 1, 2, 3, 4"
        );
        session.query(&declare).await?;
        let mut cuts = Self::default();
        loop {
            let rows = session.rows(&format!("FETCH {CUT_ROWS} FROM cuts")).await?;
            for row in 0..rows.len() {
                cuts.add(&rows, row)?;
            }
            if rows.len() < CUT_ROWS {
                return Ok(cuts);
            }
            if cuts.0.len() > CUTS_MAX {
                let message = format!("more than {CUTS_MAX} relations were cut since the backup before");
                return Err(Error::new(ErrorKind::Unsupported, message).hint("make a backup by stream, to build on"));
            }
        }
    }

    fn add(&mut self, rows: &Rows, row: usize) -> Result<()> {
        let number = |column| rows.get(row, column).and_then(|text| text.parse::<u32>().ok());
        let read = || {
            let (space, database, node) = (number("space")?, number("database")?, number("node")?);
            let fork = u8::try_from(number("fork")?).ok()?;
            // What no block number reaches was not cut.
            let block: u64 = rows.get(row, "block")?.parse().ok()?;
            Some((Fork { space, database, node, fork }, u32::try_from(block).unwrap_or(u32::MAX)))
        };
        let unreadable = || Error::new(ErrorKind::Corrupt, "the server's summaries of its log cannot be read");
        let (fork, block) = read().ok_or_else(unreadable)?;
        self.0.insert(fork, block);
        Ok(())
    }

    /// The segment that `listed` is, and where its relation was cut; `listed` is a path of the manifest.
    pub(super) fn of(&self, listed: &str) -> Option<(u32, u32)> {
        let segment = segment_number(listed)?;
        let fork = Fork::of(listed)?;
        let cut = self.0.get(&fork).copied();
        let block = match fork.fork {
            VISIBILITY_MAP if cut.is_some() || self.0.contains_key(&Fork { fork: MAIN, ..fork }) => 0,
            _ => cut?,
        };
        Some((segment, block))
    }
}

impl Fork {
    fn of(listed: &str) -> Option<Self> {
        let parts: Vec<&str> = listed.split('/').collect();
        let (space, database, name) = match *parts.as_slice() {
            ["global", name] => (GLOBAL, 0, name),
            ["base", database, name] => (DEFAULT, database.parse().ok()?, name),
            ["pg_tblspc", space, _version, database, name] => (space.parse().ok()?, database.parse().ok()?, name),
            _ => return None,
        };
        let stem = name.split('.').next()?;
        let (node, fork) = match stem.split_once('_') {
            None => (stem, MAIN),
            Some((node, "fsm")) => (node, 1),
            Some((node, "vm")) => (node, VISIBILITY_MAP),
            Some((node, "init")) => (node, 3),
            Some(_) => return None,
        };
        Some(Self { space, database, node: node.parse().ok()?, fork })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuts(of: &[(u32, u32, u32, u8, u32)]) -> Cuts {
        let one = |&(space, database, node, fork, block): &(u32, u32, u32, u8, u32)| {
            (Fork { space, database, node, fork }, block)
        };
        Cuts(of.iter().map(one).collect())
    }

    #[test]
    fn a_cut_is_found_by_the_file_s_path() {
        let cuts = cuts(&[
            (DEFAULT, 5, 16384, 0, 7),
            (GLOBAL, 0, 1260, 0, 1),
            (16400, 5, 16500, 0, 200_000),
            (DEFAULT, 5, 16384, 1, 3),
        ]);
        for (path, cut) in [
            ("base/5/16384", Some((0, 7))),
            ("base/5/16384.2", Some((2, 7))),
            ("base/6/16384", None),
            ("base/5/16384_fsm", Some((0, 3))),
            ("global/1260", Some((0, 1))),
            ("pg_tblspc/16400/PG_18_202506291/5/16500.1", Some((1, 200_000))),
            ("pg_tblspc/16401/PG_18_202506291/5/16500", None),
            ("base/5/PG_VERSION", None),
        ] {
            assert_eq!(cuts.of(path), cut, "{path}");
        }
    }

    #[test]
    fn a_visibility_map_counts_for_nothing_once_its_relation_was_cut() {
        let cuts = cuts(&[(DEFAULT, 5, 16384, 0, 7), (DEFAULT, 5, 16390, 2, 9)]);
        assert_eq!(cuts.of("base/5/16384_vm"), Some((0, 0)));
        assert_eq!(cuts.of("base/5/16390_vm"), Some((0, 0)));
        assert_eq!(cuts.of("base/5/16391_vm"), None);
    }
}
