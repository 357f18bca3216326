//! The sandbox with real plugins in it: an honest one, a hostile one, foreign ones.
//!
//! ```text
//!   tests/plugins/* ──build──► component ──compile (child)──► Plugin ──run──► JobContext
//!                                                                │
//!            support::stores: in memory, what the pipeline does on a repository
//! ```
//!
//! The plugins lie in `tests/plugins`; the first run builds them, which needs a Rust
//! toolchain for wasm32 (see `backstay plugin build`) and takes a minute.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod archive;
mod cache;
mod confine;
mod crimes;
mod escape;
mod files;
mod header;
mod inspect;
mod lies;
mod splice;
mod store;
mod support;
mod tools;
