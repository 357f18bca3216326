//! `az://container/prefix`: Azure Blob Storage.

use super::{Built, Options, environment, host, once};
use crate::Result;
use crate::store::azure::Azure;
use object_store::{
    azure::{AzureConfigKey as Key, MicrosoftAzureBuilder},
    client::HttpConnector,
};
use std::str::FromStr;

/// What is configured, and what the library calls it.
const KEYS: &[(&str, Key)] = &[
    ("account", Key::AccountName),
    ("endpoint", Key::Endpoint),
    ("access-key", Key::AccessKey),
    ("sas-token", Key::SasKey),
    ("tenant-id", Key::AuthorityId),
    ("client-id", Key::ClientId),
    ("client-secret", Key::ClientSecret),
    ("federated-token-file", Key::FederatedTokenFile),
    ("authority-host", Key::AuthorityHost),
];

/// One of them in the configuration shuts out all of the environment's credentials.
const CREDENTIALS: &[&str] = &["access-key", "sas-token", "client-secret", "federated-token-file"];

pub(super) fn build(url: &url::Url, options: &mut Options<'_>) -> Result<Built> {
    let container = host(url, options, "container")?;
    let transport = options.transport()?;
    let mut builder = MicrosoftAzureBuilder::new();
    let configured = options.has_any(CREDENTIALS);
    for (name, value) in environment("AZURE_") {
        match Key::from_str(&name) {
            Ok(Key::ContainerName | Key::UseEmulator | Key::UseFabricEndpoint | Key::Client(_)) | Err(_) => {}
            Ok(key) if configured && is_credential(&key) => {}
            Ok(key) => builder = builder.with_config(key, value),
        }
    }
    if let (false, Ok(endpoint)) = (configured, std::env::var("IDENTITY_ENDPOINT")) {
        builder = builder.with_msi_endpoint(endpoint);
    }
    for (name, key) in KEYS {
        if let Some(value) = options.take(name) {
            builder = builder.with_config(*key, value);
        }
    }
    let client = options.client()?;
    let said = |key| builder.get_config_value(&key);
    let server = said(Key::Endpoint)
        .unwrap_or_else(|| format!("https://{}.blob.core.windows.net", said(Key::AccountName).unwrap_or_default()));
    let azure = builder
        .with_client_options(client.clone())
        .with_container_name(container)
        .with_http_connector(transport.clone())
        .with_retry(once())
        .build()
        .map_err(|error| options.unusable(error))?;
    let mut container_url =
        url::Url::parse(&server).map_err(|error| options.invalid("`endpoint` is not a URL").because(error))?;
    if let Ok(mut segments) = container_url.path_segments_mut() {
        segments.pop_if_empty().push(container);
    }
    let client = transport.connect(&client).map_err(|error| options.unusable(error))?;
    let azure = Azure::new(azure, client, container_url);
    Ok(Built::on_network(azure))
}

fn is_credential(key: &Key) -> bool {
    matches!(
        key,
        Key::AccessKey
            | Key::SasKey
            | Key::Token
            | Key::AuthorityId
            | Key::ClientId
            | Key::ClientSecret
            | Key::FederatedTokenFile
            | Key::UseAzureCli
            | Key::CredentialType
            | Key::SkipSignature
    )
}
