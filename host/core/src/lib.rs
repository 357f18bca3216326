//! Backstay's words as types, and the plans made from them. No I/O, no async, no clock.
//!
//! ```text
//!   Position ── a place in a database's log: (epoch, offset, label)
//!      │
//!   Segment ─── one durable piece of log: start..end, what it follows
//!      │
//!   Chain ───── all pieces of a target: a tree of epochs, with its gaps named
//!      │
//!   Backup ──── one committed restore point (its manifest)
//!      │
//!   Window ──── where a target can be restored to
//!   RestorePlan ─ which backup, which pieces, and why; or why not
//!   RetentionPolicy, ForgetPlan ─ which backups stay and why, and the log they need
//! ```

mod backup;
mod chain;
mod forget;
mod line;
mod manifest;
mod name;
mod path;
mod plan;
mod position;
mod retention;
#[cfg(test)]
mod sample;
mod secret;
mod segment;
mod size;
mod timestamp;
mod window;

pub use backup::Backup;
pub use chain::{Chain, ChainError, Gap};
pub use forget::{Decision, ForgetPlan, LogNeed, Needed, Records, log_needed, plan_forget, plan_forget_named};
pub use line::{Line, Spot, Step, Stride, Walk};
pub use manifest::{BackupManifest, Finding, MANIFEST_PATH, Volume};
pub use name::{BackupId, InvalidName, TargetName};
pub use path::{InvalidPath, RelativePath};
pub use plan::{Outside, PlanError, RestorePlan, RestoreRequest, Target};
pub use position::Position;
pub use retention::{CalendarRule, InvalidPeriod, KeepReason, Period, RetentionPolicy};
pub use secret::Secret;
pub use segment::{InvalidSegment, SEGMENT_BYTES_MAX, Segment};
pub use size::Size;
pub use timestamp::{InvalidTimestamp, Timestamp};
pub use window::{Confirmed, Point, Window, windows};
