//! Any bytes are an index file or an error, and what is found in it lies where it says.
#![no_main]

backstay_repo_fuzz::target!("index");
