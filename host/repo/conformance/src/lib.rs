//! The promises of [`backstay_repo::store`], tried on a store: the same for a folder, for memory, and for every server.
//!
//! ```no_run
//! # async fn example(store: backstay_repo::Store) -> anyhow::Result<()> {
//! backstay_conformance::keeps_its_promises(&store, backstay_conformance::Removal::Works).await?;
//! # Ok(()) }
//! ```
//!
//! The store's prefix must be empty, and holds some objects afterwards. An error says which promise was broken.

mod large;
mod listing;
mod reading;
mod removal;
mod writing;

use anyhow::{Context, Result, ensure};
use backstay_repo::{RepoErrorKind, Store};
use std::fmt::Debug;

/// What a store says to a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is done.
    Works,
    /// It is refused: the store keeps what it has.
    Refused,
}

/// Tries all promises, one after the other.
///
/// # Errors
/// The first one that is not kept.
pub async fn keeps_its_promises(store: &Store, removal: Removal) -> Result<()> {
    ensure!(store.list("").await.context("an empty prefix is listed")?.is_empty(), "the prefix is not empty");
    let removes = removal == Removal::Works;
    writing::a_new_object_is_written_once(store).await?;
    writing::an_object_may_be_empty(store).await?;
    writing::names_are_taken_as_they_are(store).await?;
    writing::of_many_writers_of_one_name_one_wins(store).await?;
    writing::of_many_writers_of_the_same_none_fails(store).await?;
    writing::an_object_may_be_overwritten(store).await?;
    reading::what_is_absent_is_told(store).await?;
    reading::a_part_is_exactly_that_part(store).await?;
    reading::what_is_longer_than_makes_sense_is_not_read(store).await?;
    reading::an_object_tells_its_size_and_time(store).await?;
    listing::a_listing_is_of_a_folder_and_all_below(store).await?;
    listing::a_listing_begins_after_its_offset(store).await?;
    listing::folders_are_named(store).await?;
    listing::a_thousand_objects_are_more_than_one_page(store, removes).await?;
    large::large_objects_come_back_as_they_were(store).await?;
    match removal {
        Removal::Works => removal::what_is_removed_is_gone_and_may_be_removed_again(store).await,
        Removal::Refused => removal::a_refused_removal_is_told_apart(store).await,
    }
}

/// That this went wrong, and in this way.
fn must_fail<T: Debug>(result: backstay_repo::Result<T>, kind: RepoErrorKind, what: &str) -> Result<()> {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => anyhow::bail!("{what}: expected {kind:?}, got {:?}: {error}", error.kind()),
        Ok(value) => anyhow::bail!("{what}: expected {kind:?}, got {value:?}"),
    }
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> bytes::Bytes {
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    let mut noise = Vec::with_capacity(length + 8);
    while noise.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    noise.truncate(length);
    noise.into()
}
