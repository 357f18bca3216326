//! `inspect`: connects, looks, changes nothing.
//!
//! Two sessions: one for replication, which is what backups and archiving need, and one in
//! SQL, which sees more. Either may be refused; what the other saw is told all the same, and
//! the refusal becomes a warning.

use backstay_postgresql_wire::protocol::frontend::Purpose;
use backstay_postgresql_wire::replication::{IDENTIFY_SYSTEM, ServerVersion, literal};
use backstay_sdk::{Error, ErrorKind, Facts, Position, Result};

use crate::connection::{Rows, Session};
use crate::position::{parse_lsn, position};
use crate::refusal::from_wire;
use crate::settings::Settings;

/// Who the server is, as a replication session tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// The system identifier: the same for the life of the cluster and its standbys.
    pub identity: String,
    /// The end of the flushed log.
    pub tail: Position,
}

impl System {
    /// Asks on a replication session.
    pub async fn identify(session: &mut Session) -> Result<Self> {
        let rows = session.rows(IDENTIFY_SYSTEM).await?;
        let identity = rows.need("systemid")?.to_owned();
        if identity.is_empty() || !identity.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Error::new(ErrorKind::Corrupt, "the server's system identifier is not a number"));
        }
        let timeline = timeline(rows.need("timeline")?)?;
        let tail = position(timeline, parse_lsn(rows.need("xlogpos")?)?);
        Ok(Self { identity, tail })
    }
}

/// A timeline as the server writes it.
pub fn timeline(text: &str) -> Result<u32> {
    text.parse()
        .ok()
        .filter(|timeline| *timeline > 0)
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the server's timeline is not a number above zero"))
}

/// What a session in SQL saw.
#[derive(Debug, Clone, Default)]
struct Seen {
    settings: Vec<(String, String)>,
    role: Option<String>,
    identity: Option<String>,
    tail: Option<Position>,
    user: String,
    may_replicate: bool,
    senders: u64,
    slots: u64,
    slot: Option<Slot>,
}

/// The archive's replication slot.
#[derive(Debug, Clone, Default)]
struct Slot {
    physical: bool,
    active: bool,
    wal_status: Option<String>,
    reserved: bool,
}

impl Seen {
    fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(this, _)| this == name).map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.setting(name)?.parse().ok()
    }
}

/// Connects and looks.
pub async fn inspect(settings: &Settings) -> Result<Facts> {
    let replication = look_by_replication(settings).await;
    let sql = look_by_sql(settings).await;
    let mut warnings = Vec::new();
    let (version, system, seen) = match (replication, sql) {
        (Ok((version, system)), Ok((_, seen))) => (version, Some(system), Some(seen)),
        (Ok((version, system)), Err(error)) => {
            warnings.push(warning_of("no session in SQL, so settings were not checked", &error));
            (version, Some(system), None)
        }
        (Err(error), Ok((version, seen))) => {
            warnings.push(warning_of("no replication session, which every backup needs", &error));
            (version, None, Some(seen))
        }
        // The one in SQL fails for the same reason, or for a lesser one.
        (Err(error), Err(_)) => return Err(error),
    };
    if let Some(seen) = &seen {
        warnings.extend(judge(seen, &settings.slot_name()));
    }
    let seen = seen.unwrap_or_default();
    let identity = match system.as_ref().map(|system| system.identity.clone()).or(seen.identity) {
        Some(identity) => identity,
        None => {
            return Err(Error::new(ErrorKind::Denied, "the server did not tell its system identifier")
                .hint("allow a replication session in pg_hba.conf, or grant EXECUTE ON FUNCTION pg_control_system()"));
        }
    };
    Ok(Facts {
        identity,
        version: version.to_string(),
        role: seen.role.unwrap_or_else(|| "unknown".to_owned()),
        tail: system.map(|system| system.tail).or(seen.tail),
        warnings,
    })
}

fn warning_of(what: &str, error: &Error) -> String {
    match &error.hint {
        Some(hint) => format!("{what}: {error}; {hint}"),
        None => format!("{what}: {error}"),
    }
}

async fn look_by_replication(settings: &Settings) -> Result<(ServerVersion, System)> {
    let mut session = Session::open(settings, Purpose::Replication).await?;
    let system = System::identify(&mut session).await?;
    let version = session.version();
    session.close().await;
    Ok((version, system))
}

/// The settings that [`judge`] looks at; all may be read by everybody.
const SETTINGS: &str = "SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN \
     ('wal_level', 'max_wal_senders', 'max_replication_slots', 'full_page_writes', 'fsync', \
      'data_checksums')";

const STANDING: &str = "SELECT pg_catalog.pg_is_in_recovery() AS standby, current_user AS name, \
     (SELECT rolreplication OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) AS may, \
     (SELECT count(*) FROM pg_catalog.pg_stat_replication) AS senders, \
     (SELECT count(*) FROM pg_catalog.pg_replication_slots) AS slots";

const IDENTITY: &str = "SELECT s.system_identifier AS systemid, c.timeline_id AS timeline, \
     CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
          ELSE pg_catalog.pg_current_wal_flush_lsn() END AS lsn \
     FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_checkpoint() c";

async fn look_by_sql(settings: &Settings) -> Result<(ServerVersion, Seen)> {
    let mut session = Session::open(settings, Purpose::Sql).await?;
    let mut seen = Seen::default();
    let rows = session.rows(SETTINGS).await?;
    for row in 0..rows.len() {
        if let (Some(name), Some(value)) = (rows.get(row, "name"), rows.get(row, "setting")) {
            seen.settings.push((name.to_owned(), value.to_owned()));
        }
    }
    let rows = session.rows(STANDING).await?;
    let standby = rows.need("standby")? == "t";
    seen.role = Some(if standby { "standby" } else { "primary" }.to_owned());
    seen.user = rows.need("name")?.to_owned();
    seen.may_replicate = rows.get(0, "may") == Some("t");
    seen.senders = count(&rows, "senders");
    seen.slots = count(&rows, "slots");
    let slot = literal(&settings.slot_name()).map_err(from_wire)?;
    let rows = session
        .rows(&format!(
            "SELECT slot_type, active, wal_status, restart_lsn IS NOT NULL AS reserved \
             FROM pg_catalog.pg_replication_slots WHERE slot_name = {slot}"
        ))
        .await?;
    seen.slot = (!rows.is_empty()).then(|| Slot {
        physical: rows.get(0, "slot_type") == Some("physical"),
        active: rows.get(0, "active") == Some("t"),
        wal_status: rows.get(0, "wal_status").map(str::to_owned),
        reserved: rows.get(0, "reserved") == Some("t"),
    });
    // Operators may have revoked these functions; a replication session tells the same.
    if let Ok(results) = session.try_query(IDENTITY).await?
        && let Some(rows) = results.first()
    {
        seen.identity = rows.get(0, "systemid").map(str::to_owned);
        if let (Some(epoch), Some(lsn)) = (rows.get(0, "timeline"), rows.get(0, "lsn")) {
            seen.tail = Some(position(timeline(epoch)?, parse_lsn(lsn)?));
        }
    }
    let version = session.version();
    session.close().await;
    Ok((version, seen))
}

fn count(rows: &Rows, column: &str) -> u64 {
    rows.get(0, column).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// What will not work as configured, one line each, with what to do.
fn judge(seen: &Seen, slot_name: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |text: String| warnings.push(text);
    if seen.setting("wal_level") == Some("minimal") {
        warn(
            "wal_level is \"minimal\": neither backups nor archiving work; \
              set it to \"replica\" and restart the server"
                .to_owned(),
        );
    }
    match seen.number("max_wal_senders") {
        // A backup takes one, the archive one; pg_basebackup and standbys are not ours.
        Some(most) if most < 2 => warn(format!(
            "max_wal_senders is {most}: a backup beside a running archive needs 2; \
             raise it and restart the server"
        )),
        Some(most) if seen.senders + 1 >= most => warn(format!(
            "{} of {most} WAL senders are in use: raise max_wal_senders and restart the server",
            seen.senders
        )),
        _ => {}
    }
    let missing_slots = u64::from(seen.slot.is_none()) + 1;
    match seen.number("max_replication_slots") {
        Some(most) if most < 2 => warn(format!(
            "max_replication_slots is {most}: a backup beside the archive needs 2; \
             raise it and restart the server"
        )),
        Some(most) if seen.slots + missing_slots > most => warn(format!(
            "{} of {most} replication slots exist and {missing_slots} more are needed: \
             raise max_replication_slots and restart the server, or drop slots that nobody uses",
            seen.slots
        )),
        _ => {}
    }
    if seen.setting("fsync") == Some("off") {
        warn("fsync is off: a crash of the machine can destroy the database; turn it on".to_owned());
    }
    if seen.setting("full_page_writes") == Some("off") {
        warn(
            "full_page_writes is off: a crash can tear pages, and so can a restore of a backup \
              taken from a standby; turn it on"
                .to_owned(),
        );
    }
    if seen.setting("data_checksums") == Some("off") {
        warn(
            "data checksums are off: damage inside the database's files goes unseen; \
              turn them on with pg_checksums while the server is stopped"
                .to_owned(),
        );
    }
    if !seen.may_replicate {
        warn(format!("role \"{0}\" lacks REPLICATION: run ALTER ROLE \"{0}\" REPLICATION", seen.user));
    }
    match &seen.slot {
        None => warn(format!(
            "replication slot \"{slot_name}\" does not exist yet: `backstay archive` makes it, \
             and the server keeps log for us from then on"
        )),
        Some(slot) if !slot.physical => {
            warn(format!("replication slot \"{slot_name}\" is not a physical one: set another `slot`"))
        }
        Some(slot) if slot.wal_status.as_deref() == Some("lost") => warn(format!(
            "replication slot \"{slot_name}\" is lost, its log was removed: drop it and make a new \
             backup, and raise max_slot_wal_keep_size"
        )),
        Some(slot) if slot.wal_status.as_deref() == Some("unreserved") => {
            warn(format!("replication slot \"{slot_name}\" is about to lose its log: start `backstay archive` now"))
        }
        Some(slot) if !slot.reserved => {
            warn(format!("replication slot \"{slot_name}\" keeps no log yet: start `backstay archive`"))
        }
        Some(slot) if !slot.active => warn(format!(
            "replication slot \"{slot_name}\" is not in use, so the server's log grows: \
             start `backstay archive`, or drop the slot"
        )),
        Some(_) => {}
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Seen {
        let settings = [
            ("wal_level", "replica"),
            ("max_wal_senders", "10"),
            ("max_replication_slots", "10"),
            ("full_page_writes", "on"),
            ("fsync", "on"),
            ("data_checksums", "on"),
        ];
        Seen {
            settings: settings.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
            user: "backup".to_owned(),
            may_replicate: true,
            senders: 1,
            slots: 1,
            slot: Some(Slot { physical: true, active: true, wal_status: Some("reserved".to_owned()), reserved: true }),
            ..Seen::default()
        }
    }

    fn with(name: &str, value: &str) -> Seen {
        let mut seen = healthy();
        for setting in &mut seen.settings {
            if setting.0 == name {
                setting.1 = value.to_owned();
            }
        }
        seen
    }

    fn only_warning(seen: &Seen) -> String {
        let mut warnings = judge(seen, "arch");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        warnings.remove(0)
    }

    #[test]
    fn a_healthy_server_gets_no_warning() {
        assert_eq!(judge(&healthy(), "arch"), Vec::<String>::new());
    }

    #[test]
    fn each_bad_setting_gets_its_own_warning() {
        for (name, value) in [
            ("wal_level", "minimal"),
            ("max_wal_senders", "1"),
            ("max_wal_senders", "2"),
            ("max_replication_slots", "1"),
            ("fsync", "off"),
            ("full_page_writes", "off"),
        ] {
            assert!(only_warning(&with(name, value)).contains(name), "{name}");
        }
        assert!(only_warning(&with("data_checksums", "off")).contains("checksums"));
    }

    #[test]
    fn a_slot_in_trouble_is_named() {
        let slot = |change: fn(&mut Slot)| {
            let mut seen = healthy();
            change(seen.slot.as_mut().unwrap());
            only_warning(&seen)
        };
        assert!(slot(|s| s.physical = false).contains("physical"));
        assert!(slot(|s| s.active = false).contains("not in use"));
        assert!(slot(|s| s.wal_status = Some("lost".to_owned())).contains("lost"));
        assert!(slot(|s| s.reserved = false).contains("keeps no log"));
        let missing = Seen { slot: None, ..healthy() };
        assert!(only_warning(&missing).contains("does not exist"));
    }

    #[test]
    fn slots_that_run_out_are_counted_with_those_still_to_come() {
        let mut seen = with("max_replication_slots", "4");
        seen.slots = 3;
        assert_eq!(judge(&seen, "arch"), Vec::<String>::new());
        seen.slots = 4;
        assert!(only_warning(&seen).contains("max_replication_slots"));
    }
}
