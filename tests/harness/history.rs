//! The order in which transactions ended, as the WAL itself has it.
//!
//! Read by `pg_waldump` from the source server's own WAL files; Backstay takes no part. The rules by which
//! recovery stops are those of `recoveryStopsBefore` and `recoveryStopsAfter` in PostgreSQL's `xlogrecovery.c`:
//!
//! | target | inclusive | exclusive |
//! |---|---|---|
//! | time T | before the first commit or abort later than T | before the first at or later than T |
//! | position P | after the first record that starts at or after P | before that record |
//! | transaction X | after the commit or abort of X | before it |
//! | name N | after the first restore point N | the same |
//!
//! Aborts count, and commit times are not in order, so "all commits up to T" would be wrong.

use crate::{
    lsn::Lsn,
    postgres::{Installation, Postgres},
    scratch::{Scratch, run},
    seed::Seed,
    target::{Stop, Target, micros},
};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeSet,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// What an event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A transaction (of one or two phases) committed.
    Commit,
    /// A transaction or a subtransaction rolled back.
    Abort,
    /// A named restore point.
    RestorePoint(String),
}

/// A record at which recovery could stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub what: What,
    /// Where the record starts.
    pub start: Lsn,
    /// Where the record before it, of whatever kind, starts.
    pub previous: Lsn,
    /// Whose end it is; 0 for a restore point.
    pub xid: u64,
    /// Microseconds since 1970 by the server's clock; absent for a restore point.
    pub time: Option<i64>,
}

/// All events from a place on, along one line of history.
#[derive(Clone, Debug)]
pub struct History {
    /// In WAL order.
    pub events: Vec<Event>,
    /// Timelines with the place where each begins, oldest first.
    pub timelines: Vec<(u32, Lsn)>,
}

impl History {
    /// Reads a running primary's WAL from `from` to its end.
    pub fn read(server: &Postgres, from: Lsn) -> Result<Self> {
        // The end is a record that is certainly complete: the commit behind the restore point flushes it.
        server.sql("SELECT pg_create_restore_point('end of history')")?;
        server.sql("SELECT pg_logical_emit_message(true, 'ledger', 'flush')")?;
        let end = server.flushed()?;
        let segment_bytes: u64 =
            server.value("SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'")?;
        let timeline = server.sql("SELECT substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8)")?;
        let timeline = u32::from_str_radix(&timeline, 16)?;
        let mut history =
            Self::read_folder(&server.installation, &server.data().join("pg_wal"), segment_bytes, timeline, from, end)?;
        let own = |event: &Event| event.what == What::RestorePoint("end of history".into());
        let end = history.events.iter().rposition(own).context("the history does not reach its own restore point")?;
        history.events.truncate(end);
        Ok(history)
    }

    /// Reads WAL files: those of `timeline` and of the timelines it comes from.
    pub fn read_folder(
        installation: &Installation,
        folder: &Path,
        segment_bytes: u64,
        timeline: u32,
        from: Lsn,
        end: Lsn,
    ) -> Result<Self> {
        let timelines = timelines(folder, timeline)?;
        let line = line_up(folder, segment_bytes, &timelines, from, end)?;
        let mut command = installation.tool("pg_waldump");
        command.args(["--rmgr=Transaction", "--rmgr=XLOG", "--timeline=1", "-p"]).arg(line.path());
        command.args(["-s", &from.to_string(), "-e", &end.to_string()]);
        let output = run(&mut command)?;
        let text = String::from_utf8(output.stdout)?;
        let mut events = Vec::new();
        for line in text.lines().filter(|line| line.starts_with("rmgr:")) {
            events.extend(event(line).with_context(|| format!("failed to read `{line}`"))?);
        }
        Ok(Self { events, timelines })
    }

    /// How many events a recovery to this target applies. An error when the target is not reached, which
    /// PostgreSQL treats as fatal.
    pub fn applied(&self, stop: &Stop) -> Result<usize> {
        let position = |reached: &dyn Fn(&Event) -> bool| self.events.iter().position(reached);
        let ends = |event: &Event| event.what != What::Commit && event.what != What::Abort;
        let found = match &stop.target {
            Target::Latest => Some(self.events.len()),
            Target::Time(time) => {
                position(&|event| event.time.is_some_and(|at| at > *time || (!stop.inclusive && at == *time)))
            }
            Target::Position(lsn) if stop.inclusive => position(&|event| event.previous >= *lsn)
                .or_else(|| self.events.last().filter(|last| last.start >= *lsn).map(|_| self.events.len())),
            Target::Position(lsn) => position(&|event| event.start >= *lsn),
            Target::Xid(xid) => {
                position(&|event| !ends(event) && event.xid == *xid).map(|index| index + usize::from(stop.inclusive))
            }
            Target::Name(name) => position(&|event| matches!(&event.what, What::RestorePoint(point) if point == name))
                .map(|index| index + 1),
        };
        found.with_context(|| format!("the log does not reach {stop}"))
    }

    /// Transactions that are over and committed when a recovery stops at this target, among those of this history.
    pub fn committed(&self, stop: &Stop) -> Result<BTreeSet<u64>> {
        let applied = self.applied(stop)?;
        Ok(self.events[..applied].iter().filter(|event| event.what == What::Commit).map(|event| event.xid).collect())
    }

    /// Transactions that committed in this history at all.
    pub fn all_committed(&self) -> BTreeSet<u64> {
        self.events.iter().filter(|event| event.what == What::Commit).map(|event| event.xid).collect()
    }

    /// The timeline on which a place lies.
    pub fn timeline_at(&self, lsn: Lsn) -> u32 {
        self.timelines.iter().rev().find(|(_, start)| *start <= lsn).map_or(1, |(id, _)| *id)
    }

    /// `count` random targets behind `after`: first every kind of target in both ways, then whatever comes.
    pub fn targets(&self, seed: &mut Seed, after: Lsn, count: usize) -> Result<Vec<Stop>> {
        let mut every: Vec<(Kind, bool)> = KINDS.iter().flat_map(|kind| [(*kind, true), (*kind, false)]).collect();
        // Where fewer are wanted than there are, which ones is chance.
        for last in (1..every.len()).rev() {
            every.swap(last, seed.within(0..last as u64 + 1) as usize);
        }
        let mut targets = Vec::new();
        for (kind, inclusive) in every.into_iter().take(count) {
            targets.push(self.target_of(seed, after, &[kind], &[inclusive])?);
        }
        while targets.len() < count {
            targets.push(self.random_target(seed, after)?);
        }
        Ok(targets)
    }

    /// A random target whose recovery stops at an event behind `after` and before the last ones, all kinds and
    /// both ways alike, with the hard cases (exactly at a commit, one microsecond or byte beside it) often.
    pub fn random_target(&self, seed: &mut Seed, after: Lsn) -> Result<Stop> {
        self.target_of(seed, after, &KINDS, &[true, false])
    }

    fn target_of(&self, seed: &mut Seed, after: Lsn, kinds: &[Kind], ways: &[bool]) -> Result<Stop> {
        let first =
            self.events.iter().position(|event| event.start >= after).context("nothing happened after the backup")?;
        // A margin at both ends: times are not in order, and a target has to be reached.
        let (low, high) = (first + 20, self.events.len().saturating_sub(20));
        if low >= high {
            bail!("only {} events after {after}: too few for a random target", self.events.len() - first);
        }
        for _ in 0..DRAWS_MAX {
            let (kind, inclusive) = (*seed.pick(kinds), *seed.pick(ways));
            let event = &self.events[seed.within(low as u64..high as u64) as usize];
            let target = match kind {
                Kind::Time => {
                    let Some(time) = event.time else { continue };
                    Target::Time(time + *seed.pick(&[0, 0, -1, 1, seed.clone().within(0..5000) as i64]))
                }
                Kind::Position => {
                    let gap = event.start.0 - event.previous.0;
                    let beside = [0, 0, 1, 8, gap, gap.saturating_sub(8), seed.clone().within(0..gap + 1)];
                    Target::Position(Lsn(event.start.0 - *seed.pick(&beside)))
                }
                Kind::Xid if event.what == What::Commit => Target::Xid(event.xid),
                Kind::Xid => continue,
                Kind::Name => {
                    let names: Vec<&String> = self.events[low..high]
                        .iter()
                        .filter_map(|event| match &event.what {
                            What::RestorePoint(name) => Some(name),
                            _ => None,
                        })
                        .collect();
                    if names.is_empty() {
                        continue;
                    }
                    Target::Name((*seed.pick(&names)).clone())
                }
            };
            let stop = Stop { target, inclusive };
            // Recovery must not stop before the backup is consistent, nor run out of log.
            if self.applied(&stop).is_ok_and(|applied| applied > low && applied < high) {
                return Ok(stop);
            }
        }
        bail!("no target of {kinds:?} in {DRAWS_MAX} draws")
    }
}

/// A kind of target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Time,
    Position,
    Xid,
    Name,
}

const KINDS: [Kind; 4] = [Kind::Time, Kind::Position, Kind::Xid, Kind::Name];

/// A draw is cheap, and most fit.
const DRAWS_MAX: u32 = 1000;

/// The timelines a timeline comes from, and itself, with their beginnings.
fn timelines(folder: &Path, last: u32) -> Result<Vec<(u32, Lsn)>> {
    let mut found = Vec::new();
    let mut start = Lsn(0);
    if last > 1 {
        let text = std::fs::read_to_string(folder.join(format!("{last:08X}.history")))?;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let mut fields = line.split('\t');
            let (id, end) = (fields.next().context("no timeline")?, fields.next().context("no switch point")?);
            found.push((id.trim().parse()?, start));
            start = end.parse()?;
        }
    }
    found.push((last, start));
    Ok(found)
}

/// A folder in which the WAL files of one line of history look like one timeline.
///
/// The file in which a timeline begins repeats the end of its predecessor, so for every file number the newest
/// timeline that has it is the right one. `pg_waldump` itself cannot cross a switch.
fn line_up(folder: &Path, segment_bytes: u64, timelines: &[(u32, Lsn)], from: Lsn, end: Lsn) -> Result<Scratch> {
    let scratch = Scratch::new()?;
    let per_id = 0x1_0000_0000 / segment_bytes;
    let name = |timeline: u32, number: u64| format!("{timeline:08X}{:08X}{:08X}", number / per_id, number % per_id);
    for number in from.segment(segment_bytes)..=end.segment(segment_bytes) {
        let last_byte = Lsn((number + 1) * segment_bytes - 1);
        let (owner, _) = timelines.iter().rev().find(|(_, start)| *start <= last_byte).context("no timeline")?;
        let file: PathBuf = folder.join(name(*owner, number));
        if !file.exists() {
            // A position exactly at the end of a file names a file that is not there yet.
            if number == end.segment(segment_bytes) && end.0.is_multiple_of(segment_bytes) {
                break;
            }
            bail!("the server no longer has {}", file.display());
        }
        symlink(&file, scratch.join(name(1, number)))?;
    }
    Ok(scratch)
}

/// One line of `pg_waldump`; nothing for a record that is no event.
fn event(line: &str) -> Result<Option<Event>> {
    let (head, description) = line.split_once(", desc: ").context("no description")?;
    let field = |name: &str| -> Result<&str> {
        let (_, rest) = head.split_once(name).with_context(|| format!("no `{name}`"))?;
        Ok(rest.trim_start().split(',').next().unwrap_or_default().trim())
    };
    let (verb, rest) = description.split_once(' ').unwrap_or((description, ""));
    let header_xid: u64 = field("tx:")?.parse()?;
    let (what, xid, time) = match verb {
        "COMMIT" | "ABORT" => (verb, header_xid, rest),
        "COMMIT_PREPARED" | "ABORT_PREPARED" => {
            let (xid, time) = rest.split_once(": ").context("no transaction")?;
            (verb, xid.parse()?, time)
        }
        "RESTORE_POINT" => (verb, 0, ""),
        _ => return Ok(None),
    };
    let what = match what {
        "RESTORE_POINT" => What::RestorePoint(rest.to_owned()),
        "COMMIT" | "COMMIT_PREPARED" => What::Commit,
        _ => What::Abort,
    };
    let time = match time.split(';').next() {
        Some(time) if !time.is_empty() => Some(micros(time)?),
        _ => None,
    };
    let (start, previous) = (field("lsn:")?.parse()?, field("prev ")?.parse()?);
    Ok(Some(Event { what, start, previous, xid, time }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(what: What, start: u64, previous: u64, xid: u64, time: i64) -> Event {
        let time = (xid != 0).then_some(time);
        Event { what, start: Lsn(start), previous: Lsn(previous), xid, time }
    }

    fn history() -> History {
        let events = vec![
            at(What::Commit, 100, 90, 1, 1000),
            at(What::Abort, 200, 100, 2, 1500),
            at(What::RestorePoint("a".into()), 300, 290, 0, 0),
            at(What::Commit, 400, 300, 3, 1400),
            at(What::Commit, 500, 450, 4, 2000),
        ];
        History { events, timelines: vec![(1, Lsn(0))] }
    }

    fn applied(target: Target, inclusive: bool) -> usize {
        history().applied(&Stop { target, inclusive }).unwrap()
    }

    #[test]
    fn an_abort_stops_recovery_by_time_before_an_earlier_commit_behind_it() {
        assert_eq!(applied(Target::Time(1400), true), 1);
        assert_eq!(applied(Target::Time(1500), true), 4);
        assert_eq!(applied(Target::Time(1500), false), 1);
    }

    #[test]
    fn a_position_between_two_records_includes_the_one_behind_it_when_inclusive() {
        assert_eq!(applied(Target::Position(Lsn(95)), true), 1);
        assert_eq!(applied(Target::Position(Lsn(95)), false), 0);
        assert_eq!(
            applied(Target::Position(Lsn(480)), true),
            5,
            "the commit at 500 is the first record at or after 480"
        );
        assert_eq!(applied(Target::Position(Lsn(450)), true), 4, "the record at 450 is the first one");
        assert_eq!(applied(Target::Position(Lsn(400)), false), 3);
        assert_eq!(applied(Target::Position(Lsn(400)), true), 4);
    }

    #[test]
    fn a_name_stops_behind_its_restore_point_both_ways() {
        assert_eq!(applied(Target::Name("a".into()), true), 3);
        assert_eq!(applied(Target::Name("a".into()), false), 3);
    }

    #[test]
    fn a_target_behind_the_end_is_an_error() {
        assert!(history().applied(&Stop { target: Target::Time(2000), inclusive: true }).is_err());
        assert!(history().applied(&Stop { target: Target::Xid(77), inclusive: true }).is_err());
    }

    #[test]
    fn the_first_eight_targets_are_every_kind_in_both_ways() {
        let mut events = Vec::new();
        for n in 1..200 {
            let at_name = n % 20 == 0;
            let what = if at_name { What::RestorePoint(format!("point {n}")) } else { What::Commit };
            events.push(at(what, n * 100, n * 100 - 50, if at_name { 0 } else { n }, n as i64 * 10));
        }
        let history = History { events, timelines: vec![(1, Lsn(0))] };
        let targets = history.targets(&mut Seed::new(7), Lsn(500), 12).unwrap();
        assert_eq!(targets.len(), 12);
        let mut seen: Vec<(u8, bool)> = targets[..8]
            .iter()
            .map(|stop| match stop.target {
                Target::Time(_) => (0, stop.inclusive),
                Target::Position(_) => (1, stop.inclusive),
                Target::Xid(_) => (2, stop.inclusive),
                Target::Name(_) => (3, stop.inclusive),
                Target::Latest => panic!("not drawn"),
            })
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3].map(|kind| [(kind, false), (kind, true)]).concat());
    }

    #[test]
    fn every_form_of_an_end_of_a_transaction_is_read() {
        let head =
            "rmgr: Transaction len (rec/tot):     46/    46, tx:        733, lsn: 0/0152C3E8, prev 0/0152C3B0, desc: ";
        let read = |description: &str| event(&format!("{head}{description}")).unwrap();
        let commit = read("COMMIT 2026-11-22 21:28:47.061839 UTC; subxacts: 740 741").unwrap();
        assert_eq!((commit.what, commit.xid, commit.start), (What::Commit, 733, Lsn(0x152C3E8)));
        let prepared = read("COMMIT_PREPARED 745: 2026-11-22 21:28:47.061839 UTC").unwrap();
        assert_eq!((prepared.what, prepared.xid), (What::Commit, 745));
        assert_eq!(prepared.time, commit.time);
        assert_eq!(read("PREPARE gid x: 2026-11-22 21:28:47.061839 UTC"), None);
        assert_eq!(read("RESTORE_POINT before lunch").unwrap().what, What::RestorePoint("before lunch".into()));
    }
}
