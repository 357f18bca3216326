//! What an error of the crates below means to a person.

use crate::job::{Failure, FailureKind};
use backstay_core::PlanError;
use backstay_repo::{RepoError, RepoErrorKind, log::LogError};
use backstay_sandbox::{EngineError, EngineErrorKind, SandboxError};

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let kind = match error.kind {
            EngineErrorKind::BadConfig => FailureKind::Usage,
            EngineErrorKind::Denied => FailureKind::Denied,
            EngineErrorKind::Unreachable => FailureKind::Unreachable,
            EngineErrorKind::Gap => FailureKind::Gap,
            EngineErrorKind::Conflict => FailureKind::Conflict,
            EngineErrorKind::Cancelled => FailureKind::Cancelled,
            EngineErrorKind::Unsupported | EngineErrorKind::Corrupt | EngineErrorKind::Internal => FailureKind::Failed,
        };
        Self { kind, message: error.message, hint: error.hint }
    }
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Self {
        let message = error.to_string();
        match error {
            SandboxError::Engine(error) => error.into(),
            SandboxError::NotFound { .. } => Self::new(FailureKind::Usage, message).hint(
                "name its folder with --plugin-dir or BACKSTAY_PLUGINS; `backstay plugin list` shows what is installed",
            ),
            SandboxError::NotAPlugin { .. } | SandboxError::Grant { .. } => Self::new(FailureKind::Usage, message),
            SandboxError::ForeignImports { .. } => Self::new(FailureKind::Usage, message)
                .hint("a plugin may import nothing but backstay:engine; do not run it, ask its author"),
            SandboxError::ContractVersion { .. } => {
                Self::new(FailureKind::Usage, message).hint("install a version of the plugin made for this backstay")
            }
            SandboxError::Compile { .. } => Self::new(FailureKind::Failed, message),
            SandboxError::Trapped { .. } => {
                Self::new(FailureKind::Failed, message).hint("the repository is sound; tell the plugin's author")
            }
            SandboxError::Misbehaved { .. } => {
                Self::new(FailureKind::Failed, message).hint("nothing it said was believed; tell the plugin's author")
            }
        }
    }
}

impl From<RepoError> for Failure {
    fn from(error: RepoError) -> Self {
        let kind = match error.kind() {
            RepoErrorKind::NotFound | RepoErrorKind::WrongPassword | RepoErrorKind::InvalidConfig => FailureKind::Usage,
            RepoErrorKind::Unreachable => FailureKind::Unreachable,
            RepoErrorKind::Denied | RepoErrorKind::Retained => FailureKind::Denied,
            RepoErrorKind::Damaged => FailureKind::Damaged,
            RepoErrorKind::AlreadyExists
            | RepoErrorKind::Locked
            | RepoErrorKind::LockLost
            | RepoErrorKind::Conflict => FailureKind::Conflict,
            _ => FailureKind::Failed,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        let kind = match &error {
            PlanError::UnknownBackup { .. } => FailureKind::Usage,
            PlanError::Gap { .. } => FailureKind::Gap,
            _ => FailureKind::OutsideWindow,
        };
        Self::new(kind, error.to_string()).hint(error.hint())
    }
}

/// What a repository's error means inside a plugin's call.
pub(crate) fn to_engine(error: &RepoError) -> EngineError {
    let kind = match error.kind() {
        RepoErrorKind::Conflict | RepoErrorKind::AlreadyExists => EngineErrorKind::Conflict,
        _ => EngineErrorKind::Internal,
    };
    EngineError::new(kind, error.to_string())
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        let message = error.to_string();
        match error {
            LogError::Gap(_) => Self::new(FailureKind::Gap, message),
            LogError::Conflict { .. } => Self::new(FailureKind::Conflict, message),
            LogError::Repo(error) => error.into(),
            _ => Self::new(FailureKind::Failed, message),
        }
    }
}

/// What an error of the log means inside a plugin's call.
pub(crate) fn log_to_engine(error: &LogError) -> EngineError {
    match error {
        LogError::Gap(_) => EngineError::new(EngineErrorKind::Gap, error.to_string()),
        LogError::Conflict { .. } => EngineError::new(EngineErrorKind::Conflict, error.to_string()),
        LogError::Repo(error) => to_engine(error),
        _ => EngineError::new(EngineErrorKind::Internal, error.to_string()),
    }
}
