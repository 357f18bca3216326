//! A store that crashes, tears, lags and lies on purpose, clients on it, and what must hold afterwards.
//!
//! ```text
//!   scenario ─ who does what on which store ─┐
//!   plan ── what happens next: which request ┤
//!           is answered, how, who dies when  ▼
//!   clients ── requests ──► world: what is seen, what is durable
//!      │                            │ after the crash
//!      └── acknowledged ─► ledger ─►│
//!                                   ▼
//!                      rules: all that must hold
//! ```
//!
//! - **client**: a process of ours that does one job: a backup, an archive, a compaction, a prune.
//! - **request**: one operation on the store. It waits in the world until the plan lets it happen: so the plan decides
//!   every order, every fault and every crash, and the same plan makes the same run.
//! - **medium**: how the store keeps things. An object store has what it answered for. A folder shows a name before it
//!   is durable, and never promises that a removed name stays away.
//! - **case**: one scenario under one plan. It has a name, and plays again by it.
//!
//! What is modelled and what is not: docs/decisions/0008-crash-proof.md.

pub mod campaign;
pub mod disk;
pub mod drive;
pub mod explore;
pub mod front;
pub mod job;
pub mod ledger;
pub mod plan;
pub mod rules;
pub mod scenario;
pub mod seed;
pub mod stage;
pub mod trace;
pub mod world;
