//! Stock restic reads what we write, and we read what it writes.

use crate::stock::*;
use backstay_repo::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

async fn some_backup(bench: &Bench) -> Committed {
    let session =
        bench.repository.backup(BackupOptions { pack_bytes: 1 << 20, ..BackupOptions::default() }).await.unwrap();
    let pages = noise(1, 3_000_001);
    session.put_directory(&path("data"), FileAttributes { mode: 0o750, ..attributes() }).await.unwrap();
    session.put_directory(&path("data/pg_wal"), attributes()).await.unwrap();
    session.put_file(&path("data/base/1"), attributes(), body(&pages, 70_000)).await.unwrap();
    session.put_file(&path("data/base/same"), attributes(), body(&pages, 8192)).await.unwrap();
    session.put_file(&path("data/zeros"), attributes(), body(&[0; 1 << 20], 8192)).await.unwrap();
    session.put_file(&path("data/empty"), attributes(), body(&[], 1)).await.unwrap();
    session.put_file(&path("data/odd \"name\"\n\\é\u{200b}"), attributes(), body(b"odd", 1)).await.unwrap();
    session.put_symlink(&path("data/link"), "/elsewhere/é", attributes().modified).await.unwrap();
    session.put_file(&path(".backstay/manifest.json"), attributes(), body(b"{}", 9)).await.unwrap();
    session.commit(meta()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_restic_checks_lists_and_restores_what_we_write() {
    let bench = Bench::new().await;
    let backup = some_backup(&bench).await;
    bench.assert_sound().await;

    let listed = bench.restic(&["ls", backup.id.as_str()]);
    assert!(listed.contains("/data/base/same") && listed.contains("/.backstay/manifest.json"), "{listed}");
    let snapshots = bench.restic(&["snapshots", "--json"]);
    assert!(snapshots.contains(backup.id.as_str()) && snapshots.contains("target=shop"), "{snapshots}");
    assert_eq!(bench.restic(&["list", "locks"]), "", "a lock was left");

    let (folder, _) = bench.target("restored");
    bench.restic(&["restore", backup.id.as_str(), "--target", folder.to_str().unwrap()]);
    assert_eq!(std::fs::read(folder.join("data/base/1")).unwrap(), noise(1, 3_000_001));
    assert_eq!(std::fs::read(folder.join("data/base/same")).unwrap(), noise(1, 3_000_001));
    assert_eq!(std::fs::read(folder.join("data/zeros")).unwrap(), vec![0; 1 << 20]);
    assert_eq!(std::fs::read(folder.join("data/odd \"name\"\n\\é\u{200b}")).unwrap(), b"odd");
    assert_eq!(std::fs::read_link(folder.join("data/link")).unwrap().to_str(), Some("/elsewhere/é"));
    let there = std::fs::metadata(folder.join("data/empty")).unwrap();
    assert_eq!((there.len(), there.permissions().mode() & 0o7777), (0, 0o640));
    assert_eq!((there.mtime(), there.mtime_nsec()), (1_795_316_645, 678_901_000));
    assert_eq!(std::fs::metadata(folder.join("data")).unwrap().permissions().mode() & 0o7777, 0o750);
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_restic_prunes_and_retags_beside_us() {
    let bench = Bench::new().await;
    let first = some_backup(&bench).await;
    let second = some_backup(&bench).await;
    assert!(second.totals.uploaded == 0, "an unchanged backup uploaded {:?}", second.totals);
    bench.restic(&["tag", "--add", "kept", second.id.as_str()]);
    bench.restic(&["forget", "--prune", first.id.as_str()]);
    bench.assert_sound().await;
    let left = bench.repository.snapshots().await.unwrap();
    assert_eq!(left.len(), 1);
    assert!(left[0].tags.contains(&"kept".to_owned()));
    let reader = bench.repository.open_snapshot(&left[0].id).await.unwrap();
    assert_eq!(reader.read_all(&path("data/base/1"), 4 << 20).await.unwrap(), noise(1, 3_000_001));
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_of_either_open_for_the_other() {
    let bench = Bench::new().await;
    let key: serde_json::Value = serde_json::from_str(&bench.restic(&["cat", "masterkey"])).unwrap();
    assert!(key["mac"]["k"].is_string() && key["encrypt"].is_string());

    let second = Password::new("second");
    let id = bench.repository.key_add(&second, KdfCost::TRIVIAL).await.unwrap();
    assert!(bench.restic(&["key", "list"]).contains(&id.short()));
    let again = Repository::open(bench.repository.store().clone(), &second).await.unwrap();
    assert_eq!(again.id(), bench.repository.id());
    let error = again.key_remove(&id.to_string()).await.unwrap_err();
    assert_eq!(error.kind(), RepoErrorKind::Conflict, "the current key went");
    bench.repository.key_remove(&id.to_string()).await.unwrap();
    let error = Repository::open(bench.repository.store().clone(), &second).await.unwrap_err();
    assert_eq!(error.kind(), RepoErrorKind::WrongPassword);
    let last = bench.repository.key_list().await.unwrap();
    assert_eq!(last.len(), 1);
    assert!(bench.repository.key_remove(&last[0].id.short()).await.is_err(), "the last key went");

    let file = bench.root.path().join("new-password");
    std::fs::write(&file, "of restic").unwrap();
    bench.restic(&["key", "add", "--new-password-file", file.to_str().unwrap()]);
    Repository::open(bench.repository.store().clone(), &Password::new("of restic")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn we_read_check_and_extend_what_stock_restic_wrote() {
    let root = tempfile::tempdir().unwrap();
    let source = root.path().join("source");
    std::fs::create_dir_all(source.join("a/b")).unwrap();
    std::fs::write(source.join("a/b/pages"), noise(3, 5_000_000)).unwrap();
    std::fs::write(source.join("a/text"), "text ".repeat(100_000)).unwrap();
    std::fs::write(source.join("a/q\"uote\u{1}"), "x").unwrap();
    std::os::unix::fs::symlink("text", source.join("a/link")).unwrap();
    let repo = root.path().join("repo");
    let run = |arguments: &[&str]| {
        let output = restic(&repo, arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["init", "--repository-version", "2"]);
    run(&["backup", source.to_str().unwrap()]);
    run(&["backup", "--compression", "off", source.to_str().unwrap(), "--force"]);

    let repository = Repository::open(store(&repo), &Password::new(PASSWORD)).await.unwrap();
    let report = repository.check(CheckOptions::everything(), |_| {}).await.unwrap();
    assert!(report.is_sound(), "{:#?}", report.errors);
    assert_eq!(report.snapshots, 2);
    let snapshots = repository.snapshots().await.unwrap();
    let reader = repository.open_snapshot(&snapshots[0].id).await.unwrap();
    let inside = path(source.strip_prefix("/").unwrap().to_str().unwrap());
    let into = root.path().join("into");
    std::fs::create_dir(&into).unwrap();
    let dir = cap_std::fs::Dir::open_ambient_dir(&into, cap_std::ambient_authority()).unwrap();
    let summary = reader.place(&inside, &dir, PlaceOptions::default()).await.unwrap();
    assert_eq!(summary.files, 3);
    let same = std::process::Command::new("diff").arg("-r").arg(&source).arg(&into).output().unwrap();
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));

    let session = repository.backup(BackupOptions::default()).await.unwrap();
    session.put_file(&path("ours"), attributes(), body(&noise(9, 1 << 20), 8192)).await.unwrap();
    session.commit(meta()).await.unwrap();
    run(&["check", "--read-data"]);
}
