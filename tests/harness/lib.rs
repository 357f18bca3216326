//! Harness for the end-to-end tests.
//!
//! ```text
//!   Workload ──► Postgres ◄── backstay backup / archive ──► repository ◄── stock restic (judge)
//!      │            │                                          │
//!      │         its WAL ──► pg_waldump ──► History        backstay restore
//!      │                                       │               │
//!      └──── ledger rows ──► expected_at(target) ==  ledger of the restored server
//! ```
//!
//! Words: a *ledger* is a table to which every transaction adds rows that carry its own xid, and from which
//! nothing is ever taken away. A [`history::History`] is the order in which those transactions committed, read
//! from the server's own WAL by PostgreSQL's own tool. Together they say, for any recovery target, exactly
//! which rows a restored server must hold. Nothing of Backstay takes part in that answer.
//!
//! Everything random comes from one [`seed::Seed`], printed at the start of a test and set again with
//! `BACKSTAY_SEED`.

pub mod account;
pub mod azure;
pub mod backstay;
pub mod certificate;
pub mod door;
pub mod fault_proxy;
pub mod gcs;
pub mod history;
pub mod install;
pub mod installation;
pub mod kill;
pub mod ledger;
pub mod limits;
pub mod lsn;
pub mod memory;
pub mod postgres;
pub mod rehearsal;
pub mod restic;
pub mod s3;
pub mod scratch;
pub mod seed;
pub mod server;
pub mod target;
pub mod webdav;
