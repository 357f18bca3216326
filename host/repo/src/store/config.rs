//! From an address and its options to an object store.

use crate::limits::{STORE_CONNECT_TIMEOUT, STORE_READ_TIMEOUT, STORE_REQUEST_TIMEOUT};
use crate::{RepoError, RepoErrorKind, Result};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};
use object_store::{local::LocalFileSystem, path::Path, prefix::PrefixStore};
use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr, sync::Arc};

/// Where a repository lies: `file:///absolute/folder` or `s3://bucket/prefix`.
#[derive(Clone, Default)]
pub struct StoreConfig {
    /// The address.
    pub url: String,
    /// For S3: `endpoint`, `region`, `access-key-id`, `secret-access-key`, `session-token`,
    /// `path-style`, `allow-http`, and every other key the `object_store` crate knows, with
    /// hyphens. What is absent comes from the usual `AWS_*` environment variables.
    pub options: BTreeMap<String, String>,
}

/// The store, and the folder when it is a local one.
type Built = (Arc<dyn ObjectStore>, Option<PathBuf>);

impl StoreConfig {
    /// An address without options.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), options: BTreeMap::new() }
    }

    pub(super) fn build(&self) -> Result<Built> {
        let url = url::Url::parse(&self.url).map_err(|error| {
            self.invalid("it is not a URL").because(error).advise("use file:///absolute/folder or s3://bucket/prefix")
        })?;
        match url.scheme() {
            "file" => self.build_local(&url),
            "s3" | "s3a" => self.build_s3(&url),
            other => Err(self
                .invalid(&format!("stores of kind `{other}` are not known"))
                .advise("use file:///absolute/folder or s3://bucket/prefix")),
        }
    }

    fn build_local(&self, url: &url::Url) -> Result<Built> {
        if let Some(option) = self.options.keys().next() {
            return Err(self.invalid(&format!("a local folder has no option `{option}`")));
        }
        let folder = url
            .to_file_path()
            .map_err(|()| self.invalid("it names another machine").advise("use file:///absolute/folder"))?;
        let prefix = Path::from_absolute_path(&folder)
            .map_err(|error| self.invalid("the folder's name cannot be used").because(error))?;
        let files = LocalFileSystem::new().with_fsync(true);
        Ok((Arc::new(PrefixStore::new(files, prefix)), Some(folder)))
    }

    fn build_s3(&self, url: &url::Url) -> Result<Built> {
        let bucket = url.host_str().filter(|bucket| !bucket.is_empty());
        let bucket = bucket.ok_or_else(|| self.invalid("it names no bucket"))?;
        let prefix = Path::from_url_path(url.path())
            .map_err(|error| self.invalid("the prefix cannot be used").because(error))?;
        let client = ClientOptions::new()
            .with_connect_timeout(STORE_CONNECT_TIMEOUT)
            .with_read_timeout(STORE_READ_TIMEOUT)
            .with_timeout(STORE_REQUEST_TIMEOUT);
        // The store wrapper above tries again by itself, and knows which writes arrived.
        let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::from_env().with_client_options(client).with_bucket_name(bucket);
        for (name, value) in &self.options {
            let (key, value) = self.s3_option(name, value)?;
            builder = builder.with_config(key, value);
        }
        let s3 = builder
            .with_retry(once)
            .build()
            .map_err(|error| self.invalid("the store cannot be set up").because(error))?;
        Ok((Arc::new(PrefixStore::new(s3, prefix)), None))
    }

    fn s3_option(&self, name: &str, value: &str) -> Result<(AmazonS3ConfigKey, String)> {
        let flag = |value: &str| match value {
            "true" | "yes" | "1" => Ok(true),
            "false" | "no" | "0" => Ok(false),
            _ => Err(self.invalid(&format!("option `{name}` is neither true nor false"))),
        };
        Ok(match name {
            "path-style" => (AmazonS3ConfigKey::VirtualHostedStyleRequest, (!flag(value)?).to_string()),
            "allow-http" => (AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp), flag(value)?.to_string()),
            _ => {
                let key = AmazonS3ConfigKey::from_str(&name.replace('-', "_"))
                    .map_err(|_| self.invalid(&format!("option `{name}` is not known")))?;
                (key, value.to_owned())
            }
        })
    }

    fn invalid(&self, why: &str) -> RepoError {
        RepoError::new(RepoErrorKind::InvalidConfig, format!("failed to use the store address `{}`: {why}", self.url))
    }
}

impl fmt::Debug for StoreConfig {
    /// Names the options, never their values: some are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConfig").field("url", &self.url).field("options", &self.options.keys()).finish()
    }
}
