//! Any bytes are a pin or an error, and its object has the name of its backup.
#![no_main]

backstay_repo_fuzz::target!("pin");
