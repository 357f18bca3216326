//! `gs://bucket/prefix`: Google Cloud Storage.

use super::{Built, Options, environment, host, once};
use crate::Result;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey as Key};
use std::str::FromStr;

pub(super) fn build(url: &url::Url, options: &mut Options<'_>) -> Result<Built> {
    let bucket = host(url, options, "bucket")?;
    let transport = options.transport()?;
    let mut builder = GoogleCloudStorageBuilder::new();
    match options.take("service-account-key") {
        Some(key) => builder = builder.with_service_account_key(key),
        None => {
            for (name, value) in environment("GOOGLE_") {
                match Key::from_str(&name) {
                    Ok(Key::Bucket | Key::Client(_)) | Err(_) => {}
                    Ok(key) => builder = builder.with_config(key, value),
                }
            }
        }
    }
    if let Some(endpoint) = options.take("endpoint") {
        builder = builder.with_base_url(endpoint.trim_end_matches('/'));
    }
    let gcs = builder
        .with_client_options(options.client()?)
        .with_bucket_name(bucket)
        .with_http_connector(transport)
        .with_retry(once())
        .build()
        .map_err(|error| options.unusable(error))?;
    Ok(Built::on_network(gcs))
}
