//! Any bytes are who a log belongs to and how far it is complete, or an error.
#![no_main]

backstay_repo_fuzz::target!("log_document");
