//! Any bytes are a tree or an error; no name in it leaves its folder, and it is written back as the same.
#![no_main]

backstay_repo_fuzz::target!("tree");
