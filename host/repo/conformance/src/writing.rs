//! Writing: once, whole, and by one.

use crate::{must_fail, noise};
use anyhow::{Context, Result, ensure};
use backstay_repo::{RepoErrorKind, Store};
use futures::future::join_all;

/// Writers at the same time: more than a store has processors.
const WRITERS: u8 = 16;

pub(crate) async fn a_new_object_is_written_once(store: &Store) -> Result<()> {
    store.put_new("once/x", "one").await.context("a new object is written")?;
    store.put_new("once/x", "one").await.context("the same content again is recognised")?;
    let other = store.put_new("once/x", "two").await;
    must_fail(other, RepoErrorKind::AlreadyExists, "other content of the same length is refused")?;
    let longer = store.put_new("once/x", "longer").await;
    must_fail(longer, RepoErrorKind::AlreadyExists, "longer content is refused")?;
    ensure!(store.get("once/x", 3).await? == "one", "what was refused changed what is there");
    // Named by their digest, as packs are: written by a shorter way on some stores.
    let digest = "once/ab/abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789";
    store.put_new(digest, "content").await.context("an object named by a digest is written")?;
    store.put_new(digest, "content").await.context("it is recognised")?;
    must_fail(store.put_new(digest, "another").await, RepoErrorKind::AlreadyExists, "and not replaced")?;
    ensure!(store.get(digest, 7).await? == "content", "it reads back");
    Ok(())
}

pub(crate) async fn an_object_may_be_empty(store: &Store) -> Result<()> {
    store.put_new("empty/x", "").await.context("an empty object is written")?;
    store.put_new("empty/x", "").await.context("an empty object is recognised")?;
    must_fail(store.put_new("empty/x", "x").await, RepoErrorKind::AlreadyExists, "an empty object is there")?;
    ensure!(store.get("empty/x", 0).await.context("an empty object is read")?.is_empty(), "it is empty");
    ensure!(store.head("empty/x").await.context("an empty object is looked at")?.bytes == 0, "it has no bytes");
    Ok(())
}

/// Every shape of name that a repository uses, and some that people's target names make.
pub(crate) async fn names_are_taken_as_they_are(store: &Store) -> Result<()> {
    let names = [
        "names/config",
        "names/data/00/00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff",
        "names/logs/shop/00000000000000000001/00000000000012345678",
        "names/logs/shop/00000000000000000001/00000000000012345678-00000000000012345999",
        "names/logs/a.b_c-d/1/~x=y,z+w@v",
        "names/logs/with space/1/x y",
        "names/logs/größe/1/é",
        "names/logs/%41/1/50%",
    ];
    for name in names {
        let content = format!("content of {name}");
        store.put_new(name, content.clone()).await.with_context(|| format!("`{name}` is written"))?;
        let read = store.get(name, 200).await.with_context(|| format!("`{name}` is read"))?;
        ensure!(read == content, "`{name}` reads back as something else");
    }
    let mut listed: Vec<String> = store.list("names").await?.into_iter().map(|object| object.key).collect();
    listed.sort();
    let mut wanted = names.map(str::to_owned);
    wanted.sort();
    ensure!(listed == wanted, "the names are listed as {listed:?}");
    Ok(())
}

pub(crate) async fn of_many_writers_of_one_name_one_wins(store: &Store) -> Result<()> {
    for round in 0..3 {
        let key = format!("race/{round}/00000000000000000000");
        let tries = (0..WRITERS).map(|writer| {
            let (store, key) = (store.clone(), key.clone());
            // Long enough that several are on their way at once.
            async move { (writer, store.put_new(&key, vec![writer; 100_000]).await) }
        });
        let mut winner = None;
        for (writer, result) in join_all(tries).await {
            match result {
                Ok(()) => {
                    ensure!(winner.is_none(), "both {winner:?} and {writer} were told that they wrote {key}");
                    winner = Some(writer);
                }
                other => must_fail(other, RepoErrorKind::AlreadyExists, "who does not win learns it")?,
            }
        }
        let winner = winner.context("nobody won")?;
        let read = store.get(&key, 100_000).await?;
        ensure!(read == vec![winner; 100_000], "{winner} was told that it won, and {:?} is there", read.first());
    }
    Ok(())
}

pub(crate) async fn of_many_writers_of_the_same_none_fails(store: &Store) -> Result<()> {
    let body = noise(7, 50_000);
    let tries = (0..WRITERS).map(|_| store.put_new("same/x", body.clone()));
    for result in join_all(tries).await {
        result.context("who writes what is there already has written it")?;
    }
    ensure!(store.get("same/x", 50_000).await? == body, "it is there");
    Ok(())
}

pub(crate) async fn an_object_may_be_overwritten(store: &Store) -> Result<()> {
    store.put_overwrite("over/x", "one").await.context("what is absent may be overwritten")?;
    store.put_overwrite("over/x", "three").await.context("an object is overwritten")?;
    ensure!(store.get("over/x", 5).await? == "three", "an object is what was written last");
    let listed = store.list("over").await?;
    ensure!(listed.len() == 1 && listed[0].bytes == 5, "it is listed once, as it is now: {listed:?}");
    Ok(())
}
