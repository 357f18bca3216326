//! The repository's own word on what went wrong.
//!
//! A plugin learns of a failing repository only that the host failed: told that a store does not
//! answer, it would ask the database again for ever. On that way the kind is lost, and the exit code
//! with it. So the first failure is kept here, and counts for more than what the plugin
//! made of it.

use crate::{
    failure::{log_to_engine, to_engine},
    job::Failure,
};
use backstay_repo::{RepoError, RepoErrorKind, log::LogError};
use backstay_sandbox::{EngineError, SandboxError};
use std::{
    io,
    sync::{Mutex, PoisonError},
};

/// The first failure of the repository in one call of a plugin.
#[derive(Debug, Default)]
pub(crate) struct FirstFailure(Mutex<Option<Failure>>);

impl FirstFailure {
    /// Keeps an error of the repository; answers what a plugin hears of it.
    pub(crate) fn repository(&self, error: RepoError) -> EngineError {
        if is_the_repositorys(error.kind()) { self.whatever(error) } else { to_engine(&error) }
    }

    /// Keeps an error of any kind, where a part that is missing spoils the whole: a backup lacks what was not put.
    pub(crate) fn whatever(&self, error: RepoError) -> EngineError {
        let told = to_engine(&error);
        self.keep(error.into());
        told
    }

    /// Keeps an error of the log; answers what a plugin hears of it.
    pub(crate) fn log(&self, error: LogError) -> EngineError {
        match error {
            LogError::Repo(error) => self.repository(error),
            error => log_to_engine(&error),
        }
    }

    /// As [`FirstFailure::repository`], of an error between the bytes of a body.
    pub(crate) fn body(&self, error: io::Error) -> io::Error {
        match error.downcast::<RepoError>() {
            Ok(error) => io::Error::other(self.repository(error)),
            Err(error) => error,
        }
    }

    /// The repository does what it is asked again: what went wrong before was overcome.
    pub(crate) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What came of the call: a plugin that passes over a failure has not succeeded.
    pub(crate) fn judge<T>(&self, answer: Result<T, SandboxError>) -> Result<T, Failure> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(failure) => Err(failure),
            None => Ok(answer?),
        }
    }

    fn keep(&self, failure: Failure) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }
}

/// Whether the repository failed, and not only answered to what a plugin asked for.
fn is_the_repositorys(kind: RepoErrorKind) -> bool {
    !matches!(
        kind,
        RepoErrorKind::NotFound
            | RepoErrorKind::AlreadyExists
            | RepoErrorKind::Conflict
            | RepoErrorKind::InvalidConfig
            | RepoErrorKind::Source
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::job::FailureKind;
    use backstay_sandbox::EngineErrorKind;

    fn error(kind: RepoErrorKind, what: &str) -> RepoError {
        RepoError::new(kind, what)
    }

    fn as_the_plugin_tells(told: EngineError) -> Result<(), SandboxError> {
        Err(SandboxError::Engine(EngineError { message: format!("failed to restore: {}", told.message), ..told }))
    }

    #[test]
    fn the_kind_of_a_repositorys_failure_survives_the_plugin() {
        let kinds = [
            (RepoErrorKind::Damaged, FailureKind::Damaged),
            (RepoErrorKind::Unreachable, FailureKind::Unreachable),
            (RepoErrorKind::Denied, FailureKind::Denied),
            (RepoErrorKind::LockLost, FailureKind::Conflict),
            (RepoErrorKind::Full, FailureKind::Failed),
        ];
        for (of_the_repository, of_the_job) in kinds {
            let first = FirstFailure::default();
            let told = first.repository(error(of_the_repository, "it broke"));
            assert_eq!(told.kind, EngineErrorKind::Internal, "a plugin would try {of_the_repository:?} again");
            let failure = first.judge(as_the_plugin_tells(told)).unwrap_err();
            assert_eq!((failure.kind, failure.message.as_str()), (of_the_job, "it broke"));
        }
    }

    #[test]
    fn the_first_failure_counts_and_not_what_followed_from_it() {
        let first = FirstFailure::default();
        first.log(error(RepoErrorKind::Damaged, "the cause").into());
        let told = first.repository(error(RepoErrorKind::Unreachable, "a consequence"));
        assert_eq!(first.judge(as_the_plugin_tells(told)).unwrap_err().message, "the cause");
    }

    #[test]
    fn a_failure_that_the_plugin_passed_over_is_one_all_the_same() {
        let first = FirstFailure::default();
        first.repository(error(RepoErrorKind::Damaged, "it broke"));
        assert_eq!(first.judge(Ok(())).unwrap_err().kind, FailureKind::Damaged);
    }

    #[test]
    fn a_part_that_is_missing_spoils_the_whole_whyever() {
        let first = FirstFailure::default();
        first.whatever(error(RepoErrorKind::Source, "the file cannot be read"));
        assert_eq!(first.judge(Ok(())).unwrap_err().message, "the file cannot be read");
    }

    #[test]
    fn a_failure_that_was_overcome_is_forgotten() {
        let first = FirstFailure::default();
        first.repository(error(RepoErrorKind::Unreachable, "it was away"));
        first.forget();
        first.judge(Ok(())).unwrap();
    }

    #[test]
    fn what_a_plugin_asks_in_vain_is_no_failure_of_the_repository() {
        let first = FirstFailure::default();
        first.repository(error(RepoErrorKind::NotFound, "there is no such file"));
        first.log(LogError::Invalid("there are no such bytes".to_owned()));
        first.judge(Ok(())).unwrap();
        let told = EngineError::new(EngineErrorKind::Unsupported, "too old");
        assert_eq!(first.judge::<()>(Err(told.into())).unwrap_err().message, "too old");
    }

    #[test]
    fn a_failure_in_the_middle_of_a_body_is_kept() {
        let first = FirstFailure::default();
        let told = first.body(io::Error::other(error(RepoErrorKind::Damaged, "a pack is damaged")));
        assert!(told.get_ref().is_some_and(|inner| inner.is::<EngineError>()));
        first.body(io::Error::other("something else"));
        assert_eq!(first.judge(Ok(())).unwrap_err().message, "a pack is damaged");
    }
}
