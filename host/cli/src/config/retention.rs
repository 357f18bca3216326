//! `[retention]` and `[targets.NAME.retention]`: how long backups and log stay.

use super::{error::ConfigError, section::Section};
use backstay_core::{Period, RetentionPolicy};
use jiff::tz::TimeZone;

/// Keys of a policy.
const KEYS: &[&str] = &[
    "keep-last",
    "keep-hourly",
    "keep-daily",
    "keep-weekly",
    "keep-monthly",
    "keep-yearly",
    "keep-within",
    "pitr-window",
    "time-zone",
];
/// Fewest and most that a rule may keep: ten hourly backups a day for a century.
const COUNT: std::ops::RangeInclusive<u32> = 0..=1_000_000;

/// Reads a policy's section.
pub(super) fn policy(section: Section<'_>) -> Result<RetentionPolicy, ConfigError> {
    let section = section.only(KEYS)?;
    let count = |key: &str| Ok(section.number(key, COUNT)?.unwrap_or(0));
    let period = |key: &str| Ok(section.parsed::<Period>(key)?.map(|period| period.value));
    let time_zone = match section.text("time-zone")? {
        None => TimeZone::UTC,
        Some(name) => TimeZone::get(&name.value).map_err(|_| {
            let message = format!(
                "{}: there is no time zone `{}`, write one like UTC or Europe/Berlin",
                section.key("time-zone"),
                name.value.escape_default()
            );
            section.source().error(name.span.clone(), message)
        })?,
    };
    let policy = RetentionPolicy {
        last: count("keep-last")?,
        hourly: count("keep-hourly")?,
        daily: count("keep-daily")?,
        weekly: count("keep-weekly")?,
        monthly: count("keep-monthly")?,
        yearly: count("keep-yearly")?,
        within: period("keep-within")?,
        pitr_window: period("pitr-window")?,
        time_zone,
    };
    if policy.is_empty() {
        let rules = KEYS[..KEYS.len() - 1].join(", ");
        return Err(section.error(format!("{section} keeps nothing: it needs one of {rules}")));
    }
    Ok(policy)
}
