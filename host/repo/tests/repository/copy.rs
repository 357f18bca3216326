//! Snapshots in another repository, under another key. Stock restic is the judge of both.

use crate::stock::*;
use backstay_repo::*;

async fn backup(bench: &Bench, files: &[(&str, u64, usize)], parent: Option<&Committed>) -> Committed {
    let session = bench.repository.backup(BackupOptions { pack_bytes: 1 << 20, ..BackupOptions::default() }).await;
    let session = session.unwrap();
    for (name, seed, length) in files {
        session.put_file(&path(name), attributes(), body(&noise(*seed, *length), 8192)).await.unwrap();
    }
    session.put_file(&path("text"), attributes(), body(&b"text ".repeat(100_000), 8192)).await.unwrap();
    let meta = SnapshotMeta { parent: parent.map(|parent| parent.id.clone()), ..meta() };
    session.commit(meta).await.unwrap()
}

async fn copy(from: &Bench, to: &Bench) -> (CopyPlan, CopyReport) {
    let snapshots = from.repository.snapshots().await.unwrap();
    let copy = SnapshotCopy::plan(&from.repository, &to.repository, snapshots).await.unwrap();
    let plan = copy.summary().clone();
    (plan, copy.perform(|_, _| {}).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_whole_under_the_other_key_and_what_is_there_is_not_sent_again() {
    let (from, to) = (Bench::new().await, Bench::new().await);
    let first = backup(&from, &[("data/a", 1, 3_000_000)], None).await;
    let second = backup(&from, &[("data/a", 1, 3_000_000), ("data/b", 2, 1_000_000)], Some(&first)).await;
    let (plan, report) = copy(&from, &to).await;
    assert_eq!((plan.snapshots.len(), plan.there.len(), report.copied.len()), (2, 0, 2));
    assert_eq!((report.bytes, report.damaged.len()), (plan.bytes, 0));
    assert!(plan.snapshots[1].bytes < plan.snapshots[0].bytes / 2, "what both share was sent twice: {plan:?}");
    for bench in [&from, &to] {
        bench.assert_sound().await;
        assert_eq!(bench.restic(&["list", "locks"]), "", "a lock was left");
    }
    assert_ne!(
        to.restic(&["cat", "masterkey"]),
        from.restic(&["cat", "masterkey"]),
        "the copy is sealed with the same key"
    );
    let copied = to.repository.snapshots().await.unwrap();
    let ids: Vec<_> = report.copied.iter().map(|copied| copied.to.clone()).collect();
    assert_eq!(copied.iter().map(|snapshot| snapshot.id.clone()).collect::<Vec<_>>(), ids);
    assert_eq!(report.copied[1].from, second.id);
    assert_eq!((copied[1].parent.as_ref(), &copied[1].tags), (Some(&ids[0]), &meta().tags));
    let (folder, _) = to.target("restored");
    to.restic(&["restore", ids[1].as_str(), "--target", folder.to_str().unwrap()]);
    assert_eq!(std::fs::read(folder.join("data/a")).unwrap(), noise(1, 3_000_000));
    assert_eq!(std::fs::read(folder.join("text")).unwrap(), b"text ".repeat(100_000));

    let third = backup(&from, &[("data/b", 2, 1_000_000)], Some(&second)).await;
    let (plan, report) = copy(&from, &to).await;
    assert_eq!((plan.there.len(), report.copied.len()), (2, 1));
    assert_eq!(report.copied[0].from, third.id);
    assert!(report.bytes < 10_000, "{} bytes were sent for trees alone", report.bytes);
    let (plan, report) = copy(&from, &to).await;
    assert_eq!((plan.there.len(), plan.bytes, report.copied.len()), (3, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_alone_sends_nothing() {
    let (from, to) = (Bench::new().await, Bench::new().await);
    backup(&from, &[("data/a", 1, 300_000)], None).await;
    let snapshots = from.repository.snapshots().await.unwrap();
    let copy = SnapshotCopy::plan(&from.repository, &to.repository, snapshots).await.unwrap();
    assert!(copy.summary().bytes > 300_000);
    copy.release().await.unwrap();
    for folder in ["data", "index", "snapshots", "locks"] {
        assert_eq!(to.repository.store().list(folder).await.unwrap(), [], "{folder}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_of_stock_restic_are_copied_with_all_they_say() {
    let (from, to) = (Bench::new().await, Bench::new().await);
    let source = from.root.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), noise(3, 2_000_000)).unwrap();
    from.restic(&["backup", "--compression", "off", "--exclude", "nothing", source.to_str().unwrap()]);
    let (_, report) = copy(&from, &to).await;
    to.assert_sound().await;
    let shown = to.restic(&["cat", "snapshot", report.copied[0].to.as_str()]);
    assert!(shown.contains("excludes") && shown.contains("nothing"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_with_rotten_bytes_is_not_copied_and_others_are() {
    let (from, to) = (Bench::new().await, Bench::new().await);
    let rotten = backup(&from, &[("data/a", 1, 900_000)], None).await;
    let pack = from.repository.store().list("data").await.unwrap().into_iter().max_by_key(|pack| pack.bytes).unwrap();
    let file = from.folder().join(pack.key);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[500] ^= 1;
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, bytes).unwrap();
    let also = backup(&from, &[("data/a", 1, 900_000), ("data/c", 3, 1000)], None).await;
    let whole = backup(&from, &[("data/b", 2, 900_000)], None).await;
    let (plan, report) = copy(&from, &to).await;
    assert_eq!((plan.snapshots.len(), report.copied.len()), (3, 1));
    assert_eq!(report.copied[0].from, whole.id);
    let named: Vec<_> = report.damaged.iter().map(|damaged| damaged.object.clone()).collect();
    assert_eq!(named, [rotten.id.to_string(), also.id.to_string()], "the one that shares the hole is none either");
    assert!(report.damaged[0].why.contains("blob"), "{report:?}");
    to.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_not_copied_into_itself() {
    let bench = Bench::new().await;
    let refused = SnapshotCopy::plan(&bench.repository, &bench.repository, Vec::new()).await.map(drop).unwrap_err();
    assert_eq!(refused.kind(), RepoErrorKind::Conflict);
    assert_eq!(bench.repository.store().list("locks").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_is_counted_once_and_by_whom() {
    let bench = Bench::new().await;
    let first = backup(&bench, &[("data/a", 1, 1_000_000)], None).await;
    backup(&bench, &[("data/a", 1, 1_000_000), ("data/b", 2, 500_000)], Some(&first)).await;
    backup(&bench, &[("data/a", 1, 1_000_000)], None).await;
    let snapshots = bench.repository.snapshots().await.unwrap();
    let grouped: Vec<_> = snapshots.iter().cloned().zip([0, 0, 1]).collect();
    let stats = bench.repository.stats(&grouped, |_| {}).await.unwrap();
    let text = 500_000;
    assert_eq!((stats.all.snapshots, stats.all.restore_bytes), (3, 3_500_000 + 3 * text));
    assert_eq!(stats.groups[1].restore_bytes, 1_000_000 + text);
    assert_eq!(stats.added[2].stored_bytes, 0, "the third brought nothing that the first had not");
    assert_eq!((stats.added[1].restore_bytes, stats.added[1].files), (1_500_000 + text, 3));
    assert!((500_000..510_000).contains(&stats.added[1].plain_bytes), "{stats:?}");
    // Trees are blobs as well.
    assert!((1_500_000 + text..1_520_000 + text).contains(&stats.all.plain_bytes), "{stats:?}");
    assert!(stats.groups[0].plain_bytes == stats.all.plain_bytes && stats.groups[1].plain_bytes < 1_600_000);
    assert_eq!((stats.unreferenced_bytes, stats.unindexed_packs), (0, 0), "{stats:?}");

    bench.repository.store().delete(&format!("snapshots/{}", snapshots[1].id)).await.unwrap();
    let grouped: Vec<_> = [snapshots[0].clone(), snapshots[2].clone()].into_iter().map(|one| (one, 0)).collect();
    let stats = bench.repository.stats(&grouped, |_| {}).await.unwrap();
    assert!((500_000..520_000).contains(&stats.unreferenced_bytes), "{stats:?}");
    let freed = bench.restic(&["prune", "--max-unused", "0"]);
    let packs: u64 = bench.repository.store().list("data").await.unwrap().iter().map(|pack| pack.bytes).sum();
    let now = bench.repository.stats(&grouped, |_| {}).await.unwrap();
    assert_eq!((now.unreferenced_bytes, now.pack_bytes), (0, packs), "{freed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_come_along_under_the_new_ids() {
    let (from, to) = (Bench::new().await, Bench::new().await);
    let first = backup(&from, &[("data/a", 1, 100_000)], None).await;
    backup(&from, &[("data/b", 2, 100_000)], Some(&first)).await;
    from.repository.pin(&first.id, "before the migration").await.unwrap();
    let (_, report) = copy(&from, &to).await;
    let pins = to.repository.pins().await.unwrap();
    assert_eq!(pins.keys().collect::<Vec<_>>(), [&report.copied[0].to]);
    assert_eq!(pins[&report.copied[0].to].reason, "before the migration");
    // What was pinned later comes with the next copy, though the backup was there.
    to.repository.unpin(&report.copied[0].to).await.unwrap();
    let (plan, _) = copy(&from, &to).await;
    assert_eq!((plan.there.len(), to.repository.pins().await.unwrap().len()), (2, 1));
    to.assert_sound().await;
}
