//! Any bytes are a name of a node; any text is an escaped one, or that of an object, or is refused.
#![no_main]

backstay_repo_fuzz::target!("name");
