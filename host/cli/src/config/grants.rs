//! `[targets.NAME.grants]`: what the operator lets an engine plugin reach.

use super::{
    address::Address,
    error::ConfigError,
    name::GrantName,
    secret::SecretSource,
    section::{self, Section},
};
use std::{collections::BTreeMap, path::PathBuf};
use toml::{Spanned, de::DeValue};

/// Everything a plugin may reach; what is not here does not exist for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grants {
    /// Where it may connect to.
    pub(crate) endpoints: BTreeMap<GrantName, Endpoint>,
    /// Who it may log in as.
    pub(crate) credentials: BTreeMap<GrantName, Credential>,
    /// Folders it may read, or read and change.
    pub(crate) directories: BTreeMap<GrantName, Directory>,
    /// Programs it may run.
    pub(crate) tools: BTreeMap<GrantName, PathBuf>,
}

/// One address, and how TLS is done there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Where it listens.
    pub(crate) address: Address,
    /// Certificates that the server's may chain to; the machine's own where there is none.
    pub(crate) ca_file: Option<PathBuf>,
    /// The name the server's certificate must bear, where it is not the address's host.
    pub(crate) server_name: Option<String>,
    /// Our own certificate and its key, for servers that ask for one.
    pub(crate) client: Option<ClientCertificate>,
}

/// A certificate chain and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// The chain, our own first.
    pub(crate) certificates: PathBuf,
    /// The key.
    pub(crate) key: PathBuf,
}

/// A folder, and whether it may be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// Whether the plugin may write there too.
    pub(crate) write: bool,
}

/// A user, and where its password comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credential {
    /// The user's name in the database.
    pub(crate) user: String,
    /// None where the server asks for no password.
    pub(crate) password: Option<SecretSource>,
}

impl Grants {
    /// Reads a target's grants.
    pub(crate) fn from_section(section: Section<'_>) -> Result<Self, ConfigError> {
        let section = section.only(&["endpoints", "credentials", "directories", "tools"])?;
        Ok(Self {
            endpoints: each(&section, "endpoints", endpoint)?,
            credentials: each(&section, "credentials", credential)?,
            directories: each(&section, "directories", directory)?,
            tools: each(&section, "tools", |outer, name, value| section::path(outer.source(), &name, value))?,
        })
    }
}

impl Grants {
    /// Every grant as (table, name).
    pub(crate) fn names(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let endpoints = self.endpoints.keys().map(|name| ("endpoints", name.as_str()));
        let credentials = self.credentials.keys().map(|name| ("credentials", name.as_str()));
        let directories = self.directories.keys().map(|name| ("directories", name.as_str()));
        let tools = self.tools.keys().map(|name| ("tools", name.as_str()));
        endpoints.chain(credentials).chain(directories).chain(tools)
    }

    /// Whether there is a grant of that name in that table.
    pub(crate) fn has(&self, table: &str, name: &str) -> bool {
        self.names().any(|granted| granted == (table, name))
    }
}

type Entry<'a> = &'a Spanned<DeValue<'a>>;

/// Reads every entry of the table under `key`; no table, no entries.
fn each<'a, T>(
    section: &Section<'a>,
    key: &str,
    read: impl Fn(&Section<'a>, String, Entry<'a>) -> Result<T, ConfigError>,
) -> Result<BTreeMap<GrantName, T>, ConfigError> {
    let Some(table) = section.section(key)? else { return Ok(BTreeMap::new()) };
    table
        .entries()
        .map(|(name, value)| {
            let grant =
                name.value.parse().map_err(|reason| table.source().error(name.span, format!("{table}: {reason}")))?;
            Ok((grant, read(&table, table.key(name.value), value)?))
        })
        .collect()
}

fn endpoint<'a>(outer: &Section<'a>, name: String, value: Entry<'a>) -> Result<Endpoint, ConfigError> {
    if let DeValue::String(_) = value.get_ref() {
        let text = section::text(outer.source(), &name, value)?;
        let address =
            text.value.parse().map_err(|reason| outer.source().error(text.span, format!("{name}: {reason}")))?;
        return Ok(Endpoint { address, ca_file: None, server_name: None, client: None });
    }
    let section = Section::from_value(outer.source(), name, value)?.only(&[
        "address",
        "ca-file",
        "server-name",
        "client-cert-file",
        "client-key-file",
    ])?;
    let address = section.parsed("address")?.ok_or_else(|| section.missing("address"))?.value;
    let client = match (section.path("client-cert-file")?, section.path("client-key-file")?) {
        (Some(certificates), Some(key)) => Some(ClientCertificate { certificates, key }),
        (Some(_), None) => return Err(section.missing("client-key-file")),
        (None, Some(_)) => return Err(section.missing("client-cert-file")),
        (None, None) => None,
    };
    Ok(Endpoint {
        address,
        ca_file: section.path("ca-file")?,
        server_name: section.text("server-name")?.map(|name| name.value),
        client,
    })
}

fn directory<'a>(outer: &Section<'a>, name: String, value: Entry<'a>) -> Result<Directory, ConfigError> {
    if let DeValue::String(_) = value.get_ref() {
        return Ok(Directory { path: section::path(outer.source(), &name, value)?, write: false });
    }
    let section = Section::from_value(outer.source(), name, value)?.only(&["path", "write"])?;
    let path = section.path("path")?.ok_or_else(|| section.missing("path"))?;
    Ok(Directory { path, write: section.boolean("write")?.unwrap_or(false) })
}

fn credential<'a>(outer: &Section<'a>, name: String, value: Entry<'a>) -> Result<Credential, ConfigError> {
    let section =
        Section::from_value(outer.source(), name, value)?.only(&["user", "password-file", "password-command"])?;
    Ok(Credential {
        user: section.text_required("user")?.value,
        password: SecretSource::from_section(&section, "password")?,
    })
}
