//! Any bytes are what a tree refers to or an error; whatever a restore would read is named.
#![no_main]

backstay_repo_fuzz::target!("references");
