//! A backup that cannot be read hides no other, and is in the way of whoever removes or copies.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::damage::{Repo, at, manifest};
use backstay_core::Timestamp;
use backstay_repo::{BackupOptions, FileAttributes, SnapshotMeta};
use bytes::Bytes;

/// A backup of this target that holds nothing but its manifest, of this format.
async fn back_up(repository: &Repository, target: &str, format: u32) -> BackupId {
    let manifest = BackupManifest { format, target: target.parse().unwrap(), ..manifest(at(1, 10), at(1, 20)) };
    let session = repository.backup(BackupOptions::default()).await.unwrap();
    let attributes = FileAttributes { mode: 0o600, modified: Timestamp::from_micros(0) };
    let body = stream::iter([Ok(Bytes::from(serde_json::to_vec(&manifest).unwrap()))]);
    session.put_file(&RelativePath::new(MANIFEST_PATH).unwrap(), attributes, body).await.unwrap();
    session.commit(SnapshotMeta::default()).await.unwrap().id
}

/// What is there when one of target `old` was damaged before another one of target `new` was made.
async fn expect_one_in_the_way(repository: &Repository, old: &BackupId, new: &BackupId, kind: FailureKind) {
    let target: TargetName = "new".parse().unwrap();
    let ids = |backups: Vec<Backup>| backups.into_iter().map(|backup| backup.id).collect::<Vec<_>>();
    for asked in [None, Some(new)] {
        let found = readable_backups(repository, &target, asked).await.unwrap();
        assert_eq!(ids(found), std::slice::from_ref(new));
    }
    let found = readable_entries(repository, None, None).await.unwrap();
    assert_eq!(found.len(), 1);
    let asked_for = readable_entries(repository, None, Some(old.short())).await.unwrap_err();
    assert_eq!(asked_for.kind, kind);
    assert!(asked_for.message.contains(old.short()) && asked_for.hint.is_some(), "{asked_for:?}");
    assert_eq!(readable_backups(repository, &target, Some(old)).await.unwrap_err().kind, kind);
    assert_eq!(entries(repository, Some(&target)).await.unwrap_err().kind, kind);
}

#[tokio::test]
async fn a_damaged_snapshot_tree_or_manifest_hides_no_other_backup() {
    for folder in ["snapshots", "data"] {
        let repo = Repo::new().await;
        let repository = repo.open().await;
        let old = back_up(&repository, "old", 1).await;
        repo.flip(folder);
        let new = back_up(&repository, "new", 1).await;
        expect_one_in_the_way(&repository, &old, &new, FailureKind::Damaged).await;
    }
}

#[tokio::test]
async fn a_backup_of_a_newer_format_hides_no_other_backup() {
    let repo = Repo::new().await;
    let repository = repo.open().await;
    let old = back_up(&repository, "old", 2).await;
    let new = back_up(&repository, "new", 1).await;
    expect_one_in_the_way(&repository, &old, &new, FailureKind::Failed).await;
}

#[test]
fn trouble_of_the_whole_store_is_no_damage_of_one_backup() {
    let is_of_one = |kind| of_one_object(RepoError::new(kind, "x")).is_ok();
    assert!(is_of_one(RepoErrorKind::Damaged) && is_of_one(RepoErrorKind::Store));
    assert!(!is_of_one(RepoErrorKind::Unreachable) && !is_of_one(RepoErrorKind::Denied));
}
