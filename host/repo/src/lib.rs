//! Restic-format repository and log chain on an object store.
//!
//! ```text
//!   Repository ── config, keys/      opened with a password, sealed with one master key
//!      ├─ Lock ────── locks/         writers share, pruning is alone
//!      ├─ BackupSession              files ► chunks ► blobs ► packs ► index ► snapshot
//!      │     └─ data/, index/, snapshots/
//!      ├─ SnapshotReader             snapshot ► trees ► nodes ► blobs ► files in a folder
//!      ├─ Pin ───────── pins/         backups that no policy takes away
//!      ├─ prune                      frees what nothing refers to
//!      ├─ check                      does all that must be there exist, and is it right
//!      └─ log ─────── logs/          the log chains; stock restic ignores the folder
//!   Store ── one prefix of an object store, reduced to what the above need
//! ```
//!
//! - **blob**: a piece of a file, or a folder's list of nodes; named by its SHA-256.
//! - **pack**: an object of many sealed blobs. **index**: where each blob lies.
//! - **tree**: a folder's nodes. **snapshot**: a root tree, when and by whom: one backup.
//!
//! The format is restic's repository format, version 2, so stock `restic` is an independent
//! checker and a way out.
//!
//! ```
//! use backstay_repo::*;
//! # fn main() -> Result<()> { tokio::runtime::Runtime::new().unwrap().block_on(async {
//! # let folder = tempfile::tempdir().unwrap();
//! let store = Store::connect(&StoreConfig::new(format!("file://{}/repo", folder.path().display())))?;
//! let options = InitOptions { kdf: KdfCost::TRIVIAL };
//! let repository = Repository::init(store, &Password::new("secret"), options).await?;
//!
//! let session = repository.backup(BackupOptions::default()).await?;
//! let path = backstay_core::RelativePath::new("data/base/1").unwrap();
//! let attributes = FileAttributes { mode: 0o600, modified: backstay_core::Timestamp::EPOCH };
//! let body = futures::stream::iter([Ok(bytes::Bytes::from_static(b"page"))]);
//! session.put_file(&path, attributes, body).await?;
//! let backup = session.commit(SnapshotMeta::default()).await?;
//!
//! let reader = repository.open_snapshot(&backup.id).await?;
//! assert_eq!(reader.read_all(&path, 100).await?, b"page");
//! # Ok(()) }) }
//! ```

pub mod aligned;
mod check;
mod compression;
mod copy;
pub mod crypto;
mod document;
mod error;
mod forget;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
mod id;
mod index;
mod key;
pub mod limits;
mod local_reader;
mod lock;
pub mod log;
mod marks;
mod node_path;
mod origin;
mod pack;
mod pin;
mod polynomial;
mod prune;
mod quote;
mod read;
mod references;
mod repair;
mod repository;
mod snapshot;
mod stamp;
mod stats;
pub mod store;
mod tree;
mod write;

pub use check::{Affected, CheckOptions, CheckProgress, CheckReport, InvalidSubset, Problem, ReadData, Subset};
pub use copy::{Copied, CopyPlan, CopyReport, SnapshotCopy, ToCopy};
pub use crypto::{MasterKey, Password};
pub use error::{RepoError, RepoErrorKind, Result};
pub use id::{Id, InvalidId};
pub use key::{KdfCost, KeyInfo};
pub use lock::{Lock, LockInfo, LockKind};
pub use node_path::NodePath;
pub use pin::Pin;
pub use prune::{PruneOptions, PrunePlan, PruneProgress, PruneReport, Repack, Waiting};
pub use read::{PlaceOptions, PlaceProgress, PlaceSummary, SnapshotReader};
pub use repair::{
    BrokenSnapshot, DamagedFile, IndexPlan, IndexRepair, IndexRepairOptions, Repaired, RottenPack, SnapshotRepair,
    SnapshotRepairOptions, SnapshotsPlan,
};
pub use repository::{InitOptions, Repository, Unlocked};
pub use snapshot::{Snapshot, SnapshotMeta};
pub use stamp::FileStamp;
pub use stats::{Added, Stats, StatsProgress, Usage};
pub use store::{ObjectInfo, RetryPolicy, Store, StoreAccess, StoreConfig};
pub use tree::{Node, NodeKind};
pub use write::{
    BackupOptions, BackupSession, Chunking, Committed, FileAttributes, Parent, Patch, PatchedFile, StoredFile, Totals,
    Witness,
};
