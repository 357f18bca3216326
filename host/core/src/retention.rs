//! Which backups a policy keeps, and why.
//!
//! ```text
//!   keep-last 2       ● ● ● ● ● [●][●]
//!   keep-daily 3      ●[●]● ●[●]● [●]      the newest of each of the last three days that have one
//!   pitr-window 7d    ●[● ├──────7 d──────┤   the backup that the window's start needs, and the log from there on
//! ```
//!
//! The rules are restic's: each keeps what it names, and a backup goes when no rule keeps it. The newest backup and
//! pinned ones always stay. So do those dated in the future, which a wrong clock made: no rule counts them, or every
//! other one would look old beside them.

use crate::{Backup, BackupId, Timestamp};
use jiff::{Span, SpanRelativeTo, Zoned, tz::TimeZone};
use serde::Serialize;
use std::{collections::BTreeMap, fmt, str::FromStr};

/// How far ahead of the host's clock a backup may be dated and still count: hosts that share a repository each have a
/// clock of their own, and those that are kept right differ by seconds, by minutes at worst.
const CLOCK_SKEW_MICROS_MAX: u64 = 5 * 60 * 1_000_000;

/// A length of time as people count it: `7d`, `2w`, `1y 6mo`, `36h`. At least a second.
#[derive(Clone, Copy, Debug)]
pub struct Period(Span);

/// A text that is no length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a length of time like 36h, 7d, 2w, 6mo or 1y")]
pub struct InvalidPeriod(String);

impl Period {
    /// The moment this long before `time`, by the calendar of `zone`; the start of 1970 where that is earlier.
    pub fn before(self, time: Timestamp, zone: &TimeZone) -> Timestamp {
        let Some(time) = zoned(time, zone) else { return Timestamp::EPOCH };
        let earlier = time.checked_sub(self.0).map(|earlier| earlier.timestamp().as_microsecond());
        let micros = earlier.ok().and_then(|micros| u64::try_from(micros).ok());
        Timestamp::from_micros(micros.unwrap_or(0))
    }
}

impl FromStr for Period {
    type Err = InvalidPeriod;

    fn from_str(text: &str) -> Result<Self, InvalidPeriod> {
        let invalid = || InvalidPeriod(text.to_owned());
        let span: Span = text.parse().map_err(|_| invalid())?;
        // Months and years have no fixed length; any will do to tell whether it is one.
        let today = SpanRelativeTo::from(jiff::civil::date(2026, 1, 1));
        let seconds = span.total((jiff::Unit::Second, today)).map_err(|_| invalid())?;
        if seconds >= 1.0 { Ok(Self(span)) } else { Err(invalid()) }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl PartialEq for Period {
    fn eq(&self, other: &Self) -> bool {
        self.0.fieldwise() == other.0.fieldwise()
    }
}

impl Eq for Period {}

impl Serialize for Period {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How long a target's backups and log stay. Zero of a rule is none of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// The newest so many.
    pub last: u32,
    /// The newest of each of the last so many hours that have one; and so on.
    pub hourly: u32,
    /// Days.
    pub daily: u32,
    /// Weeks, from Monday on.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
    /// Years.
    pub yearly: u32,
    /// All that are at most this much older than the newest.
    pub within: Option<Period>,
    /// Every moment of this time before the last restorable one that can be restored to stays so. Without it log
    /// stays as long as a backup does that it goes on from.
    pub pitr_window: Option<Period>,
    /// Where hours, days and weeks begin.
    pub time_zone: TimeZone,
}

impl Default for RetentionPolicy {
    /// Keeps nothing but what always stays, by UTC.
    fn default() -> Self {
        Self {
            last: 0,
            hourly: 0,
            daily: 0,
            weekly: 0,
            monthly: 0,
            yearly: 0,
            within: None,
            pitr_window: None,
            time_zone: TimeZone::UTC,
        }
    }
}

/// A rule that keeps the newest backup of each stretch of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CalendarRule {
    /// `keep-hourly`
    Hourly,
    /// `keep-daily`
    Daily,
    /// `keep-weekly`
    Weekly,
    /// `keep-monthly`
    Monthly,
    /// `keep-yearly`
    Yearly,
}

impl CalendarRule {
    /// The stretch that `time` lies in, as people write it.
    fn stretch(self, time: &Zoned) -> String {
        match self {
            // With its offset: in autumn an hour comes twice.
            Self::Hourly => time.strftime("%Y-%m-%d %H:00 %:z").to_string(),
            Self::Daily => time.strftime("%Y-%m-%d").to_string(),
            Self::Weekly => {
                let week = time.date().iso_week_date();
                format!("{:04}-W{:02}", week.year(), week.week())
            }
            Self::Monthly => time.strftime("%Y-%m").to_string(),
            Self::Yearly => time.strftime("%Y").to_string(),
        }
    }
}

impl fmt::Display for CalendarRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        })
    }
}

/// Why a backup stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "rule", rename_all = "kebab-case")]
pub enum KeepReason {
    /// It is the newest: no policy takes the last one away.
    Newest,
    /// One of the newest.
    Last {
        /// Counted from the newest on.
        number: u32,
        /// How many the policy keeps.
        of: u32,
    },
    /// The newest of a stretch of the calendar.
    Calendar {
        /// Which rule.
        period: CalendarRule,
        /// `2026-11-25`
        stretch: String,
    },
    /// Young enough.
    Within {
        /// Backups from then on are.
        since: Timestamp,
    },
    /// Somebody pinned it.
    Pinned {
        /// Why, as they wrote it.
        reason: String,
    },
    /// The recovery window needs it.
    Window {
        /// Where the window starts that the policy keeps.
        since: Timestamp,
    },
    /// Others were named.
    NotNamed,
    /// A wrong clock dated it: how old it is nobody knows.
    InFuture {
        /// When it says it was made.
        time: Timestamp,
    },
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => f.write_str("newest"),
            Self::Last { number, of } => write!(f, "last {number} of {of}"),
            Self::Calendar { period, stretch } => write!(f, "{period} {stretch}"),
            Self::Within { since } => write!(f, "not older than {since}"),
            Self::Pinned { reason } if reason.is_empty() => f.write_str("pinned"),
            Self::Pinned { reason } => write!(f, "pinned: {reason}"),
            Self::NotNamed => f.write_str("not named"),
            Self::InFuture { time } => write!(f, "dated in the future: {time}"),
            Self::Window { since } => write!(f, "the recovery window from {since} on needs it"),
        }
    }
}

impl RetentionPolicy {
    /// Whether it says anything: a policy that says nothing was forgotten, not meant.
    pub fn is_empty(&self) -> bool {
        let counts = [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        counts == [0; 6] && self.within.is_none() && self.pitr_window.is_none()
    }

    /// Why each backup stays by the rules that look at times alone; `backups` of one target, oldest first, and the
    /// host's clock. Those without a reason are not there.
    pub(crate) fn reasons(&self, backups: &[Backup], now: Timestamp) -> BTreeMap<BackupId, Vec<KeepReason>> {
        let mut reasons: BTreeMap<BackupId, Vec<KeepReason>> = BTreeMap::new();
        let mut keep = |backup: &Backup, reason: KeepReason| reasons.entry(backup.id.clone()).or_default().push(reason);
        let (future, backups): (Vec<&Backup>, Vec<&Backup>) =
            backups.iter().partition(|backup| is_in_future(backup, now));
        for backup in future {
            keep(backup, KeepReason::InFuture { time: backup.manifest.finished });
        }
        let Some(newest) = backups.last() else { return reasons };
        keep(newest, KeepReason::Newest);
        for (number, backup) in (1..=self.last).zip(backups.iter().rev()) {
            keep(backup, KeepReason::Last { number, of: self.last });
        }
        let calendar = [
            (CalendarRule::Hourly, self.hourly),
            (CalendarRule::Daily, self.daily),
            (CalendarRule::Weekly, self.weekly),
            (CalendarRule::Monthly, self.monthly),
            (CalendarRule::Yearly, self.yearly),
        ];
        for (period, count) in calendar {
            let mut left = count;
            let mut seen = None;
            for backup in backups.iter().rev() {
                let Some(time) = zoned(backup.manifest.finished, &self.time_zone) else { continue };
                let stretch = period.stretch(&time);
                if left == 0 || seen.as_ref() == Some(&stretch) {
                    continue;
                }
                left -= 1;
                seen = Some(stretch.clone());
                keep(backup, KeepReason::Calendar { period, stretch });
            }
        }
        if let Some(within) = self.within {
            let since = within.before(newest.manifest.finished, &self.time_zone);
            for backup in backups.iter().filter(|backup| backup.manifest.finished >= since) {
                keep(backup, KeepReason::Within { since });
            }
        }
        reasons
    }
}

/// Whether a wrong clock dated the backup: it is ahead of the host's by more than clocks differ.
pub(crate) fn is_in_future(backup: &Backup, now: Timestamp) -> bool {
    backup.manifest.finished.as_micros() > now.as_micros().saturating_add(CLOCK_SKEW_MICROS_MAX)
}

/// Nothing for times that no calendar has.
fn zoned(time: Timestamp, zone: &TimeZone) -> Option<Zoned> {
    let micros = i64::try_from(time.as_micros()).ok()?;
    Some(jiff::Timestamp::from_microsecond(micros).ok()?.to_zoned(zone.clone()))
}

#[cfg(test)]
mod tests;
