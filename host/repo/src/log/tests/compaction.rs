//! Merging: alone, at once, crashing, under readers.

use super::{faulty::Crashing, *};
use proptest::prelude::*;

pub(super) fn at_once() -> CompactPolicy {
    CompactPolicy { age_min: Duration::ZERO, ..CompactPolicy::default() }
}

pub(super) fn later() -> Timestamp {
    Timestamp::from_micros(Timestamp::from(SystemTime::now()).as_micros() + 60_000_000)
}

#[tokio::test]
async fn the_pieces_of_a_finished_file_become_one() {
    let folder = tempfile::tempdir().unwrap();
    for place in [Place::memory(), Place::folder(&folder)] {
        let mut log = place.open().await;
        append_all(&mut log, 1, 0, 9000, 300).await;
        let report = log.compact(&at_once(), later()).await.unwrap();
        assert_eq!((report.merged, report.bytes), (2, 2 * FILE_BYTES));
        assert_eq!(report.removed, 28, "14 pieces a file");
        let merged = place.open().await;
        assert_eq!(merged.chain().pieces(1).len(), 2 + 3, "the file that grows is left alone");
        assert_reads(&merged, 1, 0, 9000).await;
        assert_eq!(merged.chain().pieces(1)[0].first_commit, piece(1, 0, 300).first_commit);
        assert_eq!(merged.chain().pieces(1)[0].last_commit, piece(1, 0, FILE_BYTES).last_commit);
        // The archiver's own, older view still reads, and goes on.
        assert_reads(&log, 1, 0, 9000).await;
        append_all(&mut log, 1, 9000, 9100, 100).await;
        assert_eq!(log.compact(&at_once(), later()).await.unwrap(), CompactReport::default());
        let report = place.open().await.check(true).await.unwrap();
        assert!(report.is_sound() && report.superfluous.is_empty(), "{report:?}");
        assert_eq!((report.bytes, report.read_bytes), (9100, 9100));
    }
}

#[tokio::test]
async fn young_pieces_are_left_alone() {
    let place = Place::memory();
    let mut log = place.open().await;
    append_all(&mut log, 1, 0, 9000, 300).await;
    let now = Timestamp::from(SystemTime::now());
    assert_eq!(log.compact(&CompactPolicy::default(), now).await.unwrap(), CompactReport::default());
}

#[tokio::test]
async fn many_small_pieces_of_a_growing_file_are_merged_early() {
    let place = Place::memory();
    let mut log = place.open().await;
    append_all(&mut log, 1, 0, 66 * 20, 20).await;
    let report = log.compact(&at_once(), later()).await.unwrap();
    assert_eq!((report.merged, report.removed), (1, 66));
    append_all(&mut log, 1, 66 * 20, 140 * 20, 20).await;
    log.compact(&at_once(), later()).await.unwrap();
    let log = place.open().await;
    assert_eq!(log.chain().pieces(1).len(), 1);
    assert_reads(&log, 1, 0, 140 * 20).await;
}

#[tokio::test]
async fn an_epoch_that_was_left_is_finished() {
    let place = Place::memory();
    let mut log = place.open().await;
    append_all(&mut log, 1, 0, 1000, 100).await;
    let branch = Segment { follows: Some(at(1, 950)), ..piece(2, 0, 1200) };
    log.append(&branch, body(&branch)).await.unwrap();
    append_all(&mut log, 2, 1200, FILE_BYTES + 10, 200).await;
    log.compact(&at_once(), later()).await.unwrap();
    let log = place.open().await;
    assert_eq!((log.chain().pieces(1).len(), log.chain().pieces(2).len()), (1, 2));
    assert_eq!(log.chain().follows(2), Some(&at(1, 950)), "a merged first piece still says what it follows");
    assert_reads(&log, 1, 0, 1000).await;
    assert_reads(&log, 2, 0, FILE_BYTES + 10).await;
}

#[tokio::test]
async fn merged_pieces_stay_below_the_limit() {
    let place = Place::memory();
    let mut log = place.open().await;
    append_all(&mut log, 1, 0, 9000, 300).await;
    let policy = CompactPolicy { merged_bytes_max: 1000, ..at_once() };
    log.compact(&policy, later()).await.unwrap();
    let log = place.open().await;
    assert!(log.chain().pieces(1).iter().all(|piece| piece.length() <= 1000));
    assert_reads(&log, 1, 0, 9000).await;
}

#[tokio::test]
async fn a_compactor_may_crash_anywhere() {
    for applies in [false, true] {
        for changes in 0.. {
            let below: Arc<dyn object_store::ObjectStore> = Arc::new(object_store::memory::InMemory::new());
            let place = Place::on(Store::from_object_store(below.clone(), "memory"));
            append_all(&mut place.open().await, 1, 0, 9000, 700).await;
            let faults = Crashing::new(below, changes, applies);
            let crashing = Store::from_object_store(Arc::new(faults.clone()), "crashing");
            let log = Place { store: crashing, key: place.key.clone() }.open().await;
            let done = log.compact(&at_once(), later()).await;
            assert_eq!(done.is_err(), faults.has_crashed(), "{done:?}");
            let log = place.open().await;
            assert_reads(&log, 1, 0, 9000).await;
            // The next run ends what this one began.
            log.compact(&at_once(), later()).await.unwrap();
            let log = place.open().await;
            assert_reads(&log, 1, 0, 9000).await;
            assert!(log.check(true).await.unwrap().superfluous.is_empty());
            if !faults.has_crashed() {
                assert!(changes >= 14, "two merges and the removal of their parts");
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn compactors_readers_and_an_archiver_get_along() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::folder(&folder);
    append_all(&mut place.open().await, 1, 0, 6 * FILE_BYTES, 200).await;
    let compactor = |policy: CompactPolicy| {
        let place = place.clone();
        tokio::spawn(async move {
            for _ in 0..3 {
                place.open().await.compact(&policy, later()).await.unwrap();
            }
        })
    };
    let reader = {
        let place = place.clone();
        tokio::spawn(async move {
            let log = place.open().await;
            for _ in 0..4 {
                assert_reads(&log, 1, 0, 6 * FILE_BYTES).await;
            }
        })
    };
    let odd = CompactPolicy { merged_bytes_max: 1500, small_pieces_max: 3, index_pieces_min: 1, ..at_once() };
    let (one, two) = (compactor(at_once()), compactor(odd));
    let mut archiver = place.open().await;
    append_all(&mut archiver, 1, 6 * FILE_BYTES, 7 * FILE_BYTES, 200).await;
    for job in [one, two, reader] {
        job.await.unwrap();
    }
    let log = place.open().await;
    assert_reads(&log, 1, 0, 7 * FILE_BYTES).await;
    assert!(log.check(true).await.unwrap().is_sound());
}

#[tokio::test]
async fn an_index_spares_reading_headers_and_is_only_a_hint() {
    let place = Place::memory();
    let mut log = place.open().await;
    append_all(&mut log, 1, 0, 10 * FILE_BYTES, 500).await;
    let policy = CompactPolicy { index_pieces_min: 5, ..at_once() };
    log.compact(&policy, later()).await.unwrap();
    let index = "logs/shop/index";
    assert_eq!(log.read_index().await.unwrap().map(|index| index.len()), Some(9));
    let log = place.open().await;
    assert_reads(&log, 1, 0, 10 * FILE_BYTES).await;

    // With the header of a merged piece broken, only one who reads it notices.
    let key = place.keys().await.into_iter().find(|key| key.contains('-')).unwrap();
    let mut bytes = place.store.get(&key, limits::OBJECT_BYTES_MAX).await.unwrap().to_vec();
    bytes[20] ^= 1;
    place.store.put_overwrite(&key, bytes).await.unwrap();
    let log = place.open().await;
    assert_eq!(log.damaged(), []);
    assert!(log.read(&log.chain().pieces(1)[0]).await.unwrap_err().is_damage());
    assert_eq!(log.check(false).await.unwrap().damaged[0].object, key);

    // A broken index costs time, not data.
    place.store.put_overwrite(index, "nonsense").await.unwrap();
    let log = place.open().await;
    assert_eq!(log.damaged()[0].object, key);
    assert_eq!(log.chain().end_of(1), Some(&at(1, 10 * FILE_BYTES)));
    assert!(log.check(false).await.unwrap().damaged.iter().any(|damaged| damaged.object == index));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_appending_and_compacting_keeps_every_byte(
        steps in proptest::collection::vec((1u64..1500, any::<bool>(), 200u64..5000, 1usize..40), 1..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let place = Place::memory();
            let mut log = place.open().await;
            let mut end = 0;
            for (length, compacts, merged_bytes_max, small_pieces_max) in steps {
                append_all(&mut log, 1, end, end + length, length).await;
                end += length;
                if compacts {
                    let policy = CompactPolicy { merged_bytes_max, small_pieces_max, index_pieces_min: 2, ..at_once() };
                    log.compact(&policy, later()).await.unwrap();
                }
            }
            assert_reads(&log, 1, 0, end).await;
            let log = place.open().await;
            assert_reads(&log, 1, 0, end).await;
            let report = log.check(true).await.unwrap();
            assert!(report.is_sound() && report.bytes == end, "{report:?}");
        });
    }
}
