//! What can go wrong with the log.

use crate::{RepoError, RepoErrorKind};
use backstay_core::{ChainError, Gap, InvalidSegment};

/// An error of the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A piece does not continue the log, or log that is needed is missing.
    #[error("{0}")]
    Gap(Gap),
    /// Somebody else wrote this place, or another database owns this target.
    #[error("{what}; {advice}")]
    Conflict {
        /// What is there, and what came.
        what: String,
        /// What to do.
        advice: &'static str,
    },
    /// The piece or the call contradicts itself.
    #[error("{0}")]
    Invalid(String),
    /// The repository below.
    #[error(transparent)]
    Repo(#[from] RepoError),
}

/// Result of the log.
pub type LogResult<T> = Result<T, LogError>;

impl LogError {
    /// Whether the same call may succeed later with nothing changed on this side.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Repo(error) if error.is_retryable())
    }

    /// Whether stored bytes are missing or not what was written.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Repo(error) if error.kind() == RepoErrorKind::Damaged)
    }

    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Repo(error) if error.kind() == RepoErrorKind::NotFound)
    }

    pub(crate) fn rival(what: impl Into<String>) -> Self {
        Self::Conflict {
            what: what.into(),
            advice: "make sure that only one archiver runs for this target, then start it again",
        }
    }
}

impl From<ChainError> for LogError {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Gap { expected, got } => Self::Gap(Gap { from: expected, to: got }),
            ChainError::Conflict { .. } => Self::rival(error.to_string()),
            ChainError::Invalid(_) | ChainError::Elsewhere { .. } => Self::Invalid(error.to_string()),
        }
    }
}

impl From<InvalidSegment> for LogError {
    fn from(error: InvalidSegment) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<tokio::task::JoinError> for LogError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Repo(error.into())
    }
}
