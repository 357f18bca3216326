//! Listing: all of a folder and nothing else, in order.

use anyhow::{Context, Result, ensure};
use backstay_repo::{ObjectInfo, Store};
use futures::{StreamExt, TryStreamExt, stream};

/// More than what any of the stores answers at once (1000; Azure: 5000 by its own choice, which no test makes).
const MANY: usize = 1100;
/// Writes at the same time.
const WRITES: usize = 16;

fn keys(list: Vec<ObjectInfo>) -> Vec<String> {
    list.into_iter().map(|object| object.key).collect()
}

pub(crate) async fn a_listing_is_of_a_folder_and_all_below(store: &Store) -> Result<()> {
    for key in ["list/a/x", "list/a/b/y", "list/ab/z", "list/a.txt", "list/a-b"] {
        store.put_new(key, key).await?;
    }
    ensure!(keys(store.list("list/a").await?) == ["list/a/b/y", "list/a/x"], "a folder's name is no mere beginning");
    let all = ["list/a-b", "list/a.txt", "list/a/b/y", "list/a/x", "list/ab/z"];
    let listed = keys(store.list("list").await?);
    ensure!(listed == all, "a listing is sorted by the whole name: {listed:?}");
    ensure!(store.list("list/nothing").await.context("a folder that is absent is listed")?.is_empty(), "it is empty");
    Ok(())
}

pub(crate) async fn a_listing_begins_after_its_offset(store: &Store) -> Result<()> {
    for key in ["offset/1", "offset/2", "offset/3"] {
        store.put_new(key, key).await?;
    }
    let after = async |offset: &str| anyhow::Ok(keys(store.list_with_offset("offset", offset).await?));
    ensure!(after("offset/1").await? == ["offset/2", "offset/3"], "the offset itself is not listed");
    ensure!(after("offset/15").await? == ["offset/2", "offset/3"], "the offset need not be there");
    ensure!(after("offset/3").await?.is_empty(), "nothing comes after the last");
    ensure!(after("offset/0").await?.len() == 3, "all come after what is before the first");
    Ok(())
}

pub(crate) async fn folders_are_named(store: &Store) -> Result<()> {
    for key in ["folders/b/x/y", "folders/b/z", "folders/a/x", "folders/file"] {
        store.put_new(key, key).await?;
    }
    let named = store.list_folders("folders").await?;
    ensure!(named == ["a", "b"], "the folders are {named:?}");
    ensure!(store.list_folders("folders/b").await? == ["x"], "those of a folder below");
    ensure!(store.list_folders("folders/nothing").await?.is_empty(), "an absent folder has none");
    ensure!(store.list_folders("").await?.contains(&"folders".to_owned()), "the root has folders");
    Ok(())
}

pub(crate) async fn a_thousand_objects_are_more_than_one_page(store: &Store, removes: bool) -> Result<()> {
    let key = |number: usize| format!("many/{:02}/{number:06}", number % 4);
    let puts = stream::iter(0..MANY).map(|number| async move { store.put_new(&key(number), "x").await });
    puts.buffer_unordered(WRITES).try_collect::<Vec<()>>().await.context("many objects are written")?;
    let mut wanted: Vec<String> = (0..MANY).map(key).collect();
    wanted.sort();
    let listed = keys(store.list("many").await?);
    ensure!(listed == wanted, "{} objects were written and {} listed", wanted.len(), listed.len());
    let middle = &wanted[MANY / 2];
    let rest = keys(store.list_with_offset("many", middle).await?);
    ensure!(rest == wanted[MANY / 2 + 1..], "{} objects come after {middle}", rest.len());
    if removes {
        let removals = stream::iter(&wanted).map(|key| store.delete(key));
        removals.buffer_unordered(WRITES).try_collect::<Vec<()>>().await.context("many objects are removed")?;
        ensure!(store.list("many").await?.is_empty(), "what was removed is listed");
    }
    Ok(())
}
