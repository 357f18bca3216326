//! The target's settings: what `settings = { … }` in the configuration may say.
//!
//! The host has checked them against [`schema`] already; [`Settings::read`] checks what a
//! schema cannot.

use backstay_postgresql_wire::auth::ChannelBinding;
use backstay_postgresql_wire::replication::{Checkpoint, slot_name};
use backstay_sdk::{Error, ErrorKind, Result, host};
use serde::Deserialize;
use serde_json::json;

/// How TLS is used; the words and their meaning are libpq's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only where the server insists.
    Allow,
    /// Where the server can.
    #[default]
    Prefer,
    /// Always; any certificate is believed.
    Require,
    /// And the certificate chains to a trusted authority.
    VerifyCa,
    /// And it names the endpoint's host.
    VerifyFull,
}

/// The target's settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// How TLS is used.
    pub sslmode: SslMode,
    /// Whether the login is tied to the TLS session.
    pub channel_binding: ChannelBinding,
    /// The database for sessions that ask in SQL.
    pub dbname: String,
    /// The replication slot of the log archive; see [`Self::slot_name`].
    pub slot: Option<String>,
    /// The checkpoint before a backup.
    pub checkpoint: Checkpoint,
    /// Kilobytes a second that a backup may read; nothing: no bound.
    pub max_rate: Option<u32>,
    /// The longest that received log waits before it is stored, in milliseconds.
    pub flush_interval_ms: u64,
    /// What `pg_stat_activity` shows, and the name for `synchronous_standby_names`.
    pub application_name: String,
    /// The longest to wait for a session to come up, in seconds.
    pub connect_timeout_s: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sslmode: SslMode::default(),
            channel_binding: ChannelBinding::default(),
            dbname: "postgres".to_owned(),
            slot: None,
            checkpoint: Checkpoint::default(),
            max_rate: None,
            flush_interval_ms: 2_000,
            application_name: DEFAULT_APPLICATION_NAME.to_owned(),
            connect_timeout_s: 30,
        }
    }
}

const DEFAULT_APPLICATION_NAME: &str = "backstay";

impl Settings {
    /// The settings of this job.
    pub fn read() -> Result<Self> {
        Self::parse(&host::config())
    }

    /// Settings from a JSON object.
    pub fn parse(json: &str) -> Result<Self> {
        let json = if json.trim().is_empty() { "{}" } else { json };
        let settings: Self =
            serde_json::from_str(json).map_err(|error| bad(format!("the settings are not valid: {error}")))?;
        if let Some(name) = &settings.slot {
            slot_name(name)
                .map_err(|error| bad(error.to_string()).hint(error.hint().unwrap_or_default().to_owned()))?;
        }
        for (name, text) in [("dbname", &settings.dbname), ("application-name", &settings.application_name)] {
            if text.is_empty() || text.len() > 63 || text.contains('\0') {
                return Err(bad(format!("{name} must have 1 to 63 bytes and no NUL")));
            }
        }
        Ok(settings)
    }

    /// The slot of the log archive: as set, or one that follows the application name, so that two
    /// archivers of one server that differ in it differ in their slots too.
    pub fn slot_name(&self) -> String {
        if let Some(name) = &self.slot {
            return name.clone();
        }
        if self.application_name == DEFAULT_APPLICATION_NAME {
            return "backstay_archive".to_owned();
        }
        let plain = |c: char| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => c,
            _ => '_',
        };
        let name: String = self.application_name.chars().map(plain).collect();
        // A slot's name has at most 63 characters.
        format!("backstay_{}", &name[..name.len().min(54)])
    }
}

fn bad(message: String) -> Error {
    Error::new(ErrorKind::BadConfig, message)
}

/// JSON Schema of the settings.
pub fn schema() -> String {
    let defaults = Settings::default();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "PostgreSQL",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "sslmode": {
                "description": "How TLS is used, in libpq's words.",
                "enum": ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"],
                "default": "prefer",
            },
            "channel-binding": {
                "description": "Whether the login is tied to the TLS session (SCRAM-SHA-256-PLUS).",
                "enum": ["disable", "prefer", "require"],
                "default": "prefer",
            },
            "dbname": {
                "description": "The database for sessions that ask in SQL.",
                "type": "string", "minLength": 1, "maxLength": 63,
                "default": defaults.dbname,
            },
            "slot": {
                "description": "The physical replication slot of the log archive; made when absent. \
                                Default: backstay_archive, or backstay_ and the application name.",
                "type": "string", "pattern": "^[a-z0-9_]{1,63}$",
            },
            "checkpoint": {
                "description": "The checkpoint before a backup: at once, or spread over minutes.",
                "enum": ["fast", "spread"],
                "default": "fast",
            },
            "max-rate": {
                "description": "Kilobytes a second that a backup may read. Default: no bound.",
                "type": "integer", "minimum": 32, "maximum": 1_048_576,
            },
            "flush-interval-ms": {
                "description": "The longest that received log waits before it is stored, in milliseconds.",
                "type": "integer", "minimum": 10, "maximum": 3_600_000,
                "default": defaults.flush_interval_ms,
            },
            "application-name": {
                "description": "What pg_stat_activity shows, and the name for synchronous_standby_names.",
                "type": "string", "minLength": 1, "maxLength": 63,
                "default": defaults.application_name,
            },
            "connect-timeout-s": {
                "description": "The longest to wait for a session to come up, in seconds.",
                "type": "integer", "minimum": 1, "maximum": 3600,
                "default": defaults.connect_timeout_s,
            },
        },
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_set_means_the_defaults() {
        assert_eq!(Settings::parse("{}").unwrap(), Settings::default());
        assert_eq!(Settings::default().slot_name(), "backstay_archive");
    }

    #[test]
    fn every_setting_has_its_word() {
        let settings = Settings::parse(
            r#"{"sslmode": "verify-full", "channel-binding": "require", "dbname": "shop",
                "slot": "my_slot", "checkpoint": "spread", "max-rate": 4096,
                "flush-interval-ms": 100, "application-name": "arch", "connect-timeout-s": 5}"#,
        )
        .unwrap();
        assert_eq!(settings.sslmode, SslMode::VerifyFull);
        assert_eq!(settings.channel_binding, ChannelBinding::Require);
        assert_eq!(settings.checkpoint, Checkpoint::Spread);
        assert_eq!(settings.max_rate, Some(4096));
        assert_eq!(settings.slot_name(), "my_slot");
    }

    #[test]
    fn the_schema_names_every_setting_and_no_other() {
        let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
        let mut words: Vec<_> = schema["properties"].as_object().unwrap().keys().cloned().collect();
        words.sort();
        let error = Settings::parse(r#"{"nonsense": 1}"#).unwrap_err();
        for word in &words {
            assert!(error.message.contains(&format!("`{word}`")), "{word} is not read");
        }
        assert_eq!(error.message.matches('`').count() / 2, words.len() + 1);
    }

    #[test]
    fn another_application_name_has_another_slot_of_lawful_name() {
        for name in ["Archive-2", "ÄÖ", &"x".repeat(63)] {
            let settings = Settings { application_name: name.to_owned(), ..Settings::default() };
            assert!(slot_name(&settings.slot_name()).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_slot_name_that_postgresql_would_refuse_is_refused() {
        let error = Settings::parse(r#"{"slot": "Bad-Name"}"#).unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadConfig);
    }
}
