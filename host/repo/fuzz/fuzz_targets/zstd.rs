//! Any bytes are a frame or an error, whatever length it claims or is claimed for it.
#![no_main]

backstay_repo_fuzz::target!("zstd");
