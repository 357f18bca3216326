//! The stores that need no server keep their promises. The others: `tests/tests/stores.rs`.

use crate::stock::memory;
use anyhow::Result;
use backstay_conformance::{Removal, keeps_its_promises};
use backstay_repo::{Store, StoreConfig};

/// Nothing is limited by this, but everything is counted.
const WIDE: &str = "100000000000";

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_its_promises() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = StoreConfig::new(format!("file://{}/a folder/é", folder.path().display()));
    keeps_its_promises(&Store::connect(&config)?, Removal::Works).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_on_a_disk_with_limits_keeps_its_promises() -> Result<()> {
    // Not in memory, where temporary files may lie: past the page cache is another way.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut config = StoreConfig::new(format!("file://{}", folder.path().display()));
    config.options = [("upload-limit".into(), WIDE.into()), ("download-limit".into(), WIDE.into())].into();
    keeps_its_promises(&Store::connect(&config)?, Removal::Works).await
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_its_promises() -> Result<()> {
    keeps_its_promises(&memory(), Removal::Works).await
}
