//! Opens what a job works with.

use crate::job::{Failure, RepositorySpec};
use backstay_core::TargetName;
use backstay_repo::{Password, RepoError, Repository, Store, StoreConfig, log::LogChain};

/// The store a repository lies on.
pub fn connect(spec: &RepositorySpec) -> Result<Store, RepoError> {
    let options = spec.options.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned())).collect();
    Store::connect(&StoreConfig { url: spec.url.clone(), options })
}

/// Opens a repository with its password.
pub async fn open(spec: &RepositorySpec) -> Result<Repository, RepoError> {
    Repository::open(connect(spec)?, &Password::new(spec.password.reveal())).await
}

/// Opens a target's log.
pub async fn open_log(repository: &Repository, target: &TargetName) -> Result<LogChain, Failure> {
    let key = repository.shared_key().clone();
    let id = repository.id().to_string();
    Ok(LogChain::open(repository.store().clone(), key, &id, target.clone()).await?)
}
