//! From an address and its options to an object store.
//!
//! ```text
//!   file:///folder          folder    nothing to configure
//!   s3://bucket/prefix      s3        keys, web identity, container, machine's role
//!   gs://bucket/prefix      gcs       service account, application default credentials, metadata server
//!   az://container/prefix   azure     key, SAS, service principal, workload identity, managed identity
//!   https://host/path       webdav    user and password
//! ```
//!
//! What is configured goes before what the environment says, and one way to give credentials is never mixed with
//! another: a key of the configuration is not used with a session token that a shell happened to have.

mod access;
mod azure;
mod gcs;
mod s3;
mod webdav;

pub use access::StoreAccess;

use super::transport::{Limits, Transport};
use crate::limits::STORE_PACE_MIN;
use crate::{RepoError, RepoErrorKind, Result};
use object_store::{ClientOptions, ObjectStore, RetryConfig, local::LocalFileSystem, path::Path, prefix::PrefixStore};
use std::{collections::BTreeMap, fmt, num::NonZeroU64, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

/// The addresses there are, for advice.
const ADDRESSES: &str =
    "use file:///folder, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or https://host/path";

/// Where a repository lies: `file:///absolute/folder`, `s3://bucket/prefix`, `gs://bucket/prefix`,
/// `az://container/prefix` or `https://host/path` (WebDAV).
#[derive(Clone, Default)]
pub struct StoreConfig {
    /// The address.
    pub url: String,
    /// By kind of store; one that is not known is an error.
    ///
    /// | option | for | what |
    /// |---|---|---|
    /// | `upload-limit`, `download-limit` | all | bytes per second |
    /// | `connections` | network | requests at the same time |
    /// | `allow-http` | network | `true` lets an address without TLS through |
    /// | `ca` | network | certificates in PEM that the store's may chain to |
    /// | `endpoint` | s3, gs, az | another server than the cloud's own |
    /// | `region`, `path-style`, `access-key-id`, `secret-access-key`, `session-token`, `role-arn`, `web-identity-token-file`, `object-lock-days` | s3 | and every other key that `object_store` knows, with hyphens |
    /// | `service-account-key` | gs | the JSON of a service account |
    /// | `account`, `access-key`, `sas-token`, `tenant-id`, `client-id`, `client-secret`, `federated-token-file`, `authority-host` | az | |
    /// | `user`, `user-password` | https | |
    ///
    /// Credentials that are absent come from the environment, as the clouds' own tools take them.
    pub options: BTreeMap<String, String>,
}

/// An address that became a store.
pub(super) struct Built {
    pub(super) objects: Arc<dyn ObjectStore>,
    /// The folder of a local one.
    pub(super) folder: Option<PathBuf>,
    /// Limits that the store itself does not keep.
    pub(super) limits: Limits,
    /// How long the store keeps whatever it is given.
    pub(super) retention: Option<Duration>,
}

impl Built {
    /// A store whose transport keeps the limits.
    fn on_network(objects: impl ObjectStore) -> Self {
        Self { objects: Arc::new(objects), folder: None, limits: Limits::default(), retention: None }
    }
}

impl StoreConfig {
    /// An address without options.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), options: BTreeMap::new() }
    }

    pub(super) fn build(&self) -> Result<Built> {
        let url = url::Url::parse(&self.url)
            .map_err(|error| self.invalid("it is not a URL").because(error).advise(ADDRESSES))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(self.invalid("user and password do not go into the URL"));
        }
        let mut options = Options { config: self, left: self.options.clone() };
        let mut built = match url.scheme() {
            "file" => self.build_folder(&url, &mut options)?,
            "s3" | "s3a" => s3::build(&url, &mut options)?,
            "gs" => gcs::build(&url, &mut options)?,
            "az" | "azure" => azure::build(&url, &mut options)?,
            "https" | "http" => webdav::build(&url, &mut options)?,
            other => {
                return Err(self.invalid(&format!("stores of kind `{other}` are not known")).advise(ADDRESSES));
            }
        };
        if let Some(unknown) = options.left.keys().next() {
            return Err(self.invalid(&format!("option `{unknown}` is not known for it")));
        }
        if built.folder.is_some() {
            return Ok(built);
        }
        // The prefix is ours to add: no store below knows one.
        let prefix = Path::from_url_path(url.path())
            .map_err(|error| self.invalid("the prefix cannot be used").because(error))?;
        built.objects = Arc::new(PrefixStore::new(built.objects, prefix));
        Ok(built)
    }

    fn build_folder(&self, url: &url::Url, options: &mut Options<'_>) -> Result<Built> {
        let limits = options.limits()?;
        let folder = url
            .to_file_path()
            .map_err(|()| self.invalid("it names another machine").advise("use file:///absolute/folder"))?;
        let prefix = Path::from_absolute_path(&folder)
            .map_err(|error| self.invalid("the folder's name cannot be used").because(error))?;
        let files = LocalFileSystem::new().with_fsync(true);
        Ok(Built { objects: Arc::new(PrefixStore::new(files, prefix)), folder: Some(folder), limits, retention: None })
    }

    fn invalid(&self, why: &str) -> RepoError {
        RepoError::new(
            RepoErrorKind::InvalidConfig,
            format!("failed to use the store address `{}`: {why}", self.shown()),
        )
    }

    /// The address for messages: somebody may have put a password into it.
    fn shown(&self) -> String {
        match (self.url.split_once("://"), self.url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
            (None, Some((_, rest))) => format!("…@{rest}"),
            _ => self.url.clone(),
        }
    }
}

impl fmt::Debug for StoreConfig {
    /// Names the options, never their values: some are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConfig").field("url", &self.shown()).field("options", &self.options.keys()).finish()
    }
}

/// The options of an address, taken one by one; what is left in the end is not known.
struct Options<'c> {
    config: &'c StoreConfig,
    left: BTreeMap<String, String>,
}

impl Options<'_> {
    fn take(&mut self, name: &str) -> Option<String> {
        self.left.remove(name)
    }

    fn flag(&mut self, name: &str) -> Result<Option<bool>> {
        match self.take(name).as_deref() {
            None => Ok(None),
            Some("true" | "yes" | "1") => Ok(Some(true)),
            Some("false" | "no" | "0") => Ok(Some(false)),
            Some(_) => Err(self.invalid(&format!("option `{name}` is neither true nor false"))),
        }
    }

    fn number<T: FromStr>(&mut self, name: &str) -> Result<Option<T>> {
        let Some(text) = self.take(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| self.invalid(&format!("option `{name}` is no number that can be used")))
    }

    fn limits(&mut self) -> Result<Limits> {
        let mut pace = |name: &str| -> Result<Option<NonZeroU64>> {
            match self.number::<NonZeroU64>(name)? {
                Some(pace) if pace.get() < STORE_PACE_MIN => {
                    Err(self.invalid(&format!("option `{name}` is below {STORE_PACE_MIN} bytes a second")))
                }
                pace => Ok(pace),
            }
        };
        Ok(Limits { upload: pace("upload-limit")?, download: pace("download-limit")?, ..Limits::default() })
    }

    /// Clients as this address wants them.
    fn transport(&mut self) -> Result<Transport> {
        let mut limits = self.limits()?;
        limits.connections = self.number::<std::num::NonZeroUsize>("connections")?.map(Into::into);
        let authorities = self.take("ca");
        Transport::new(limits, authorities.as_deref())
            .map_err(|error| self.invalid("the certificates in `ca` cannot be used").because(error))
    }

    /// What the library below is told beside the transport.
    fn client(&mut self) -> Result<ClientOptions> {
        Ok(ClientOptions::new().with_allow_http(self.flag("allow-http")?.unwrap_or(false)))
    }

    /// Whether any of these is given.
    fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.left.contains_key(*name))
    }

    fn invalid(&self, why: &str) -> RepoError {
        self.config.invalid(why)
    }

    fn unusable(&self, error: object_store::Error) -> RepoError {
        self.invalid("the store cannot be set up").because(error)
    }
}

/// The host part, which names a bucket or container.
fn host<'u>(url: &'u url::Url, options: &Options<'_>, what: &str) -> Result<&'u str> {
    let host = url.host_str().filter(|host| !host.is_empty());
    host.ok_or_else(|| options.invalid(&format!("it names no {what}")))
}

/// The store wrapper above tries again by itself, and knows which writes arrived.
fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// Variables whose names begin so, in small letters.
fn environment(beginning: &str) -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(move |(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        name.starts_with(beginning).then(|| (name.to_ascii_lowercase(), value))
    })
}

#[cfg(test)]
mod tests;
