//! What was lost by accident, and what can be made of the rest. Stock restic is the judge.

use crate::stock::*;
use backstay_core::BackupId;
use backstay_repo::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every object below a folder with its bytes.
fn objects(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = files_below(folder).map(walkdir::DirEntry::into_path);
    files.map(|file| (file.clone(), std::fs::read(file).unwrap())).collect()
}

fn below(bench: &Bench, folder: &str) -> Vec<PathBuf> {
    objects(&bench.folder().join(folder)).into_keys().collect()
}

fn largest_pack(bench: &Bench) -> PathBuf {
    below(bench, "data").into_iter().max_by_key(|pack| std::fs::metadata(pack).unwrap().len()).unwrap()
}

/// A backup of files of noise, by seed and length, and a manifest.
async fn backup(bench: &Bench, files: &[(&str, u64, usize)]) -> Committed {
    let session = bench.repository.backup(BackupOptions { pack_bytes: 1 << 20, ..BackupOptions::default() }).await;
    let session = session.unwrap();
    for (name, seed, length) in files {
        session.put_file(&path(name), attributes(), body(&noise(*seed, *length), 8192)).await.unwrap();
    }
    session.put_file(&path(".backstay/manifest.json"), attributes(), body(b"{}", 9)).await.unwrap();
    session.commit(meta()).await.unwrap()
}

/// These files of a backup are what was stored.
async fn assert_holds(bench: &Bench, backup: &BackupId, files: &[(&str, u64, usize)]) {
    let reader = bench.repository.open_snapshot(backup).await.unwrap();
    for (name, seed, length) in files {
        let read = reader.read_all(&path(name), 8 << 20).await.unwrap();
        assert!(read == noise(*seed, *length), "{name} is not what was stored");
    }
}

fn overwrite(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(file).unwrap();
    change(&mut bytes);
    std::fs::remove_file(file).unwrap();
    std::fs::write(file, bytes).unwrap();
}

async fn plan_index(bench: &Bench, kind: LockKind, read_data: bool) -> Result<IndexRepair> {
    IndexRepair::plan(&bench.repository, kind, IndexRepairOptions { read_data }, |_, _| {}).await
}

async fn repair_index(bench: &Bench) -> IndexPlan {
    repair_index_with(bench, false).await
}

async fn repair_index_with(bench: &Bench, read_data: bool) -> IndexPlan {
    let before = objects(&bench.folder());
    let planned = plan_index(bench, LockKind::Shared, read_data).await.unwrap();
    let shown = planned.summary().clone();
    planned.release().await.unwrap();
    assert_eq!(objects(&bench.folder()), before, "a plan changed something");
    let repair = plan_index(bench, LockKind::Exclusive, read_data).await.unwrap();
    assert_eq!(*repair.summary(), shown);
    repair.perform().await.unwrap();
    let again = plan_index(bench, LockKind::Shared, read_data).await.unwrap();
    assert!(again.summary().is_empty(), "{:?}", again.summary());
    again.release().await.unwrap();
    shown
}

async fn plan_snapshots(bench: &Bench, kind: LockKind, read_data: bool) -> Result<SnapshotRepair> {
    let options = SnapshotRepairOptions { read_data, remove_damaged: false };
    SnapshotRepair::plan(&bench.repository, kind, options, |_, _| {}).await
}

/// Why snapshots are not repaired.
async fn refused(bench: &Bench, read_data: bool) -> String {
    let error = plan_snapshots(bench, LockKind::Exclusive, read_data).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), RepoErrorKind::Damaged);
    error.to_string()
}

async fn repair_snapshots(bench: &Bench, options: SnapshotRepairOptions) -> (SnapshotsPlan, Vec<Repaired>) {
    let repair = SnapshotRepair::plan(&bench.repository, LockKind::Exclusive, options, |_, _| {}).await.unwrap();
    let plan = repair.summary().clone();
    (plan, repair.perform().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_gone_is_read_back_from_the_packs() {
    let bench = Bench::new().await;
    let made = backup(&bench, &[("data/a", 1, 3_000_000), ("data/b", 2, 500_000)]).await;
    for file in below(&bench, "index") {
        std::fs::remove_file(file).unwrap();
    }
    let plan = repair_index(&bench).await;
    assert!(plan.added_packs.len() >= 3 && plan.lost_blobs == 0 && plan.broken.is_empty(), "{plan:?}");
    bench.assert_sound().await;
    assert_holds(&bench, &made.id, &[("data/a", 1, 3_000_000)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_index_file_is_replaced_and_the_others_stay() {
    let bench = Bench::new().await;
    backup(&bench, &[("data/a", 1, 3_000_000)]).await;
    let first = below(&bench, "index");
    backup(&bench, &[("data/a", 2, 3_000_000)]).await;
    overwrite(&first[0], |bytes| bytes[40] ^= 1);
    let plan = repair_index(&bench).await;
    assert_eq!((plan.damaged_files.len(), plan.replaced_files, plan.lost_blobs), (1, 1, 0));
    assert!(plan.damaged_files[0].object.starts_with("index/") && plan.broken.is_empty(), "{plan:?}");
    assert!(!first[0].exists());
    bench.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_an_interrupted_backup_left_is_indexed_and_named_twice_is_named_once() {
    let bench = Bench::new().await;
    backup(&bench, &[("data/a", 1, 3_000_000)]).await;
    // The same entries once more, as two repairs at different times could leave them.
    let file = below(&bench, "index").remove(0);
    let kept = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    repair_index(&bench).await;
    std::fs::write(&file, kept).unwrap();
    let plan = repair_index(&bench).await;
    assert!(plan.repeated_packs >= 3 && plan.lost_blobs == 0, "{plan:?}");
    bench.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_gone_is_dropped_and_what_is_whole_of_its_backup_is_kept() {
    let bench = Bench::new().await;
    let whole = backup(&bench, &[("data/c", 3, 2_000_000)]).await;
    let old = below(&bench, "data");
    let files = [("data/a", 1, 6_000_000), ("data/b", 2, 6_000_000), ("data/deep/d", 4, 1000), ("other/e", 5, 10)];
    let holed = backup(&bench, &files).await;
    let lost = below(&bench, "data")
        .into_iter()
        .find(|pack| !old.contains(pack) && std::fs::metadata(pack).unwrap().len() > 900_000);
    std::fs::remove_file(lost.unwrap()).unwrap();

    let plan = repair_index(&bench).await;
    assert_eq!((plan.gone_packs.len(), plan.broken.len()), (1, 1));
    assert!(plan.lost_blobs > 0 && plan.broken[0].id == holed.id, "{plan:?}");
    assert!(plan.broken[0].missing.iter().any(|missing| missing.contains("chunks")), "{plan:?}");

    let before = objects(&bench.folder());
    let dry = plan_snapshots(&bench, LockKind::Shared, false);
    let dry = dry.await.unwrap();
    let shown = dry.summary().clone();
    dry.release().await.unwrap();
    assert_eq!(objects(&bench.folder()), before, "a plan changed something");
    let (plan, repaired) = repair_snapshots(&bench, SnapshotRepairOptions::default()).await;
    assert_eq!(plan, shown);
    assert_eq!((plan.broken.len(), &plan.broken[0].id), (1, &holed.id));
    let salvaged = repaired[0].salvaged.clone().unwrap();
    assert_eq!(repaired, [Repaired { removed: holed.id.clone(), salvaged: Some(salvaged.clone()), refused: false }]);
    bench.assert_sound().await;

    let reader = bench.repository.open_snapshot(&salvaged).await.unwrap();
    let tags = &reader.snapshot().tags;
    assert!(tags.contains(&"salvaged".into()) && tags.contains(&format!("original={}", holed.id)), "{tags:?}");
    assert!(tags.contains(&"target=shop".into()));
    let mut kept = 0;
    for (name, seed, length) in files {
        match reader.read_all(&path(name), 8 << 20).await {
            Ok(bytes) => {
                assert!(bytes == noise(seed, length), "{name} is not what was stored");
                kept += 1;
            }
            Err(error) => assert_eq!(error.kind(), RepoErrorKind::NotFound, "{name}: {error}"),
        }
    }
    assert!((2..4).contains(&kept), "{kept} files were kept");
    assert_eq!(plan.broken[0].whole_files, kept);
    assert!(reader.node(&path(".backstay")).await.is_err(), "what is left passes for a backup");
    let left: Vec<_> = bench.repository.snapshots().await.unwrap().into_iter().map(|snapshot| snapshot.id).collect();
    assert_eq!(left, [whole.id, salvaged.clone()]);
    let (folder, _) = bench.target("by-restic");
    bench.restic(&["restore", salvaged.as_str(), "--target", folder.to_str().unwrap()]);
    assert_eq!(std::fs::read(folder.join("other/e")).unwrap(), noise(5, 10));
    let (plan, repaired) = repair_snapshots(&bench, SnapshotRepairOptions::default()).await;
    assert!(plan.is_empty() && repaired.is_empty(), "{plan:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_rotted_are_found_by_reading_them_all() {
    let bench = Bench::new().await;
    let made = backup(&bench, &[("data/a", 1, 900_000), ("data/b", 2, 900_000), ("data/c", 3, 20)]).await;
    let pack = largest_pack(&bench);
    overwrite(&pack, |bytes| bytes[1000] ^= 1);
    let (plan, _) = repair_snapshots(&bench, SnapshotRepairOptions::default()).await;
    assert!(plan.is_empty(), "{plan:?}");
    let options = SnapshotRepairOptions { read_data: true, remove_damaged: false };
    let (plan, repaired) = repair_snapshots(&bench, options).await;
    assert_eq!((plan.broken.len(), plan.broken[0].missing.len()), (1, 1), "{plan:?}");
    assert_eq!((&plan.broken[0].id, plan.broken[0].whole_files), (&made.id, 2));
    let reader = bench.repository.open_snapshot(repaired[0].salvaged.as_ref().unwrap()).await.unwrap();
    assert_eq!(reader.read_all(&path("data/c"), 20).await.unwrap(), noise(3, 20));
    assert!(reader.node(&path("data/a")).await.is_err() || reader.node(&path("data/b")).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_stock_restic_keeps_all_it_says_of_what_is_whole() {
    let bench = Bench::new().await;
    let source = bench.root.path().join("source");
    std::fs::create_dir_all(source.join("deep/er")).unwrap();
    std::fs::write(source.join("deep/er/text"), "text").unwrap();
    std::os::unix::fs::symlink("text", source.join("deep/link")).unwrap();
    bench.restic(&["backup", "--tag", "theirs", source.to_str().unwrap()]);
    let before = below(&bench, "data");
    std::fs::write(source.join("deep/large"), noise(9, 3_000_000)).unwrap();
    bench.restic(&["backup", "--tag", "theirs", source.to_str().unwrap()]);
    let large = below(&bench, "data").into_iter().filter(|pack| !before.contains(pack));
    let large = large.max_by_key(|pack| std::fs::metadata(pack).unwrap().len()).unwrap();
    std::fs::remove_file(large).unwrap();
    repair_index(&bench).await;
    let (plan, repaired) = repair_snapshots(&bench, SnapshotRepairOptions::default()).await;
    assert_eq!((plan.snapshots, plan.broken.len(), plan.broken[0].whole_files), (2, 1, 1), "{plan:?}");
    bench.assert_sound().await;
    let salvaged = repaired[0].salvaged.clone().unwrap();
    let listed = bench.restic(&["ls", "--long", salvaged.as_str()]);
    assert!(listed.contains("deep/er/text") && listed.contains("link") && !listed.contains("large"), "{listed}");
    let shown = bench.restic(&["snapshots", "--json", salvaged.as_str()]);
    assert!(shown.contains("theirs") && shown.contains("salvaged"), "{shown}");
    let user = std::process::Command::new("id").arg("-un").output().unwrap();
    let user = String::from_utf8(user.stdout).unwrap();
    assert!(bench.restic(&["cat", "snapshot", salvaged.as_str()]).contains(user.trim()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_file_that_cannot_be_read_goes_only_when_that_was_said() {
    let bench = Bench::new().await;
    let damaged = backup(&bench, &[("data/a", 1, 1000)]).await;
    let file = bench.folder().join("snapshots").join(damaged.id.as_str());
    overwrite(&file, |bytes| bytes.truncate(50));
    let whole = backup(&bench, &[("data/a", 1, 1000)]).await;
    let (plan, _) = repair_snapshots(&bench, SnapshotRepairOptions::default()).await;
    assert!(plan.is_empty() && plan.damaged_files.len() == 1 && file.exists(), "{plan:?}");
    let options = SnapshotRepairOptions { read_data: false, remove_damaged: true };
    let (plan, repaired) = repair_snapshots(&bench, options).await;
    assert!(!plan.is_empty() && repaired.is_empty() && !file.exists());
    bench.assert_sound().await;
    assert_eq!(bench.repository.snapshots().await.unwrap()[0].id, whole.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_which_nothing_is_whole_is_removed() {
    let bench = Bench::new().await;
    backup(&bench, &[("data/a", 1, 1000)]).await;
    for pack in below(&bench, "data") {
        std::fs::remove_file(pack).unwrap();
    }
    repair_index(&bench).await;
    let (plan, repaired) = repair_snapshots(&bench, SnapshotRepairOptions::default()).await;
    assert!(plan.broken[0].missing[0].contains("tree"), "{plan:?}");
    assert_eq!((plan.broken[0].whole_files, repaired[0].salvaged.clone()), (0, None));
    assert_eq!(bench.repository.snapshots().await.unwrap().len(), 0);
    bench.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_backup_goes_for_what_only_the_index_lacks() {
    let bench = Bench::new().await;
    let first = backup(&bench, &[("data/a", 1, 3_000_000)]).await;
    let index = below(&bench, "index");
    let second = backup(&bench, &[("data/a", 1, 3_000_000), ("data/b", 2, 3_000_000)]).await;
    // One of two, then the other one too.
    for file in [index[0].clone(), below(&bench, "index").into_iter().find(|file| *file != index[0]).unwrap()] {
        std::fs::remove_file(file).unwrap();
        let before = objects(&bench.folder());
        let refused = refused(&bench, false).await;
        assert!(refused.contains("`repo repair index`") && refused.contains("nothing was removed"), "{refused}");
        assert_eq!(objects(&bench.folder()), before);
    }
    let plan = repair_index(&bench).await;
    assert!(plan.lost_blobs == 0 && plan.added_blobs > 0, "{plan:?}");
    let (plan, repaired) = repair_snapshots(&bench, SnapshotRepairOptions::default()).await;
    assert!(plan.is_empty() && repaired.is_empty(), "{plan:?}");
    bench.assert_sound().await;
    let ids: Vec<_> = bench.repository.snapshots().await.unwrap().into_iter().map(|one| one.id).collect();
    assert!(ids.contains(&first.id) && ids.contains(&second.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_interrupted_backup_left_is_no_reason_to_wait() {
    let bench = Bench::new().await;
    let holed = backup(&bench, &[("data/a", 1, 3_000_000), ("data/b", 2, 10)]).await;
    let lost = largest_pack(&bench);
    let session = bench.repository.backup(BackupOptions { pack_bytes: 1 << 20, ..BackupOptions::default() }).await;
    let session = session.unwrap();
    session.put_file(&path("data/c"), attributes(), body(&noise(3, 6_000_000), 8192)).await.unwrap();
    session.abandon().await.unwrap();
    let planned = plan_index(&bench, LockKind::Shared, false).await.unwrap();
    assert!(planned.summary().added_packs.len() > 1);
    planned.release().await.unwrap();
    std::fs::remove_file(lost).unwrap();
    let (plan, repaired) = repair_snapshots(&bench, SnapshotRepairOptions::default()).await;
    assert_eq!((plan.broken.len(), &repaired[0].removed), (1, &holed.id), "{plan:?}");
    repair_index(&bench).await;
    bench.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_lies_in_two_packs_is_lost_with_both_only() {
    // Whichever of the two is read first.
    for (which, is_gone) in [(0, true), (1, true), (0, false), (1, false)] {
        let bench = Bench::new().await;
        let options = || BackupOptions { pack_bytes: 1 << 20, ..BackupOptions::default() };
        let sessions = [bench.repository.backup(options()).await, bench.repository.backup(options()).await];
        let mut made = Vec::new();
        for session in sessions {
            let session = session.unwrap();
            session.put_file(&path("data/a"), attributes(), body(&noise(1, 900_000), 8192)).await.unwrap();
            made.push(session.commit(meta()).await.unwrap());
        }
        let large = |pack: &PathBuf| std::fs::metadata(pack).unwrap().len() > 500_000;
        let packs: Vec<_> = below(&bench, "data").into_iter().filter(large).collect();
        assert_eq!(packs.len(), 2);
        match is_gone {
            true => std::fs::remove_file(&packs[which]).unwrap(),
            false => overwrite(&packs[which], |bytes| bytes[1000] ^= 1),
        }
        let (plan, repaired) =
            repair_snapshots(&bench, SnapshotRepairOptions { read_data: true, remove_damaged: false }).await;
        assert!(plan.broken.is_empty() && repaired.is_empty(), "{plan:?}");
        let plan = repair_index_with(&bench, true).await;
        assert!(plan.lost_blobs == 0 && plan.broken.is_empty(), "{plan:?}");
        bench.assert_sound().await;
        for made in made {
            assert_holds(&bench, &made.id, &[("data/a", 1, 900_000)]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_whose_header_is_rotten_is_written_anew() {
    // In its sealed part, and in its length.
    for from_end in [20, 2] {
        let bench = Bench::new().await;
        let made = backup(&bench, &[("data/a", 1, 900_000)]).await;
        let pack = largest_pack(&bench);
        overwrite(&pack, |bytes| {
            let at = bytes.len() - from_end;
            bytes[at] ^= 1;
        });
        let report = bench.repository.check(CheckOptions::everything(), |_| {}).await.unwrap();
        let problem = report.errors[0].to_string();
        assert!(problem.contains("header") && problem.ends_with("no backup is harmed"), "{problem}");
        let plan = repair_index_with(&bench, true).await;
        assert_eq!((plan.rotten_packs.len(), plan.lost_blobs), (1, 0), "{plan:?}");
        assert!(plan.rotten_packs[0].lost_blobs == 0 && plan.rotten_packs[0].whole_blobs > 1, "{plan:?}");
        assert!(!pack.exists() && plan.broken.is_empty(), "{plan:?}");
        bench.assert_sound().await;
        assert_holds(&bench, &made.id, &[("data/a", 1, 900_000)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_of_another_length_keeps_what_opens() {
    type Change = fn(&mut Vec<u8>);
    // Its end is missing, there is something behind it, half of it is missing.
    let changes: [(Change, bool); 3] = [
        (|bytes| bytes.truncate(bytes.len() - 3), true),
        (|bytes| bytes.push(7), true),
        (|bytes| bytes.truncate(bytes.len() / 2), false),
    ];
    for (change, is_whole) in changes {
        let bench = Bench::new().await;
        let files = [("data/a", 1, 900_000)];
        let made = backup(&bench, &files).await;
        let pack = largest_pack(&bench);
        overwrite(&pack, change);
        for options in [CheckOptions::default(), CheckOptions::everything()] {
            let report = bench.repository.check(options, |_| {}).await.unwrap();
            let problem = report.errors[0].to_string();
            assert!(problem.contains("bytes, not"), "{problem}");
            assert_eq!(problem.contains("all its blobs open"), is_whole, "{problem}");
            assert_eq!(problem.ends_with("no backup is harmed"), is_whole, "{problem}");
        }
        for read_data in [false, true] {
            let plan = plan_snapshots(&bench, LockKind::Shared, read_data).await.unwrap();
            assert_eq!(plan.summary().broken.is_empty(), is_whole, "{:?}", plan.summary());
            plan.release().await.unwrap();
        }
        // Without reading every byte: what does not fit is read.
        let plan = repair_index(&bench).await;
        assert_eq!((plan.rotten_packs.len(), plan.lost_blobs == 0, plan.broken.is_empty()), (1, is_whole, is_whole));
        assert!(plan.rotten_packs[0].whole_blobs > 1 && plan.unreadable_packs.is_empty() && !pack.exists(), "{plan:?}");
        let again = backup(&bench, &files).await;
        bench.assert_sound().await;
        for made in [made, again] {
            assert_holds(&bench, &made.id, &[("data/a", 1, 900_000)]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_entry_that_is_wrong_destroys_no_pack() {
    let bench = Bench::new().await;
    let made = backup(&bench, &[("data/a", 1, 900_000)]).await;
    let pack = largest_pack(&bench);
    // Of the right size, with another blob's name.
    let file = below(&bench, "index").remove(0);
    let plain = bench.repository.master_key().open(&std::fs::read(&file).unwrap()).unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&zstd::stream::decode_all(&plain[1..]).unwrap()).unwrap();
    let named = pack.file_name().unwrap().to_str().unwrap();
    let entry = json["packs"].as_array_mut().unwrap().iter_mut().find(|entry| entry["id"] == named).unwrap();
    entry["blobs"][0]["id"] = "ab".repeat(32).into();
    let sealed = bench.repository.master_key().seal(json.to_string().as_bytes());
    std::fs::remove_file(&file).unwrap();
    let wrong = file.with_file_name(Id::of(&sealed).to_string());
    std::fs::write(&wrong, &sealed).unwrap();

    assert!(refused(&bench, true).await.contains("repair the index first"));
    let plan = repair_index_with(&bench, true).await;
    assert_eq!((plan.corrected_packs.len(), plan.rotten_packs.len(), plan.broken.len()), (1, 0, 0), "{plan:?}");
    assert!(pack.exists());
    bench.assert_sound().await;
    // Beside the right one, whichever comes first: as a repair leaves it that was interrupted, or refused.
    std::fs::write(&wrong, &sealed).unwrap();
    let report = bench.repository.check(CheckOptions::default(), |_| {}).await.unwrap();
    assert!(report.errors.iter().any(|error| error.to_string().contains("two index files")), "{:?}", report.errors);
    if let Ok(plan) = plan_snapshots(&bench, LockKind::Shared, true).await {
        assert!(plan.summary().is_empty(), "{:?}", plan.summary());
        plan.release().await.unwrap();
    }
    let plan = repair_index(&bench).await;
    assert_eq!((plan.corrected_packs.len(), plan.broken.len(), wrong.exists()), (1, 0, false), "{plan:?}");
    bench.assert_sound().await;
    assert_holds(&bench, &made.id, &[("data/a", 1, 900_000)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_pack_that_no_index_names_holds_nothing_for_readers_yet() {
    let bench = Bench::new().await;
    let made = backup(&bench, &[("data/a", 1, 900_000)]).await;
    overwrite(&largest_pack(&bench), |bytes| bytes[1000] ^= 1);
    std::fs::remove_file(below(&bench, "index").remove(0)).unwrap();
    assert!(refused(&bench, true).await.contains("repair the index first"));
    let plan = repair_index_with(&bench, true).await;
    assert_eq!((plan.rotten_packs.len(), plan.lost_blobs, plan.broken.len()), (1, 1, 1), "{plan:?}");
    let (_, repaired) = repair_snapshots(&bench, SnapshotRepairOptions::default()).await;
    assert_eq!(repaired[0].removed, made.id);
    bench.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rots_and_was_copied_is_not_put_back_by_its_header() {
    let bench = Bench::new().await;
    let files = [("data/a", 1, 900_000)];
    backup(&bench, &files).await;
    let pack = largest_pack(&bench);
    overwrite(&pack, |bytes| bytes[1000] ^= 1);
    let rotten = std::fs::read(&pack).unwrap();
    repair_index_with(&bench, true).await;
    // As it is left by a repair that was interrupted before the pack went, or whose store kept it.
    std::fs::write(&pack, &rotten).unwrap();
    let (plan, _) = repair_snapshots(&bench, SnapshotRepairOptions::default()).await;
    assert_eq!(plan.broken.len(), 1, "it was not refused: nothing that is missing lies there");
    std::fs::write(&pack, &rotten).unwrap();
    let plan = repair_index(&bench).await;
    assert_eq!((plan.added_packs.len(), plan.rotten_packs.len(), plan.lost_blobs), (0, 1, 1), "{plan:?}");
    let again = backup(&bench, &files).await;
    bench.assert_sound().await;
    assert_holds(&bench, &again.id, &[("data/a", 1, 900_000)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_for_what_was_seen_once() {
    // The damage is there when it is planned, and gone when it is done: as memory and lines garble now and then.
    for folder in ["index", "data"] {
        let bench = Bench::new().await;
        let made = backup(&bench, &[("data/a", 1, 900_000), ("data/b", 2, 10)]).await;
        let file = if folder == "index" { below(&bench, folder).remove(0) } else { largest_pack(&bench) };
        let whole = std::fs::read(&file).unwrap();
        let at = 1000.min(whole.len() / 2);
        overwrite(&file, |bytes| bytes[at] ^= 1);
        let repair = plan_index(&bench, LockKind::Exclusive, true).await.unwrap();
        assert!(!repair.summary().is_empty());
        overwrite(&file, |bytes| *bytes = whole.clone());
        let refused = repair.perform().await.unwrap_err().to_string();
        assert!(refused.contains("otherwise than a moment ago"), "{refused}");
        assert!(file.exists());
        bench.assert_sound().await;

        if folder == "data" {
            overwrite(&file, |bytes| bytes[1000] ^= 1);
            let repair = plan_snapshots(&bench, LockKind::Exclusive, true).await.unwrap();
            assert_eq!(repair.summary().broken.len(), 1);
            overwrite(&file, |bytes| *bytes = whole.clone());
            assert!(repair.perform().await.is_err());
        }
        bench.assert_sound().await;
        assert_eq!(bench.repository.snapshots().await.unwrap()[0].id, made.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_repairs_while_others_write() {
    let bench = Bench::new().await;
    let session = bench.repository.backup(BackupOptions::default()).await.unwrap();
    let refused = plan_index(&bench, LockKind::Exclusive, false).await.map(drop).unwrap_err();
    assert_eq!(refused.kind(), RepoErrorKind::Locked);
    let refused = plan_snapshots(&bench, LockKind::Exclusive, false).await.map(drop);
    assert_eq!(refused.unwrap_err().kind(), RepoErrorKind::Locked);
    session.abandon().await.unwrap();
    bench.restic(&["list", "locks"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rot_is_taken_out_and_the_next_backup_heals_all_that_need_it() {
    let bench = Bench::new().await;
    let files = [("data/a", 1, 3_000_000), ("data/b", 2, 2_000_000)];
    let first = backup(&bench, &files).await;
    let rotten = largest_pack(&bench);
    overwrite(&rotten, |bytes| bytes[1000] ^= 1);
    // Of the right size: nothing is seen without reading.
    assert!(repair_index(&bench).await.is_empty());
    let plan = repair_index_with(&bench, true).await;
    assert_eq!((plan.rotten_packs.len(), plan.broken.len()), (1, 1), "{plan:?}");
    assert!(plan.rotten_packs[0].lost_blobs == 1 && plan.rotten_packs[0].whole_blobs > 1, "{plan:?}");
    assert!(plan.lost_blobs == 1 && plan.broken[0].id == first.id && !rotten.exists(), "{plan:?}");
    let second = backup(&bench, &files).await;
    bench.assert_sound().await;
    for made in [first, second] {
        assert_holds(&bench, &made.id, &[("data/a", 1, 3_000_000), ("data/b", 2, 2_000_000)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_in_a_rotten_pack_keeps_its_kind() {
    let bench = Bench::new().await;
    let made = backup(&bench, &[("data/a", 1, 300_000)]).await;
    // Packs of trees are small.
    let second = backup(&bench, &[("data/a", 1, 300_000), ("data/deep/b", 2, 10), ("other/c", 3, 10)]).await;
    let smallest = below(&bench, "data").into_iter().min_by_key(|pack| std::fs::metadata(pack).unwrap().len()).unwrap();
    overwrite(&smallest, |bytes| bytes[20] ^= 1);
    let plan = repair_index_with(&bench, true).await;
    assert_eq!(plan.rotten_packs.len(), 1, "{plan:?}");
    let again = backup(&bench, &[("data/a", 1, 300_000), ("data/deep/b", 2, 10), ("other/c", 3, 10)]).await;
    backup(&bench, &[("data/a", 1, 300_000)]).await;
    bench.assert_sound().await;
    for id in [made.id, second.id, again.id] {
        assert_holds(&bench, &id, &[("data/a", 1, 300_000)]).await;
    }
}
