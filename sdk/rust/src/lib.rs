//! Write a Backstay engine plugin in Rust.
//!
//! ```text
//!   your type ── implements ──► Engine          what the host calls
//!       │
//!       └── calls ──► host::{config, login, connect, log, progress, ...}
//!                     Connection, Directory, Process        what the operator granted
//!                     BackupWriter, LogWriter, LogReader, BackupReader
//!                                                           what the host moves bytes with
//! ```
//!
//! The same code runs in two places. Built for `wasm32` and exported with
//! [`export_engine!`] it is a component that imports nothing but `backstay:engine`.
//! Built natively, the same calls go to a [`native::HostBackend`] that a test (or a
//! bench) installs, so a plugin's logic is tested against a real database with no
//! sandbox around it.
//!
//! Everything runs on one thread; futures are not `Send`. Use the `futures` crate to
//! do several things at once.

#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

mod backup;
mod connection;
mod directory;
mod engine;
pub mod host;
mod log;
mod process;
mod restore;
mod stream;
mod types;

#[cfg(not(target_arch = "wasm32"))]
pub mod native;
#[cfg(not(target_arch = "wasm32"))]
use native as platform;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod component;
#[cfg(target_arch = "wasm32")]
use component as platform;

pub use backup::{BackupWriter, FileWriter};
pub use connection::Connection;
pub use directory::Directory;
pub use engine::Engine;
pub use log::{LogReader, LogWriter, PieceWriter, SegmentStream};
pub use process::Process;
pub use restore::{BackupReader, NodeStream};
pub use stream::{ByteStream, CHUNK_BYTES};
pub use types::*;

/// Makes a type that implements [`Engine`] the component's engine. Does nothing natively.
#[macro_export]
macro_rules! export_engine {
    ($engine:ident) => {
        #[cfg(target_arch = "wasm32")]
        $crate::component::export!($engine with_types_in $crate::component);
    };
}
