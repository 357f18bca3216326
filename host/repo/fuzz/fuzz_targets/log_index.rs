//! Any bytes are the index of a log or an error, and its pieces make a chain.
#![no_main]

backstay_repo_fuzz::target!("log_index");
