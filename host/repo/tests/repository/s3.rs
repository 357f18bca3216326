//! A repository on a real S3 server, moto, which the test starts.

use crate::stock::*;
use backstay_repo::*;
use backstay_tests::s3::{BUCKET, S3};
use std::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_server_keeps_a_repository_that_stock_restic_accepts() {
    let server = S3::start().unwrap();
    let endpoint = format!("http://{}", server.address());
    let mut config = StoreConfig::new(format!("s3://{BUCKET}/deep/prefix"));
    for (name, value) in [
        ("endpoint", endpoint.as_str()),
        ("region", "us-east-1"),
        ("access-key-id", "test"),
        ("secret-access-key", "test"),
        ("path-style", "true"),
        ("allow-http", "true"),
    ] {
        config.options.insert(name.into(), value.into());
    }
    let store = Store::connect(&config).unwrap();
    store.put_new("logs/t/1/0", "won").await.unwrap();
    store.put_new("logs/t/1/0", "won").await.expect("our own write is recognised");
    let lost = store.put_new("logs/t/1/0", "lost").await.unwrap_err();
    assert_eq!(lost.kind(), RepoErrorKind::AlreadyExists);
    assert_eq!(store.list_folders("logs/t").await.unwrap(), ["1"]);
    assert_eq!(store.get_range("logs/t/1/0", 1..9).await.unwrap_err().kind(), RepoErrorKind::Damaged);
    assert_eq!(store.get("logs/t/1/1", 9).await.unwrap_err().kind(), RepoErrorKind::NotFound);

    let password = Password::new(PASSWORD);
    let repository = Repository::init(store.clone(), &password, InitOptions { kdf: KdfCost::TRIVIAL }).await.unwrap();
    let session = repository.backup(BackupOptions { pack_bytes: 1 << 20, ..BackupOptions::default() }).await.unwrap();
    let pages = noise(4, 6 << 20);
    session.put_file(&path("data/1"), attributes(), body(&pages, 100_000)).await.unwrap();
    session.put_file(&path("data/2"), attributes(), body(&pages[..3 << 20], 100_000)).await.unwrap();
    let backup = session.commit(meta()).await.unwrap();
    let repository = Repository::open(store, &password).await.unwrap();
    let report = repository.check(CheckOptions::everything(), |_| {}).await.unwrap();
    assert!(report.is_sound(), "{:#?}", report.errors);
    assert_eq!(report.unreferenced_packs, 0);
    let folder = tempfile::tempdir().unwrap();
    let dir = cap_std::fs::Dir::open_ambient_dir(folder.path(), cap_std::ambient_authority()).unwrap();
    let reader = repository.open_snapshot(&backup.id).await.unwrap();
    reader.place(&path("data"), &dir, PlaceOptions::default()).await.unwrap();
    assert!(std::fs::read(folder.path().join("1")).unwrap() == pages);

    let output = Command::new("restic")
        .args(["--no-cache", "--repo", &format!("s3:{endpoint}/{BUCKET}/deep/prefix"), "check", "--read-data"])
        .envs([("RESTIC_PASSWORD", PASSWORD), ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
