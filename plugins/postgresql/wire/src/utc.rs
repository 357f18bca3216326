//! Times as PostgreSQL writes and reads them, always in UTC.

use std::fmt::Write as _;

/// The last microsecond that PostgreSQL can hold: the end of the year 294276.
const LAST: u64 = 9_224_318_015_999_999_999;

/// Year, month, day of the day that is `days` after 1970-01-01, by the proleptic Gregorian
/// calendar (eras of 400 years that begin in March, so that leap days come last).
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

fn seconds_text(seconds: u64) -> String {
    let (year, month, day) = date(seconds / 86_400);
    let of_day = seconds % 86_400;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// As a setting or an SQL literal has it, from microseconds since 1970:
/// `2026-11-22 21:33:08.000001+00`. Times beyond what PostgreSQL can hold become the last one.
#[must_use]
pub fn setting_text(micros: u64) -> String {
    let micros = micros.min(LAST);
    let mut text = seconds_text(micros / 1_000_000);
    if !micros.is_multiple_of(1_000_000) {
        // Writing to a String cannot fail.
        let _ = write!(text, ".{:06}", micros % 1_000_000);
    }
    text.push_str("+00");
    text
}

/// As a backup manifest has it, from seconds since 1970: `2026-11-22 21:33:08 GMT`.
#[must_use]
pub fn manifest_text(seconds: u64) -> String {
    format!("{} GMT", seconds_text(seconds.min(LAST / 1_000_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_postgresql_writes_them() {
        assert_eq!(manifest_text(0), "1970-01-01 00:00:00 GMT");
        assert_eq!(manifest_text(951_782_400), "2000-02-29 00:00:00 GMT");
        assert_eq!(manifest_text(4_107_542_399), "2100-02-28 23:59:59 GMT");
        assert_eq!(manifest_text(4_107_542_400), "2100-03-01 00:00:00 GMT");
        assert_eq!(setting_text(1_795_383_188_000_001), "2026-11-22 21:33:08.000001+00");
        assert_eq!(setting_text(1_795_383_188_000_000), "2026-11-22 21:33:08+00");
        assert_eq!(setting_text(u64::MAX), "294276-12-31 23:59:59.999999+00");
    }
}
