//! Where a restore shall stop, in PostgreSQL's words and in Backstay's.

use crate::lsn::Lsn;
use anyhow::{Context, Result};
use std::fmt;

/// A recovery target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The end of the log.
    Latest,
    /// Microseconds since 1970.
    Time(i64),
    /// A place in the WAL.
    Position(Lsn),
    /// A transaction.
    Xid(u64),
    /// A restore point.
    Name(String),
}

/// A target, and whether what lies exactly there is part of the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Where.
    pub target: Target,
    /// Whether the record, time or transaction at the target is applied.
    pub inclusive: bool,
}

impl Stop {
    /// The end of the log.
    pub fn latest() -> Self {
        Self { target: Target::Latest, inclusive: true }
    }

    /// PostgreSQL's own settings.
    pub fn settings(&self) -> Result<Vec<String>> {
        let mut lines = match &self.target {
            Target::Latest => Vec::new(),
            Target::Time(micros) => {
                vec![format!("recovery_target_time = '{}'", rfc3339(*micros)?.replace('T', " ").replace('Z', "+00"))]
            }
            Target::Position(lsn) => vec![format!("recovery_target_lsn = '{lsn}'")],
            Target::Xid(xid) => vec![format!("recovery_target_xid = '{xid}'")],
            Target::Name(name) => vec![format!("recovery_target_name = '{name}'")],
        };
        lines.push(format!("recovery_target_inclusive = {}", self.inclusive));
        lines.push("recovery_target_action = 'promote'".into());
        Ok(lines)
    }

    /// The arguments of `backstay restore`.
    pub fn arguments(&self) -> Result<Vec<String>> {
        let to = match &self.target {
            Target::Latest => "latest".to_owned(),
            Target::Time(micros) => format!("time:{}", rfc3339(*micros)?),
            Target::Position(lsn) => format!("position:{lsn}"),
            Target::Xid(xid) => format!("xid:{xid}"),
            Target::Name(name) => format!("name:{name}"),
        };
        let mut arguments = vec!["--to".to_owned(), to];
        if !self.inclusive {
            arguments.push("--exclusive".into());
        }
        Ok(arguments)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.arguments().map_err(|_| fmt::Error)?.join(" "))
    }
}

/// `2026-11-22T03:04:05.678901Z`.
pub fn rfc3339(micros: i64) -> Result<String> {
    let time = jiff::Timestamp::from_microsecond(micros).context("a time outside the calendar")?;
    Ok(format!("{time:.6}"))
}

/// Reads RFC 3339, and the way PostgreSQL's tools write a time in UTC: `2026-11-22 03:04:05.678901 UTC`.
pub fn micros(text: &str) -> Result<i64> {
    let text = text.trim().replace(" UTC", "Z").replacen(' ', "T", 1);
    let time: jiff::Timestamp = text.parse().with_context(|| format!("`{text}` is not a time"))?;
    Ok(time.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_round_trips_through_both_ways_of_writing_it() {
        let written = micros("2026-11-22 03:04:05.000901 UTC").unwrap();
        assert_eq!(rfc3339(written).unwrap(), "2026-11-22T03:04:05.000901Z");
        assert_eq!(micros("2026-11-22T03:04:05.000901Z").unwrap(), written);
    }
}
