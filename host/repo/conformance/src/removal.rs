//! Removal: gone for all, or refused for a reason.

use crate::must_fail;
use anyhow::{Context, Result, ensure};
use backstay_repo::{RepoErrorKind, Store};

pub(crate) async fn what_is_removed_is_gone_and_may_be_removed_again(store: &Store) -> Result<()> {
    store.put_new("gone/x", "x").await?;
    store.put_new("gone/y", "y").await?;
    store.delete("gone/x").await.context("an object is removed")?;
    store.delete("gone/x").await.context("what is gone may be removed")?;
    store.delete("gone/never/was").await.context("what never was may be removed")?;
    ensure!(!store.exists("gone/x").await?, "what was removed exists");
    must_fail(store.get("gone/x", 1).await, RepoErrorKind::NotFound, "what was removed is read")?;
    let listed = store.list("gone").await?;
    ensure!(listed.len() == 1 && listed[0].key == "gone/y", "its neighbour is listed alone: {listed:?}");
    store.put_new("gone/x", "another").await.context("its name is free again")?;
    ensure!(store.get("gone/x", 7).await? == "another", "the name's new content is read");
    Ok(())
}

pub(crate) async fn a_refused_removal_is_told_apart(store: &Store) -> Result<()> {
    store.put_new("kept/x", "x").await?;
    must_fail(store.delete("kept/x").await, RepoErrorKind::Retained, "removing what the store keeps")?;
    ensure!(store.get("kept/x", 1).await? == "x", "what could not be removed is there");
    Ok(())
}
