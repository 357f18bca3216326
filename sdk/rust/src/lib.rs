//! Write a Backstay engine plugin in Rust.
