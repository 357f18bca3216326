//! What the benches share: a repository for one measurement, and the words of an answer.

use anyhow::Result;
use backstay_repo::{InitOptions, KdfCost, Password, Repository, Store, StoreConfig};
use std::path::Path;

/// Makes one in `folder`. The cost of its password is no part of what is measured.
pub(crate) async fn create(folder: &Path) -> Result<Repository> {
    let store = Store::connect(&StoreConfig::new(format!("file://{}", folder.display())))?;
    let options = InitOptions { kdf: KdfCost { log_n: 10, r: 8, p: 1 } };
    Ok(Repository::init(store, &Password::new("bench"), options).await?)
}

/// The middle one of some ratios, and all of them.
pub(crate) fn summary(ratios: &[f64]) -> String {
    format!("{:.3}  (median; each: {ratios:.3?})", median(ratios))
}

/// The middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
