//! Any bytes are the header of a pack or an error, and it is written back as the same.
#![no_main]

backstay_repo_fuzz::target!("pack_header");
