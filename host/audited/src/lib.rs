//! The one place with `unsafe`: two expressions, each with the reason why it is sound.
//!
//! ```text
//!   sha256        parts side by side, in the lanes of the processor         the processor was asked first
//!   precompiled   compiled plugins that this very program kept             nobody else could have written them
//! ```
//!
//! All other crates forbid it.

#[cfg(feature = "precompiled")]
pub mod precompiled;
mod sha256;

pub use sha256::sha256_each;
