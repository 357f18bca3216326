//! Restic-format repository and log chain on an object store.

pub mod crypto;
mod error;
pub mod limits;
pub mod log;
pub mod store;

pub use crypto::{MasterKey, Password};
pub use error::{RepoError, RepoErrorKind, Result};
pub use store::{ObjectInfo, RetryPolicy, Store, StoreConfig};
