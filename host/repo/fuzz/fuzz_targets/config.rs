//! Any bytes are a repository's `config` or an error.
#![no_main]

backstay_repo_fuzz::target!("config");
