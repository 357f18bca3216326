//! Two archivers at once, archivers that come back late, and archivers that crash.

use super::{faulty::Crashing, *};

#[tokio::test]
async fn of_two_archivers_exactly_one_wins_each_place() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::folder(&folder);
    let (mut a, mut b) = (place.open().await, place.open().await);
    append_all(&mut a, 1, 0, 500, 500).await;
    b.load().await.unwrap();
    let (ours, theirs) = (piece(1, 500, 800), piece(1, 500, 900));
    // Another server's bytes at the same place.
    let other = Bytes::from(vec![0xAA; 400]);
    let (won_a, won_b) = tokio::join!(a.append(&ours, body(&ours)), b.append(&theirs, other.clone()));
    assert_ne!(won_a.is_ok(), won_b.is_ok(), "{won_a:?} {won_b:?}");
    let loser = won_a.err().or(won_b.err()).unwrap();
    assert!(matches!(loser, LogError::Conflict { .. }), "{loser}");
    assert!(loser.to_string().contains("only one archiver"), "{loser}");
    let log = place.open().await;
    let stored = log.chain().pieces(1)[1].clone();
    let expected = if stored.end.offset == 800 { body(&ours) } else { other };
    assert_eq!(log.read(&stored).await.unwrap(), expected);
}

#[tokio::test]
async fn the_same_bytes_again_are_our_own_retry() {
    let place = Place::memory();
    let (mut a, mut b) = (place.open().await, place.open().await);
    append_all(&mut a, 1, 0, 500, 500).await;
    append_all(&mut b, 1, 0, 500, 500).await;
    assert_eq!(b.tail(), Some(&at(1, 500)));
    let changed = piece(1, 0, 500);
    let error = place.open_target("x").await.append(&changed, Bytes::from(vec![1; 500])).await;
    assert!(error.is_ok(), "another target is another log");
}

#[tokio::test]
async fn two_archivers_cannot_begin_an_epoch_at_two_places() {
    let place = Place::memory();
    let (mut a, mut b) = (place.open().await, place.open().await);
    append_all(&mut a, 1, 4096, 4200, 4096).await;
    let elsewhere = piece(1, 0, 100);
    let error = b.append(&elsewhere, body(&elsewhere)).await.unwrap_err();
    assert!(matches!(error, LogError::Conflict { .. }), "{error}");
    assert_reads(&place.open().await, 1, 4096, 4200).await;
}

#[tokio::test]
async fn a_claim_without_a_piece_is_taken_over() {
    let below: Arc<dyn object_store::ObjectStore> = Arc::new(object_store::memory::InMemory::new());
    let place = Place::on(Store::from_object_store(below.clone(), "memory"));
    // Ends after the claim, before the piece.
    let crashing = Store::from_object_store(Arc::new(Crashing::new(below, 1, false)), "crashing");
    let mut log = Place { store: crashing, key: place.key.clone() }.open().await;
    let first = piece(1, 0, 100);
    assert!(log.append(&first, body(&first)).await.is_err());
    assert_eq!(place.keys().await.len(), 1, "only the claim");
    // The database's log starts later by now.
    let mut log = place.open().await;
    append_all(&mut log, 1, 8192, 8300, 4096).await;
    assert_reads(&place.open().await, 1, 8192, 8300).await;
}

#[tokio::test]
async fn an_acknowledged_piece_survives_a_crash_at_every_step() {
    for applies in [false, true] {
        let mut crashed_at = 0;
        for changes in 0.. {
            let below: Arc<dyn object_store::ObjectStore> = Arc::new(object_store::memory::InMemory::new());
            let place = Place::on(Store::from_object_store(below.clone(), "memory"));
            let faults = Crashing::new(below, changes, applies);
            let crashing = Store::from_object_store(Arc::new(faults.clone()), "crashing");
            let mut log = Place { store: crashing, key: place.key.clone() }.open().await;
            let mut acknowledged = 0;
            for start in (0..3000).step_by(500) {
                let piece = piece(1, start, start + 500);
                match log.append(&piece, body(&piece)).await {
                    Ok(()) => acknowledged = piece.end.offset,
                    Err(_) => break,
                }
            }
            let mut log = place.open().await;
            let tail = log.tail().map_or(0, |tail| tail.offset);
            assert!(tail >= acknowledged, "acknowledged {acknowledged}, found {tail} after {changes} changes");
            if tail > 0 {
                assert_reads(&log, 1, 0, tail).await;
            }
            append_all(&mut log, 1, tail, 4096, 500).await;
            assert_reads(&place.open().await, 1, 0, 4096).await;
            if !faults.has_crashed() {
                break;
            }
            crashed_at = changes;
        }
        assert!(crashed_at >= 6, "six pieces and a claim are seven changes");
    }
}

/// An archiver that slept: its view is older than a compactor's patience.
async fn long_asleep(log: &mut LogChain) {
    let long = limits::SIGHT_MAX + Duration::from_secs(1);
    log.seen.wall = SystemTime::now() - long;
}

#[tokio::test]
async fn an_archiver_that_slept_through_a_compaction_does_not_write_over_it() {
    let place = Place::memory();
    let mut asleep = place.open().await;
    append_all(&mut asleep, 1, 0, 500, 500).await;
    let mut awake = place.open().await;
    append_all(&mut awake, 1, 500, 5000, 500).await;
    awake.compact(&compaction::at_once(), compaction::later()).await.unwrap();
    assert!(!place.keys().await.iter().any(|key| key.ends_with("/00000000000000000500")), "its name is free again");
    long_asleep(&mut asleep).await;
    let stale = piece(1, 500, 900);
    let error = asleep.append(&stale, Bytes::from(vec![0xBB; 400])).await.unwrap_err();
    assert!(matches!(error, LogError::Conflict { .. }), "{error}");
    assert_reads(&place.open().await, 1, 0, 5000).await;
    assert!(place.open().await.check(true).await.unwrap().superfluous.is_empty(), "it took its piece away again");
}

#[tokio::test]
async fn an_archiver_that_slept_alone_goes_on() {
    let place = Place::memory();
    let mut log = place.open().await;
    append_all(&mut log, 1, 0, 500, 500).await;
    long_asleep(&mut log).await;
    append_all(&mut log, 1, 500, 900, 100).await;
    assert_reads(&place.open().await, 1, 0, 900).await;
}
