//! PostgreSQL's wire protocol, replication, base backup and WAL formats, without I/O.
//!
//! Nothing here opens a socket, reads a clock or draws a random number: callers hand in
//! bytes, nonces and times, and get messages and bytes back. So the same code runs inside
//! a sandboxed component and in a native test against a real server.
//!
//! ```text
//!             bytes in                                    bytes out
//!                │                                            ▲
//!   protocol::Decoder ──▶ Frame ──▶ protocol::Backend   protocol::frontend
//!                           │            │    │
//!                           │            │    └─▶ auth::Authenticator ──▶ answer
//!                           │            └─▶ error_fields::ServerError
//!                           ▼
//!            replication::{XLogData, Keepalive, BackupMessage}
//! ```
//!
//! | word | meaning |
//! |---|---|
//! | frame | one message as it travels: a tag byte, a length, a body |
//! | backend, frontend | the server's messages, and ours |
//! | copy data | the bulk bytes of `COPY`, replication and base backups |
//!
//! The formats follow the chapters "Frontend/Backend Protocol" and "Continuous Archiving"
//! of PostgreSQL's documentation, versions 13 to 18.
#![forbid(unsafe_code)]

pub mod auth;
pub mod backup_label;
pub mod control_file;
pub mod error;
pub mod error_fields;
pub mod history;
pub mod incremental;
pub mod limits;
pub mod lsn;
pub mod manifest;
pub mod page;
pub mod protocol;
pub mod relation_file;
pub mod replication;
mod setting;
pub mod tablespace_map;
pub mod tar;
pub mod utc;
pub mod wal;
pub mod wal_file;

pub use error::{Error, ErrorKind, Result};
