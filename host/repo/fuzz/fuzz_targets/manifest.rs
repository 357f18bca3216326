//! Any bytes are a backup's manifest or an error, and whatever it says there is a plan or a refusal.
#![no_main]

backstay_repo_fuzz::target!("manifest");
