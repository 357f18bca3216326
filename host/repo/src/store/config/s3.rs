//! `s3://bucket/prefix`: Amazon S3 and the many stores that speak like it.

use super::{Built, Options, environment, host, once};
use crate::Result;
use crate::limits::OBJECT_LOCK_DAYS_MAX;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key, Checksum};
use std::{str::FromStr, time::Duration};

/// Ways to give credentials; one of them in the configuration shuts out all of the environment's.
const CREDENTIALS: &[&str] =
    &["access-key-id", "secret-access-key", "session-token", "role-arn", "web-identity-token-file", "skip-signature"];

pub(super) fn build(url: &url::Url, options: &mut Options<'_>) -> Result<Built> {
    let bucket = host(url, options, "bucket")?;
    let mut transport = options.transport()?;
    let days: Option<u32> = options.number("object-lock-days")?;
    if days.is_some_and(|days| !(1..=OBJECT_LOCK_DAYS_MAX).contains(&days)) {
        return Err(options.invalid(&format!("option `object-lock-days` is not from 1 to {OBJECT_LOCK_DAYS_MAX}")));
    }
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket);
    let configured = options.has_any(CREDENTIALS);
    for (name, value) in environment("AWS_") {
        match Key::from_str(&name) {
            Ok(key) if !(configured && is_credential(&key)) => builder = builder.with_config(key, value),
            _ => {}
        }
    }
    if let Some(allow_http) = options.flag("allow-http")? {
        builder = builder.with_allow_http(allow_http);
    }
    if let Some(path_style) = options.flag("path-style")? {
        builder = builder.with_virtual_hosted_style_request(!path_style);
    }
    for (name, value) in std::mem::take(&mut options.left) {
        let key = Key::from_str(&name.replace('-', "_"))
            .map_err(|_| options.invalid(&format!("option `{name}` is not known for it")))?;
        builder = builder.with_config(key, value);
    }
    if days.is_some() {
        // Amazon takes no upload into a locked bucket without a checksum.
        builder = builder.with_checksum_algorithm(Checksum::SHA256);
        transport = transport.with_content_md5();
    }
    let s3 = builder
        // One object at a time is what is removed here, which every store can do; not every one takes lists.
        .with_disable_bulk_delete(true)
        .with_http_connector(transport)
        .with_retry(once())
        .build()
        .map_err(|error| options.unusable(error))?;
    let retention = days.map(|days| Duration::from_secs(u64::from(days) * 24 * 60 * 60));
    Ok(Built { retention, ..Built::on_network(s3) })
}

fn is_credential(key: &Key) -> bool {
    matches!(
        key,
        Key::AccessKeyId
            | Key::SecretAccessKey
            | Key::Token
            | Key::RoleArn
            | Key::WebIdentityTokenFile
            | Key::SkipSignature
            | Key::ContainerCredentialsRelativeUri
            | Key::ContainerCredentialsFullUri
            | Key::ContainerAuthorizationTokenFile
    )
}
