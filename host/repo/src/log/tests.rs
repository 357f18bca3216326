#![allow(clippy::unwrap_used, clippy::expect_used)]
//! The log on a folder and in memory, on stores that crash, and read by an independent program.

mod compaction;
mod damage;
mod faulty;
mod independent;
mod racing;
mod trimming;

use super::*;
use backstay_core::{Gap, Timestamp};
use bytes::Bytes;
use futures::TryStreamExt;

/// What one made-up database file holds.
pub(super) const FILE_BYTES: u64 = 4096;
const REPOSITORY: &str = "5f3c21c5f0d0a7f5c2a1f7e4f0f0e1a2b3c4d5e6f708192a3b4c5d6e7f809112";

/// A store, a key, and logs opened on them.
#[derive(Clone)]
struct Place {
    store: Store,
    key: Arc<MasterKey>,
}

impl Place {
    fn memory() -> Self {
        Self::on(Store::from_object_store(Arc::new(object_store::memory::InMemory::new()), "memory"))
    }

    fn folder(folder: &tempfile::TempDir) -> Self {
        let url = format!("file://{}", folder.path().display());
        Self::on(Store::connect(&crate::StoreConfig::new(url)).unwrap())
    }

    fn on(store: Store) -> Self {
        Self { store, key: Arc::new(MasterKey::random()) }
    }

    async fn open(&self) -> LogChain {
        self.open_target("shop").await
    }

    async fn open_target(&self, target: &str) -> LogChain {
        LogChain::open(self.store.clone(), self.key.clone(), REPOSITORY, target.parse().unwrap()).await.unwrap()
    }

    async fn keys(&self) -> Vec<String> {
        self.store.list("logs").await.unwrap().into_iter().map(|info| info.key).collect()
    }
}

fn at(epoch: u64, offset: u64) -> Position {
    Position { epoch, offset, label: format!("0/{offset:X}") }
}

fn piece(epoch: u64, start: u64, end: u64) -> Segment {
    Segment {
        start: at(epoch, start),
        end: at(epoch, end),
        follows: None,
        first_commit: Some(Timestamp::from_micros(1_700_000_000_000_000 + start)),
        last_commit: Some(Timestamp::from_micros(1_700_000_000_000_000 + end - 1)),
        file: format!("{epoch:08X}{:016X}", start / FILE_BYTES),
        file_offset: start % FILE_BYTES,
    }
}

/// The log's bytes are a function of their place, so any mix-up shows.
fn body(piece: &Segment) -> Bytes {
    let byte = |offset: u64| {
        let word = (piece.start.epoch ^ (offset / 8)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        word.to_le_bytes()[(offset % 8) as usize]
    };
    (piece.start.offset..piece.end.offset).map(byte).collect()
}

/// Appends `from..to` of an epoch in pieces of at most `step`, none across a file's end.
async fn append_all(log: &mut LogChain, epoch: u64, from: u64, to: u64, step: u64) {
    let mut start = from;
    while start < to {
        let end = (start + step).min(to).min((start / FILE_BYTES + 1) * FILE_BYTES);
        let piece = piece(epoch, start, end);
        log.append(&piece, body(&piece)).await.unwrap();
        start = end;
    }
}

/// Reads everything back and compares, from `from` to `to`.
async fn assert_reads(log: &LogChain, epoch: u64, from: u64, to: u64) {
    assert_eq!(log.chain().gaps(), [], "no gap in {log:?}");
    assert_eq!(log.chain().pieces(epoch).first().unwrap().start.offset, from);
    assert_eq!(log.chain().end_of(epoch).unwrap().offset, to);
    let parts: Vec<Bytes> = log.joined(from, log.chain().pieces(epoch).to_vec()).try_collect().await.unwrap();
    assert_eq!(parts.concat(), body(&piece(epoch, from, to)));
}

#[tokio::test]
async fn what_is_appended_is_read_back_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    for place in [Place::memory(), Place::folder(&folder)] {
        let mut log = place.open().await;
        assert!(log.tail().is_none());
        append_all(&mut log, 1, 0, 10_000, 700).await;
        assert_reads(&log, 1, 0, 10_000).await;
        let log = place.open().await;
        assert_eq!(log.tail(), Some(&at(1, 10_000)));
        assert_eq!(log.tail().unwrap().label, "0/2710");
        assert_reads(&log, 1, 0, 10_000).await;
        let first = &log.chain().pieces(1)[0];
        assert_eq!(first, &piece(1, 0, 700));
        assert_eq!(log.read_range(first, 10..20).await.unwrap(), body(first).slice(10..20));
        assert!(matches!(log.read_range(first, 10..701).await, Err(LogError::Invalid(_))));
        assert_eq!(LogChain::targets(&place.store).await.unwrap(), ["shop".parse().unwrap()]);
    }
}

#[tokio::test]
async fn a_piece_that_does_not_continue_the_log_is_refused() {
    let place = Place::memory();
    let mut log = place.open().await;
    append_all(&mut log, 1, 0, 1000, 500).await;
    let skips = piece(1, 1001, 1100);
    match log.append(&skips, body(&skips)).await {
        Err(LogError::Gap(gap)) => assert_eq!(gap, Gap { from: at(1, 1000), to: at(1, 1001) }),
        other => panic!("{other:?}"),
    }
    let short = piece(1, 1000, 1100);
    assert!(matches!(log.append(&short, body(&skips)).await, Err(LogError::Invalid(_))));
    let again = piece(1, 500, 1000);
    assert!(matches!(log.append(&again, body(&again)).await, Err(LogError::Conflict { .. })));
    assert_eq!(place.open().await.tail(), Some(&at(1, 1000)));
    // The way out when the database has no older log.
    log.allow_gap();
    log.append(&skips, body(&skips)).await.unwrap();
    assert_eq!(place.open().await.chain().gaps().len(), 1);
    let skips_again = piece(1, 1200, 1300);
    assert!(matches!(log.append(&skips_again, body(&skips_again)).await, Err(LogError::Gap(_))), "allowed once");
}

#[tokio::test]
async fn a_new_timeline_continues_the_old_one() {
    let place = Place::memory();
    let mut log = place.open().await;
    append_all(&mut log, 1, 0, 6000, 1000).await;
    let branch = Segment { follows: Some(at(1, 5500)), ..piece(2, 4096, 7000) };
    log.append(&branch, body(&branch)).await.unwrap();
    append_all(&mut log, 2, 7000, 9000, 300).await;
    let log = place.open().await;
    assert_eq!(log.chain().follows(2), Some(&at(1, 5500)));
    assert_eq!(log.tail(), Some(&at(2, 9000)));
    assert_reads(&log, 2, 4096, 9000).await;
}

#[tokio::test]
async fn an_identity_is_for_ever() {
    let place = Place::memory();
    let mut log = place.open().await;
    assert_eq!(log.identity().await.unwrap(), None);
    log.identify("postgresql", "7312").await.unwrap();
    log.identify("postgresql", "7312").await.unwrap();
    let error = place.open().await.identify("postgresql", "9999").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "target shop belongs to postgresql database 7312, but another one answers: postgresql database 9999; \
         give the new database a target name of its own"
    );
    place.open_target("other").await.identify("postgresql", "9999").await.unwrap();
}

#[tokio::test]
async fn a_note_keeps_its_content() {
    let place = Place::memory();
    let log = place.open().await;
    log.put_note("00000002.history", Bytes::from_static(b"1\t0/5500\tno reason\n")).await.unwrap();
    log.put_note("00000002.history", Bytes::from_static(b"1\t0/5500\tno reason\n")).await.unwrap();
    log.put_note("empty", Bytes::new()).await.unwrap();
    let other = log.put_note("00000002.history", Bytes::from_static(b"other")).await;
    assert!(matches!(other, Err(LogError::Conflict { .. })), "{other:?}");
    for bad in ["", "../x", "a/b", ".hidden", &"x".repeat(129)] {
        assert!(matches!(log.put_note(bad, Bytes::new()).await, Err(LogError::Invalid(_))), "{bad}");
    }
    let long = log.put_note("long", vec![0; limits::NOTE_BYTES_MAX + 1].into()).await;
    assert!(matches!(long, Err(LogError::Invalid(_))));
    assert_eq!(log.notes().await.unwrap(), ["00000002.history", "empty"]);
    assert_eq!(log.read_note("00000002.history").await.unwrap(), &b"1\t0/5500\tno reason\n"[..]);
    assert!(log.read_note("empty").await.unwrap().is_empty());
    assert!(log.read_note("absent").await.unwrap_err().is_absent());
}

#[tokio::test]
async fn a_confirmation_says_how_far_the_log_is_complete() {
    let place = Place::memory();
    let mut log = place.open().await;
    append_all(&mut log, 1, 0, 1000, 500).await;
    assert_eq!(log.confirmed().await.unwrap(), None);
    assert!(matches!(log.confirm(&at(1, 1001), Timestamp::from_micros(5)).await, Err(LogError::Invalid(_))));
    log.confirm(&at(1, 1000), Timestamp::from_micros(5)).await.unwrap();
    log.confirm(&at(1, 1000), Timestamp::from_micros(7)).await.unwrap();
    let confirmed = place.open().await.confirmed().await.unwrap().unwrap();
    assert_eq!((confirmed.position, confirmed.time), (at(1, 1000), Timestamp::from_micros(7)));
}

#[tokio::test]
async fn whole_files_are_placed_and_filled_up() {
    let place = Place::memory();
    let mut log = place.open().await;
    append_all(&mut log, 1, 0, 10_000, 700).await;
    let folder = tempfile::tempdir().unwrap();
    let dir = cap_std::fs::Dir::open_ambient_dir(folder.path(), cap_std::ambient_authority()).unwrap();
    std::fs::create_dir_all(folder.path().join("data/pg_wal")).unwrap();
    std::fs::write(folder.path().join("data/pg_wal").join(&piece(1, 0, 1).file), vec![0xEE; 9000]).unwrap();
    let path = backstay_core::RelativePath::new("data/pg_wal").unwrap();
    let written = log.place(log.chain().pieces(1), &dir, Some(&path), FILE_BYTES).await.unwrap();
    assert_eq!(written, 10_000);
    for (number, length) in [(0, FILE_BYTES), (1, FILE_BYTES), (2, 10_000 - 2 * FILE_BYTES)] {
        let whole = piece(1, number * FILE_BYTES, number * FILE_BYTES + length);
        let mut expected = body(&whole).to_vec();
        expected.resize(FILE_BYTES as usize, 0);
        assert_eq!(std::fs::read(folder.path().join("data/pg_wal").join(&whole.file)).unwrap(), expected, "{number}");
        assert_eq!(log.read_file(&whole.file, FILE_BYTES).await.unwrap().unwrap(), body(&whole));
        assert!(log.place_file(&whole.file, &dir, "RECOVERYXLOG", FILE_BYTES).await.unwrap());
        assert_eq!(std::fs::read(folder.path().join("RECOVERYXLOG")).unwrap(), expected);
    }
    assert!(log.file("absent").unwrap().is_none());
    assert!(!log.place_file("absent", &dir, "RECOVERYXLOG", FILE_BYTES).await.unwrap());
}

#[tokio::test]
async fn a_file_with_a_hole_is_not_handed_out() {
    let place = Place::memory();
    let mut log = place.open().await;
    append_all(&mut log, 1, 0, 2000, 500).await;
    place.store.delete(&log.sealer.key_of(&ObjectName::appended(&piece(1, 500, 1000)))).await.unwrap();
    let log = place.open().await;
    assert!(matches!(log.file(&piece(1, 0, 1).file), Err(LogError::Gap(_))));
    let report = log.check(true).await.unwrap();
    assert_eq!(report.gaps, [Gap { from: at(1, 500), to: at(1, 1000) }]);
    assert!(!report.is_sound());
}

#[tokio::test]
async fn large_bodies_round_trip() {
    let place = Place::memory();
    let mut log = place.open().await;
    let mut large = piece(1, 0, 3 << 20);
    log.append(&large, body(&large)).await.unwrap();
    assert_eq!(place.open().await.read(&large).await.unwrap(), body(&large));
    large.end.offset = large.start.offset + backstay_core::SEGMENT_BYTES_MAX + 1;
    assert!(log.append(&large, Bytes::new()).await.is_err());
}
