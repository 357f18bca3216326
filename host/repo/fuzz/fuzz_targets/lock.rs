//! Any bytes are a lock file or an error.
#![no_main]

backstay_repo_fuzz::target!("lock");
