//! Log that nobody needs goes, from its oldest piece on.

use super::{faulty::Crashing, *};
use crate::lock::{Lock, LockKind};
use backstay_core::LogNeed;

fn need(epoch: u64, offset: u64) -> LogNeed {
    LogNeed { from: Some(at(epoch, offset)), ..LogNeed::default() }
}

/// A lock on a store of its own: what happens to the log's is not its matter.
async fn lock() -> Lock {
    let store = Store::from_object_store(Arc::new(object_store::memory::InMemory::new()), "memory");
    Lock::take(&store, &Arc::new(MasterKey::random()), LockKind::Exclusive).await.unwrap()
}

async fn trim(place: &Place, need: &LogNeed) -> TrimPlan {
    let log = place.open().await;
    let plan = log.plan_trim(need).await.unwrap();
    log.trim(&lock().await, &plan).await.unwrap();
    plan
}

#[tokio::test]
async fn everything_before_the_place_goes_and_the_rest_reads() {
    let place = Place::memory();
    let mut log = place.open().await;
    append_all(&mut log, 1, 0, 3 * FILE_BYTES, 512).await;
    let before = place.keys().await.len();
    let plan = trim(&place, &need(1, FILE_BYTES)).await;
    assert_eq!((plan.objects, plan.objects_left), (8, 16));
    assert!(plan.bytes > 0 && plan.bytes_left > plan.bytes);
    assert_eq!(place.keys().await.len(), before - 8);
    let left = place.open().await;
    assert_eq!(left.chain().gaps(), []);
    assert_eq!(left.chain().pieces(1)[0].start, at(1, FILE_BYTES));
    assert_reads(&left, 1, FILE_BYTES, 3 * FILE_BYTES).await;
    assert_eq!(trim(&place, &need(1, FILE_BYTES)).await.objects, 0);
    // Whoever was archiving goes on, and so does a new one.
    append_all(&mut log, 1, 3 * FILE_BYTES, 4 * FILE_BYTES, 512).await;
    append_all(&mut place.open().await, 1, 4 * FILE_BYTES, 5 * FILE_BYTES, 512).await;
    assert!(place.open().await.check(true).await.unwrap().is_sound());
}

#[tokio::test]
async fn a_piece_that_reaches_past_the_place_stays() {
    let place = Place::memory();
    append_all(&mut place.open().await, 1, 0, 2048, 512).await;
    trim(&place, &need(1, 600)).await;
    assert_eq!(place.open().await.chain().pieces(1)[0].start, at(1, 512));
}

#[tokio::test]
async fn the_last_piece_stays_and_a_need_that_says_nothing_keeps_all() {
    let place = Place::memory();
    append_all(&mut place.open().await, 1, 0, 2048, 512).await;
    assert_eq!(trim(&place, &LogNeed::default()).await.objects, 0);
    let plan = trim(&place, &need(7, 0)).await;
    assert_eq!((plan.objects, plan.objects_left), (3, 1));
    let mut log = place.open().await;
    assert_eq!(log.tail(), Some(&at(1, 2048)));
    append_all(&mut log, 1, 2048, 4096, 512).await;
}

#[tokio::test]
async fn epochs_that_were_left_before_go_with_their_claims() {
    let place = Place::memory();
    let mut log = place.open().await;
    append_all(&mut log, 1, 0, 1024, 512).await;
    let first = Segment { follows: Some(at(1, 700)), ..piece(2, 512, 1024) };
    log.append(&first, body(&first)).await.unwrap();
    append_all(&mut log, 2, 1024, 2048, 512).await;
    trim(&place, &need(2, 1024)).await;
    let keys = place.keys().await;
    assert!(!keys.iter().any(|key| key.contains("/00000000000000000001/")), "{keys:?}");
    assert!(keys.iter().any(|key| key.ends_with("/claim")), "epoch 2 keeps its claim: {keys:?}");
    let left = place.open().await;
    assert_eq!(left.chain().gaps(), []);
    assert_reads(&left, 2, 1024, 2048).await;
}

#[tokio::test]
async fn parts_that_were_merged_go_too() {
    let place = Place::memory();
    append_all(&mut place.open().await, 1, 0, 3 * FILE_BYTES, 512).await;
    let policy = CompactPolicy { age_min: Duration::ZERO, ..CompactPolicy::default() };
    let now = Timestamp::from(SystemTime::now() + Duration::from_secs(3600));
    place.open().await.compact(&policy, now).await.unwrap();
    trim(&place, &need(1, 2 * FILE_BYTES)).await;
    let left = place.open().await;
    assert!(left.check(true).await.unwrap().is_sound());
    assert_eq!(left.chain().pieces(1)[0].start, at(1, 2 * FILE_BYTES));
}

#[tokio::test]
async fn wherever_it_ends_there_is_no_hole() {
    let lock = lock().await;
    for stop in 0..12 {
        let place = Place::memory();
        append_all(&mut place.open().await, 1, 0, 2 * FILE_BYTES, 512).await;
        let plan = place.open().await.plan_trim(&need(1, FILE_BYTES + 2048)).await.unwrap();
        let half = TrimPlan { keys: plan.keys[..stop.min(plan.keys.len())].to_vec(), ..plan };
        place.open().await.trim(&lock, &half).await.unwrap();
        assert_eq!(place.open().await.chain().gaps(), [], "after {stop} objects");
    }
}

#[tokio::test]
async fn a_trim_that_crashes_leaves_no_hole_and_the_next_one_ends_it() {
    let lock = lock().await;
    for (changes, applies) in (0..).flat_map(|changes| [(changes, false), (changes, true)]) {
        let below = Arc::new(object_store::memory::InMemory::new());
        let place = Place::on(Store::from_object_store(below.clone(), "memory"));
        let mut log = place.open().await;
        append_all(&mut log, 1, 0, FILE_BYTES, 512).await;
        let first = Segment { follows: Some(at(1, FILE_BYTES)), ..piece(2, FILE_BYTES, FILE_BYTES + 512) };
        log.append(&first, body(&first)).await.unwrap();
        append_all(&mut log, 2, FILE_BYTES + 512, 2 * FILE_BYTES, 512).await;
        let faults = Crashing::new(below, changes, applies);
        let crashing = Place { store: Store::from_object_store(Arc::new(faults.clone()), "crashing"), ..place.clone() };
        let trimming = crashing.open().await;
        let plan = trimming.plan_trim(&need(2, FILE_BYTES + 1024)).await.unwrap();
        let done = trimming.trim(&lock, &plan).await;
        assert_eq!(done.is_err(), faults.has_crashed(), "{done:?}");
        let left = place.open().await;
        assert_eq!(left.chain().gaps(), [], "after {changes} changes");
        assert!(left.check(true).await.unwrap().is_sound(), "after {changes} changes");
        trim(&place, &need(2, FILE_BYTES + 1024)).await;
        assert_reads(&place.open().await, 2, FILE_BYTES + 1024, 2 * FILE_BYTES).await;
        if !faults.has_crashed() {
            assert!(changes > 8, "{changes}: pieces of two epochs go, and more");
            break;
        }
    }
}

#[tokio::test]
async fn whoever_lost_the_lock_removes_nothing_more() {
    let place = Place::memory();
    append_all(&mut place.open().await, 1, 0, 2048, 512).await;
    let (log, lock) = (place.open().await, lock().await);
    let plan = log.plan_trim(&need(1, 1024)).await.unwrap();
    lock.give_back().await.unwrap();
    let lost = log.trim(&lock, &plan).await.unwrap_err();
    assert!(lost.to_string().contains("lock"), "{lost}");
    assert_eq!(place.open().await.chain().pieces(1)[0].start, at(1, 0));
}
