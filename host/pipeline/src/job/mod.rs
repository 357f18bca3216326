//! A job is a process.
//!
//! ```text
//!   parent (the command line)                      child (`backstay job`)
//!   ─────────────────────────                      ──────────────────────
//!   JobSpec, secrets and all ──── standard input ──►  opens handles, confines itself,
//!   Event, one JSON line each ◄── standard output ──  runs the plugin, reports
//!   StopRequest (SIGTERM)    ──── standard input ──►  winds down
//! ```
//!
//! A trap, an abort, a `kill -9` or an exhausted limit ends one job and nothing else;
//! the child never outlives its parent.

mod child;
mod event;
mod failure;
mod parent;
mod spec;

pub use child::child_main;
pub use event::{ArchiveSummary, BackupSummary, Event, InspectSummary, JobResult, LogLevel, RestoreSummary};
pub use failure::{Failure, FailureKind};
pub use parent::{RunOptions, describe, run_job};
pub use spec::{Access, Job, JobSpec, RepositorySpec, RestoreSpec, RestoreTo, TargetSpec};
