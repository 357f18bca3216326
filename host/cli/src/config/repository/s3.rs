//! What of an S3 repository's keys goes together.

use super::{
    super::{error::ConfigError, secret::SecretError, section::Section},
    aws_profile::AwsProfile,
    together,
};
use backstay_core::Secret;

/// The two halves of a key.
const SECRET: &[&str] = &["secret-access-key-file", "secret-access-key-command"];

pub(super) fn check(section: &Section<'_>) -> Result<(), ConfigError> {
    together(section, "access-key-id", SECRET)?;
    together(section, "role-arn", &["web-identity-token-file"])?;
    let ways = ["access-key-id", "profile", "role-arn"];
    let mut given = ways.iter().filter_map(|way| Some((way, section.value(way)?)));
    if let (Some((first, _)), Some((second, value))) = (given.next(), given.next()) {
        let message = format!("{section} has both `{first}` and `{second}`, keep one");
        return Err(section.source().error(value.span(), message));
    }
    for key in ["session-token-file", "session-token-command"] {
        if let (Some(value), None) = (section.value(key), section.value("access-key-id")) {
            let message = format!("{section} has `{key}` but no `access-key-id`");
            return Err(section.source().error(value.span(), message));
        }
    }
    Ok(())
}

/// What a profile adds: the one that is named, else the one that `AWS_PROFILE` names where nothing else gives keys.
pub(super) fn profile(named: Option<&str>, said: impl Fn(&str) -> bool) -> Result<Vec<(String, Secret)>, SecretError> {
    let profile = match named {
        Some(profile) => profile.to_owned(),
        None if said("access-key-id") || said("role-arn") || std::env::var_os("AWS_ACCESS_KEY_ID").is_some() => {
            return Ok(Vec::new());
        }
        None => match std::env::var("AWS_PROFILE") {
            Ok(profile) if !profile.is_empty() => profile,
            _ => return Ok(Vec::new()),
        },
    };
    let options = AwsProfile::load(&profile)?.into_options();
    Ok(options.into_iter().map(|(name, value)| (name, Secret::new(value))).collect())
}
