//! How a job fails: one kind, one line, one way out.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What kind of failure; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// A setting, a grant, an argument or the repository's password is wrong.
    Usage,
    /// The target did not answer.
    Unreachable,
    /// The target answered and refused.
    Denied,
    /// The wanted place lies outside the recovery window.
    OutsideWindow,
    /// Log is missing.
    Gap,
    /// Somebody else holds what is needed, or it is another database.
    Conflict,
    /// The repository is damaged.
    Damaged,
    /// The job was asked to stop.
    Cancelled,
    /// Anything else.
    Failed,
}

/// A failure, for people and for `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    /// Decides the exit code.
    pub kind: FailureKind,
    /// One line: what failed and where.
    pub message: String,
    /// One line: what to do next.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// The same with what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
