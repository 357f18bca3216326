//! The one place with `unsafe`: three expressions, each with the reason why it is sound.
//!
//! ```text
//!   sha256        parts side by side, in the lanes of the processor         the processor was asked first
//!   large_pages   memory in large pages, for large reads and writes        it stays what it is, mapped otherwise
//!   precompiled   compiled plugins that this very program kept             nobody else could have written them
//! ```
//!
//! All other crates forbid it.

mod large_pages;
#[cfg(feature = "precompiled")]
pub mod precompiled;
mod sha256;

pub use large_pages::{LARGE_PAGE_BYTES, ask_for_large_pages};
pub use sha256::sha256_each;
