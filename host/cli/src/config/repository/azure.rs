//! What of an Azure repository's keys goes together.

use super::super::{error::ConfigError, section::Section};

/// Ways to give credentials, by the names their keys may have.
const WAYS: &[(&str, &[&str])] = &[
    ("access-key", &["access-key-file", "access-key-command"]),
    ("sas-token", &["sas-token-file", "sas-token-command"]),
    ("client-secret", &["client-secret-file", "client-secret-command"]),
    ("federated-token", &["federated-token-file"]),
];
/// Those that need to know who asks.
const WITH_CLIENT: &[&str] = &["client-secret", "federated-token"];

pub(super) fn check(section: &Section<'_>) -> Result<(), ConfigError> {
    if section.value("account").is_none() {
        return Err(section.missing("account"));
    }
    let mut given = WAYS
        .iter()
        .filter_map(|(way, keys)| keys.iter().find_map(|key| Some((*way, *key, section.value(key)?.span()))));
    let first = given.next();
    if let (Some((_, first, _)), Some((_, second, span))) = (&first, given.next()) {
        let message = format!("{section} has both `{first}` and `{second}`, keep one");
        return Err(section.source().error(span, message));
    }
    if let Some((way, key, span)) = first
        && WITH_CLIENT.contains(&way)
        && let Some(missing) = ["tenant-id", "client-id"].into_iter().find(|key| section.value(key).is_none())
    {
        return Err(section.source().error(span, format!("{section} has `{key}` but no `{missing}`")));
    }
    Ok(())
}
