//! Any bytes are an object of a log or an error; a header fits its name.
#![no_main]

backstay_repo_fuzz::target!("log_header");
