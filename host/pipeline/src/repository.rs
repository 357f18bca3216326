//! Opens what a job works with.

use crate::job::{Failure, RepositorySpec};
use backstay_core::TargetName;
use backstay_repo::{Password, Repository, Store, StoreConfig, log::LogChain};
use std::collections::BTreeMap;

/// Opens a repository with its password.
pub async fn open(spec: &RepositorySpec) -> Result<Repository, Failure> {
    let options: BTreeMap<String, String> =
        spec.options.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned())).collect();
    let store = Store::connect(&StoreConfig { url: spec.url.clone(), options })?;
    let password = Password::new(spec.password.reveal());
    Ok(Repository::open(store, &password).await?)
}

/// Opens a target's log.
pub async fn open_log(repository: &Repository, target: &TargetName) -> Result<LogChain, Failure> {
    let key = repository.shared_key().clone();
    let id = repository.id().to_string();
    Ok(LogChain::open(repository.store().clone(), key, &id, target.clone()).await?)
}
