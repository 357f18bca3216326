//! `"50 MiB"`: bytes a second.

use super::super::{error::ConfigError, section::Section};
use crate::limits::RATE_MIN;

/// What a unit is worth in bytes.
const UNITS: &[(&str, u64)] =
    &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000)];

/// Bytes a second, when the key is there.
pub(super) fn read(section: &Section<'_>, key: &str) -> Result<Option<u64>, ConfigError> {
    let Some(text) = section.text(key)? else { return Ok(None) };
    let refuse = |reason: &str| {
        let message = format!("{}: {reason}", section.key(key));
        Err(section.source().error(text.span.clone(), message))
    };
    match parse(&text.value) {
        None => {
            refuse("write a whole number and its unit, such as \"50 MiB\" (KiB, MiB, GiB, kB, MB, GB): bytes a second")
        }
        Some(rate) if rate < RATE_MIN => refuse("less than 64 KiB a second does not carry a backup"),
        Some(rate) => Ok(Some(rate)),
    }
}

fn parse(text: &str) -> Option<u64> {
    let text = text.trim().strip_suffix("/s").unwrap_or(text).trim();
    let (unit, worth) = UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
    let number = text.strip_suffix(unit)?.trim_end();
    // No sign: `parse` would take a plus.
    number.bytes().all(|digit| digit.is_ascii_digit()).then(|| number.parse::<u64>().ok()?.checked_mul(*worth))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_and_a_unit() {
        for (text, rate) in [
            ("50 MiB", Some(50 << 20)),
            ("50MiB/s", Some(50 << 20)),
            ("1 GB", Some(1_000_000_000)),
            ("64 KiB", Some(64 << 10)),
            ("50", None),
            ("MiB", None),
            ("-1 MiB", None),
            ("+1 MiB", None),
            ("1.5 MiB", None),
            ("50 Mbit", None),
            ("99999999999999999999 GiB", None),
            ("18446744073709551615 GiB", None),
        ] {
            assert_eq!(parse(text), rate, "{text}");
        }
    }
}
