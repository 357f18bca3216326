//! Any bytes are the claim of an epoch or an error.
#![no_main]

backstay_repo_fuzz::target!("log_claim");
