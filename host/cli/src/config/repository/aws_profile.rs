//! A named profile of Amazon's shared credentials and configuration files.
//!
//! ```text
//!   ~/.aws/credentials   [name]                 aws_access_key_id, aws_secret_access_key, aws_session_token
//!   ~/.aws/config        [profile name]         the same, region, endpoint_url, role_arn, web_identity_token_file
//! ```
//!
//! Read as Amazon's own tools do: the first file goes before the second, names of keys in any case, `#` and `;` begin
//! comments, indented lines belong to the key above and are of no interest here.

use super::super::bounded;
use crate::limits::AWS_PROFILES_BYTES_MAX;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// What a profile says that a store can use.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct AwsProfile {
    options: BTreeMap<String, String>,
}

/// A profile that cannot be used. Says where it was looked for, never what was found.
#[derive(Debug, thiserror::Error)]
#[error("failed to use the AWS profile `{profile}`: {reason}")]
pub(crate) struct AwsProfileError {
    profile: String,
    reason: String,
}

/// What a profile may say, and which of a store's options that is.
const KEYS: &[(&str, &str)] = &[
    ("aws_access_key_id", "access-key-id"),
    ("aws_secret_access_key", "secret-access-key"),
    ("aws_session_token", "session-token"),
    ("region", "region"),
    ("endpoint_url", "endpoint"),
    ("role_arn", "role-arn"),
    ("role_session_name", "role-session-name"),
    ("web_identity_token_file", "web-identity-token-file"),
];

/// Ways to keys that only Amazon's own tools can go.
const FOREIGN: &[&str] = &["credential_process", "sso_session", "sso_start_url", "source_profile", "credential_source"];

impl AwsProfile {
    /// Reads a profile from the files that the environment names, else from `~/.aws`.
    ///
    /// # Errors
    /// When there is no such profile, or none with keys.
    pub(crate) fn load(profile: &str) -> Result<Self, AwsProfileError> {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let file = |variable: &str, name: &str| {
            std::env::var_os(variable)
                .map(PathBuf::from)
                .or_else(|| home.as_ref().map(|home| home.join(".aws").join(name)))
                .unwrap_or_default()
        };
        let credentials = file("AWS_SHARED_CREDENTIALS_FILE", "credentials");
        Self::read(profile, &credentials, &file("AWS_CONFIG_FILE", "config"))
    }

    /// As options of a [`backstay_repo::StoreConfig`].
    pub(crate) fn into_options(self) -> BTreeMap<String, String> {
        self.options
    }

    fn read(profile: &str, credentials: &Path, config: &Path) -> Result<Self, AwsProfileError> {
        let refuse = |reason: String| AwsProfileError { profile: profile.escape_default().to_string(), reason };
        let text = |path: &Path| read_file(path).map_err(|error| refuse(format!("{}: {error}", path.display())));
        let in_config = |section: &str| {
            let name = section.strip_prefix("profile ").map(str::trim_start);
            name == Some(profile) || (profile == "default" && section == "default")
        };
        let mut found = section(&text(config)?, in_config);
        let keys = section(&text(credentials)?, |section| section == profile);
        if found.is_none() && keys.is_none() {
            let files = format!("{} and {}", credentials.display(), config.display());
            return Err(refuse(format!("there is none of that name in {files}")));
        }
        let mut found = found.take().unwrap_or_default();
        // Keys of one file are not mixed with a token of the other.
        let keys = keys.unwrap_or_default();
        if keys.contains_key("aws_access_key_id") {
            found.remove("aws_session_token");
        }
        found.extend(keys);

        let has = |name: &str| found.contains_key(name);
        match (has("aws_access_key_id"), has("aws_secret_access_key")) {
            (true, true) => {}
            (false, false) if has("role_arn") && has("web_identity_token_file") => {}
            (false, false) => {
                return Err(refuse(match FOREIGN.iter().find(|way| has(way)) {
                    Some(way) => format!(
                        "it gets its keys by `{way}`, which only Amazon's tools can do; put keys into it, or use \
                         `access-key-id`"
                    ),
                    None => "it has no aws_access_key_id".to_owned(),
                }));
            }
            (true, false) => return Err(refuse("it has no aws_secret_access_key".to_owned())),
            (false, true) => return Err(refuse("it has no aws_access_key_id".to_owned())),
        }
        let with_keys = has("aws_access_key_id");
        let wanted = KEYS.iter().filter(|(name, _)| {
            !(with_keys && matches!(*name, "role_arn" | "role_session_name" | "web_identity_token_file"))
        });
        let options = wanted.filter_map(|(name, option)| Some(((*option).to_owned(), found.get(*name)?.clone())));
        Ok(Self { options: options.collect() })
    }
}

impl std::fmt::Debug for AwsProfile {
    /// Names what is there, never the values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AwsProfile").field(&self.options.keys()).finish()
    }
}

/// A file's text; one that is absent is empty.
fn read_file(path: &Path) -> io::Result<String> {
    match bounded::read_text(path, AWS_PROFILES_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => text,
    }
}

/// All keys of the sections that are wanted; nothing when there is no such section.
fn section(text: &str, wanted: impl Fn(&str) -> bool) -> Option<BTreeMap<String, String>> {
    let mut found = None;
    let mut inside = false;
    for line in text.trim_start_matches('\u{feff}').lines() {
        if line.starts_with([' ', '\t', '#', ';']) {
            continue;
        }
        let line = line.split([' ', '\t']).collect::<Vec<_>>().join(" ");
        let line = [" #", " ;"].iter().fold(line.as_str(), |line, mark| line.split(mark).next().unwrap_or(line)).trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = wanted(name.trim());
            if inside {
                found.get_or_insert_with(BTreeMap::new);
            }
        } else if let (true, Some((key, value))) = (inside, line.split_once('='))
            && !value.trim().is_empty()
            && let Some(found) = &mut found
        {
            found.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CREDENTIALS: &str = "# mine\n[default]\naws_access_key_id = D\naws_secret_access_key=d\n\n\
        [ work ]\nAWS_Access_Key_Id = W ; old\naws_secret_access_key = w/+=x\n[half]\naws_access_key_id = H\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\n[profile work]\nregion = eu-central-1 # near\n\
        aws_session_token = stale\nendpoint_url = https://s3.example.com\ns3 =\n  addressing_style = path\n\
        [profile pods]\nrole_arn = arn:aws:iam::1:role/x\nweb_identity_token_file = /token\n\
        [profile sso]\nsso_session = x\n[profilework]\nregion = nowhere\n";

    fn read(profile: &str) -> Result<Vec<(String, String)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let (credentials, config) = (folder.path().join("credentials"), folder.path().join("config"));
        std::fs::write(&credentials, CREDENTIALS).unwrap();
        std::fs::write(&config, CONFIG).unwrap();
        let read = AwsProfile::read(profile, &credentials, &config);
        read.map(|profile| profile.into_options().into_iter().collect()).map_err(|error| error.to_string())
    }

    fn options(options: &[(&str, &str)]) -> Vec<(String, String)> {
        options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_profile_comes_from_both_files() {
        let work = [
            ("access-key-id", "W"),
            ("endpoint", "https://s3.example.com"),
            ("region", "eu-central-1"),
            ("secret-access-key", "w/+=x"),
        ];
        assert_eq!(read("work").unwrap(), options(&work));
        let default = [("access-key-id", "D"), ("region", "eu-west-1"), ("secret-access-key", "d")];
        assert_eq!(read("default").unwrap(), options(&default));
        let pods = [("role-arn", "arn:aws:iam::1:role/x"), ("web-identity-token-file", "/token")];
        assert_eq!(read("pods").unwrap(), options(&pods));
    }

    #[test]
    fn a_profile_that_gives_no_keys_says_why_and_shows_none() {
        assert!(read("absent").unwrap_err().contains("there is none of that name in /"));
        assert!(read("half").unwrap_err().ends_with("it has no aws_secret_access_key"));
        assert!(read("sso").unwrap_err().contains("it gets its keys by `sso_session`"));
        let debug = format!("{:?}", AwsProfile { options: [("secret-access-key".into(), "s3cret".into())].into() });
        assert!(!debug.contains("s3cret"), "{debug}");
    }
}
