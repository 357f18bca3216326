//! What nothing refers to goes, everything else stays; stock restic is the judge.

use crate::stock::*;
use backstay_core::BackupId;
use backstay_repo::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A backup of files, each with the seeds of its chunks of 64 KiB: equal seeds are equal chunks.
async fn backup(bench: &Bench, files: &[(&str, &[u64])]) -> BackupId {
    let chunking = Chunking::Fixed { bytes: 64 << 10 };
    let options = BackupOptions { pack_bytes: 1 << 20, chunking, ..BackupOptions::default() };
    let session = bench.repository.backup(options).await.unwrap();
    for (name, seeds) in files {
        session.put_file(&path(name), attributes(), body(&content(seeds), 70_000)).await.unwrap();
    }
    session.commit(meta()).await.unwrap().id
}

fn content(seeds: &[u64]) -> Vec<u8> {
    seeds.iter().flat_map(|seed| noise(*seed, 64 << 10)).collect()
}

async fn assert_holds(bench: &Bench, backup: &BackupId, files: &[(&str, &[u64])]) {
    let reader = bench.repository.open_snapshot(backup).await.unwrap();
    for (name, seeds) in files {
        assert_eq!(reader.read_all(&path(name), 1 << 30).await.unwrap(), content(seeds), "{name}");
    }
}

/// Everything below the repository's folder, with its size.
fn objects(bench: &Bench) -> BTreeMap<String, u64> {
    let folder = bench.folder();
    files_below(&folder).map(|file| (name_below(&folder, &file), file.metadata().unwrap().len())).collect()
}

fn data_bytes(bench: &Bench) -> u64 {
    objects(bench).iter().filter(|(name, _)| name.starts_with("data/")).map(|(_, bytes)| bytes).sum()
}

/// As restic says it: nothing wrong, and no pack that nothing refers to.
async fn assert_tight(bench: &Bench) {
    bench.assert_sound().await;
    let out = bench.restic(&["check"]);
    assert!(!out.contains("not referenced") && !out.contains("unreferenced"), "{out}");
    assert_eq!(bench.repository.check(CheckOptions::default(), |_| {}).await.unwrap().unreferenced_packs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_forgotten_backup_alone_had_goes_and_the_rest_stays() {
    let bench = Bench::new().await;
    let old: &[(&str, &[u64])] = &[("data/a", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18])];
    let new: &[(&str, &[u64])] = &[("data/a", &[1, 2, 30, 31, 5, 6, 7]), ("data/b", &[40, 1])];
    let first = backup(&bench, old).await;
    let second = backup(&bench, new).await;
    let full = data_bytes(&bench);
    let none = bench.repository.plan_prune(&PruneOptions::default(), &|_| {}).await.unwrap();
    assert_eq!(none.bytes_freed(), 0);
    let going = [first.clone()].into();
    let foretold = bench.repository.bytes_freed_without(&going, &PruneOptions::default(), &|_| {}).await.unwrap();
    bench.repository.forget(std::slice::from_ref(&first), &[]).await.unwrap();
    let look = bench.repository.plan_prune(&PruneOptions::default(), &|_| {}).await.unwrap();
    let (plan, report) = prune(&bench.repository, &PruneOptions::default()).await;
    assert_eq!(plan.bytes_freed(), look.bytes_freed(), "the look and the plan are the same");
    assert_eq!(plan.bytes_freed(), foretold, "and what was told before it was forgotten");
    assert!(report.bytes_repacked > 0 && report.packs_removed > 0, "{report:?}");
    // Thirteen chunks of eighteen are needed no more.
    let freed = full - data_bytes(&bench);
    assert!(freed > 12 * (64 << 10), "freed {freed} of {full}");
    assert!(freed.abs_diff(plan.bytes_freed()) < 4096, "freed {freed}, planned {}", plan.bytes_freed());
    assert_holds(&bench, &second, new).await;
    assert_tight(&bench).await;
    let again = bench.repository.plan_prune(&PruneOptions::default(), &|_| {}).await.unwrap();
    assert!(again.is_empty(), "{again:?}");
    // What was repacked is found again.
    let before = data_bytes(&bench);
    let third = backup(&bench, new).await;
    assert_eq!(data_bytes(&bench), before);
    assert_holds(&bench, &third, new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_changes_nothing() {
    let bench = Bench::new().await;
    let first = backup(&bench, &[("a", &[1, 2, 3])]).await;
    backup(&bench, &[("a", &[4])]).await;
    bench.repository.forget(&[first], &[]).await.unwrap();
    let before = objects(&bench);
    let plan = bench.repository.plan_prune(&PruneOptions::default(), &|_| {}).await.unwrap();
    assert!(!plan.is_empty());
    assert_eq!(objects(&bench), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_that_hold_little_waste_are_left_until_it_adds_up() {
    let bench = Bench::new().await;
    let seeds: Vec<u64> = (1..=64).collect();
    let first = backup(&bench, &[("a", &seeds)]).await;
    let kept: Vec<u64> = (1..=62).collect();
    let second = backup(&bench, &[("a", &kept)]).await;
    bench.repository.forget(&[first], &[]).await.unwrap();
    // Two of 64 chunks: 3 %. The forgotten backup's tree is copied out all the same: trees are small and read often.
    let (plan, _) = prune(&bench.repository, &PruneOptions::default()).await;
    let data = plan.repack.iter().filter(|repack| repack.bytes > 64 << 10).count();
    assert_eq!(data, 0, "{plan:?}");
    assert!(plan.unused_bytes_left > 2 * (64 << 10), "{plan:?}");
    let thorough = PruneOptions { unused_percent_max: 0.0, ..PruneOptions::default() };
    let (plan, _) = prune(&bench.repository, &thorough).await;
    assert_eq!(plan.unused_bytes_left, 0);
    assert!(!plan.repack.is_empty());
    assert_holds(&bench, &second, &[("a", &kept)]).await;
    assert_tight(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_copied_at_most_may_be_bounded() {
    let bench = Bench::new().await;
    let seeds: Vec<u64> = (1..=64).collect();
    let first = backup(&bench, &[("a", &seeds)]).await;
    let kept: Vec<u64> = seeds.iter().copied().filter(|seed| seed % 2 == 0).collect();
    let second = backup(&bench, &[("a", &kept)]).await;
    bench.repository.forget(&[first], &[]).await.unwrap();
    let bounded = PruneOptions { repack_bytes_max: 1 << 20, ..PruneOptions::default() };
    let (plan, report) = prune(&bench.repository, &bounded).await;
    assert!(report.bytes_repacked <= 1 << 20 && report.bytes_repacked > 0, "{report:?}");
    assert!(plan.unused_bytes_left > 0);
    assert_holds(&bench, &second, &[("a", &kept)]).await;
    assert_tight(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_packs_and_index_files_become_few() {
    let bench = Bench::new().await;
    let mut backups = Vec::new();
    for number in 0..20u64 {
        backups.push((backup(&bench, &[("a", &[number])]).await, number));
    }
    let before = objects(&bench);
    let count = |all: &BTreeMap<String, u64>, start: &str| all.keys().filter(|name| name.starts_with(start)).count();
    assert_eq!((count(&before, "data/"), count(&before, "index/")), (40, 20));
    prune(&bench.repository, &PruneOptions::default()).await;
    let after = objects(&bench);
    assert!(count(&after, "data/") <= 3 && count(&after, "index/") <= 2, "{after:?}");
    for (id, number) in &backups {
        assert_holds(&bench, id, &[("a", &[*number])]).await;
    }
    assert_tight(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_interrupted_writers_left_goes() {
    let bench = Bench::new().await;
    let kept = backup(&bench, &[("a", &[1])]).await;
    let lost =
        bench.repository.backup(BackupOptions { pack_bytes: 1 << 20, ..BackupOptions::default() }).await.unwrap();
    lost.put_file(&path("b"), attributes(), body(&noise(7, 3 << 20), 70_000)).await.unwrap();
    lost.abandon().await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let left = bench.repository.check(CheckOptions::default(), |_| {}).await.unwrap().unreferenced_packs;
    assert!(left > 0, "the test needs packs that nobody refers to");
    let (plan, _) = prune(&bench.repository, &PruneOptions::default()).await;
    assert_eq!(plan.unreferenced.len() as u64, left);
    assert_holds(&bench, &kept, &[("a", &[1])]).await;
    assert_tight(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_when_it_cannot_be_told_what_is_used() {
    let bench = Bench::new().await;
    backup(&bench, &[("a", &[1])]).await;
    let first = backup(&bench, &[("b", &[2, 3])]).await;
    bench.repository.forget(&[first], &[]).await.unwrap();
    let trees: Vec<String> = objects(&bench)
        .into_iter()
        .filter(|(name, bytes)| name.starts_with("data/") && *bytes < 4096)
        .map(|(name, _)| name)
        .collect();
    std::fs::remove_file(bench.folder().join(&trees[0])).unwrap();
    std::fs::remove_file(bench.folder().join(&trees[1])).unwrap();
    let before = objects(&bench);
    let error = bench.repository.plan_prune(&PruneOptions::default(), &|_| {}).await.unwrap_err();
    assert_eq!(error.kind(), RepoErrorKind::Damaged);
    assert!(error.to_string().contains("nothing was removed"), "{error}");
    assert_eq!(objects(&bench), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_is_not_copied_and_nothing_goes() {
    let bench = Bench::new().await;
    let seeds: Vec<u64> = (1..=14).collect();
    let first = backup(&bench, &[("a", &seeds)]).await;
    backup(&bench, &[("a", &seeds[..7])]).await;
    bench.repository.forget(&[first], &[]).await.unwrap();
    let pack =
        objects(&bench).into_iter().find(|(name, bytes)| name.starts_with("data/") && *bytes > 64 << 10).unwrap();
    let file = bench.folder().join(&pack.0);
    let mut bytes = std::fs::read(&file).unwrap();
    for at in (1000..bytes.len()).step_by(32 << 10) {
        bytes[at] ^= 1;
    }
    let mut permissions = std::fs::metadata(&file).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    std::fs::set_permissions(&file, permissions).unwrap();
    std::fs::write(&file, bytes).unwrap();
    let before = objects(&bench);
    let lock = Arc::new(bench.repository.lock(LockKind::Exclusive).await.unwrap());
    let plan = bench.repository.plan_prune(&PruneOptions::default(), &|_| {}).await.unwrap();
    let error = bench.repository.prune(&lock, plan, &|_| {}).await.unwrap_err();
    lock.give_back().await.unwrap();
    assert_eq!(error.kind(), RepoErrorKind::Damaged, "{error}");
    let after = objects(&bench);
    assert!(before.keys().all(|name| after.contains_key(name)), "something went");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_lock_does_not_do() {
    let bench = Bench::new().await;
    backup(&bench, &[("a", &[1])]).await;
    let lock = Arc::new(bench.repository.lock(LockKind::Shared).await.unwrap());
    let plan = bench.repository.plan_prune(&PruneOptions::default(), &|_| {}).await.unwrap();
    assert_eq!(bench.repository.prune(&lock, plan, &|_| {}).await.unwrap_err().kind(), RepoErrorKind::Internal);
    let refused = bench.repository.lock(LockKind::Exclusive).await.map(drop).unwrap_err();
    assert_eq!(refused.kind(), RepoErrorKind::Locked);
    lock.give_back().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_restic_and_we_prune_what_the_other_forgot() {
    let bench = Bench::new().await;
    let source = bench.root.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("theirs"), noise(99, 3 << 20)).unwrap();
    bench.restic(&["backup", source.to_str().unwrap()]);
    let ours = backup(&bench, &[("a", &[1, 2, 3])]).await;
    let gone = backup(&bench, &[("a", &[4, 5, 6, 7])]).await;
    // Ours forgotten by restic, pruned by us; theirs forgotten by us, pruned by restic.
    bench.restic(&["forget", gone.as_str()]);
    let (plan, _) = prune(&bench.repository, &PruneOptions::default()).await;
    assert!(!plan.is_empty());
    assert_tight(&bench).await;
    let theirs = bench.repository.snapshots().await.unwrap().into_iter().find(|s| s.id != ours).unwrap();
    let reader = bench.repository.open_snapshot(&theirs.id).await.unwrap();
    let there = path(source.join("theirs").strip_prefix("/").unwrap().to_str().unwrap());
    assert_eq!(reader.read_all(&there, 1 << 30).await.unwrap(), noise(99, 3 << 20));
    bench.repository.forget(&[theirs.id], &[]).await.unwrap();
    bench.restic(&["prune"]);
    assert_holds(&bench, &ours, &[("a", &[1, 2, 3])]).await;
    assert_tight(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_say_why_and_hold_their_backup() {
    let bench = Bench::new().await;
    let one = backup(&bench, &[("a", &[1])]).await;
    bench.repository.pin(&one, "before the migration").await.unwrap();
    let pins = bench.repository.pins().await.unwrap();
    assert_eq!(pins[&one].reason, "before the migration");
    bench.assert_sound().await;
    bench.repository.pin(&one, "another").await.unwrap();
    assert_eq!(bench.repository.pins().await.unwrap()[&one].reason, "another");
    assert!(bench.repository.unpin(&one).await.unwrap());
    assert!(!bench.repository.unpin(&one).await.unwrap());
    bench.repository.pin(&one, "").await.unwrap();
    let refused = bench.repository.forget(std::slice::from_ref(&one), &[]).await.unwrap_err();
    assert_eq!(refused.kind(), RepoErrorKind::Conflict, "a pin that came after the plan counts");
    bench.repository.unpin(&one).await.unwrap();
    let two = backup(&bench, &[("a", &[2])]).await;
    bench.repository.forget(std::slice::from_ref(&two), std::slice::from_ref(&one)).await.unwrap();
    let refused = bench.repository.forget(std::slice::from_ref(&one), std::slice::from_ref(&two)).await.unwrap_err();
    assert_eq!(refused.kind(), RepoErrorKind::Conflict, "what the plan relied on is gone");
    bench.repository.forget(std::slice::from_ref(&one), &[]).await.unwrap();
    assert!(bench.repository.pins().await.unwrap().is_empty());
    assert_eq!(bench.repository.pin(&one, "").await.unwrap_err().kind(), RepoErrorKind::NotFound);
}
