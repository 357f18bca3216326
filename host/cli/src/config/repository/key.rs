//! The keys of a repository, which kinds of stores take them, and what becomes of them.

use super::{
    super::{
        bounded,
        error::ConfigError,
        secret::{SecretError, SecretSource},
        section::Section,
    },
    kind::Kind,
    rate,
};
use crate::limits::{CONNECTIONS_MAX, OBJECT_LOCK_DAYS_MAX, PEM_BYTES_MAX};
use backstay_core::Secret;
use std::path::PathBuf;

/// Keys that every repository takes and that are no options of its store.
pub(super) const COMMON_KEYS: &[&str] = &["url", "password-file", "password-command"];

/// One key, or a pair `…-file` and `…-command`.
pub(super) struct Key {
    /// Its name; of a pair, what both begin with.
    name: &'static str,
    /// The names under which it stands in the file.
    names: &'static [&'static str],
    form: Form,
    /// What the store calls it.
    pub(super) option: &'static str,
    pub(super) kinds: &'static [Kind],
}

/// How a key is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Flag,
    /// `…-file` or `…-command`, read when it is needed.
    Secret,
    /// A file that is read again and again while the store is in use: it is replaced from time to time.
    Path,
    /// A file of certificates, read when it is needed.
    Certificates,
    /// Bytes a second.
    Rate,
    Number(u32),
}

/// What a key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// As it stands in the file.
    Said(String),
    /// Read when it is needed.
    Secret(SecretSource),
    /// So is the content of a file that is no secret.
    Content(PathBuf),
}

const ALL: &[Kind] = &[Kind::Folder, Kind::S3, Kind::Gcs, Kind::Azure, Kind::WebDav];
const NETWORK: &[Kind] = &[Kind::S3, Kind::Gcs, Kind::Azure, Kind::WebDav];
const CLOUDS: &[Kind] = &[Kind::S3, Kind::Gcs, Kind::Azure];
const S3: &[Kind] = &[Kind::S3];
const GCS: &[Kind] = &[Kind::Gcs];
const AZURE: &[Kind] = &[Kind::Azure];
const WEBDAV: &[Kind] = &[Kind::WebDav];

/// An option that is not given on: what it says is looked up.
const LOOKED_UP: &str = "";

macro_rules! key {
    ($name:literal, $form:expr, $option:expr, $kinds:expr) => {
        Key { name: $name, names: &[$name], form: $form, option: $option, kinds: $kinds }
    };
}
macro_rules! secret {
    ($name:literal, $option:expr, $kinds:expr) => {
        Key {
            name: $name,
            names: &[concat!($name, "-file"), concat!($name, "-command")],
            form: Form::Secret,
            option: $option,
            kinds: $kinds,
        }
    };
}

/// Every key that becomes an option of a store.
pub(super) const KEYS: &[Key] = &[
    key!("upload-limit", Form::Rate, "upload-limit", ALL),
    key!("download-limit", Form::Rate, "download-limit", ALL),
    key!("connections", Form::Number(CONNECTIONS_MAX), "connections", NETWORK),
    key!("allow-http", Form::Flag, "allow-http", NETWORK),
    key!("ca-file", Form::Certificates, "ca", NETWORK),
    key!("endpoint", Form::Text, "endpoint", CLOUDS),
    key!("region", Form::Text, "region", S3),
    key!("path-style", Form::Flag, "path-style", S3),
    key!("access-key-id", Form::Text, "access-key-id", S3),
    secret!("secret-access-key", "secret-access-key", S3),
    secret!("session-token", "session-token", S3),
    key!("profile", Form::Text, LOOKED_UP, S3),
    key!("role-arn", Form::Text, "role-arn", S3),
    key!("web-identity-token-file", Form::Path, "web-identity-token-file", S3),
    key!("object-lock-days", Form::Number(OBJECT_LOCK_DAYS_MAX), "object-lock-days", S3),
    secret!("service-account", "service-account-key", GCS),
    key!("account", Form::Text, "account", AZURE),
    secret!("access-key", "access-key", AZURE),
    secret!("sas-token", "sas-token", AZURE),
    key!("tenant-id", Form::Text, "tenant-id", AZURE),
    key!("client-id", Form::Text, "client-id", AZURE),
    secret!("client-secret", "client-secret", AZURE),
    key!("federated-token-file", Form::Path, "federated-token-file", AZURE),
    key!("user", Form::Text, "user", WEBDAV),
    secret!("user-password", "user-password", WEBDAV),
];

/// The names of the keys that are wanted.
pub(super) fn names(wanted: impl Fn(&Key) -> bool) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter(move |key| wanted(key)).flat_map(|key| key.names.iter().copied())
}

/// The keys that go by that name.
pub(super) fn named(name: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.names.contains(&name))
}

impl Key {
    /// What the section says, if it has the key.
    pub(super) fn read(&self, section: &Section<'_>) -> Result<Option<Value>, ConfigError> {
        if self.option == LOOKED_UP {
            return Ok(None);
        }
        Ok(match self.form {
            Form::Text => section.text(self.name)?.map(|text| Value::Said(text.value)),
            Form::Flag => section.boolean(self.name)?.map(|truth| Value::Said(truth.to_string())),
            Form::Secret => SecretSource::from_section(section, self.name)?.map(Value::Secret),
            Form::Path => section.path(self.name)?.map(|path| Value::Said(path.display().to_string())),
            Form::Certificates => section.path(self.name)?.map(Value::Content),
            Form::Rate => rate::read(section, self.name)?.map(|rate| Value::Said(rate.to_string())),
            Form::Number(most) => section.number(self.name, 1..=most)?.map(|number| Value::Said(number.to_string())),
        })
    }
}

impl Value {
    /// The option's value, read now.
    pub(super) fn read(&self, whose: &str) -> Result<Secret, SecretError> {
        match self {
            Self::Said(text) => Ok(Secret::new(text.clone())),
            Self::Secret(source) => source.read(whose),
            Self::Content(path) => bounded::read_text(path, PEM_BYTES_MAX)
                .map(Secret::new)
                .map_err(|error| SecretError::File { path: path.clone(), reason: error.to_string() }),
        }
    }
}
