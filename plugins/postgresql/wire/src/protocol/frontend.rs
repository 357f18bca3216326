//! Encodes what a client sends.
//!
//! Texts travel with a NUL at their end, so a text that holds one is refused: it would let
//! a setting smuggle further parameters into the start-up message.

use crate::{Error, ErrorKind, Result};

/// Protocol 3.0, as the start-up message spells it.
const PROTOCOL_3_0: u32 = 3 << 16;

/// The number in place of a protocol version that asks for TLS.
const SSL_REQUEST: u32 = 80_877_103;

/// What the session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Purpose {
    /// Ordinary SQL.
    #[default]
    Sql,
    /// Physical replication: only replication commands.
    Replication,
}

/// The start-up message's parameters.
#[derive(Debug, Clone, Default)]
pub struct Startup<'a> {
    /// The role to log in as.
    pub user: &'a str,
    /// The database; ignored by the server for physical replication.
    pub database: &'a str,
    /// What `pg_stat_activity` shows, and the name for `synchronous_standby_names`.
    pub application_name: &'a str,
    /// What the session is for.
    pub purpose: Purpose,
    /// Settings of the session, names and values. One that the server does not know ends the session.
    pub settings: &'a [(&'a str, &'a str)],
}

impl Startup<'_> {
    /// The message, without a tag as the protocol has it. Asks for UTF-8 and ISO dates.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut parameters = vec![("user", self.user)];
        match self.purpose {
            Purpose::Sql => parameters.push(("database", self.database)),
            // `database` is left out: the server matches the rule for `replication`.
            Purpose::Replication => parameters.push(("replication", "true")),
        }
        parameters.push(("application_name", self.application_name));
        parameters.push(("client_encoding", "UTF8"));
        parameters.push(("DateStyle", "ISO"));
        parameters.extend(self.settings);
        let mut message = vec![0; 4];
        message.extend_from_slice(&PROTOCOL_3_0.to_be_bytes());
        for (name, value) in parameters {
            if value.is_empty() {
                continue;
            }
            put_text(&mut message, name)?;
            put_text(&mut message, value)?;
        }
        message.push(0);
        let length = length_field(message.len())?;
        message[..4].copy_from_slice(&length);
        Ok(message)
    }
}

/// Asks whether the server speaks TLS; it answers with the one byte `S` or `N`, or an error frame.
#[must_use]
pub fn ssl_request() -> Vec<u8> {
    let mut message = 8u32.to_be_bytes().to_vec();
    message.extend_from_slice(&SSL_REQUEST.to_be_bytes());
    message
}

/// A simple query or a replication command.
pub fn query(sql: &str) -> Result<Vec<u8>> {
    let mut body = Vec::with_capacity(sql.len() + 1);
    put_text(&mut body, sql)?;
    framed(b'Q', &body)
}

/// The answer to a request for a password, in clear or hashed.
pub fn password(password: &[u8]) -> Result<Vec<u8>> {
    let mut body = password.to_vec();
    if body.contains(&0) {
        return Err(nul_inside());
    }
    body.push(0);
    framed(b'p', &body)
}

/// The first SASL answer: the mechanism chosen and its first message.
pub fn sasl_initial_response(mechanism: &str, data: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::with_capacity(mechanism.len() + data.len() + 5);
    put_text(&mut body, mechanism)?;
    body.extend_from_slice(&count(data.len())?.to_be_bytes());
    body.extend_from_slice(data);
    framed(b'p', &body)
}

/// Every further SASL answer.
pub fn sasl_response(data: &[u8]) -> Result<Vec<u8>> {
    framed(b'p', data)
}

/// One piece of copied data.
pub fn copy_data(data: &[u8]) -> Result<Vec<u8>> {
    framed(b'd', data)
}

/// The end of what we copy.
#[must_use]
pub fn copy_done() -> Vec<u8> {
    b"c\0\0\0\x04".to_vec()
}

/// The end of what we copy, before it is all there: the server's command fails, and quotes `reason`.
pub fn copy_fail(reason: &str) -> Result<Vec<u8>> {
    let mut body = Vec::with_capacity(reason.len() + 1);
    put_text(&mut body, reason)?;
    framed(b'f', &body)
}

/// The polite end of a session.
#[must_use]
pub fn terminate() -> Vec<u8> {
    b"X\0\0\0\x04".to_vec()
}

fn framed(tag: u8, body: &[u8]) -> Result<Vec<u8>> {
    let mut message = Vec::with_capacity(body.len() + 5);
    message.push(tag);
    message.extend_from_slice(&length_field(body.len() + 4)?);
    message.extend_from_slice(body);
    Ok(message)
}

fn put_text(message: &mut Vec<u8>, text: &str) -> Result<()> {
    if text.as_bytes().contains(&0) {
        return Err(nul_inside());
    }
    message.extend_from_slice(text.as_bytes());
    message.push(0);
    Ok(())
}

fn nul_inside() -> Error {
    Error::new(ErrorKind::BadArgument, "a text for the server holds a NUL character")
}

fn length_field(length: usize) -> Result<[u8; 4]> {
    count(length).map(u32::to_be_bytes)
}

/// The protocol's lengths are signed.
fn count(length: usize) -> Result<u32> {
    i32::try_from(length)
        .map(i32::cast_unsigned)
        .map_err(|_| Error::new(ErrorKind::BadArgument, "a message is larger than 2 GiB"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_replication_start_up_names_no_database() {
        let message = Startup {
            user: "backup",
            database: "postgres",
            application_name: "backstay",
            purpose: Purpose::Replication,
            settings: &[("idle_session_timeout", "0")],
        }
        .encode()
        .unwrap();
        assert_eq!(message[..4], (message.len() as u32).to_be_bytes());
        assert_eq!(message[4..8], [0, 3, 0, 0]);
        assert_eq!(
            &message[8..],
            b"user\0backup\0replication\0true\0application_name\0backstay\0\
              client_encoding\0UTF8\0DateStyle\0ISO\0idle_session_timeout\x000\0\0"
        );
    }

    #[test]
    fn a_nul_cannot_smuggle_a_parameter() {
        let error = Startup { user: "backup\0replication\0true", ..Startup::default() }.encode().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadArgument);
        assert!(query("SELECT 1\0").is_err());
        assert!(password(b"a\0b").is_err());
        assert!(copy_fail("a\0b").is_err());
    }

    #[test]
    fn lengths_count_themselves_and_not_the_tag() {
        assert_eq!(query("SHOW x").unwrap(), b"Q\0\0\0\x0bSHOW x\0");
        assert_eq!(copy_data(b"abc").unwrap(), b"d\0\0\0\x07abc");
        assert_eq!(copy_done(), b"c\0\0\0\x04");
        assert_eq!(copy_fail("no").unwrap(), b"f\0\0\0\x07no\0");
        assert_eq!(ssl_request(), [0, 0, 0, 8, 4, 210, 22, 47]);
        assert_eq!(sasl_initial_response("M", b"xy").unwrap(), b"p\0\0\0\x0cM\0\0\0\0\x02xy");
    }
}
