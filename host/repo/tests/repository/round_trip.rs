//! Whatever is stored comes back, and whatever is broken is noticed.

use crate::stock::*;
use backstay_core::Timestamp;
use backstay_repo::*;
use futures::StreamExt;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

const PAGE: usize = 8192;

/// A file's name and content, small enough to make many.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    seed: u64,
    length: usize,
    mode: u32,
    chunk: Chunking,
}

fn names() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-c]{1,2}",
        Just("é\u{200b}\u{1f600}".to_owned()),
        Just("\"\\n'\n\t".to_owned()),
        Just("-".to_owned()),
        "[ -.0-~]{1,8}",
        "\\PC{1,6}",
    ];
    proptest::collection::vec(part, 1..4)
        .prop_map(|parts| parts.join("/"))
        .prop_filter("a path that may be used", |path| {
            path.split('/').all(|part| !matches!(part, "" | "." | "..")) && !path.contains('\0')
        })
}

fn lengths() -> impl Strategy<Value = usize> {
    let near = prop_oneof![Just(PAGE), Just(16 << 10), Just(128 << 10), Just(1 << 20)];
    prop_oneof![
        Just(0),
        Just(1),
        (near, -1isize..=1).prop_map(|(at, off)| at.saturating_add_signed(off)),
        0usize..300_000,
    ]
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let chunk = prop_oneof![
        Just(Chunking::default()),
        Just(Chunking::Fixed { bytes: 16 << 10 }),
        Just(Chunking::Content { average_bytes: 16 << 10 }),
    ];
    // Few seeds, so that files share content; seed 0 is zeros.
    let entry = (names(), 0u64..4, lengths(), 0u32..0o1000, chunk)
        .prop_map(|(name, seed, length, mode, chunk)| Entry { name, seed, length, mode: mode | 0o400, chunk });
    proptest::collection::vec(entry, 0..12)
}

fn content(seed: u64, length: usize) -> Vec<u8> {
    if seed == 0 { vec![0; length] } else { noise(seed, length) }
}

/// Every file below `folder`: path, content, mode.
fn contents(folder: &Path) -> BTreeMap<String, (Vec<u8>, u32)> {
    use std::os::unix::fs::PermissionsExt;
    let content = |file: walkdir::DirEntry| {
        let mode = file.metadata().unwrap().permissions().mode() & 0o7777;
        (name_below(folder, &file), (std::fs::read(file.path()).unwrap(), mode))
    };
    files_below(folder).map(content).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn random_trees_come_back_whole(entries in entries(), changed in entries()) {
        runtime().block_on(async {
            let repository = in_memory().await;
            let target = tempfile::tempdir().unwrap();
            // The second placement changes the first into another backup.
            for entries in [&entries, &changed] {
                let session = repository.backup(BackupOptions { pack_bytes: 1 << 20, ..BackupOptions::default() }).await.unwrap();
                let root = path("data");
                session.put_directory(&root, attributes()).await.unwrap();
                let mut wanted = BTreeMap::new();
                for entry in entries {
                    let bytes = content(entry.seed, entry.length);
                    let file = FileAttributes { mode: entry.mode, ..attributes() };
                    let at = root.join(&path(&entry.name)).unwrap();
                    match session.put_file_cut(&at, file, entry.chunk, body(&bytes, 100_000)).await {
                        Ok(stored) => {
                            assert_eq!(stored.bytes, bytes.len() as u64);
                            wanted.insert(entry.name.clone(), (bytes, entry.mode));
                        }
                        Err(error) => assert_eq!(error.kind(), RepoErrorKind::Conflict, "{error}"),
                    }
                }
                let backup = session.commit(meta()).await.unwrap();
                let report = repository.check(CheckOptions::everything(), |_| {}).await.unwrap();
                assert!(report.is_sound(), "{:#?}", report.errors);
                let reader = repository.open_snapshot(&backup.id).await.unwrap();
                let nodes = reader.nodes().await.unwrap();
                assert_eq!(nodes.iter().filter(|node| matches!(node.kind, NodeKind::File { .. })).count(), wanted.len());
                for (name, (bytes, _)) in &wanted {
                    let at = root.join(&path(name)).unwrap();
                    let mut stream = reader.read(&at).await.unwrap();
                    let mut streamed = Vec::new();
                    while let Some(part) = stream.next().await {
                        streamed.extend_from_slice(&part.unwrap());
                    }
                    assert!(&streamed == bytes, "{name} reads differently");
                }
                let summary = reader.place(&root, &open(target.path()), PlaceOptions::default()).await.unwrap();
                assert_eq!(summary.files, wanted.len() as u64);
                assert!(contents(target.path()) == wanted, "placed differently");
            }
        });
    }
}

async fn one_file(repository: &Repository, bytes: &[u8]) -> Committed {
    let session = repository.backup(BackupOptions::default()).await.unwrap();
    session.put_file(&path("data/file"), attributes(), body(bytes, 1 << 18)).await.unwrap();
    session.commit(meta()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_this_machine_is_stored_as_the_same_bytes_that_stream_in() {
    let repository = in_memory().await;
    let folder = tempfile::tempdir().unwrap();
    for chunking in
        [Chunking::default(), Chunking::Fixed { bytes: 3 << 20 }, Chunking::Content { average_bytes: 16 << 10 }]
    {
        let session = repository.backup(BackupOptions { chunking, ..BackupOptions::default() }).await.unwrap();
        let lengths = [0, 1, PAGE - 1, 128 << 10, (128 << 10) + 1, 1 << 20, (7 << 20) + 5];
        for (number, length) in lengths.into_iter().enumerate() {
            let bytes = noise(number as u64, length);
            std::fs::write(folder.path().join("file"), &bytes).unwrap();
            let file = std::fs::File::open(folder.path().join("file")).unwrap();
            let local = session.put_local(&path(&format!("local/{number}")), attributes(), file, None).await.unwrap();
            let streamed = path(&format!("streamed/{number}"));
            let streamed = session.put_file(&streamed, attributes(), body(&bytes, 1 << 18)).await.unwrap();
            assert_eq!(local.bytes, streamed.bytes);
            assert_eq!(streamed.uploaded, 0, "the same cuts of the same bytes");
        }
        let backup = session.commit(meta()).await.unwrap();
        let reader = repository.open_snapshot(&backup.id).await.unwrap();
        for (number, length) in lengths.into_iter().enumerate() {
            let read = reader.read_all(&path(&format!("local/{number}")), 1 << 30).await.unwrap();
            assert!(read == noise(number as u64, length), "{chunking:?} {length}");
        }
    }
}

/// Backs `folder/file` up after `parent`; answers the backup, its bytes, and how many of them were not read.
async fn after(repository: &Repository, parent: Option<Parent>, folder: &Path) -> (Committed, Vec<u8>, u64) {
    let session = repository.backup(BackupOptions { parent, ..BackupOptions::default() }).await.unwrap();
    let file = std::fs::File::open(folder.join("file")).unwrap();
    session.put_local(&path("data/base/file"), attributes(), file, None).await.unwrap();
    let backup = session.commit(meta()).await.unwrap();
    let reader = repository.open_snapshot(&backup.id).await.unwrap();
    let bytes = reader.read_all(&path("data/base/file"), 1 << 30).await.unwrap();
    let unread = backup.totals.unread_bytes;
    (backup, bytes, unread)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_as_before_is_not_read_again_and_any_other_is() {
    let repository = in_memory().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, noise(1, 300_000)).unwrap();
    // The clock of the test: long after every write, as an hour between backups would be.
    let later = |hours: u64| {
        Timestamp::from_micros(Timestamp::from(std::time::SystemTime::now()).as_micros() + hours * 3_600_000_000)
    };

    let (first, _, unread) = after(&repository, None, folder.path()).await;
    assert_eq!(unread, 0);
    let parent = |backup: &Committed, begun| Some(Parent { id: backup.id.clone(), begun: Some(begun) });
    let (second, bytes, unread) = after(&repository, parent(&first, later(1)), folder.path()).await;
    assert_eq!((bytes, unread), (noise(1, 300_000), 300_000), "nothing happened to it");

    // The parent looked at the file in the moment of its last write: a later one may not show.
    let (_, _, unread) = after(&repository, parent(&second, later(0)), folder.path()).await;
    assert_eq!(unread, 0);

    // One byte, and the time of the content put back as somebody who hides it would.
    let before = std::fs::metadata(&file).unwrap().modified().unwrap();
    let mut changed = noise(1, 300_000);
    changed[200_000] ^= 1;
    std::fs::write(&file, &changed).unwrap();
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(before).unwrap();
    let (third, bytes, unread) = after(&repository, parent(&second, later(1)), folder.path()).await;
    assert_eq!((bytes == changed, unread), (true, 0));

    // Another file of the same length and time in its place.
    let other = folder.path().join("other");
    std::fs::write(&other, noise(2, 300_000)).unwrap();
    std::fs::File::options().write(true).open(&other).unwrap().set_modified(before).unwrap();
    std::fs::rename(&other, &file).unwrap();
    let (fourth, bytes, unread) = after(&repository, parent(&third, later(1)), folder.path()).await;
    assert_eq!((bytes == noise(2, 300_000), unread), (true, 0));

    // A parent that is gone is no reason to fail.
    let nobody = Some(Parent { id: "00".repeat(32).parse().unwrap(), begun: Some(later(1)) });
    let (_, _, unread) = after(&repository, nobody, folder.path()).await;
    assert_eq!(unread, 0);
    let (_, _, unread) = after(&repository, parent(&fourth, later(1)), folder.path()).await;
    assert_eq!(unread, 300_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_fails_alone() {
    let repository = in_memory().await;
    let session = repository.backup(BackupOptions::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    // A folder opens like a file, and every read of it fails.
    let unreadable = std::fs::File::open(folder.path()).unwrap();
    let error = session.put_local(&path("data/folder"), attributes(), unreadable, None).await.unwrap_err();
    assert_eq!(error.kind(), RepoErrorKind::Source);
    session.put_file(&path("data/folder"), attributes(), body(b"whole", 2)).await.unwrap();
    session.commit(meta()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_right_already_stays_and_what_does_not_belong_goes() {
    let repository = in_memory().await;
    let session = repository.backup(BackupOptions::default()).await.unwrap();
    let pages = noise(5, 4 << 20);
    session.put_file(&path("data/base/1"), attributes(), body(&pages, 1 << 18)).await.unwrap();
    session.put_file(&path("data/PG_VERSION"), attributes(), body(b"15\n", 9)).await.unwrap();
    session.put_symlink(&path("data/link"), "there", Timestamp::EPOCH).await.unwrap();
    session.put_file(&path("data/pg_tblspc/16400/hidden"), attributes(), body(b"x", 9)).await.unwrap();
    let backup = session.commit(meta()).await.unwrap();
    let reader = repository.open_snapshot(&backup.id).await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let shared = folder
        .path()
        .parent()
        .unwrap()
        .join(format!("{}-shared", folder.path().file_name().unwrap().to_str().unwrap()));
    std::fs::create_dir_all(at("base/old/deep")).unwrap();
    std::fs::create_dir_all(at("pg_tblspc/16400/own")).unwrap();
    let mut stale = pages.clone();
    stale[1_000_000] ^= 1;
    stale.extend_from_slice(b"longer");
    std::fs::write(at("base/1"), &stale).unwrap();
    std::fs::write(at("base/old/deep/file"), "x").unwrap();
    std::fs::write(&shared, "precious").unwrap();
    std::fs::hard_link(&shared, at("PG_VERSION")).unwrap();
    std::fs::create_dir(at("link")).unwrap();
    std::fs::write(at("link/inside"), "x").unwrap();

    let seen = Arc::new(std::sync::Mutex::new(PlaceProgress::default()));
    let sink = Arc::clone(&seen);
    let options = PlaceOptions {
        except: BTreeSet::from([path("pg_tblspc/16400")]),
        progress: Some(Arc::new(move |now: PlaceProgress| {
            let mut seen = sink.lock().unwrap();
            if now.bytes_done >= seen.bytes_done {
                *seen = now;
            }
        })),
    };
    let summary = reader.place(&path("data"), &open(folder.path()), options.clone()).await.unwrap();
    assert_eq!(summary.bytes, (4 << 20) + 3);
    assert_eq!(summary.kept_bytes, (4 << 20) - (128 << 10), "more than the changed chunk was fetched");
    assert_eq!(seen.lock().unwrap().bytes_done, summary.bytes);
    assert!(std::fs::read(at("base/1")).unwrap() == pages);
    assert_eq!(std::fs::read(&shared).unwrap(), b"precious", "a file outside was written through a second name");
    assert!(!at("base/old").exists() && at("pg_tblspc/16400/own").exists() && !at("pg_tblspc/16400/hidden").exists());
    assert_eq!(std::fs::read_link(at("link")).unwrap(), Path::new("there"));
    std::fs::remove_file(shared).unwrap();

    let again = reader.place(&path("data"), &open(folder.path()), options).await.unwrap();
    assert_eq!(again.kept_bytes, again.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_looked_at_in_parts_and_mended_in_all_of_them() {
    let repository = in_memory().await;
    let session = repository.backup(BackupOptions::default()).await.unwrap();
    // Two whole parts and a bit, of few different chunks.
    let part = limits::LOOK_AT_ONCE_BYTES as usize;
    let pages: Vec<u8> = noise(9, 1 << 20).into_iter().cycle().take(2 * part + 5 * PAGE + 7).collect();
    session.put_file(&path("data/base/1"), attributes(), body(&pages, 1 << 20)).await.unwrap();
    session.put_file(&path("data/empty"), attributes(), body(b"", 1)).await.unwrap();
    let backup = session.commit(meta()).await.unwrap();
    let reader = repository.open_snapshot(&backup.id).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let seen = Arc::new(std::sync::Mutex::new((0, 0)));
    let chunk = 128 << 10;
    let last = pages.len() % chunk;
    // Where a part begins, ends, and the file ends; then what is cut off; then all of it, which is not there.
    for (wrong, length, right) in [
        (vec![0, part - 1, part, 2 * part, pages.len() - 1], pages.len(), pages.len() - 3 * chunk - last),
        (vec![], part + 1, part),
        (vec![], 0, 0),
    ] {
        let mut there = pages[..length].to_vec();
        wrong.iter().for_each(|at| there[*at] ^= 1);
        std::fs::create_dir_all(folder.path().join("base")).unwrap();
        std::fs::write(folder.path().join("base/1"), &there).unwrap();
        *seen.lock().unwrap() = (0, 0);
        let sink = Arc::clone(&seen);
        let progress: Arc<dyn Fn(PlaceProgress) + Send + Sync> = Arc::new(move |now: PlaceProgress| {
            let mut seen = sink.lock().unwrap();
            *seen = (seen.0.max(now.bytes_done), seen.1.max(now.files_done));
        });
        let options = PlaceOptions { progress: Some(progress), ..PlaceOptions::default() };
        let summary = reader.place(&path("data"), &open(folder.path()), options).await.unwrap();
        assert_eq!(summary.kept_bytes, right as u64);
        assert_eq!(*seen.lock().unwrap(), (pages.len() as u64, 2));
        assert!(std::fs::read(folder.path().join("base/1")).unwrap() == pages);
        assert_eq!(std::fs::read(folder.path().join("empty")).unwrap(), b"");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_flipped_bit_on_the_store_is_noticed() {
    let repository = in_memory().await;
    let bytes = noise(7, 200_000);
    let backup = one_file(&repository, &bytes).await;
    let store = repository.store().clone();
    let seed = std::process::id();
    println!("seed {seed}");
    let mut random = noise(u64::from(seed), 1 << 16).into_iter();
    let mut next = move |below: usize| {
        let four: Vec<u8> = random.by_ref().take(4).collect();
        u32::from_le_bytes(four.try_into().unwrap()) as usize % below
    };
    for object in store.list("").await.unwrap() {
        let original = store.get(&object.key, 1 << 30).await.unwrap();
        for _ in 0..12 {
            let mut bad = original.to_vec();
            let at = next(bad.len());
            bad[at] ^= 1 << next(8);
            store.put_overwrite(&object.key, bad).await.unwrap();
            let fresh = Repository::open(store.clone(), &Password::new("x")).await;
            let noticed = match fresh {
                // A key file that was tampered with is told from a wrong password where possible.
                Err(error) => matches!(error.kind(), RepoErrorKind::Damaged | RepoErrorKind::WrongPassword),
                Ok(fresh) => !fresh.check(CheckOptions::everything(), |_| {}).await.unwrap().is_sound(),
            };
            assert!(noticed, "bit of byte {at} of {} flipped unnoticed", object.key);
        }
        store.put_overwrite(&object.key, original.clone()).await.unwrap();
        for keep in [0, original.len() / 2, original.len() - 1] {
            store.put_overwrite(&object.key, original.slice(..keep)).await.unwrap();
            match Repository::open(store.clone(), &Password::new("x")).await {
                Err(error) => assert_eq!(error.kind(), RepoErrorKind::Damaged, "{error}"),
                Ok(fresh) => {
                    let report = fresh.check(CheckOptions::default(), |_| {}).await.unwrap();
                    assert!(!report.is_sound(), "{} cut to {keep} unnoticed", object.key);
                }
            }
        }
        store.put_overwrite(&object.key, original).await.unwrap();
    }
    let fresh = Repository::open(store.clone(), &Password::new("x")).await.unwrap();
    let read = fresh.open_snapshot(&backup.id).await.unwrap().read_all(&path("data/file"), 1 << 20).await.unwrap();
    assert!(read == bytes);

    let pack = store.list("data").await.unwrap().remove(0).key;
    store.delete(&pack).await.unwrap();
    let fresh = Repository::open(store, &Password::new("x")).await.unwrap();
    let report = fresh.check(CheckOptions::default(), |_| {}).await.unwrap();
    assert!(
        report.errors.iter().any(|error| error.object == pack && error.what.contains("missing")),
        "{:?}",
        report.errors
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_not_committed_leaves_packs_alone() {
    let bench = Bench::new().await;
    let session =
        bench.repository.backup(BackupOptions { pack_bytes: 1 << 20, ..BackupOptions::default() }).await.unwrap();
    session.put_file(&path("lost"), attributes(), body(&noise(2, 5 << 20), 1 << 20)).await.unwrap();
    drop(session);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !bench.repository.store().list("locks").await.unwrap().is_empty() {
        assert!(std::time::Instant::now() < deadline, "the lock stayed");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let report = bench.repository.check(CheckOptions::everything(), |_| {}).await.unwrap();
    assert!(report.is_sound() && report.unreferenced_packs > 0, "{report:?}");
    one_file(&bench.repository, b"kept").await;
    bench.restic(&["check", "--read-data"]);
    bench.restic(&["prune"]);
    bench.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_files_at_once_store_shared_content_once() {
    let bench = Bench::new().await;
    let session = bench.repository.backup(BackupOptions::default()).await.unwrap();
    let pages = noise(11, 3 << 20);
    let puts = (0..16).map(|i| {
        let (session, body) = (session.clone(), body(&pages, 60_000));
        async move { session.put_file(&path(&format!("data/{i}")), attributes(), body).await }
    });
    for put in futures::future::join_all(puts).await {
        put.unwrap();
    }
    let totals = session.totals();
    assert_eq!((totals.files, totals.bytes, totals.new_bytes), (16, 48 << 20, 3 << 20));
    session.commit(meta()).await.unwrap();
    bench.assert_sound().await;
}

#[tokio::test]
async fn a_session_whose_lock_was_removed_refuses_to_commit() {
    let repository = in_memory().await;
    let session = repository.backup(BackupOptions::default()).await.unwrap();
    session.put_file(&path("a"), attributes(), body(b"x", 1)).await.unwrap();
    assert_eq!(repository.unlock(false).await.unwrap(), [], "a living lock was removed");
    assert_eq!(repository.unlock(true).await.unwrap().len(), 1);
    let error = session.commit(meta()).await.unwrap_err();
    assert_eq!(error.kind(), RepoErrorKind::LockLost);
    assert!(repository.snapshots().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_source_that_fails_leaves_no_file_and_a_usable_session() {
    let repository = in_memory().await;
    let session = repository.backup(BackupOptions::default()).await.unwrap();
    let broken = futures::stream::iter([Ok(bytes::Bytes::from(vec![1; 3 << 20])), Err(std::io::Error::other("cut"))]);
    let error = session.put_file(&path("a"), attributes(), broken).await.unwrap_err();
    assert_eq!(error.kind(), RepoErrorKind::Source);
    session.put_file(&path("a"), attributes(), body(b"whole", 2)).await.unwrap();
    for taken in ["a", "a/b"] {
        let error = session.put_file(&path(taken), attributes(), body(b"", 1)).await.unwrap_err();
        assert_eq!(error.kind(), RepoErrorKind::Conflict, "{taken}");
    }
    let backup = session.commit(meta()).await.unwrap();
    let reader = repository.open_snapshot(&backup.id).await.unwrap();
    assert_eq!(reader.read_all(&path("a"), 9).await.unwrap(), b"whole");
    assert_eq!(reader.read_all(&path("a"), 4).await.unwrap_err().kind(), RepoErrorKind::Damaged);
    assert_eq!(reader.read_all(&path("b"), 4).await.unwrap_err().kind(), RepoErrorKind::NotFound);
}

#[tokio::test]
async fn opening_what_is_not_there_and_making_what_is_are_their_own_errors() {
    let password = Password::new("x");
    let store = memory();
    assert_eq!(Repository::open(store.clone(), &password).await.unwrap_err().kind(), RepoErrorKind::NotFound);
    let options = InitOptions { kdf: KdfCost::TRIVIAL };
    let repository = Repository::init(store.clone(), &password, options).await.unwrap();
    assert_eq!(
        Repository::init(store.clone(), &password, options).await.unwrap_err().kind(),
        RepoErrorKind::AlreadyExists
    );
    assert_eq!(
        Repository::open(store.clone(), &Password::new("y")).await.unwrap_err().kind(),
        RepoErrorKind::WrongPassword
    );
    let nobody = noise(1, 32).iter().map(|b| format!("{b:02x}")).collect::<String>().parse().unwrap();
    assert_eq!(repository.open_snapshot(&nobody).await.map(drop).unwrap_err().kind(), RepoErrorKind::NotFound);
}

/// Callers run all of this in tasks; the compiler checks that they may.
#[tokio::test(flavor = "multi_thread")]
async fn everything_runs_in_a_task() {
    let folder = tempfile::tempdir().unwrap();
    let dir = open(folder.path());
    let task = tokio::spawn(async move {
        let repository = in_memory().await;
        repository.key_list().await.unwrap();
        let backup = one_file(&repository, b"x").await;
        let reader = repository.open_snapshot(&backup.id).await.unwrap();
        reader.nodes().await.unwrap();
        reader.read(&path("data/file")).await.unwrap().next().await.unwrap().unwrap();
        reader.place(&path("data"), &dir, PlaceOptions::default()).await.unwrap();
        repository.lock(LockKind::Exclusive).await.unwrap().release().await.unwrap();
        repository.check(CheckOptions::everything(), |_| {}).await.unwrap().is_sound()
    });
    assert!(task.await.unwrap());
}

#[tokio::test]
async fn a_folder_that_is_taken_away_is_not_made_anew() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("disk");
    let store = Store::connect(&StoreConfig::new(format!("file://{}", folder.display()))).unwrap();
    let options = InitOptions { kdf: KdfCost::TRIVIAL };
    let repository = Repository::init(store, &Password::new("x"), options).await.unwrap();
    let backup = one_file(&repository, b"x").await;
    std::fs::rename(&folder, place.path().join("elsewhere")).unwrap();
    for refused in [
        repository.store().put_new("logs/x", "x").await,
        repository.store().put_overwrite("pins/x", "x").await,
        repository.store().put_new("data/x", vec![0; 8 << 20]).await,
        repository.lock(LockKind::Shared).await.map(drop),
        repository.pin(&backup.id, "").await,
    ] {
        let error = refused.expect_err("its disk is gone");
        assert!(matches!(error.kind(), RepoErrorKind::Unreachable | RepoErrorKind::NotFound), "{error}");
    }
    assert!(!folder.exists(), "a folder was made where the disk was");
    std::fs::rename(place.path().join("elsewhere"), &folder).unwrap();
    repository.store().put_new("logs/x", "x").await.expect("it is back");
    repository.open_snapshot(&backup.id).await.expect("with all it had");
}
