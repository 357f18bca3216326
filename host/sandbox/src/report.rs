//! What a plugin says, checked before anybody believes it.

use crate::{
    bindings::exports::backstay::engine::engine as wit,
    convert,
    limits::{LIST_ITEMS_MAX, NOTES_BYTES_MAX, TEXT_BYTES_MAX},
    log_gate::printable,
};
use backstay_core::{Position, RelativePath, Timestamp, Volume};
use serde::{Deserialize, Serialize};

/// What can be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrantKind {
    /// An address.
    Endpoint,
    /// A user and a secret.
    Credential,
    /// A folder to read.
    DirectoryRead,
    /// A folder to change.
    DirectoryWrite,
    /// A native program.
    Tool,
}

/// A grant a plugin asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRequest {
    /// What kind.
    pub kind: GrantKind,
    /// Its name in the configuration.
    pub name: String,
    /// What for.
    pub purpose: String,
    /// Whether every job needs it.
    pub required: bool,
}

impl GrantRequest {
    /// Whether a grant of this name is what it asks for; with `*` behind its name, any that begins so.
    pub fn means(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => self.name == name,
        }
    }
}

/// One way to back up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Method {
    /// Its name.
    pub name: String,
    /// One line.
    pub summary: String,
    /// Grants it needs beyond the required ones.
    pub grants: Vec<String>,
    /// Methods whose backups it may build on, beside its own.
    #[serde(default, rename = "builds-on")]
    pub builds_on: Vec<String>,
}

impl Method {
    /// Whether a backup by `method` may be what this one builds on.
    pub fn may_follow(&self, method: &str) -> bool {
        self.name == method || self.builds_on.iter().any(|name| name == method)
    }
}

/// Who a plugin is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Description {
    /// The engine's name.
    pub name: String,
    /// The plugin's version.
    pub version: String,
    /// One line.
    pub summary: String,
    /// The first is the default.
    pub methods: Vec<Method>,
    /// Whether the engine has a log.
    pub has_log: bool,
    /// What it asks for.
    pub grants: Vec<GrantRequest>,
    /// JSON Schema of the settings.
    pub config_schema: serde_json::Value,
}

/// What an inspection saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Which database it is.
    pub identity: String,
    /// Its version.
    pub version: String,
    /// Its role.
    pub role: String,
    /// The end of its log.
    pub tail: Option<Position>,
    /// What will not work.
    pub warnings: Vec<String>,
}

/// What a plugin says about the backup it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// Where in the log the backup starts.
    pub start: Position,
    /// Consistent from here on.
    pub end: Position,
    /// Log from here on is needed to go beyond `end`.
    pub log_from: Position,
    /// No commit inside is later than this.
    pub consistent_at: Option<Timestamp>,
    /// The database's version.
    pub version: String,
    /// The folder that holds the main folder.
    pub main: RelativePath,
    /// What lies outside it.
    pub volumes: Vec<Volume>,
    /// The engine's own JSON.
    pub notes: String,
}

/// What a restore leaves to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// One line each.
    pub next_steps: Vec<String>,
}

type Checked<T> = Result<T, String>;

fn line(text: &str) -> String {
    printable(text, TEXT_BYTES_MAX)
}

fn lines(texts: Vec<String>) -> Vec<String> {
    texts.iter().take(LIST_ITEMS_MAX).map(|text| line(text)).collect()
}

fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
}

impl Description {
    /// The plugin must be who its file says.
    pub(crate) fn checked(raw: wit::Description, expected: &str) -> Checked<Self> {
        if raw.name != expected {
            return Err(format!("its file is called {expected}.wasm, but it calls itself `{}`", line(&raw.name)));
        }
        if raw.methods.is_empty() || raw.methods.len() > LIST_ITEMS_MAX || raw.grants.len() > LIST_ITEMS_MAX {
            return Err("it has no backup method, or far too many".to_owned());
        }
        // A star stands for whatever follows.
        let grants = raw.grants.iter().map(|grant| match grant.required {
            true => grant.name.as_str(),
            false => grant.name.strip_suffix('*').unwrap_or(&grant.name),
        });
        for name in raw.methods.iter().map(|method| method.name.as_str()).chain(grants) {
            if !is_name(name) {
                return Err(format!("`{}` is no name for a method or a grant", line(name)));
            }
        }
        let config_schema = serde_json::from_str(&raw.config_schema)
            .map_err(|error| format!("its settings schema is not JSON: {error}"))?;
        Ok(Self {
            name: raw.name,
            version: line(&raw.version),
            summary: line(&raw.summary),
            methods: raw
                .methods
                .into_iter()
                .map(|method| Method {
                    name: method.name,
                    summary: line(&method.summary),
                    grants: lines(method.grants),
                    builds_on: lines(method.builds_on),
                })
                .collect(),
            has_log: matches!(raw.replay, wit::ReplayKind::AtStart),
            grants: raw
                .grants
                .into_iter()
                .map(|grant| GrantRequest {
                    kind: match grant.kind {
                        wit::GrantKind::Endpoint => GrantKind::Endpoint,
                        wit::GrantKind::Credential => GrantKind::Credential,
                        wit::GrantKind::DirectoryRead => GrantKind::DirectoryRead,
                        wit::GrantKind::DirectoryWrite => GrantKind::DirectoryWrite,
                        wit::GrantKind::Tool => GrantKind::Tool,
                    },
                    name: grant.name,
                    purpose: line(&grant.purpose),
                    required: grant.required,
                })
                .collect(),
            config_schema,
        })
    }
}

impl Facts {
    pub(crate) fn checked(raw: wit::Facts) -> Checked<Self> {
        convert::identity(&raw.identity)
            .map_err(|error| format!("it does not say which database it saw: {}", error.message))?;
        Ok(Self {
            identity: raw.identity,
            version: line(&raw.version),
            role: line(&raw.role),
            tail: raw.tail.map(Into::into),
            warnings: lines(raw.warnings),
        })
    }
}

impl BackupReport {
    /// Positions that contradict each other would make a restore plan that cannot work.
    pub(crate) fn checked(raw: wit::BackupReport) -> Checked<Self> {
        let (start, end, log_from): (Position, Position, Position) =
            (raw.start.into(), raw.end.into(), raw.log_from.into());
        if start.epoch == end.epoch && end.offset < start.offset {
            return Err(format!("it says the backup ends at {end}, before its start {start}"));
        }
        if end.epoch < start.epoch {
            return Err(format!("it says the backup ends in epoch {}, before its start's", end.epoch));
        }
        if log_from.epoch > end.epoch || (log_from.epoch == end.epoch && log_from.offset > end.offset) {
            return Err(format!("it says the log is needed from {log_from} on, after the backup's end {end}"));
        }
        if raw.notes.len() > NOTES_BYTES_MAX {
            return Err("its notes are longer than 1 MiB".to_owned());
        }
        if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&raw.notes) {
            return Err(format!("its notes are not JSON: {error}"));
        }
        if raw.volumes.len() > LIST_ITEMS_MAX {
            return Err("it has too many volumes".to_owned());
        }
        let main = RelativePath::new(raw.main).map_err(|error| error.to_string())?;
        let volumes = raw.volumes.into_iter().map(|volume| {
            let name = RelativePath::new(volume.name).map_err(|error| error.to_string())?;
            Ok(Volume { name: name.into(), title: line(&volume.title), location: line(&volume.location) })
        });
        Ok(Self {
            start,
            end,
            log_from,
            consistent_at: raw.consistent_at.map(Timestamp::from_micros),
            version: line(&raw.version),
            main,
            volumes: volumes.collect::<Checked<_>>()?,
            notes: raw.notes,
        })
    }
}

impl RestoreReport {
    pub(crate) fn checked(raw: wit::RestoreReport) -> Checked<Self> {
        Ok(Self { next_steps: lines(raw.next_steps) })
    }
}
