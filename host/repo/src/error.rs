//! What can go wrong with a repository.
//!
//! Rules: an error is made where its cause is known and carries what happened, what to do about
//! it when that is known, and its kind; callers branch on [`RepoErrorKind`] alone, never on text.
//! It is logged where it is handled, not where it passes through.

use std::error::Error as StdError;

/// What a caller can branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RepoErrorKind {
    /// The repository, backup, object or path is not there.
    NotFound,
    /// It is there already, with other content.
    AlreadyExists,
    /// No key file opens with this password.
    WrongPassword,
    /// Somebody else holds a lock that excludes ours.
    Locked,
    /// Our own lock was lost or removed while we worked; nothing may be committed under it.
    LockLost,
    /// Stored bytes are missing or not what was written.
    Damaged,
    /// The request contradicts what is there, such as a path put twice.
    Conflict,
    /// The store cannot be reached, or failed in a way that may pass.
    Unreachable,
    /// The store or the file system refuses these credentials.
    Denied,
    /// The store keeps an object that was to be removed: its retention is not over.
    Retained,
    /// No room is left on the disk or in the quota.
    Full,
    /// The store's address, an option or an argument makes no sense.
    InvalidConfig,
    /// The store or the file system failed in a way that will not pass by itself.
    Store,
    /// The stream of bytes to be stored failed.
    Source,
    /// A task of this crate ended early; a bug or a shutdown.
    Internal,
}

/// An error of this crate: kind, what happened, what to do.
#[derive(Debug, thiserror::Error)]
#[error("{what}{}", advice.map(|advice| format!("; {advice}")).unwrap_or_default())]
pub struct RepoError {
    kind: RepoErrorKind,
    what: String,
    advice: Option<&'static str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Result of this crate.
pub type Result<T, E = RepoError> = std::result::Result<T, E>;

impl RepoError {
    /// An error of `kind`; `what` is lower case, without a dot at the end.
    pub fn new(kind: RepoErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: one_line(what.into()), advice: None, source: None }
    }

    /// Stored bytes of `object` are not what was written.
    pub fn damaged(object: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self::new(RepoErrorKind::Damaged, format!("{object} is damaged: {why}"))
    }

    /// What the reader of the message should do.
    #[must_use]
    pub fn advise(mut self, advice: &'static str) -> Self {
        self.advice = Some(advice);
        self
    }

    /// Keeps the cause, and shows it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source = source.into();
        self.what = one_line(format!("{}: {source}", self.what));
        self.source = Some(source);
        self
    }

    /// An error of the local file system while doing `what`.
    pub fn io(what: impl Into<String>, error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => RepoErrorKind::Full,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => RepoErrorKind::Denied,
            Io::NotFound => RepoErrorKind::NotFound,
            _ => RepoErrorKind::Store,
        };
        let error = Self::new(kind, what).because(error);
        if kind == RepoErrorKind::Full { error.advise("free some space and try again") } else { error }
    }

    /// What a caller can branch on.
    pub fn kind(&self) -> RepoErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later with nothing changed on this side.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, RepoErrorKind::Unreachable | RepoErrorKind::Locked)
    }
}

/// What is wrong often quotes what was read, and that may be anything.
fn one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

impl From<tokio::task::JoinError> for RepoError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::new(RepoErrorKind::Internal, "failed to finish a background task").because(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_it_quotes() {
        let error = RepoError::damaged("data/é\n", "a\u{1b}[31mb").because("c\r\nd");
        assert_eq!(error.to_string(), "data/é\\n is damaged: a\\u{1b}[31mb: c\\r\\nd");
    }
}
