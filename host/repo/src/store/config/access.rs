//! What a process needs that uses a store, for those who take all else away from it.

use super::StoreConfig;
use std::path::{Path, PathBuf};

/// What a process must be allowed to do for one store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreAccess {
    /// The folder of a local store, to be written.
    pub folder: Option<PathBuf>,
    /// TCP ports to connect to: the store's, and those that credentials come from.
    pub ports: Vec<u16>,
    /// Files and folders that credentials are read from while the store is in use.
    pub files: Vec<PathBuf>,
}

/// Variables that hold the address of a store or of a place that credentials come from.
const ADDRESS_VARIABLES: &[&str] = &[
    "AWS_ENDPOINT",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_STS",
    "AWS_METADATA_ENDPOINT",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "GCE_METADATA_HOST",
    "GCE_METADATA_ROOT",
    "GCE_METADATA_IP",
    "GOOGLE_BASE_URL",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
    "AZURE_AUTHORITY_HOST",
    "IDENTITY_ENDPOINT",
    "AWS_PROXY_URL",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
];
/// Options that hold one.
const ADDRESS_OPTIONS: &[&str] = &["endpoint", "endpoint-url-sts", "metadata-endpoint", "authority-host", "proxy-url"];

/// Variables that name a token which somebody replaces from time to time.
const TOKEN_VARIABLES: &[&str] =
    &["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AZURE_FEDERATED_TOKEN_FILE"];
/// Options that name one.
const TOKEN_OPTIONS: &[&str] = &["web-identity-token-file", "federated-token-file"];

/// Variables that name a file with credentials.
const FILE_VARIABLES: &[&str] =
    &["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"];

impl StoreConfig {
    /// What a process must be allowed to do that works with this store.
    pub fn access(&self) -> StoreAccess {
        self.access_with(|name| std::env::var(name).ok())
    }

    fn access_with(&self, variable: impl Fn(&str) -> Option<String>) -> StoreAccess {
        let Ok(url) = url::Url::parse(&self.url) else { return StoreAccess::default() };
        if url.scheme() == "file" {
            return StoreAccess { folder: url.to_file_path().ok(), ..StoreAccess::default() };
        }
        let mut ports = vec![443, 80];
        ports.extend(url.port());
        let addresses = ADDRESS_VARIABLES.iter().filter_map(|name| variable(name));
        let options = |names: &'static [&'static str]| names.iter().filter_map(|name| self.options.get(*name).cloned());
        ports.extend(addresses.chain(options(ADDRESS_OPTIONS)).filter_map(|address| port(&address)));
        ports.sort_unstable();
        ports.dedup();

        let tokens = TOKEN_VARIABLES.iter().filter_map(|name| variable(name)).chain(options(TOKEN_OPTIONS));
        let mut files: Vec<PathBuf> = tokens.map(|token| place_of_token(Path::new(&token))).collect();
        files.extend(FILE_VARIABLES.iter().filter_map(|name| variable(name)).map(PathBuf::from));
        if let (true, Some(home)) = (url.scheme() == "gs", variable("HOME")) {
            files.push(Path::new(&home).join(".config/gcloud/application_default_credentials.json"));
        }
        // What is absent cannot be granted, nor read.
        files.retain(|path| path.exists());
        StoreAccess { folder: None, ports, files }
    }
}

/// The folder and not the file: a token is replaced by another file under its name. The root is no such folder.
fn place_of_token(token: &Path) -> PathBuf {
    match token.parent() {
        Some(folder) if folder.file_name().is_some() => folder.to_owned(),
        _ => token.to_owned(),
    }
}

/// The port of a URL or of `host:port`.
fn port(address: &str) -> Option<u16> {
    match url::Url::parse(address) {
        Ok(url) if url.has_host() => url.port_or_known_default(),
        _ => address.rsplit_once(':')?.1.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_store_needs_its_ports_and_the_places_of_its_credentials() {
        let tokens = tempfile::tempdir().unwrap();
        let token = tokens.path().join("token");
        std::fs::write(&token, "t").unwrap();
        let variable = |name: &str| match name {
            "AWS_WEB_IDENTITY_TOKEN_FILE" => Some(token.display().to_string()),
            "AWS_ENDPOINT_URL_STS" => Some("https://127.0.0.1:5001".to_owned()),
            "GCE_METADATA_HOST" => Some("127.0.0.1:5002".to_owned()),
            "GOOGLE_APPLICATION_CREDENTIALS" => Some("/nowhere/at/all".to_owned()),
            _ => None,
        };
        let mut config = StoreConfig::new("s3://bucket/prefix");
        config.options.insert("endpoint".into(), "http://127.0.0.1:5000".into());
        let access = config.access_with(variable);
        assert_eq!(access.ports, [80, 443, 5000, 5001, 5002]);
        assert_eq!(access.files, [tokens.path()]);
        let folder = StoreConfig::new("file:///srv/my%20repo").access_with(variable);
        assert_eq!(folder, StoreAccess { folder: Some("/srv/my repo".into()), ..StoreAccess::default() });
        assert_eq!(place_of_token(Path::new("/token")), Path::new("/token"), "nobody is given the root");
        assert!(StoreConfig::new("https://host:8443/x").access_with(|_| None).ports.contains(&8443));
    }
}
