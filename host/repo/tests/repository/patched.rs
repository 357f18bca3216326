//! Files of the backup before, patched; and files that somebody looks at on their way in.

use crate::stock::*;
use backstay_repo::{limits::BATCH_BYTES, *};
use bytes::Bytes;
use futures::stream;
use proptest::prelude::*;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

const CHUNK: u64 = 128 << 10;
const PATH: &str = "data/base/5/16384";

async fn with_parent(repository: &Repository, content: &[u8]) -> BackupSession {
    let session = repository.backup(BackupOptions::default()).await.unwrap();
    let body = stream::iter([Ok(Bytes::copy_from_slice(content))]);
    session.put_file(&path(PATH), attributes(), body).await.unwrap();
    let Committed { id, .. } = session.commit(meta()).await.unwrap();
    let parent = Some(Parent { id, begun: None });
    repository.backup(BackupOptions { parent, ..BackupOptions::default() }).await.unwrap()
}

async fn patched(session: &BackupSession, patch: Patch, body: &[u8], part: usize) -> Result<PatchedFile, RepoError> {
    let parts: Vec<io::Result<Bytes>> = body.chunks(part).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
    session.put_patched(&path(PATH), attributes(), patch, stream::iter(parts)).await
}

fn apply(old: &[u8], patch: &Patch, mut body: &[u8]) -> Vec<u8> {
    let mut new = old.to_vec();
    new.truncate(patch.inherited as usize);
    new.resize(patch.bytes as usize, 0);
    for range in &patch.ranges {
        let (now, rest) = body.split_at((range.end - range.start) as usize);
        new[range.start as usize..range.end as usize].copy_from_slice(now);
        body = rest;
    }
    new
}

fn body_of(patch: &Patch) -> Vec<u8> {
    noise(99, patch.ranges.iter().map(|range| range.end - range.start).sum::<u64>() as usize)
}

/// Up to eight ranges inside a file that shrinks, grows or stays.
fn patches() -> impl Strategy<Value = (u64, Patch, bool)> {
    let inherited = prop_oneof![Just(u64::MAX), 0..6 * CHUNK];
    let cuts = proptest::collection::btree_set(0..6 * CHUNK, 0..16);
    (0..5 * CHUNK, 0..6 * CHUNK, inherited, cuts, any::<bool>(), any::<bool>()).prop_map(
        |(old, bytes, inherited, cuts, same, known)| {
            let bytes = if same { old } else { bytes };
            let cuts: Vec<u64> = cuts.into_iter().map(|cut| cut.min(bytes)).collect();
            let ranges = cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]).filter(|range| !range.is_empty());
            (old, Patch { bytes, inherited, ranges: ranges.collect(), parent_crc32c: None }, known)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_patched_file_and_its_sum_are_those_of_the_new_bytes((old_bytes, mut patch, known) in patches(), part in 1..200_000_usize) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let (repository, old) = (in_memory().await, noise(1, old_bytes as usize));
            let session = with_parent(&repository, &old).await;
            patch.parent_crc32c = known.then(|| crc32c::crc32c(&old));
            let body = body_of(&patch);
            let expected = apply(&old, &patch, &body);
            let stored = patched(&session, patch, &body, part).await.unwrap();
            prop_assert_eq!(stored.bytes, expected.len() as u64);
            prop_assert_eq!(stored.crc32c, crc32c::crc32c(&expected));
            let backup = session.commit(meta()).await.unwrap();
            let reader = repository.open_snapshot(&backup.id).await.unwrap();
            prop_assert!(reader.read_all(&path(PATH), 1 << 30).await.unwrap() == expected);
            Ok(())
        })?;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_range_touches_is_neither_read_nor_uploaded() {
    let repository = in_memory().await;
    let old = noise(1, 40 * CHUNK as usize);
    let session = with_parent(&repository, &old).await;
    let page = 3 * CHUNK + 8192..3 * CHUNK + 16384;
    let (bytes, parent_crc32c) = (old.len() as u64, Some(crc32c::crc32c(&old)));
    let patch = Patch { bytes, inherited: bytes, ranges: vec![page], parent_crc32c };
    let stored = patched(&session, patch.clone(), &body_of(&patch), 8192).await.unwrap();
    assert!(stored.uploaded < 2 * CHUNK, "{stored:?}");
    assert_eq!(session.totals().new_bytes, CHUNK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_that_does_not_fit_is_refused_and_leaves_no_file() {
    let repository = in_memory().await;
    let old = noise(1, CHUNK as usize);
    let alone = repository.backup(BackupOptions::default()).await.unwrap();
    let whole = |ranges: Vec<Range<u64>>| Patch { bytes: CHUNK, inherited: CHUNK, ranges, parent_crc32c: None };
    let error = patched(&alone, whole(Vec::new()), b"", 1).await.unwrap_err();
    assert_eq!(error.kind(), RepoErrorKind::NotFound, "{error}");

    let session = with_parent(&repository, &old).await;
    #[allow(clippy::single_range_in_vec_init)]
    for (ranges, body, kind) in [
        (vec![0..8], b"1234567".as_slice(), RepoErrorKind::Source),
        (vec![0..8], b"123456789", RepoErrorKind::Source),
        (vec![8..16, 0..8], b"", RepoErrorKind::InvalidConfig),
        (vec![0..9, 8..16], b"", RepoErrorKind::InvalidConfig),
        (vec![8..8], b"", RepoErrorKind::InvalidConfig),
        (vec![0..CHUNK + 1], b"", RepoErrorKind::InvalidConfig),
    ] {
        let error = patched(&session, whole(ranges.clone()), body, 3).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{ranges:?}: {error}");
    }
    patched(&session, whole(Vec::new()), b"", 1).await.expect("nothing lies there yet");
    let backup = session.commit(meta()).await.unwrap();
    let reader = repository.open_snapshot(&backup.id).await.unwrap();
    assert_eq!(reader.read_all(&path(PATH), 1 << 30).await.unwrap(), old);
}

/// Finds every byte `x` wrong, and mends the file when it was asked often enough.
struct Mender {
    file: std::fs::File,
    after: usize,
    looks: Mutex<Vec<(u64, usize, bool)>>,
}

impl Witness for Mender {
    fn look(&self, offset: u64, bytes: &[u8], last: bool) -> Result<bool, RepoError> {
        let mut looks = self.looks.lock().unwrap();
        looks.push((offset, bytes.len(), last));
        let Some(at) = bytes.iter().position(|byte| *byte == b'x') else { return Ok(true) };
        if looks.iter().filter(|look| look.0 == offset).count() == self.after {
            self.file.write_all_at(b"o", offset + at as u64).unwrap();
        }
        Ok(false)
    }
}

async fn looked_at(after: usize) -> (Vec<u8>, Vec<(u64, usize, bool)>) {
    let repository = in_memory().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let mut content = vec![b'.'; BATCH_BYTES + 10];
    content[BATCH_BYTES + 5] = b'x';
    std::fs::write(&file, &content).unwrap();
    let open = || std::fs::File::options().read(true).write(true).open(&file).unwrap();
    let witness = Arc::new(Mender { file: open(), after, looks: Mutex::default() });
    let session = repository.backup(BackupOptions::default()).await.unwrap();
    session.put_local(&path(PATH), attributes(), open(), Some(witness.clone())).await.unwrap();
    let backup = session.commit(meta()).await.unwrap();
    let reader = repository.open_snapshot(&backup.id).await.unwrap();
    let mut looks = witness.looks.lock().unwrap().clone();
    looks.sort_unstable();
    (reader.read_all(&path(PATH), 1 << 30).await.unwrap(), looks)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_looks_wrong_is_read_again_and_stored_as_it_was_read_last() {
    let (stored, looks) = looked_at(1).await;
    assert_eq!(stored[BATCH_BYTES..], *b".....o....");
    assert_eq!(looks, [(0, BATCH_BYTES, false), (BATCH_BYTES as u64, 10, false), (BATCH_BYTES as u64, 10, false)]);

    let (stored, looks) = looked_at(usize::MAX).await;
    assert_eq!(stored[BATCH_BYTES..], *b".....x....");
    assert_eq!(looks.last(), Some(&(BATCH_BYTES as u64, 10, true)), "whoever looks must know that it counts");
}
