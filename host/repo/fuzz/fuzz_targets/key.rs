//! Any bytes are a key file or an error; none asks for more memory or work than a key file may.
#![no_main]

backstay_repo_fuzz::target!("key");
