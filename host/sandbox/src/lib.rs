//! Finds, verifies, compiles, grants, runs and limits engine plugins.
//!
//! ```text
//!   find ──► header ──► compile (own process) ──► precompiled ──► Plugin
//!            imports                            (backstay-audited)  │ one store a job
//!            refused here                                           ▼
//!   Grants ──► JobContext ──► services, connection, tls, directory, process
//!   BackupSink, LogSink, LogSource, BackupSource (the pipeline's) ──► backup, log, restore
//!                                  pump: bytes between streams and both sides
//! ```
//!
//! A plugin imports nothing but the contract, so what it can do is readable from its
//! import list; what it may do is what the operator granted. This crate knows no
//! repository: it sees traits ([`BackupSink`] and its like) for where bytes go.

mod backup;
mod bindings;
mod checksum;
mod clock;
mod confine;
mod connection;
mod convert;
mod described;
mod directory;
mod engine;
mod error;
mod find;
mod grants;
mod header;
mod identified;
mod inspection;
mod limits;
mod log;
mod log_gate;
mod plugin;
mod ports;
mod process;
mod pump;
mod report;
mod restore;
mod services;
mod state;
mod tls;

pub use confine::{Confinement, Rights, confine};
pub use described::Described;
pub use directory::DirectoryInner;
pub use error::{EngineError, EngineErrorKind, SandboxError};
pub use find::{Installed, find, folders, installed};
pub use grants::{CredentialGrant, DirectoryGrant, EndpointGrant, Grants};
pub use header::Header;
pub use inspection::Found;
pub use limits::Limits;
pub use plugin::{COMPILE_WALL, Place, Plugin, RecoveryTarget, RestoreJob, compile};
pub use ports::{
    Attributes, BackupSink, BackupSource, Body, LogSink, LogSource, Node, NodeKind, Patch, Patched, Placed, Reporter,
    Witness,
};
pub use report::{BackupReport, Description, Facts, GrantKind, GrantRequest, Method, RestoreReport};
pub use state::JobContext;
