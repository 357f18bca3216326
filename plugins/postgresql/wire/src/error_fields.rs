//! What a server says when it refuses or remarks: the fields of `ErrorResponse` and `NoticeResponse`.
//!
//! [`Display`](fmt::Display) writes them as `psql` does:
//!
//! ```text
//! FATAL:  password authentication failed for user "x"
//! DETAIL:  Connection matched pg_hba.conf line 97: "host all all 127.0.0.1/32 md5"
//! HINT:  ...
//! ```
//!
//! Follows "Error and Notice Message Fields".

use std::fmt;

use crate::limits::{ERROR_FIELD_BYTES_MAX, ERROR_FIELDS_MAX};
use crate::protocol::Cursor;
use crate::{Error, Result};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The command failed.
    Error,
    /// The session ended.
    Fatal,
    /// Every session of the server ended.
    Panic,
    /// Only a remark: a warning, a notice, debugging, information or a log line.
    Remark,
}

/// An error or notice of the server, all fields kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerError {
    /// Type byte and text, in the server's order. Texts are made valid UTF-8 and cut to a bound.
    fields: Vec<(u8, String)>,
}

/// The field types, as the protocol names them.
mod field {
    pub(super) const SEVERITY_LOCALIZED: u8 = b'S';
    pub(super) const SEVERITY: u8 = b'V';
    pub(super) const CODE: u8 = b'C';
    pub(super) const MESSAGE: u8 = b'M';
    pub(super) const DETAIL: u8 = b'D';
    pub(super) const HINT: u8 = b'H';
    pub(super) const POSITION: u8 = b'P';
    pub(super) const INTERNAL_POSITION: u8 = b'p';
    pub(super) const INTERNAL_QUERY: u8 = b'q';
    pub(super) const WHERE: u8 = b'W';
    pub(super) const SCHEMA: u8 = b's';
    pub(super) const TABLE: u8 = b't';
    pub(super) const COLUMN: u8 = b'c';
    pub(super) const DATA_TYPE: u8 = b'd';
    pub(super) const CONSTRAINT: u8 = b'n';
    pub(super) const FILE: u8 = b'F';
    pub(super) const LINE: u8 = b'L';
    pub(super) const ROUTINE: u8 = b'R';
}

macro_rules! accessors {
    ($($(#[$doc:meta])* $name:ident = $field:ident;)*) => {
        $($(#[$doc])* #[must_use] pub fn $name(&self) -> Option<&str> { self.field(field::$field) })*
    };
}

impl ServerError {
    /// Reads the fields from a message's body.
    pub fn parse(body: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new("ErrorResponse", body);
        let mut fields = Vec::new();
        loop {
            let kind = cursor.u8()?;
            if kind == 0 {
                break;
            }
            if fields.len() == ERROR_FIELDS_MAX {
                return Err(Error::malformed("the server's ErrorResponse message has too many fields"));
            }
            let text = cursor.c_string()?;
            let text = &text[..text.len().min(ERROR_FIELD_BYTES_MAX)];
            fields.push((kind, String::from_utf8_lossy(text).into_owned()));
        }
        cursor.end()?;
        Ok(Self { fields })
    }

    fn field(&self, kind: u8) -> Option<&str> {
        self.fields.iter().find(|(this, _)| *this == kind).map(|(_, text)| text.as_str())
    }

    accessors! {
        /// The SQLSTATE, five characters, such as `28P01`.
        code = CODE;
        /// The message itself.
        message = MESSAGE;
        /// More about the problem.
        detail = DETAIL;
        /// What the server suggests.
        hint = HINT;
        /// Where in the query, in characters from 1.
        position = POSITION;
        /// Where in a query that the server made itself.
        internal_position = INTERNAL_POSITION;
        /// That query.
        internal_query = INTERNAL_QUERY;
        /// The call stack.
        context = WHERE;
        /// The schema concerned.
        schema = SCHEMA;
        /// The table concerned.
        table = TABLE;
        /// The column concerned.
        column = COLUMN;
        /// The data type concerned.
        data_type = DATA_TYPE;
        /// The constraint concerned.
        constraint = CONSTRAINT;
        /// The server's source file.
        file = FILE;
        /// The line in it.
        line = LINE;
        /// The routine in it.
        routine = ROUTINE;
    }

    /// The severity in the server's language.
    #[must_use]
    pub fn severity_text(&self) -> &str {
        self.field(field::SEVERITY_LOCALIZED).or_else(|| self.field(field::SEVERITY)).unwrap_or("ERROR")
    }

    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        let text = self.field(field::SEVERITY).or_else(|| self.field(field::SEVERITY_LOCALIZED));
        match text {
            Some("FATAL") => Severity::Fatal,
            Some("PANIC") => Severity::Panic,
            Some("WARNING" | "NOTICE" | "DEBUG" | "INFO" | "LOG") => Severity::Remark,
            _ => Severity::Error,
        }
    }

    /// `FATAL:  message`, and the detail in brackets: one line, control characters made spaces.
    #[must_use]
    pub fn one_line(&self) -> String {
        let mut line = format!("{}:  {}", self.severity_text(), self.message().unwrap_or_default());
        if let Some(detail) = self.detail() {
            line.push_str(" (");
            line.push_str(detail);
            line.push(')');
        }
        line.replace(char::is_control, " ")
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:  {}", self.severity_text(), self.message().unwrap_or_default())?;
        for (title, text) in [
            ("DETAIL", self.detail()),
            ("HINT", self.hint()),
            ("QUERY", self.internal_query()),
            ("CONTEXT", self.context()),
        ] {
            if let Some(text) = text {
                write!(f, "\n{title}:  {text}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_reads_as_psql_writes_it() {
        let error = ServerError::parse(
            b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user \"x\"\0\
              DIt does not match.\0HTry another.\0Fauth.c\0L326\0Rauth_failed\0\0",
        )
        .unwrap();
        assert_eq!(
            error.to_string(),
            "FATAL:  password authentication failed for user \"x\"\n\
             DETAIL:  It does not match.\n\
             HINT:  Try another."
        );
        assert_eq!(error.one_line(), "FATAL:  password authentication failed for user \"x\" (It does not match.)");
        assert_eq!(error.severity(), Severity::Fatal);
        assert_eq!(error.code(), Some("28P01"));
        assert_eq!(error.routine(), Some("auth_failed"));
        assert_eq!(error.schema(), None);
    }

    #[test]
    fn a_translated_severity_is_shown_and_the_plain_one_understood() {
        let error = ServerError::parse("SFATAL\u{c9}\0VFATAL\0MN\u{f6}\0\0".as_bytes()).unwrap();
        assert_eq!(error.severity_text(), "FATAL\u{c9}");
        assert_eq!(error.severity(), Severity::Fatal);
    }

    #[test]
    fn texts_in_another_encoding_do_not_stop_it() {
        let error = ServerError::parse(b"SERROR\0MUng\xfcltig\0\0").unwrap();
        assert_eq!(error.message(), Some("Ung\u{fffd}ltig"));
    }

    #[test]
    fn a_body_without_an_end_is_malformed() {
        assert!(ServerError::parse(b"SERROR\0").is_err());
        assert!(ServerError::parse(b"SERROR").is_err());
        assert!(ServerError::parse(b"").is_err());
        assert!(ServerError::parse(&b"Mx\0".repeat(ERROR_FIELDS_MAX + 1)).is_err());
    }

    proptest! {
        #[test]
        fn one_line_is_one_line_whatever_the_server_says(
            body in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Ok(error) = ServerError::parse(&body) {
                prop_assert!(!error.one_line().contains(char::is_control));
            }
        }
    }
}
