//! Opens what a job works with.

use crate::job::{Access, Failure, RepositorySpec};
use backstay_core::{Secret, TargetName};
use backstay_repo::{
    InitOptions, Password, RepoError, RepoErrorKind, Repository, Store, StoreConfig, Unlocked, log::LogChain,
};

/// The store a repository lies on.
pub fn connect(spec: &RepositorySpec) -> Result<Store, RepoError> {
    Store::connect(&store_config(spec))
}

/// Where and how.
pub(crate) fn store_config(spec: &RepositorySpec) -> StoreConfig {
    let options = spec.options.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned())).collect();
    StoreConfig { url: spec.url.clone(), options }
}

/// Makes a repository with its password.
pub async fn init(spec: &RepositorySpec) -> Result<Repository, RepoError> {
    let Access::Password(password) = &spec.access else {
        return Err(RepoError::new(RepoErrorKind::Internal, "failed to make a repository: it has no password"));
    };
    Repository::init(connect(spec)?, &Password::new(password.reveal()), InitOptions::default()).await
}

/// Opens a repository.
pub async fn open(spec: &RepositorySpec) -> Result<Repository, RepoError> {
    let store = connect(spec)?;
    match &spec.access {
        Access::Password(password) => Repository::open(store, &Password::new(password.reveal())).await,
        Access::MasterKey { id, key } => {
            let key_id = id.parse().map_err(|error| {
                RepoError::new(RepoErrorKind::Internal, "failed to read the key handed over").because(error)
            })?;
            Repository::open_unlocked(store, &Unlocked { key_id, master_key: key.reveal().to_owned().into() }).await
        }
    }
}

/// The same repository for a job: it need not do the password's work again, and does not learn the password.
pub fn unlocked(spec: RepositorySpec, repository: &Repository) -> RepositorySpec {
    let Unlocked { key_id, master_key } = repository.unlocked();
    let access = Access::MasterKey { id: key_id.to_string(), key: Secret::new(master_key.as_str().to_owned()) };
    RepositorySpec { access, ..spec }
}

/// Opens a target's log.
pub async fn open_log(repository: &Repository, target: &TargetName) -> Result<LogChain, Failure> {
    let key = repository.shared_key().clone();
    let id = repository.id().to_string();
    Ok(LogChain::open(repository.store().clone(), key, &id, target.clone()).await?)
}
