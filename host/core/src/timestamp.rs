//! Points in time, to the microsecond, always UTC.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Microseconds since 1970-01-01T00:00:00Z. Written as RFC 3339 in UTC everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(u64);

/// A time that is not RFC 3339 with a zone.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is not a time like 2026-11-22T03:04:05Z or 2026-11-22T03:04:05.678+01:00 (RFC 3339, the zone is required)"
)]
pub struct InvalidTimestamp(String);

impl Timestamp {
    /// The start of 1970.
    pub const EPOCH: Timestamp = Timestamp(0);

    /// From microseconds since 1970.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970.
    pub const fn as_micros(self) -> u64 {
        self.0
    }
}

impl From<std::time::SystemTime> for Timestamp {
    /// Times before 1970 become [`Timestamp::EPOCH`].
    fn from(time: std::time::SystemTime) -> Self {
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0).ok().and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok()) {
            Some(time) => write!(f, "{time}"),
            None => write!(f, "{} µs after 1970", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let time: jiff::Timestamp = text.parse().map_err(|_| InvalidTimestamp(text.to_owned()))?;
        u64::try_from(time.as_microsecond()).map(Self).map_err(|_| InvalidTimestamp(text.to_owned()))
    }
}

impl TryFrom<String> for Timestamp {
    type Error = InvalidTimestamp;

    fn try_from(text: String) -> Result<Self, InvalidTimestamp> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> String {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_round_trips_to_the_microsecond() {
        let time: Timestamp = "2026-11-22T03:04:05.678901+01:00".parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-22T02:04:05.678901Z");
        assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
    }

    #[test]
    fn a_time_without_a_zone_is_refused() {
        assert!("2026-11-22T03:04:05".parse::<Timestamp>().is_err());
    }
}
