//! Names that an operator chooses, and that are not target names.

use std::{fmt, str::FromStr};

/// Longest name of a repository, an engine or a grant.
const NAME_BYTES_MAX: usize = 63;

/// The name of a repository in the configuration: `[a-z0-9]` with `-`, `_` and `.` inside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RepositoryName(String);

/// The name of an engine: `[a-z][a-z0-9-]*`, as plugins describe themselves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EngineName(String);

/// The name of a grant, as a plugin asks for it: `[a-z][a-z0-9_-]*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GrantName(String);

/// A name with characters it may not have.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is not a valid {what}: {rule}", name.escape_default())]
pub(crate) struct InvalidName {
    name: String,
    what: &'static str,
    rule: &'static str,
}

/// Length and first character as every kind of name wants them, and no character but plain ones and `extra`.
fn fits(name: &str, first: fn(char) -> bool, extra: &[char]) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(first)
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || extra.contains(&c))
}

macro_rules! name {
    ($name:ident, $what:literal, $rule:literal, $first:expr, $extra:expr) => {
        impl $name {
            /// The name as text.
            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(name: &str) -> Result<Self, InvalidName> {
                if fits(name, $first, $extra) {
                    Ok(Self(name.to_owned()))
                } else {
                    Err(InvalidName { name: name.chars().take(80).collect(), what: $what, rule: $rule })
                }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    RepositoryName,
    "repository name",
    "use up to 63 lower-case letters and digits, with `-`, `_` or `.` after the first",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit(),
    &['-', '_', '.']
);
name!(
    EngineName,
    "engine name",
    "use up to 63 lower-case letters, digits and `-`, a letter first",
    |c| c.is_ascii_lowercase(),
    &['-']
);
name!(
    GrantName,
    "grant name",
    "use up to 63 lower-case letters, digits, `-` and `_`, a letter first",
    |c| c.is_ascii_lowercase(),
    &['-', '_']
);
