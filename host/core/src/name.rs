//! Names of targets and backups.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Longest name of a target: it is a folder in the repository and a label in Kubernetes.
const TARGET_BYTES_MAX: usize = 63;

/// The name an operator gave to a database: `[a-z0-9]` with `-`, `_` and `.` inside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetName(String);

/// A backup's id: 64 lower-case hexadecimal digits, the id of its snapshot in the repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

/// A name with characters it may not have.
#[derive(Debug, thiserror::Error)]
#[error("`{name}` is not a valid {what}: {rule}")]
pub struct InvalidName {
    name: String,
    what: &'static str,
    rule: &'static str,
}

impl TargetName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TargetName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let fits = name.len() <= TARGET_BYTES_MAX
            && name.starts_with(plain)
            && name.ends_with(plain)
            && name.chars().all(|c| plain(c) || matches!(c, '-' | '_' | '.'));
        if fits {
            Ok(Self(name.to_owned()))
        } else {
            Err(InvalidName {
                name: name.chars().take(80).collect(),
                what: "target name",
                rule: "use up to 63 lower-case letters and digits, with `-`, `_` or `.` inside",
            })
        }
    }
}

impl BackupId {
    /// The id as text, 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first eight digits: what people see and type.
    pub fn short(&self) -> &str {
        &self.0[..8]
    }
}

impl FromStr for BackupId {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        if name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(name.to_owned()))
        } else {
            Err(InvalidName {
                name: name.chars().take(80).collect(),
                what: "backup id",
                rule: "it has 64 lower-case hexadecimal digits",
            })
        }
    }
}

macro_rules! text_forms {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(name: String) -> Result<Self, InvalidName> {
                name.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}
text_forms!(TargetName);
text_forms!(BackupId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_names_are_safe_as_folders() {
        for bad in ["", ".", "..", "-a", "a-", "A", "a/b", "a b", "é"] {
            assert!(bad.parse::<TargetName>().is_err(), "{bad:?} was taken");
        }
        assert_eq!("shop-1.eu".parse::<TargetName>().unwrap().as_str(), "shop-1.eu");
    }
}
