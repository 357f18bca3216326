//! What `postgresql.auto.conf` says about recovery.
//!
//! Ours is the last block of the file, so that it wins over `postgresql.conf` and over what
//! `ALTER SYSTEM` left there. Older settings of recovery are removed: a server refuses to
//! start with two targets.

use backstay_postgresql_wire::utc;
use backstay_sdk::RecoveryTarget;

const BEGIN: &str = "# backstay: recovery begins (removed by the next restore)";
const END: &str = "# backstay: recovery ends";

/// Settings of recovery that must not come from elsewhere. The two commands would run on the
/// restored server what was meant for another one.
const OURS: [&str; 11] = [
    "restore_command",
    "archive_cleanup_command",
    "recovery_end_command",
    "recovery_target",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
    "recovery_target_inclusive",
    "recovery_target_timeline",
    "recovery_target_action",
];

/// Where a recovery shall stop. Nothing: at the end of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    /// Where the backup is consistent.
    Immediate,
    /// At the last state at that time.
    Time(u64),
    /// At a record's start, as the server writes it.
    Lsn(String),
    /// At a transaction's end.
    Xid(u32),
    /// At a restore point.
    Name(String),
}

/// What a recovery shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recovery {
    /// Where to stop.
    pub(super) stop: Option<Stop>,
    /// Whether what lies there is part of the result.
    pub(super) inclusive: bool,
    /// The timeline to follow: a number, or `current`.
    pub(super) timeline: String,
}

impl Stop {
    /// The setting and its value.
    fn setting(&self) -> (&'static str, String) {
        match self {
            Self::Immediate => ("recovery_target", "immediate".to_owned()),
            Self::Time(time) => ("recovery_target_time", utc::setting_text(*time)),
            Self::Lsn(lsn) => ("recovery_target_lsn", lsn.clone()),
            Self::Xid(xid) => ("recovery_target_xid", xid.to_string()),
            Self::Name(name) => ("recovery_target_name", name.clone()),
        }
    }
}

impl Recovery {
    /// The file with our block in place of older ones.
    pub(super) fn write(&self, before: &str) -> String {
        let mut text = without_ours(before);
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(BEGIN);
        text.push('\n');
        let mut put = |name: &str, value: &str| {
            text.push_str(&format!("{name} = {}\n", quote(value)));
        };
        // All log lies in pg_wal already; the server wants the setting all the same.
        put("restore_command", "/bin/false");
        // One in postgresql.conf would be a second target. The empty ones come first: a server
        // that reads an empty one behind another target takes it for a second one, too.
        let stop = self.stop.as_ref().map(Stop::setting);
        let target = stop.as_ref().map(|(name, _)| *name);
        for name in OURS.iter().filter(|name| is_target(name) && Some(**name) != target) {
            put(name, "");
        }
        if let Some((name, value)) = &stop {
            put(name, value);
            put("recovery_target_inclusive", if self.inclusive { "on" } else { "off" });
        }
        put("recovery_target_timeline", &self.timeline);
        put("recovery_target_action", "promote");
        put("archive_cleanup_command", "");
        put("recovery_end_command", "");
        text.push_str(END);
        text.push('\n');
        text
    }
}

fn is_target(name: &str) -> bool {
    matches!(name, "recovery_target")
        || (name.starts_with("recovery_target_")
            && !name.ends_with("_inclusive")
            && !name.ends_with("_timeline")
            && !name.ends_with("_action"))
}

/// The file without our blocks and without settings of recovery.
fn without_ours(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        let bare = line.trim();
        if bare == BEGIN {
            inside = true;
        } else if bare == END {
            inside = false;
        } else if !inside && !OURS.contains(&setting_name(bare).as_str()) {
            kept.push_str(line);
        }
    }
    kept
}

/// The setting that a line sets; names are not case-sensitive, the `=` is optional.
fn setting_name(line: &str) -> String {
    let name = line.split(|c: char| c == '=' || c.is_whitespace()).next().unwrap_or("");
    name.to_ascii_lowercase()
}

/// A value as the server's settings files quote it.
fn quote(value: &str) -> String {
    let mut quoted = String::from("'");
    for c in value.chars() {
        match c {
            '\'' => quoted.push_str("''"),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

/// Whether commits of a server with these settings wait for a standby.
pub(super) fn waits_for_standby(text: &str) -> bool {
    let mut values = text.lines().map(str::trim).filter(|line| setting_name(line) == "synchronous_standby_names");
    let value = |line: &str| {
        let value = line.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let value = value.trim_start().trim_start_matches('=').trim_start().to_owned();
        !value.is_empty() && !value.starts_with("''") && !value.starts_with('#')
    };
    values.next_back().is_some_and(value)
}

/// What the target asks the server for.
pub(super) fn stop_at(target: &RecoveryTarget) -> backstay_sdk::Result<Option<Stop>> {
    Ok(match target {
        RecoveryTarget::Latest => None,
        RecoveryTarget::BackupEnd => Some(Stop::Immediate),
        RecoveryTarget::Time(time) => Some(Stop::Time(*time)),
        RecoveryTarget::Position(text) => {
            let place = crate::locate::position(text)?;
            Some(Stop::Lsn(backstay_postgresql_wire::lsn::Lsn(place.offset).to_string()))
        }
        RecoveryTarget::Transaction(text) => Some(Stop::Xid(crate::locate::xid(text)?)),
        RecoveryTarget::Name(name) => {
            crate::locate::check_name(name)?;
            Some(Stop::Name(name.clone()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recovery(stop: Option<Stop>) -> Recovery {
        Recovery { stop, inclusive: true, timeline: "2".to_owned() }
    }

    #[test]
    fn each_target_has_its_setting_and_the_others_are_empty() {
        for (stop, line) in [
            (Stop::Immediate, "recovery_target = 'immediate'"),
            (Stop::Time(1_795_383_188_000_001), "recovery_target_time = '2026-11-22 21:33:08.000001+00'"),
            (Stop::Lsn("0/3000028".to_owned()), "recovery_target_lsn = '0/3000028'"),
            (Stop::Xid(742), "recovery_target_xid = '742'"),
            (Stop::Name("it's \\ here".to_owned()), "recovery_target_name = 'it''s \\\\ here'"),
        ] {
            let text = recovery(Some(stop)).write("");
            assert!(text.contains(line), "{text}");
            assert_eq!(text.matches(" = ''\n").count(), 6, "{text}");
            assert!(text.contains("recovery_target_inclusive = 'on'"));
            assert!(text.contains("recovery_target_timeline = '2'"));
            let targets = text.split("recovery_target_inclusive").next().unwrap();
            assert!(targets.rfind(" = ''\n") < targets.find(line), "{text}");
        }
        let latest = recovery(None).write("");
        assert!(!latest.contains("inclusive"));
        assert_eq!(latest.matches(" = ''\n").count(), 7);
    }

    #[test]
    fn older_settings_of_recovery_go_and_all_others_stay() {
        let before = "# Do not edit\nwork_mem = '8MB'\nRecovery_Target_Xid '7'\n\
                      restore_command='cp x'\nrecovery_min_apply_delay = '1h'";
        let once = recovery(None).write(before);
        assert!(once.starts_with("# Do not edit\nwork_mem = '8MB'\nrecovery_min_apply_delay = '1h'\n"));
        assert!(!once.contains("cp x"));
        let twice = recovery(Some(Stop::Xid(9))).write(&once);
        assert_eq!(twice.matches(BEGIN).count(), 1);
        assert_eq!(recovery(None).write(&twice), once);
    }

    #[test]
    fn a_standby_that_commits_wait_for_is_noticed() {
        assert!(waits_for_standby("synchronous_standby_names = 'backstay'\n"));
        assert!(waits_for_standby("synchronous_standby_names 'a'"));
        assert!(!waits_for_standby("synchronous_standby_names = ''\n#synchronous_standby_names = 'x'\n"));
        assert!(!waits_for_standby("synchronous_standby_names = 'a'\nsynchronous_standby_names = ''\n"));
    }
}
