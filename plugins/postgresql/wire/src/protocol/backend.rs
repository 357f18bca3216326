//! What a server's frames mean.

use super::{Cursor, Frame};
use crate::error_fields::ServerError;
use crate::limits::COLUMNS_MAX;
use crate::{Error, Result};

/// A message from the server. Borrows from its frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend<'a> {
    /// A step of logging in.
    Authentication(Authentication<'a>),
    /// A setting of the server that concerns clients, such as `server_version`.
    ParameterStatus {
        /// The setting's name.
        name: &'a str,
        /// Its value.
        value: &'a str,
    },
    /// What a cancel request would need.
    BackendKeyData {
        /// The server process.
        process: u32,
        /// Its secret: 4 bytes, up to 256 as of protocol 3.2.
        secret: &'a [u8],
    },
    /// The server speaks only an older minor version, or knows not all our options.
    NegotiateProtocolVersion {
        /// The newest minor version it speaks.
        minor: u32,
    },
    /// The server waits for the next command.
    ReadyForQuery(TransactionStatus),
    /// A result begins: its columns.
    RowDescription(RowDescription<'a>),
    /// One row of a result.
    DataRow(DataRow<'a>),
    /// A command is done; the text is its tag, such as `SELECT 3`.
    CommandComplete(&'a str),
    /// The command was empty.
    EmptyQueryResponse,
    /// The server copies to us.
    CopyOut,
    /// The server expects a copy from us.
    CopyIn,
    /// Both sides copy: replication.
    CopyBoth,
    /// One piece of what is copied.
    CopyData(&'a [u8]),
    /// The server's copying is done.
    CopyDone,
    /// The command, or the session when fatal, failed.
    ErrorResponse(ServerError),
    /// A remark that changes nothing.
    NoticeResponse(ServerError),
    /// A message that this client never asked for (notifications, the extended query protocol).
    Other(u8),
}

/// A step of logging in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// We are in.
    Ok,
    /// The password as it is.
    CleartextPassword,
    /// The password hashed with the user and this salt.
    Md5Password {
        /// Four bytes of the server's.
        salt: [u8; 4],
    },
    /// One of these SASL mechanisms, in the server's order of preference.
    Sasl {
        /// At most 16; further ones are ignored.
        mechanisms: Vec<&'a str>,
    },
    /// A challenge of the mechanism.
    SaslContinue(&'a [u8]),
    /// The mechanism's last word from the server.
    SaslFinal(&'a [u8]),
    /// A method that is not spoken here.
    Unsupported {
        /// Its number in the protocol.
        code: u32,
    },
}

/// Where the session stands between commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Outside a transaction.
    Idle,
    /// Inside one.
    InTransaction,
    /// Inside one that failed.
    Failed,
}

/// How a column's values travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnFormat {
    /// As people read them.
    Text,
    /// As the type's own bytes.
    Binary,
}

/// One column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column<'a> {
    /// The name.
    pub name: &'a str,
    /// The OID of its type.
    pub type_oid: u32,
    /// How its values travel.
    pub format: ColumnFormat,
}

/// The columns of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDescription<'a> {
    /// In order.
    pub columns: Vec<Column<'a>>,
}

/// One row: a value or SQL's null for each column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataRow<'a> {
    /// In order.
    pub values: Vec<Option<&'a [u8]>>,
}

/// Most SASL mechanisms looked at.
const MECHANISMS_MAX: usize = 16;

impl<'a> Backend<'a> {
    /// What `frame` means. Malformed bodies are errors; unknown but lawful messages are [`Self::Other`].
    pub fn parse(frame: Frame<'a>) -> Result<Self> {
        let body = frame.body;
        Ok(match frame.tag {
            b'R' => Self::Authentication(Authentication::parse(body)?),
            b'S' => {
                let mut cursor = Cursor::new("ParameterStatus", body);
                let (name, value) = (cursor.text()?, cursor.text()?);
                cursor.end()?;
                Self::ParameterStatus { name, value }
            }
            b'K' => {
                let mut cursor = Cursor::new("BackendKeyData", body);
                Self::BackendKeyData { process: cursor.u32()?, secret: cursor.rest() }
            }
            b'v' => {
                let mut cursor = Cursor::new("NegotiateProtocolVersion", body);
                Self::NegotiateProtocolVersion { minor: cursor.u32()? }
            }
            b'Z' => {
                let mut cursor = Cursor::new("ReadyForQuery", body);
                let status = match cursor.u8()? {
                    b'I' => TransactionStatus::Idle,
                    b'T' => TransactionStatus::InTransaction,
                    b'E' => TransactionStatus::Failed,
                    other => {
                        return Err(Error::malformed(format_args!(
                            "the server reports the unknown transaction status {other}"
                        )));
                    }
                };
                cursor.end()?;
                Self::ReadyForQuery(status)
            }
            b'T' => Self::RowDescription(RowDescription::parse(body)?),
            b'D' => Self::DataRow(DataRow::parse(body)?),
            b'C' => {
                let mut cursor = Cursor::new("CommandComplete", body);
                let tag = cursor.text()?;
                cursor.end()?;
                Self::CommandComplete(tag)
            }
            b'I' => Self::EmptyQueryResponse,
            b'H' => Self::CopyOut,
            b'G' => Self::CopyIn,
            b'W' => Self::CopyBoth,
            b'd' => Self::CopyData(body),
            b'c' => Self::CopyDone,
            b'E' => Self::ErrorResponse(ServerError::parse(body)?),
            b'N' => Self::NoticeResponse(ServerError::parse(body)?),
            other => Self::Other(other),
        })
    }
}

impl<'a> Authentication<'a> {
    fn parse(body: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor::new("Authentication", body);
        let step = match cursor.u32()? {
            0 => Self::Ok,
            3 => Self::CleartextPassword,
            5 => Self::Md5Password { salt: cursor.u32()?.to_be_bytes() },
            10 => {
                let mut mechanisms = Vec::new();
                loop {
                    let mechanism = cursor.text()?;
                    if mechanism.is_empty() {
                        break;
                    }
                    if mechanisms.len() < MECHANISMS_MAX {
                        mechanisms.push(mechanism);
                    }
                }
                Self::Sasl { mechanisms }
            }
            11 => Self::SaslContinue(cursor.rest()),
            12 => Self::SaslFinal(cursor.rest()),
            code => {
                cursor.rest();
                Self::Unsupported { code }
            }
        };
        cursor.end()?;
        Ok(step)
    }
}

impl<'a> RowDescription<'a> {
    fn parse(body: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor::new("RowDescription", body);
        let count = column_count(cursor.i16()?)?;
        let mut columns = Vec::with_capacity(count);
        for _ in 0..count {
            let name = cursor.text()?;
            let _table = cursor.u32()?;
            let _attribute = cursor.i16()?;
            let type_oid = cursor.u32()?;
            let _type_size = cursor.i16()?;
            let _type_modifier = cursor.i32()?;
            let format = match cursor.i16()? {
                0 => ColumnFormat::Text,
                1 => ColumnFormat::Binary,
                other => {
                    return Err(Error::malformed(format_args!(
                        "the server's RowDescription message names the unknown format {other}"
                    )));
                }
            };
            columns.push(Column { name, type_oid, format });
        }
        cursor.end()?;
        Ok(Self { columns })
    }
}

impl<'a> DataRow<'a> {
    fn parse(body: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor::new("DataRow", body);
        let count = column_count(cursor.i16()?)?;
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(match cursor.i32()? {
                -1 => None,
                length => {
                    let length = usize::try_from(length).map_err(|_| {
                        Error::malformed(format_args!("the server's DataRow message holds a value of length {length}"))
                    })?;
                    Some(cursor.bytes(length)?)
                }
            });
        }
        cursor.end()?;
        Ok(Self { values })
    }
}

fn column_count(count: i16) -> Result<usize> {
    usize::try_from(count)
        .ok()
        .filter(|count| *count <= COLUMNS_MAX)
        .ok_or_else(|| Error::malformed(format_args!("the server sent a row of {count} columns")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::prelude::*;

    use super::*;

    fn parse(tag: u8, body: &[u8]) -> Result<Backend<'_>> {
        Backend::parse(Frame { tag, body })
    }

    #[test]
    fn a_row_keeps_null_and_empty_apart() {
        let body = b"\0\x03\xff\xff\xff\xff\0\0\0\0\0\0\0\x02ab";
        assert_eq!(
            parse(b'D', body).unwrap(),
            Backend::DataRow(DataRow { values: vec![None, Some(b"".as_slice()), Some(b"ab".as_slice())] })
        );
    }

    #[test]
    fn a_value_longer_than_its_row_is_malformed() {
        assert!(parse(b'D', b"\0\x01\x7f\xff\xff\xffab").is_err());
        assert!(parse(b'D', b"\0\x01\xff\xff\xff\xfeab").is_err());
        assert!(parse(b'D', b"\x7f\xff").is_err());
        assert!(parse(b'D', b"\xff\xff").is_err());
    }

    #[test]
    fn columns_have_names_and_types() {
        let body = b"\0\x01recptr\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0";
        let Backend::RowDescription(description) = parse(b'T', body).unwrap() else {
            panic!("not a row description");
        };
        assert_eq!(description.columns[0].name, "recptr");
        assert_eq!(description.columns[0].type_oid, 25);
    }

    #[test]
    fn a_copy_begins_in_three_ways() {
        // The format and the columns' count, 0 of each where bytes are copied that are no table.
        for (tag, message) in [(b'H', Backend::CopyOut), (b'G', Backend::CopyIn), (b'W', Backend::CopyBoth)] {
            assert_eq!(parse(tag, b"\0\0\0").unwrap(), message);
        }
    }

    #[test]
    fn sasl_mechanisms_end_with_an_empty_one() {
        assert_eq!(
            parse(b'R', b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0").unwrap(),
            Backend::Authentication(Authentication::Sasl { mechanisms: vec!["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"] })
        );
        assert!(parse(b'R', b"\0\0\0\x0aSCRAM-SHA-256").is_err());
        assert!(parse(b'R', b"\0\0\0\0extra").is_err());
    }

    proptest! {
        #[test]
        fn any_body_under_any_tag_is_a_message_or_an_error(
            tag in any::<u8>(),
            body in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = parse(tag, &body);
        }

        #[test]
        fn any_row_survives_the_way(values in prop::collection::vec(
            prop::option::of(prop::collection::vec(any::<u8>(), 0..40)), 0..30))
        {
            let mut body = (values.len() as u16).to_be_bytes().to_vec();
            for value in &values {
                match value {
                    None => body.extend_from_slice(&(-1i32).to_be_bytes()),
                    Some(value) => {
                        body.extend_from_slice(&(value.len() as i32).to_be_bytes());
                        body.extend_from_slice(value);
                    }
                }
            }
            let expected = values.iter().map(Option::as_deref).collect();
            prop_assert_eq!(
                parse(b'D', &body).unwrap(),
                Backend::DataRow(DataRow { values: expected })
            );
        }
    }
}
