//! What of a WebDAV repository's keys goes together.

use super::{
    super::{
        error::ConfigError,
        section::{Located, Section},
    },
    refuse_plain_http, together,
};

pub(super) fn check(section: &Section<'_>, url: &Located<String>) -> Result<(), ConfigError> {
    together(section, "user", &["user-password-file", "user-password-command"])?;
    refuse_plain_http(section, "url", url)
}
