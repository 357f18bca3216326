//! A check tells what is damaged, who needs it, and reads no more than it was asked to.

use crate::stock::*;
use backstay_core::{BackupId, Timestamp};
use backstay_repo::*;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One backup of the given files; `minute` tells its age.
async fn back_up(repository: &Repository, minute: u64, files: &[(&str, &[u8])]) -> BackupId {
    let options = BackupOptions { pack_bytes: 1 << 20, ..BackupOptions::default() };
    commit(repository.backup(options).await.unwrap(), minute, files).await
}

async fn commit(session: BackupSession, minute: u64, files: &[(&str, &[u8])]) -> BackupId {
    for (name, bytes) in files {
        session.put_file(&path(name), attributes(), body(bytes, 1 << 18)).await.unwrap();
    }
    let meta = SnapshotMeta { time: Some(Timestamp::from_micros(minute * 60_000_000)), ..meta() };
    session.commit(meta).await.unwrap().id
}

async fn keys(repository: &Repository, folder: &str) -> BTreeSet<String> {
    repository.store().list(folder).await.unwrap().into_iter().map(|object| object.key).collect()
}

/// A pack of data: that of the trees is small, and a check reads it whatever it is asked for.
async fn largest_pack(repository: &Repository) -> String {
    let packs = repository.store().list("data").await.unwrap();
    packs.into_iter().max_by_key(|pack| pack.bytes).unwrap().key
}

async fn check(repository: &Repository, read_data: ReadData) -> CheckReport {
    repository.check(CheckOptions { read_data }, |_| {}).await.unwrap()
}

async fn flip(repository: &Repository, key: &str, byte: usize) {
    let mut bytes = repository.store().get(key, 1 << 30).await.unwrap().to_vec();
    bytes[byte] ^= 1;
    repository.store().put_overwrite(key, bytes).await.unwrap();
}

#[tokio::test]
async fn the_parts_of_a_subset_read_everything_once_and_nothing_else() {
    let repository = in_memory().await;
    back_up(&repository, 1, &[("data/pages", &noise(1, 24 << 20))]).await;
    let all = check(&repository, ReadData::Everything).await;
    assert!(all.is_sound() && all.packs >= 20 && (all.packs_read, all.bytes_read) == (all.packs, all.bytes), "{all:?}");
    let damaged = largest_pack(&repository).await;
    flip(&repository, &damaged, 100).await;
    let (mut packs, mut bytes, mut found) = (0, 0, 0);
    for number in 1..=5 {
        let totals = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
        let sink = totals.clone();
        let read_data = ReadData::Subset(format!("{number}/5").parse().unwrap());
        let watch = move |at: CheckProgress| {
            sink.lock().unwrap().insert(at.packs_total);
        };
        let report = repository.check(CheckOptions { read_data }, watch).await.unwrap();
        assert!(
            report.packs_read < report.packs && totals.lock().unwrap().iter().all(|total| *total == report.packs_read)
        );
        (packs, bytes) = (packs + report.packs_read, bytes + report.bytes_read);
        found += report.errors.iter().filter(|problem| problem.object == damaged).count();
    }
    assert_eq!((packs, bytes, found), (all.packs, all.bytes, 1));

    let some = check(&repository, ReadData::Subset("10%".parse().unwrap())).await;
    assert!((all.bytes / 10..all.bytes / 10 + (2 << 20)).contains(&some.bytes_read), "{some:?}");
    let some = check(&repository, ReadData::Subset("3M".parse().unwrap())).await;
    assert!((3 << 20..5 << 20).contains(&some.bytes_read), "{some:?}");
    assert!(check(&repository, ReadData::Nothing).await.is_sound(), "a flipped bit shows when it is read alone");
}

#[tokio::test]
async fn a_missing_pack_is_named_with_the_newest_backups_that_need_it() {
    let repository = in_memory().await;
    let old = back_up(&repository, 1, &[("data/old", &noise(1, 100_000))]).await;
    let before = keys(&repository, "data").await;
    let mut ids = Vec::new();
    for minute in 2..10 {
        let own = noise(100 + minute, 1000);
        ids.push(back_up(&repository, minute, &[("data/shared", &noise(2, 200_000)), ("data/own", &own)]).await);
    }
    ids.reverse();
    // Of the second backup: its data, with the part that all later ones share.
    let second: Vec<String> = keys(&repository, "data").await.difference(&before).cloned().collect();
    let mut large = None;
    for key in second {
        if repository.store().head(&key).await.unwrap().bytes > 150_000 {
            large = Some(key);
        }
    }
    let large = large.unwrap();
    repository.store().delete(&large).await.unwrap();
    let report = check(&repository, ReadData::Nothing).await;
    let [problem] = &report.errors[..] else { panic!("{:?}", report.errors) };
    assert_eq!(problem.object, large);
    assert_eq!(problem.affected, Some(Affected { listed: ids[..5].to_vec(), count: 8 }));
    let listed: Vec<&str> = ids[..5].iter().map(BackupId::short).collect();
    let line = format!("{large} is damaged: it is missing; needed by backups {} and 3 more", listed.join(", "));
    assert_eq!(problem.to_string(), line);
    repository.open_snapshot(&old).await.unwrap().read_all(&path("data/old"), 1 << 20).await.unwrap();
}

#[tokio::test]
async fn what_no_backup_needs_any_more_is_told_so() {
    let repository = in_memory().await;
    let gone = back_up(&repository, 1, &[("data/old", &noise(1, 100_000))]).await;
    back_up(&repository, 2, &[("data/new", &noise(2, 1000))]).await;
    let largest = largest_pack(&repository).await;
    flip(&repository, &largest, 10).await;
    let report = check(&repository, ReadData::Everything).await;
    assert_eq!(report.errors[0].affected, Some(Affected { listed: vec![gone.clone()], count: 1 }));
    repository.store().delete(&format!("snapshots/{gone}")).await.unwrap();
    let report = check(&repository, ReadData::Everything).await;
    let [problem] = &report.errors[..] else { panic!("{:?}", report.errors) };
    assert!(problem.object == largest && problem.to_string().ends_with("; no backup is harmed"), "{problem}");
}

/// The name of the pack that holds what `file` is made of is where its restore fails.
#[tokio::test]
async fn of_two_copies_of_a_blob_the_one_that_is_read_is_needed() {
    let repository = in_memory().await;
    let options = || BackupOptions { pack_bytes: 1 << 20, ..BackupOptions::default() };
    let bytes = noise(1, 100_000);
    // Both look at the index before either has written to it.
    let sessions = [repository.backup(options()).await.unwrap(), repository.backup(options()).await.unwrap()];
    let mut ids = Vec::new();
    for (minute, session) in (1..).zip(sessions) {
        ids.push(commit(session, minute, &[("data/file", &bytes)]).await);
    }
    let mut needed = Vec::new();
    for key in keys(&repository, "data").await {
        let whole = repository.store().get(&key, 1 << 30).await.unwrap();
        if whole.len() < 50_000 {
            continue;
        }
        repository.store().delete(&key).await.unwrap();
        let report = check(&repository, ReadData::Nothing).await;
        let [problem] = &report.errors[..] else { panic!("{:?}", report.errors) };
        let count = problem.affected.as_ref().unwrap().count;
        for id in &ids {
            let fresh = Repository::open(repository.store().clone(), &Password::new("x")).await.unwrap();
            let read = fresh.open_snapshot(id).await.unwrap().read_all(&path("data/file"), 1 << 20).await;
            assert_eq!(read.is_err(), count > 0, "{problem}");
        }
        needed.push(count);
        repository.store().put_new(&key, whole).await.unwrap();
    }
    needed.sort_unstable();
    assert_eq!(needed, [0, 2]);
}

#[tokio::test]
async fn blobs_that_no_index_file_names_are_one_problem_of_the_backups_that_need_them() {
    let repository = in_memory().await;
    let sound = back_up(&repository, 1, &[("data/old", &noise(1, 1000))]).await;
    let before = keys(&repository, "index").await;
    let broken = back_up(&repository, 2, &[("data/new", &noise(2, 1_000_000))]).await;
    let index = keys(&repository, "index").await.difference(&before).next().unwrap().clone();
    repository.store().delete(&index).await.unwrap();
    let report = check(&repository, ReadData::Everything).await;
    let [problem] = &report.errors[..] else { panic!("{:?}", report.errors) };
    assert!(problem.object == "index" && problem.what.contains("no file of it names"), "{problem}");
    assert_eq!(problem.affected, Some(Affected { listed: vec![broken.clone()], count: 1 }));
    let fresh = Repository::open(repository.store().clone(), &Password::new("x")).await.unwrap();
    fresh.open_snapshot(&sound).await.unwrap().read_all(&path("data/old"), 1 << 20).await.unwrap();
    let error = fresh.open_snapshot(&broken).await.unwrap().nodes().await.unwrap_err();
    assert_eq!(error.kind(), RepoErrorKind::Damaged);
}

#[tokio::test]
async fn objects_that_do_not_belong_are_named() {
    let repository = in_memory().await;
    back_up(&repository, 1, &[("data/file", b"x")]).await;
    let strangers = ["data/x", "index/readme", "keys/no", "snapshots/a/b"];
    for key in strangers {
        repository.store().put_new(key, "?").await.unwrap();
    }
    let report = check(&repository, ReadData::Nothing).await;
    let named: BTreeSet<&str> = report.errors.iter().map(|problem| problem.object.as_str()).collect();
    assert_eq!(named, BTreeSet::from(strangers));
    assert!(report.errors.iter().all(|problem| problem.to_string().ends_with(" does not belong there")));
}
