//! The replication slot that makes the server keep log for us.

use backstay_postgresql_wire::protocol::frontend::Purpose;
use backstay_postgresql_wire::replication::{create_physical_slot, literal, read_slot};
use backstay_sdk::{Error, ErrorKind, Level, Result, host};

use crate::connection::{Rows, Session};
use crate::position::parse_lsn;
use crate::refusal::{from_server, from_wire};
use crate::settings::Settings;

const DUPLICATE_OBJECT: &str = "42710";

/// Makes the slot when it is absent. Answers from where on the server keeps log for it, where
/// the server tells.
pub(super) async fn ensure(session: &mut Session, settings: &Settings) -> Result<Option<u64>> {
    let name = settings.slot_name();
    if let Some(slot) = look(session, settings, &name).await? {
        return Ok(slot.restart);
    }
    let create = create_physical_slot(session.version(), &name, false).map_err(from_wire)?;
    match session.try_query(&create).await? {
        Ok(_) => host::log(Level::Info, &format!("made replication slot \"{name}\"")),
        // Up to version 14 nobody may have been able to look.
        Err(error) if error.code() == Some(DUPLICATE_OBJECT) => {}
        Err(error) => return Err(from_server(&error)),
    }
    Ok(look(session, settings, &name).await?.and_then(|slot| slot.restart))
}

/// A slot that exists.
struct Slot {
    /// From here on the server keeps log; nothing while it keeps none.
    restart: Option<u64>,
}

async fn look(session: &mut Session, settings: &Settings, name: &str) -> Result<Option<Slot>> {
    match read_slot(session.version(), name).map_err(from_wire)? {
        Some(command) => found(&session.rows(&command).await?, name),
        None => look_by_sql(settings, name).await,
    }
}

/// Up to version 14 slots can be seen in SQL only, where the operator may not let us in.
async fn look_by_sql(settings: &Settings, name: &str) -> Result<Option<Slot>> {
    let query = format!(
        "SELECT slot_type, restart_lsn FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
        literal(name).map_err(from_wire)?
    );
    let mut sql = match Session::open(settings, Purpose::Sql).await {
        Ok(sql) => sql,
        Err(error) => {
            host::log(Level::Debug, &format!("failed to look at the slot in SQL: {error}"));
            return Ok(None);
        }
    };
    let rows = sql.rows(&query).await;
    sql.close().await;
    found(&rows?, name)
}

fn found(rows: &Rows, name: &str) -> Result<Option<Slot>> {
    match rows.get(0, "slot_type") {
        None => Ok(None),
        Some("physical") => {
            let restart = rows.get(0, "restart_lsn").map(parse_lsn).transpose()?;
            Ok(Some(Slot { restart }))
        }
        Some(_) => Err(Error::new(ErrorKind::BadConfig, format!("replication slot \"{name}\" is not a physical one"))
            .hint("set another `slot` for this target")),
    }
}
