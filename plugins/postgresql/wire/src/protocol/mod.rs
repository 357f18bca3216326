//! Messages between a client and a PostgreSQL server, protocol version 3.0.
//!
//! - [`Decoder`] cuts a byte stream into [`Frame`]s, each with a bound on its size;
//! - [`Backend`] is what a frame from the server means;
//! - [`frontend`] encodes what we send.
//!
//! Follows "Frontend/Backend Protocol", sections "Message Flow" and "Message Formats".

mod backend;
mod cursor;
mod frame;
pub mod frontend;

pub use backend::{Authentication, Backend, Column, ColumnFormat, DataRow, RowDescription, TransactionStatus};
pub use cursor::Cursor;
pub use frame::{Decoder, Frame};
