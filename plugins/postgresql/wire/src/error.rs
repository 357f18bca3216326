//! What goes wrong while bytes of PostgreSQL are read or written.
//!
//! Rules:
//! - what a server sent wrongly is [`ErrorKind::Malformed`] or [`ErrorKind::TooLarge`], never a panic;
//! - what a server *said* (an `ErrorResponse`) is not an error of this crate: it is a
//!   [`ServerError`](crate::error_fields::ServerError), and travels as a value;
//! - messages are lower case, one line, without a full stop.

use std::fmt;

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The bytes are not what the format says they must be. Reading them again cannot help.
    Malformed,
    /// A length is above the bound in [`limits`](crate::limits). Treated as [`Self::Malformed`] by callers.
    TooLarge,
    /// Well-formed, but something this crate does not speak.
    Unsupported,
    /// The other side could not prove who it is, or wants a proof that must not be given.
    Denied,
    /// A checksum, a size or a set of files is not the one that was promised.
    Mismatch,
    /// An argument of the caller cannot be sent (a NUL inside a text, for example).
    BadArgument,
}

/// An error of this crate: its kind, what happened, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string(), hint: None }
    }

    /// Shorthand for [`ErrorKind::Malformed`].
    pub fn malformed(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Malformed, message)
    }

    /// Shorthand for [`ErrorKind::TooLarge`].
    pub fn too_large(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::TooLarge, message)
    }

    /// Shorthand for [`ErrorKind::Mismatch`].
    pub fn mismatch(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Mismatch, message)
    }

    /// The same error with what the operator can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// What kind of thing went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the operator can do, one line.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}
