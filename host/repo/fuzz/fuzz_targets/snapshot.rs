//! Any bytes are a snapshot or an error.
#![no_main]

backstay_repo_fuzz::target!("snapshot");
