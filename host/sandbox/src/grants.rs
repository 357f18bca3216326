//! What the operator granted, as data.

use backstay_core::Secret;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// Everything a plugin may touch in one job. What is not here does not exist for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Grants {
    /// Where it may connect to, by name.
    pub endpoints: BTreeMap<String, EndpointGrant>,
    /// Users and secrets, by name.
    pub credentials: BTreeMap<String, CredentialGrant>,
    /// Folders, by name.
    pub directories: BTreeMap<String, DirectoryGrant>,
    /// Native programs, by name.
    pub tools: BTreeMap<String, PathBuf>,
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointGrant {
    /// `host:port`, `[v6]:port`, or `/path/of/a/socket`.
    pub address: String,
    /// Authorities (PEM) to believe instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The name the certificate must carry; nothing: the host of `address`.
    pub server_name: Option<String>,
    /// This side's certificate (PEM).
    pub client_cert_file: Option<PathBuf>,
    /// And its key (PEM).
    pub client_key_file: Option<PathBuf>,
}

/// A user and a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialGrant {
    /// The user.
    pub user: String,
    /// The secret; empty where the server asks for none.
    pub password: Secret,
}

/// One folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryGrant {
    /// Absolute.
    pub path: PathBuf,
    /// Whether the plugin may change what is in it.
    pub writable: bool,
}
