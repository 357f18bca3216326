//! The kinds of stores, by their addresses.

use super::super::{
    error::ConfigError,
    section::{Located, Section},
};
use std::path::PathBuf;

/// What a repository lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A path, or `file://`.
    Folder,
    /// `s3://bucket/prefix`
    S3,
    /// `gs://bucket/prefix`
    Gcs,
    /// `az://container/prefix`
    Azure,
    /// `https://host/path`
    WebDav,
}

impl Kind {
    /// By the scheme of an address.
    pub(super) fn of(section: &Section<'_>, url: &Located<String>) -> Result<Self, ConfigError> {
        match url.value.split_once("://").map(|(scheme, _)| scheme) {
            None | Some("file") => Ok(Self::Folder),
            Some("s3") => Ok(Self::S3),
            Some("gs") => Ok(Self::Gcs),
            Some("az") => Ok(Self::Azure),
            Some("https" | "http") => Ok(Self::WebDav),
            Some(scheme) => {
                let message = format!(
                    "{}: unknown scheme `{}`, expected one of `file`, `s3`, `gs`, `az`, `https`",
                    section.key("url"),
                    scheme.escape_default()
                );
                Err(section.source().error(url.span.clone(), message))
            }
        }
    }

    /// How people write its addresses.
    pub(super) fn scheme(self) -> &'static str {
        match self {
            Self::Folder => "file://",
            Self::S3 => "s3://",
            Self::Gcs => "gs://",
            Self::Azure => "az://",
            Self::WebDav => "https://",
        }
    }

    /// The address of a store on the network, when it looks like one.
    pub(super) fn checked(self, section: &Section<'_>, url: &Located<String>) -> Result<String, ConfigError> {
        let host = url.value.split_once("://").map_or("", |(_, rest)| rest).split('/').next().unwrap_or_default();
        let (foreign, form): (&[char], _) = match self {
            Self::S3 => (&['@', ':', '?', '#', ' '], "s3://bucket or s3://bucket/prefix"),
            Self::Gcs => (&['@', ':', '?', '#', ' '], "gs://bucket or gs://bucket/prefix"),
            Self::Azure => (&['@', ':', '?', '#', ' '], "az://container or az://container/prefix, and `account`"),
            Self::WebDav | Self::Folder => (&['@', '?', '#', ' '], "https://host/path, and `user` if there is one"),
        };
        if host.is_empty() || host.contains(foreign) || url.value.contains(['?', '#']) {
            let message = format!("{}: write {form}", section.key("url"));
            return Err(section.source().error(url.span.clone(), message));
        }
        Ok(url.value.trim_end_matches('/').to_owned())
    }
}

/// `s3://, gs:// and az:// repositories`
pub(super) fn list(kinds: &[Kind]) -> String {
    let schemes: Vec<&str> = kinds.iter().map(|kind| kind.scheme()).collect();
    match schemes.as_slice() {
        [] => String::new(),
        [only] => format!("{only} repositories"),
        [all @ .., last] => format!("{} and {last} repositories", all.join(", ")),
    }
}

/// A local folder, absolute.
pub(super) fn folder(section: &Section<'_>, url: &Located<String>) -> Result<PathBuf, ConfigError> {
    let refuse = |reason: &str| {
        let message = format!("{}: {reason}", section.key("url"));
        Err(section.source().error(url.span.clone(), message))
    };
    let (path, must_be_absolute) = match url.value.strip_prefix("file://") {
        Some(path) => (path, true),
        None => (url.value.as_str(), false),
    };
    if path.contains('\0') {
        return refuse("it holds a NUL");
    }
    if must_be_absolute && !path.starts_with('/') {
        return refuse("a file:// URL has three slashes and an absolute path: file:///var/lib/backstay/repo");
    }
    std::path::absolute(section.source().folder().join(path)).or_else(|error| refuse(&error.to_string()))
}
