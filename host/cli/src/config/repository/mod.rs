//! `[repositories.NAME]`: where backups go.
//!
//! ```text
//!   url ─► Kind ─► the keys it takes (key.rs) ─► what goes together and what does not (s3, azure, webdav)
//!                                             └► Location: the address, options, and where their secrets are
//! ```

mod aws_profile;
mod azure;
mod key;
mod kind;
mod rate;
mod s3;
mod webdav;

pub(super) use aws_profile::AwsProfileError;

use super::{
    error::ConfigError,
    name::RepositoryName,
    secret::{SecretError, SecretSource},
    section::{Located, Section},
};
use backstay_core::Secret;
use key::{COMMON_KEYS, Value};
use kind::Kind;
use std::{collections::BTreeMap, path::PathBuf};

/// A repository: one prefix of an object store, and the password that opens it.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    /// Its name in the configuration.
    pub(crate) name: RepositoryName,
    /// Where it lies.
    pub(crate) location: Location,
    /// The password that opens it.
    pub(crate) password: SecretSource,
}

/// Where a repository lies, and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    kind: Kind,
    place: Place,
    /// By the option's name.
    options: BTreeMap<&'static str, Value>,
    /// A profile of Amazon's own files, which says what is not said here.
    profile: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// A local folder, absolute.
    Folder(PathBuf),
    /// An address as it was written, without slashes at its end.
    Url(String),
}

impl Repository {
    /// Reads one repository's section.
    pub(crate) fn from_section(name: RepositoryName, section: Section<'_>) -> Result<Self, ConfigError> {
        if section.value("url").is_none() {
            // A mistyped `url` is the likelier mistake.
            let every: Vec<&str> = COMMON_KEYS.iter().copied().chain(key::names(|_| true)).collect();
            return Err(section.only(&every)?.missing("url"));
        }
        let url = section.text_required("url")?;
        let kind = Kind::of(&section, &url)?;
        for (key, _) in section.entries() {
            let kinds: Vec<Kind> = key::named(key.value).flat_map(|key| key.kinds.iter().copied()).collect();
            if !kinds.is_empty() && !kinds.contains(&kind) {
                let message = format!("`{}` in {section} is only for {}", key.value, kind::list(&kinds));
                return Err(section.source().error(key.span, message));
            }
        }
        let known: Vec<&str> = COMMON_KEYS.iter().copied().chain(key::names(|key| key.kinds.contains(&kind))).collect();
        let section = section.only(&known)?;
        let place = match kind {
            Kind::Folder => Place::Folder(kind::folder(&section, &url)?),
            _ => Place::Url(kind.checked(&section, &url)?),
        };
        let mut options = BTreeMap::new();
        for key in key::KEYS.iter().filter(|key| key.kinds.contains(&kind)) {
            if let Some(value) = key.read(&section)? {
                options.insert(key.option, value);
            }
        }
        if kind != Kind::Folder {
            check_endpoint(&section)?;
        }
        match kind {
            Kind::S3 => s3::check(&section)?,
            Kind::Azure => azure::check(&section)?,
            Kind::WebDav => webdav::check(&section, &url)?,
            Kind::Folder | Kind::Gcs => {}
        }
        let profile = if kind == Kind::S3 { section.text("profile")?.map(|profile| profile.value) } else { None };
        let password = SecretSource::from_section(&section, "password")?
            .ok_or_else(|| section.error(format!("{section} needs `password-file` or `password-command`")))?;
        Ok(Self { name, location: Location { kind, place, options, profile }, password })
    }

    /// The password, read now.
    pub(crate) fn read_password(&self) -> Result<Secret, SecretError> {
        self.password.read(&format!("the password of repository `{}`", self.name))
    }
}

impl Location {
    /// The location as a URL. The characters that mean something in a URL are escaped in a folder's path:
    /// the configuration takes paths as they are.
    pub(crate) fn url(&self) -> String {
        match &self.place {
            Place::Folder(path) => {
                let path = path.display().to_string();
                format!("file://{}", path.replace('%', "%25").replace('?', "%3F").replace('#', "%23"))
            }
            Place::Url(url) => url.clone(),
        }
    }

    /// What the store needs beside the URL; reads the secrets. `whose` names the repository in messages.
    pub(crate) fn options(&self, whose: &str) -> Result<BTreeMap<String, Secret>, SecretError> {
        let mut all = BTreeMap::new();
        if self.kind == Kind::S3 {
            let said = |option: &str| self.options.contains_key(option);
            all.extend(s3::profile(self.profile.as_deref(), said)?);
        }
        for (option, value) in &self.options {
            all.insert((*option).to_owned(), value.read(&format!("the {} of {whose}", option.replace('-', " ")))?);
        }
        Ok(all)
    }
}

/// An endpoint, where there is one, is a URL without keys in it, and not without TLS by mistake.
fn check_endpoint(section: &Section<'_>) -> Result<(), ConfigError> {
    if section.value("endpoint").is_none() {
        return Ok(());
    }
    let endpoint = section.text_required("endpoint")?;
    let refuse = |reason: &str| {
        let message = format!("{}: {reason}", section.key("endpoint"));
        Err(section.source().error(endpoint.span.clone(), message))
    };
    if !endpoint.value.starts_with("https://") && !endpoint.value.starts_with("http://") {
        return refuse("write https://host or https://host:port");
    }
    if endpoint.value.contains('@') {
        return refuse("keys do not go into the URL, use the keys for them");
    }
    refuse_plain_http(section, "endpoint", &endpoint)
}

/// An address without TLS must be meant.
fn refuse_plain_http(section: &Section<'_>, key: &str, address: &Located<String>) -> Result<(), ConfigError> {
    if !address.value.starts_with("http://") || section.boolean("allow-http")? == Some(true) {
        return Ok(());
    }
    let message = format!(
        "{}: without TLS everybody on the way can read the access key, set allow-http = true if that is meant",
        section.key(key)
    );
    Err(section.source().error(address.span.clone(), message))
}

/// Two keys that have no meaning without each other. The second goes by the names it may have.
fn together(section: &Section<'_>, first: &str, second: &[&str]) -> Result<(), ConfigError> {
    let has_second = second.iter().any(|key| section.value(key).is_some());
    match section.value(first) {
        Some(value) if !has_second => {
            let message = format!("{section} has `{first}` but no `{}`", second[0]);
            Err(section.source().error(value.span(), message))
        }
        None if has_second => Err(section.missing(first)),
        _ => Ok(()),
    }
}
