//! From what a server or its bytes said to what the operator is told.

use backstay_postgresql_wire as wire;
use backstay_postgresql_wire::error_fields::ServerError;
use backstay_sdk::{Error, ErrorKind};

/// The operator's error for what the server said, in the server's own words.
pub fn from_server(error: &ServerError) -> Error {
    let code = error.code().unwrap_or_default();
    let message = error.message().unwrap_or_default();
    let (kind, hint) = judge(code, message);
    let told = Error::new(kind, error.one_line());
    match hint.map(str::to_owned).or_else(|| error.hint().map(one_line)) {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// What a SQLSTATE means here, and what to do. Messages are looked at only to choose a hint.
fn judge(code: &str, message: &str) -> (ErrorKind, Option<&'static str>) {
    use ErrorKind::{BadConfig, Denied, Gap, Unreachable, Unsupported};
    match code {
        "28P01" => (Denied, Some("check user and password of the credential \"primary\"")),
        "28000" if message.contains("pg_hba.conf") => (
            Denied,
            Some(
                "add a line for this user and this host to the server's pg_hba.conf \
                  (database \"replication\" for backups and archiving), then reload the server",
            ),
        ),
        "28000" if message.contains("certificate") => (
            Denied,
            Some("set client-cert-file and client-key-file of the endpoint to a certificate that the server takes"),
        ),
        "28000" => (Denied, Some("check that the role exists and may log in")),
        "42501" if message.contains("replication") || message.contains("WAL sender") => {
            (Denied, Some("give the role the right: ALTER ROLE … REPLICATION"))
        }
        "42501" if message.contains("pg_backup_start") => (
            Denied,
            Some(
                "let the role use backup mode, in the database that `dbname` names: \
                  GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) TO …",
            ),
        ),
        "42501" if message.contains("pg_start_backup") => (
            Denied,
            Some(
                "let the role use backup mode, in the database that `dbname` names: GRANT EXECUTE ON FUNCTION \
                  pg_start_backup(text, boolean, boolean), pg_stop_backup(boolean, boolean) TO …",
            ),
        ),
        "42501" => (Denied, Some("give the role the right it lacks")),
        "53300" if message.contains("max_wal_senders") || message.contains("standby") => {
            (Denied, Some("raise max_wal_senders and restart the server"))
        }
        "53300" => (Denied, Some("raise max_connections, or the role's connection limit, or end idle sessions")),
        "53400" => (Denied, Some("raise max_replication_slots and restart the server, or drop slots that nobody uses")),
        "55006" => (Denied, Some("another session uses this slot: stop it, or set another `slot` for this target")),
        "55000" if message.contains("WAL level") || message.contains("wal_level") => {
            (BadConfig, Some("set wal_level to \"replica\" and restart the server"))
        }
        "55000" if message.contains("WAL summarization") => {
            (BadConfig, Some("set summarize_wal to on and reload the server; a backup by stream needs no summaries"))
        }
        "55000" if message.contains("WAL summaries are required") => (
            Unsupported,
            Some("the server's summaries do not reach back to the backup before: make one by stream, to build on"),
        ),
        "55000" if message.contains("can no longer") || message.contains("invalidated") => {
            (Gap, Some("the server gave up the slot's log: drop the slot and make a new backup"))
        }
        // "requested WAL segment … has already been removed"
        "58P01" if message.contains("WAL segment") => {
            (Gap, Some("the server no longer has this log: make a new backup to start a new recovery window"))
        }
        "XX001" | "XX002" => (
            ErrorKind::Corrupt,
            Some("the database itself is damaged: the server's log names the file; keep older backups"),
        ),
        "3D000" => (BadConfig, Some("set `dbname` to a database that exists")),
        "42710" => (Denied, None),
        "0A000" | "42601" => (Unsupported, None),
        // Starting, stopping, or in recovery: it will pass.
        "57P01" | "57P02" | "57P03" | "57P05" => (Unreachable, None),
        _ => (Denied, None),
    }
}

/// The operator's error for bytes that make no sense, or a login that must not go on.
pub fn from_wire(error: wire::Error) -> Error {
    let kind = match error.kind() {
        wire::ErrorKind::Malformed | wire::ErrorKind::TooLarge | wire::ErrorKind::Mismatch => ErrorKind::Corrupt,
        wire::ErrorKind::Unsupported => ErrorKind::Unsupported,
        wire::ErrorKind::Denied => ErrorKind::Denied,
        wire::ErrorKind::BadArgument => ErrorKind::BadConfig,
    };
    let told = Error::new(kind, one_line(&error.to_string()));
    match error.hint() {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

/// The error for a server whose log is not enough.
pub fn wal_level_minimal() -> Error {
    Error::new(ErrorKind::BadConfig, "the server's wal_level is \"minimal\", which is not enough for a backup")
        .hint("set wal_level to \"replica\" and max_wal_senders above 1, and restart the server")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: &str, message: &str) -> Error {
        let body = format!("SFATAL\0C{code}\0M{message}\0\0");
        from_server(&ServerError::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn each_refusal_has_its_kind_and_a_way_out() {
        use ErrorKind::*;
        for (code, message, kind, hint) in [
            ("28P01", "password authentication failed for user \"x\"", Denied, "password"),
            ("28000", "no pg_hba.conf entry for replication connection", Denied, "pg_hba.conf"),
            ("28000", "role \"x\" does not exist", Denied, "exists"),
            ("28000", "connection requires a valid client certificate", Denied, "client-cert-file"),
            ("42501", "must be superuser or replication role to start walsender", Denied, "REPLICATION"),
            ("42501", "permission denied to start WAL sender", Denied, "REPLICATION"),
            ("53300", "number of requested standby connections exceeds max_wal_senders", Denied, "max_wal_senders"),
            ("53300", "sorry, too many clients already", Denied, "max_connections"),
            ("53400", "all replication slots are in use", Denied, "max_replication_slots"),
            ("55006", "replication slot \"s\" is active for PID 7", Denied, "slot"),
            ("55000", "WAL level not sufficient for making an online backup", BadConfig, "wal_level"),
            ("58P01", "requested WAL segment 00 has already been removed", Gap, "new backup"),
            ("3D000", "database \"x\" does not exist", BadConfig, "dbname"),
        ] {
            let error = server(code, message);
            assert_eq!(error.kind, kind, "{code}");
            assert_eq!(error.message, format!("FATAL:  {message}"));
            assert!(error.hint.unwrap().contains(hint), "{code}");
        }
        assert_eq!(server("57P03", "the database system is starting up").kind, Unreachable);
    }
}
