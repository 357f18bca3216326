//! `[repositories.NAME]`: where backups go.

use super::{
    error::ConfigError,
    name::RepositoryName,
    secret::{SecretError, SecretSource},
    section::{Located, Section},
};
use backstay_core::Secret;
use std::{collections::BTreeMap, path::PathBuf};

/// Keys that every repository takes.
const COMMON_KEYS: &[&str] = &["url", "password-file", "password-command"];
/// Keys for `s3://` alone.
const S3_KEYS: &[&str] = &[
    "endpoint",
    "region",
    "path-style",
    "allow-http",
    "access-key-id",
    "secret-access-key-file",
    "secret-access-key-command",
    "session-token-file",
];

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

/// Where a repository lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// A local folder, absolute.
    Folder(PathBuf),
    /// A prefix of a bucket.
    S3(Box<S3>),
}

/// A prefix of a bucket, and how to reach it. What is left out comes from the usual `AWS_…` variables
/// and the machine's role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct S3 {
    /// `s3://bucket/prefix`.
    pub(crate) url: String,
    /// `https://…` of a store that is not Amazon's.
    pub(crate) endpoint: Option<String>,
    /// `eu-central-1`.
    pub(crate) region: Option<String>,
    /// Whether the bucket's name goes into the path and not into the host name.
    pub(crate) path_style: Option<bool>,
    /// Whether an endpoint without TLS is fine.
    pub(crate) allow_http: bool,
    /// The key's public half.
    pub(crate) access_key_id: Option<String>,
    /// The key's secret half.
    pub(crate) secret_access_key: Option<SecretSource>,
    /// For temporary keys.
    pub(crate) session_token: Option<SecretSource>,
}

impl Repository {
    /// Reads one repository's section.
    pub(crate) fn from_section(name: RepositoryName, section: Section<'_>) -> Result<Self, ConfigError> {
        let known: Vec<&str> = COMMON_KEYS.iter().chain(S3_KEYS).copied().collect();
        let section = section.only(&known)?;
        let url = section.text_required("url")?;
        let location = match url.value.split_once("://") {
            Some(("s3", rest)) => Location::S3(Box::new(s3(&section, &url, rest)?)),
            Some(("file", path)) => Location::Folder(folder(&section, &url, path, true)?),
            Some((scheme, _)) => {
                let message = format!(
                    "{}: unknown scheme `{}`, expected one of `file`, `s3`",
                    section.key("url"),
                    scheme.escape_default()
                );
                return Err(section.source().error(url.span, message));
            }
            None => Location::Folder(folder(&section, &url, &url.value, false)?),
        };
        if let Location::Folder(_) = location
            && let Some((key, _)) = section.entries().find(|(key, _)| S3_KEYS.contains(&key.value))
        {
            let message = format!("`{}` in {section} is only for s3:// repositories", key.value);
            return Err(section.source().error(key.span, message));
        }
        let password = SecretSource::from_section(&section, "password")?
            .ok_or_else(|| section.error(format!("{section} needs `password-file` or `password-command`")))?;
        Ok(Self { name, location, password })
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
        match self {
            Self::Folder(path) => {
                let path = path.display().to_string();
                format!("file://{}", path.replace('%', "%25").replace('?', "%3F").replace('#', "%23"))
            }
            Self::S3(s3) => s3.url.clone(),
        }
    }

    /// What the store needs beside the URL; reads the secrets. `whose` names the repository in messages.
    pub(crate) fn options(&self, whose: &str) -> Result<BTreeMap<String, Secret>, SecretError> {
        let Self::S3(s3) = self else { return Ok(BTreeMap::new()) };
        let read = |source: &Option<SecretSource>, what: &str| {
            source.as_ref().map(|source| source.read(&format!("the {what} of {whose}"))).transpose()
        };
        let open = |text: &Option<String>| text.clone().map(Secret::new);
        let flag = |truth: bool| Some(Secret::new(truth.to_string()));
        let all = [
            ("endpoint", open(&s3.endpoint)),
            ("region", open(&s3.region)),
            ("path-style", s3.path_style.and_then(flag)),
            ("allow-http", flag(s3.allow_http)),
            ("access-key-id", open(&s3.access_key_id)),
            ("secret-access-key", read(&s3.secret_access_key, "secret access key")?),
            ("session-token", read(&s3.session_token, "session token")?),
        ];
        Ok(all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect())
    }
}

fn folder(
    section: &Section<'_>,
    url: &Located<String>,
    path: &str,
    must_be_absolute: bool,
) -> Result<PathBuf, ConfigError> {
    let refuse = |reason: &str| {
        let message = format!("{}: {reason}", section.key("url"));
        Err(section.source().error(url.span.clone(), message))
    };
    if path.contains('\0') {
        return refuse("it holds a NUL");
    }
    if must_be_absolute && !path.starts_with('/') {
        return refuse("a file:// URL has three slashes and an absolute path: file:///var/lib/backstay/repo");
    }
    std::path::absolute(section.source().folder().join(path)).or_else(|error| refuse(&error.to_string()))
}

fn s3(section: &Section<'_>, url: &Located<String>, rest: &str) -> Result<S3, ConfigError> {
    let refuse =
        |key: &str, span, reason: &str| Err(section.source().error(span, format!("{}: {reason}", section.key(key))));
    let bucket = rest.split('/').next().unwrap_or_default();
    if bucket.is_empty() || bucket.contains(['@', ':', '?', '#', ' ']) {
        return refuse("url", url.span.clone(), "write s3://bucket or s3://bucket/prefix");
    }
    let allow_http = section.boolean("allow-http")?.unwrap_or(false);
    let endpoint = section.text("endpoint")?;
    if let Some(endpoint) = &endpoint {
        let plain = endpoint.value.starts_with("http://");
        if !plain && !endpoint.value.starts_with("https://") {
            return refuse("endpoint", endpoint.span.clone(), "write https://host or https://host:port");
        }
        if endpoint.value.contains('@') {
            return refuse("endpoint", endpoint.span.clone(), "keys do not go into the URL, use `access-key-id`");
        }
        if plain && !allow_http {
            let reason =
                "without TLS everybody on the way can read the access key, set allow-http = true if that is meant";
            return refuse("endpoint", endpoint.span.clone(), reason);
        }
    }
    let access_key_id = section.text("access-key-id")?;
    let secret_access_key = SecretSource::from_section(section, "secret-access-key")?;
    match (&access_key_id, &secret_access_key) {
        (Some(id), None) => {
            let message = format!("{section} has `access-key-id` but no `secret-access-key-file`");
            return Err(section.source().error(id.span.clone(), message));
        }
        (None, Some(_)) => return Err(section.missing("access-key-id")),
        _ => {}
    }
    Ok(S3 {
        url: url.value.trim_end_matches('/').to_owned(),
        endpoint: endpoint.map(|endpoint| endpoint.value),
        region: section.text("region")?.map(|region| region.value),
        path_style: section.boolean("path-style")?,
        allow_http,
        access_key_id: access_key_id.map(|id| id.value),
        secret_access_key,
        session_token: section.path("session-token-file")?.map(SecretSource::File),
    })
}
