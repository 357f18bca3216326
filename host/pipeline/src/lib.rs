//! Backup, archive and restore: repository and sandbox joined.
//!
//! ```text
//!   run_job (parent) ══ pipe ══ child_main ──► confinement ──► work
//!                                                               │
//!             backup ── BackupSink ──► backstay_repo session    │
//!             archive ─ LogSink ─────► backstay_repo log chain  ├─ one Plugin instance each
//!             restore ─ BackupSource, LogSource ◄── both        │
//!             inspect ──────────────────────────────────────────┘
//! ```
//!
//! Success is computed here, from what was stored, never taken from a plugin's word.

mod admission;
mod archive;
mod backup;
mod backup_source;
pub mod catalog;
mod confinement;
#[cfg(test)]
mod damage;
mod destinations;
mod failure;
mod first_failure;
mod identity;
mod inspect;
mod job;
mod limits;
mod log_source;
mod reporter;
pub mod repository;
mod restore;
pub mod transfer;
mod work;

pub use job::*;
