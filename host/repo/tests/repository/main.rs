//! A repository as its users see it, with stock `restic` as the judge of what it leaves on a store.
//!
//! One program: each would bring the repository's own code along once more, and be built as long.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod any_tree;
mod bit_rot;
mod check;
mod conformance;
mod copy;
mod patched;
mod prune;
mod repair;
mod restic;
mod retained;
mod round_trip;
mod s3;
mod stock;
