//! Doing what a plan says, in the order that loses nothing.

use super::{PrunePlan, PruneProgress, PruneReport};
use crate::aligned::AlignedBuffer;
use crate::index::{IndexFile, Place, load_file};
use crate::limits::{DELETES_AT_ONCE, INDEX_BLOBS_MAX, PACK_BYTES, REPACKS_AT_ONCE};
use crate::lock::Lock;
use crate::pack::PackedBlob;
use crate::read::fetch::{Reads, get, open_all};
use crate::write::packer::Packer;
use crate::{Id, RepoError, RepoErrorKind, Repository, Result, document};
use futures::{StreamExt, TryStreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::runtime::Handle;

type Progress<'p> = &'p (dyn Fn(PruneProgress) + Send + Sync);

pub(super) async fn perform(
    repository: &Repository,
    lock: &Arc<Lock>,
    plan: PrunePlan,
    progress: Progress<'_>,
) -> Result<PruneReport> {
    let mut report = PruneReport::default();
    // A backup that was forgotten must not come back with a power cut once its packs are gone.
    repository.store().settle("snapshots").await?;
    if !plan.repack.is_empty() {
        repack(repository, lock, &plan, &mut report, progress).await?;
    }
    let named = replace_index(repository, lock, &plan, &mut report).await?;
    remove_packs(repository, lock, &plan, &named, &mut report, progress).await?;
    Ok(report)
}

/// Copies what is used out of the packs to repack.
async fn repack(
    repository: &Repository,
    lock: &Arc<Lock>,
    plan: &PrunePlan,
    report: &mut PruneReport,
    progress: Progress<'_>,
) -> Result<()> {
    let (store, key) = (repository.store().clone(), Arc::clone(repository.shared_key()));
    // It knows no blob: all that is used is to be written anew.
    let packer = Arc::new(Packer::new(store, key, Arc::clone(lock), Arc::default(), PACK_BYTES));
    let wanted: BTreeSet<Id> = plan.repack.iter().map(|repack| repack.pack).collect();
    let mut lists = plan.index.used_in(&wanted, &plan.used);
    let packs_total = plan.repack.len() as u64;
    let work = plan.repack.iter().map(|repack| {
        let blobs = lists.remove(&repack.pack).unwrap_or_default();
        copy(repository, &packer, repack.pack, blobs)
    });
    let mut copies = futures::stream::iter(work.collect::<Vec<_>>()).buffer_unordered(REPACKS_AT_ONCE);
    let mut packs_done = 0;
    // A damaged blob ends it: what looks superfluous may be the one whole copy.
    while let Some(bytes) = copies.try_next().await? {
        report.bytes_repacked += bytes;
        packs_done += 1;
        progress(PruneProgress::Repacking { packs_done, packs_total, bytes: report.bytes_repacked });
    }
    drop(copies);
    packer.finish().await
}

/// Copies the used blobs of one pack, verified; answers their stored bytes.
async fn copy(repository: &Repository, packer: &Arc<Packer>, pack: Id, blobs: Vec<Place>) -> Result<u64> {
    let name = pack.pack_key();
    let mut copied = 0;
    // At most a pack in memory.
    let reads: Vec<_> = Reads::new(blobs.into_iter().map(|place| (place, ()))).collect();
    let mut verified = Vec::new();
    for read in reads {
        let bytes = get(repository.store(), &name, read.range.clone()).await?;
        let kept: Vec<PackedBlob> = read.wants.iter().map(|(blob, ())| *blob).collect();
        let start = read.range.start;
        let (key, name, opened) = (Arc::clone(repository.shared_key()), name.clone(), bytes.clone());
        tokio::task::spawn_blocking(move || {
            open_all(&key, &name, read, opened, &mut AlignedBuffer::default(), |_, _| Ok(()))
        })
        .await??;
        copied += kept.iter().map(|blob| u64::from(blob.length)).sum::<u64>();
        verified.push((start, bytes, kept));
    }
    let (packer, runtime) = (Arc::clone(packer), Handle::current());
    tokio::task::spawn_blocking(move || {
        for (start, bytes, kept) in verified {
            packer.store_sealed(&runtime, &bytes, start, &kept)?;
        }
        Ok::<_, RepoError>(())
    })
    .await??;
    Ok(copied)
}

/// Writes what stays of the stale index files anew, then removes them. Answers the packs that files name which the
/// store would not let go: they must stay with them.
async fn replace_index(
    repository: &Repository,
    lock: &Arc<Lock>,
    plan: &PrunePlan,
    report: &mut PruneReport,
) -> Result<BTreeSet<Id>> {
    let gone = plan.gone();
    let (store, key) = (repository.store(), repository.shared_key());
    let mut named: BTreeSet<Id> = BTreeSet::new();
    let mut next = IndexFile::default();
    let mut blobs = 0;
    lock.confirm().await?;
    for id in &plan.index_files {
        let file = load_file(store, key, *id).await?;
        for pack in file.packs {
            if gone.contains(&pack.id) || plan.named.contains(&pack.id) || !named.insert(pack.id) {
                continue;
            }
            if blobs > 0 && blobs + pack.blobs.len() > INDEX_BLOBS_MAX {
                write_index(repository, std::mem::take(&mut next), &plan.index_files).await?;
                blobs = 0;
            }
            blobs += pack.blobs.len();
            next.packs.push(pack);
        }
    }
    if !next.packs.is_empty() {
        write_index(repository, next, &plan.index_files).await?;
    }
    lock.confirm().await?;
    let stale = plan.index_files.iter().map(|id| (*id, id.key("index"))).collect();
    let refused = remove(repository, lock, stale, |_| {}).await?;
    // Nor may an index file that names them.
    store.settle("index").await?;
    report.index_files_replaced = (plan.index_files.len() - refused.len()) as u64;
    report.refused += refused.len() as u64;
    let mut named = BTreeSet::new();
    for id in refused {
        named.extend(load_file(store, key, id).await?.packs.iter().map(|pack| pack.id));
    }
    Ok(named)
}

async fn write_index(repository: &Repository, file: IndexFile, replaced: &BTreeSet<Id>) -> Result<()> {
    let id = document::save(repository.store(), repository.master_key(), "index", &file).await?;
    // Sealing is random, so the name is new.
    debug_assert!(!replaced.contains(&id));
    Ok(())
}

async fn remove_packs(
    repository: &Repository,
    lock: &Arc<Lock>,
    plan: &PrunePlan,
    named: &BTreeSet<Id>,
    report: &mut PruneReport,
    progress: Progress<'_>,
) -> Result<()> {
    let repacked = plan.repack.iter().map(|repack| (repack.pack, repack.bytes));
    let whole = plan.unused.iter().chain(&plan.unreferenced).map(|(id, bytes)| (*id, *bytes));
    let packs: BTreeMap<Id, u64> = whole.chain(repacked).filter(|(id, _)| !named.contains(id)).collect();
    let packs_total = packs.len() as u64;
    let keys = packs.keys().map(|id| (*id, id.pack_key())).collect();
    let progress = |packs_done| progress(PruneProgress::Removing { packs_done, packs_total });
    lock.confirm().await?;
    let refused = remove(repository, lock, keys, progress).await?;
    report.refused += refused.len() as u64;
    report.packs_removed = packs_total - refused.len() as u64;
    report.bytes_removed = packs.iter().filter(|(id, _)| !refused.contains(id)).map(|(_, bytes)| bytes).sum();
    Ok(())
}

/// Removes objects, as long as the lock is ours; answers which the store would not let go.
async fn remove(
    repository: &Repository,
    lock: &Lock,
    objects: Vec<(Id, String)>,
    mut progress: impl FnMut(u64),
) -> Result<BTreeSet<Id>> {
    let (mut done, mut refused) = (0, BTreeSet::new());
    let mut removals = futures::stream::iter(objects)
        .map(|(id, key)| async move {
            lock.check_valid().await?;
            match repository.store().delete(&key).await {
                Err(error) if error.kind() == RepoErrorKind::Retained => {
                    tracing::warn!(%error, "an object stays for now");
                    Ok(Some(id))
                }
                other => other.map(|()| None),
            }
        })
        .buffer_unordered(DELETES_AT_ONCE);
    while let Some(kept) = removals.try_next().await? {
        refused.extend(kept);
        done += 1;
        progress(done);
    }
    Ok::<_, RepoError>(refused)
}
