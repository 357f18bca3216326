//! Large objects: a pack, and more than that.

use crate::{must_fail, noise};
use anyhow::{Context, Result, ensure};
use backstay_repo::{RepoErrorKind, Store};

pub(crate) async fn large_objects_come_back_as_they_were(store: &Store) -> Result<()> {
    for mebibytes in [32, 100] {
        let body = noise(mebibytes, (mebibytes as usize) << 20);
        let (key, end) = (format!("large/{mebibytes}"), body.len() as u64);
        let what = format!("an object of {mebibytes} MiB");
        store.put_new(&key, body.clone()).await.with_context(|| format!("{what} is written"))?;
        store.put_new(&key, body.clone()).await.with_context(|| format!("{what} is recognised"))?;
        let other = store.put_new(&key, body.slice(1..)).await;
        must_fail(other, RepoErrorKind::AlreadyExists, &format!("{what} is not replaced"))?;
        ensure!(store.head(&key).await?.bytes == end, "{what} has another size");
        ensure!(store.get(&key, end).await? == body, "{what} reads back as something else");
        for range in [0..5, end - 5..end, end / 2 - 4_000_000..end / 2 + 4_000_000] {
            let part = store.get_range(&key, range.clone()).await.with_context(|| format!("{what}, {range:?}"))?;
            ensure!(part == body[range.start as usize..range.end as usize], "{what}, {range:?} is something else");
        }
    }
    Ok(())
}
