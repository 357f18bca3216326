//! Reading: exactly what was asked for, or an error that says why not.

use crate::{must_fail, noise};
use anyhow::{Context, Result, ensure};
use backstay_core::Timestamp;
use backstay_repo::{RepoErrorKind, Store};
use std::time::{Duration, SystemTime};

pub(crate) async fn what_is_absent_is_told(store: &Store) -> Result<()> {
    must_fail(store.get("absent/x", 10).await, RepoErrorKind::NotFound, "reading what is absent")?;
    must_fail(store.get_range("absent/x", 0..1).await, RepoErrorKind::NotFound, "reading a part of what is absent")?;
    must_fail(store.head("absent/x").await, RepoErrorKind::NotFound, "looking at what is absent")?;
    ensure!(!store.exists("absent/x").await?, "what is absent exists");
    // A folder is no object.
    store.put_new("folder/x/y", "y").await?;
    ensure!(!store.exists("folder/x").await?, "a folder passes for an object");
    must_fail(store.get("folder/x", 10).await, RepoErrorKind::NotFound, "reading a folder")
}

pub(crate) async fn a_part_is_exactly_that_part(store: &Store) -> Result<()> {
    let body = noise(1, 3 << 20);
    store.put_new("part/x", body.clone()).await?;
    let end = body.len() as u64;
    for range in [0..1, 0..end, 1..2, end - 1..end, 4095..4097, 1 << 20..(2 << 20) + 1, end - 100_000..end, 5..5] {
        let part = store.get_range("part/x", range.clone()).await.with_context(|| format!("{range:?} is read"))?;
        ensure!(part == body[range.start as usize..range.end as usize], "{range:?} is something else");
    }
    for range in [end - 1..end + 1, end..end + 1, end + 5..end + 9, 0..end + 1] {
        let what = format!("reading {range:?} of {end} bytes");
        must_fail(store.get_range("part/x", range).await, RepoErrorKind::Damaged, &what)?;
    }
    Ok(())
}

pub(crate) async fn what_is_longer_than_makes_sense_is_not_read(store: &Store) -> Result<()> {
    store.put_new("long/x", "12345").await?;
    ensure!(store.get("long/x", 5).await? == "12345", "as long as allowed");
    must_fail(store.get("long/x", 4).await, RepoErrorKind::Damaged, "longer than allowed")
}

pub(crate) async fn an_object_tells_its_size_and_time(store: &Store) -> Result<()> {
    // Stores tell whole seconds, and their clock need not be ours.
    let slack = Duration::from_secs(60);
    let before = Timestamp::from(SystemTime::now() - slack);
    store.put_new("head/x", "12345").await?;
    let after = Timestamp::from(SystemTime::now() + slack);
    let head = store.head("head/x").await?;
    ensure!(head.key == "head/x" && head.bytes == 5, "it is {head:?}");
    ensure!(before <= head.modified && head.modified <= after, "it was written at {}", head.modified);
    let listed = store.list("head").await?;
    ensure!(listed.len() == 1 && listed[0].bytes == 5, "it is listed as {listed:?}");
    ensure!(before <= listed[0].modified && listed[0].modified <= after, "it is listed as {listed:?}");
    Ok(())
}
