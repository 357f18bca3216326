//! `backstay.toml`: which repositories and targets there are, and what each plugin may reach.
//!
//! ```text
//!   Config ─┬─ Repository ── Location (folder | S3 | GCS | Azure | WebDAV) + SecretSource
//!           └─ Target ──┬─── engine, the repository it goes to
//!                       ├─── Settings   judged by the engine's JSON Schema, not here
//!                       └─── Grants     endpoints, credentials, directories, tools
//! ```
//!
//! A file is read once, whole, into these types; a wrong file is refused before anything is done, with one
//! line that starts `file:line:column:`. Secrets are not in the file: it says where they are, and they are
//! read when a command needs them ([`SecretSource`]).

mod address;
mod bounded;
mod error;
mod example;
mod grants;
mod name;
mod repository;
mod retention;
mod schema;
mod secret;
mod section;
mod settings;
mod suggestion;
mod target;

pub(crate) use error::ConfigError;
pub(crate) use example::EXAMPLE;
#[cfg(test)]
pub(crate) use grants::Directory;
pub(crate) use grants::Grants;
pub(crate) use name::RepositoryName;
pub(crate) use repository::Repository;
pub(crate) use schema::SchemaError;
pub(crate) use secret::{SecretError, SecretSource, text as secret_text};
pub(crate) use suggestion::advice;
pub(crate) use target::Target;

use crate::limits::CONFIG_BYTES_MAX;
use backstay_core::TargetName;
use error::Source;
use section::Section;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use toml::de::DeTable;

/// The file's name in the usual places.
pub(crate) const FILE_NAME: &str = "backstay.toml";

/// A whole configuration, checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The file it came from, as it was named.
    pub(crate) file: PathBuf,
    /// By name.
    pub(crate) repositories: BTreeMap<RepositoryName, Repository>,
    /// By name.
    pub(crate) targets: BTreeMap<TargetName, Target>,
}

impl Config {
    /// Reads `named`, or else the first of `places` that exists.
    pub(crate) fn load(named: Option<&Path>, places: &[PathBuf]) -> Result<Self, ConfigError> {
        if let Some(file) = named {
            return Self::read(file);
        }
        match places.iter().find(|place| place.exists()) {
            Some(file) => Self::read(file),
            None => {
                let looked_for: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
                Err(ConfigError::Missing { looked_for: looked_for.join(", ") })
            }
        }
    }

    /// Reads one file.
    fn read(file: &Path) -> Result<Self, ConfigError> {
        let unreadable = |reason: String| ConfigError::Unreadable { file: file.to_owned(), reason };
        let bytes = bounded::read(file, CONFIG_BYTES_MAX).map_err(|error| unreadable(error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
            unreadable(format!("line {line} is not UTF-8"))
        })?;
        Self::parse(file, text)
    }

    /// Reads a file's text; `file` names it in errors and is where relative paths start.
    pub(crate) fn parse(file: &Path, text: String) -> Result<Self, ConfigError> {
        let source = Source { file: file.to_owned(), text };
        let table = DeTable::parse(&source.text).map_err(|error| {
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            source.error(error.span().unwrap_or(0..0), message)
        })?;
        let root = Section::root(&source, &table).only(&["repositories", "targets", "retention"])?;
        let repositories = named(&root, "repositories", |name: RepositoryName, section| {
            Ok((name.clone(), Repository::from_section(name, section)?))
        })?;
        let retention = root.section("retention")?.map(retention::policy).transpose()?;
        let targets = named(&root, "targets", |name: TargetName, section| {
            let known = repositories.keys().map(RepositoryName::as_str);
            let mut target = Target::from_section(name.clone(), section, known)?;
            target.retention = target.retention.or_else(|| retention.clone());
            Ok((name, target))
        })?;
        Ok(Self { file: source.file, repositories, targets })
    }

    /// The usual places, best first.
    pub(crate) fn usual_places(home: Option<&Path>) -> Vec<PathBuf> {
        let here = Some(PathBuf::from(FILE_NAME));
        let own = home.map(|home| home.join(".config/backstay").join(FILE_NAME));
        let machine = Some(Path::new("/etc/backstay").join(FILE_NAME));
        [here, own, machine].into_iter().flatten().collect()
    }
}

/// Reads every section below `[key]`, each under a name that parses.
fn named<N, T>(
    root: &Section<'_>,
    key: &str,
    read: impl Fn(N, Section<'_>) -> Result<(N, T), ConfigError>,
) -> Result<BTreeMap<N, T>, ConfigError>
where
    N: std::str::FromStr + Ord,
    N::Err: std::fmt::Display,
{
    let Some(table) = root.section(key)? else { return Ok(BTreeMap::new()) };
    table
        .entries()
        .map(|(name, value)| {
            let parsed = name
                .value
                .parse()
                .map_err(|reason: N::Err| table.source().error(name.span, format!("{table}: {reason}")))?;
            read(parsed, Section::from_value(table.source(), table.key(name.value), value)?)
        })
        .collect()
}

#[cfg(test)]
mod tests;
