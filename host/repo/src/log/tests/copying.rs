//! Logs in two repositories: copied, followed, and brought level after each went its own way.

use super::*;

const OTHER: &str = "00000021c5f0d0a7f5c2a1f7e4f0f0e1a2b3c4d5e6f708192a3b4c5d6e7f809112";

/// The same target's log in another repository, under another key.
async fn open_other(place: &Place) -> LogChain {
    LogChain::open(place.store.clone(), place.key.clone(), OTHER, "shop".parse().unwrap()).await.unwrap()
}

const ALL: LogCopyOptions = LogCopyOptions { dry_run: false, compare: true };
const NEW: LogCopyOptions = LogCopyOptions { dry_run: false, compare: false };

async fn copy(from: &LogChain, to: &mut LogChain, options: LogCopyOptions) -> LogResult<LogCopied> {
    from.copy_to(to, options, &|_| ()).await
}

#[tokio::test]
async fn a_copied_log_has_the_same_pieces_under_the_same_names() {
    let (ours, theirs) = (Place::memory(), Place::memory());
    let mut log = ours.open().await;
    log.identify("postgresql", "77").await.unwrap();
    log.put_note("00000002.history", Bytes::from_static(b"history")).await.unwrap();
    append_all(&mut log, 1, 0, 10_000, 700).await;
    let branch = Segment { follows: Some(at(1, 9000)), ..piece(2, 9000, 9500) };
    log.append(&branch, body(&branch)).await.unwrap();
    log.confirm(&at(2, 9500), Timestamp::from_micros(5)).await.unwrap();

    let mut other = open_other(&theirs).await;
    let planned = copy(&log, &mut other, LogCopyOptions { dry_run: true, compare: true }).await.unwrap();
    assert_eq!(theirs.keys().await, [""; 0], "a dry run wrote something");
    let copied = copy(&log, &mut other, ALL).await.unwrap();
    assert_eq!(copied, planned);
    assert_eq!((copied.bytes, copied.notes, copied.there), (10_500, 1, 0));
    assert_eq!(theirs.keys().await, ours.keys().await);

    let mut again = open_other(&theirs).await;
    assert_eq!(again.chain(), log.chain());
    let parts: Vec<Bytes> = again.joined(0, again.chain().pieces(1).to_vec()).try_collect().await.unwrap();
    assert_eq!(parts.concat(), body(&piece(1, 0, 10_000)));
    assert_eq!(again.identity().await.unwrap().unwrap().identity, "77");
    assert_eq!(again.confirmed().await.unwrap().unwrap().position, at(2, 9500));
    assert_eq!(again.read_note("00000002.history").await.unwrap(), Bytes::from_static(b"history"));
    let report = again.check(true).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    let nothing = copy(&log, &mut again, ALL).await.unwrap();
    assert!(nothing.is_nothing() && nothing.there == copied.pieces, "{nothing:?}");
}

#[tokio::test]
async fn a_mirror_gets_what_is_new_also_when_either_was_merged() {
    let (ours, theirs) = (Place::memory(), Place::memory());
    let (mut log, mut other) = (ours.open().await, open_other(&theirs).await);
    append_all(&mut log, 1, 0, 6000, 100).await;
    copy(&log, &mut other, NEW).await.unwrap();
    let policy = CompactPolicy { age_min: Duration::ZERO, small_pieces_max: 1, ..CompactPolicy::default() };
    log.compact(&policy, Timestamp::from(SystemTime::now())).await.unwrap();
    log.load().await.unwrap();
    append_all(&mut log, 1, 6000, 9000, 100).await;
    let copied = copy(&log, &mut other, NEW).await.unwrap();
    assert_eq!((copied.bytes, copied.pieces), (3000, 31), "only what is new; 8192 ends a file");
    other.compact(&policy, Timestamp::from(SystemTime::now())).await.unwrap();
    other.load().await.unwrap();
    append_all(&mut log, 1, 9000, 9300, 100).await;
    assert_eq!(copy(&log, &mut other, NEW).await.unwrap().bytes, 300);
    // With other cuts on either side the bytes are compared.
    let compared = copy(&log, &mut other, ALL).await.unwrap();
    assert!(compared.is_nothing(), "{compared:?}");
    assert_reads(&other, 1, 0, 9300).await;
}

#[tokio::test]
async fn other_bytes_at_the_same_place_are_a_conflict_that_names_it() {
    let (ours, theirs) = (Place::memory(), Place::memory());
    let (mut log, mut other) = (ours.open().await, open_other(&theirs).await);
    append_all(&mut log, 1, 0, 600, 200).await;
    copy(&log, &mut other, ALL).await.unwrap();
    for (log, byte) in [(&mut log, 1), (&mut other, 2)] {
        let next = piece(1, 600, 700);
        log.append(&next, Bytes::from(vec![byte; 100])).await.unwrap();
    }
    let conflict = copy(&log, &mut other, ALL).await.unwrap_err();
    assert!(matches!(conflict, LogError::Conflict { .. }));
    assert!(conflict.to_string().contains("0/258"), "{conflict}");
    // A part of a piece is compared even by those who trust what is there.
    let longer = piece(1, 700, 800);
    log.append(&longer, body(&longer)).await.unwrap();
    let policy = CompactPolicy { age_min: Duration::ZERO, small_pieces_max: 1, ..CompactPolicy::default() };
    log.compact(&policy, Timestamp::from(SystemTime::now())).await.unwrap();
    log.load().await.unwrap();
    assert!(matches!(copy(&log, &mut other, NEW).await, Err(LogError::Conflict { .. })));
}

#[tokio::test]
async fn another_database_is_refused() {
    let (ours, theirs) = (Place::memory(), Place::memory());
    let (mut log, mut other) = (ours.open().await, open_other(&theirs).await);
    log.identify("postgresql", "77").await.unwrap();
    other.identify("postgresql", "78").await.unwrap();
    append_all(&mut log, 1, 0, 600, 200).await;
    for options in [ALL, LogCopyOptions { dry_run: true, compare: false }] {
        assert!(matches!(copy(&log, &mut other, options).await, Err(LogError::Conflict { .. })));
    }
    assert!(other.load().await.unwrap().is_empty());
}

#[tokio::test]
async fn logs_that_went_on_apart_with_other_cuts_are_brought_level_both_ways() {
    let (ours, theirs) = (Place::memory(), Place::memory());
    let (mut log, mut other) = (ours.open().await, open_other(&theirs).await);
    append_all(&mut log, 1, 0, 1000, 250).await;
    copy(&log, &mut other, NEW).await.unwrap();
    // Acknowledged here, and away before the mirror had it: the database sends it again, cut otherwise.
    append_all(&mut log, 1, 1000, 1600, 300).await;
    append_all(&mut other, 1, 1000, 3000, 450).await;
    let came = copy(&other, &mut log, NEW).await.unwrap();
    assert_eq!((came.bytes, came.pieces), (1400, 4), "the piece across our end is cut there");
    assert_reads(&log, 1, 0, 3000).await;
    assert!(copy(&log, &mut other, ALL).await.unwrap().is_nothing());
    assert!(copy(&other, &mut log, ALL).await.unwrap().is_nothing());
    // An archiver goes on behind what came.
    let mut archiver = ours.open().await;
    append_all(&mut archiver, 1, 3000, 3500, 100).await;
    assert_reads(&archiver, 1, 0, 3500).await;
    assert!(archiver.check(true).await.unwrap().is_sound());
}

#[tokio::test]
async fn an_archiver_at_the_other_end_and_a_copy_cannot_both_write_a_place() {
    let (ours, theirs) = (Place::memory(), Place::memory());
    let (mut log, mut other) = (ours.open().await, open_other(&theirs).await);
    append_all(&mut log, 1, 0, 500, 250).await;
    copy(&log, &mut other, NEW).await.unwrap();
    append_all(&mut log, 1, 500, 1000, 250).await;
    let mut archiver = open_other(&theirs).await;
    let theirs_next = piece(1, 500, 600);
    archiver.append(&theirs_next, body(&theirs_next)).await.unwrap();
    // `other` was loaded before.
    assert!(matches!(copy(&log, &mut other, NEW).await, Err(LogError::Conflict { .. })));
    other.load().await.unwrap();
    assert_eq!(copy(&log, &mut other, NEW).await.unwrap().bytes, 400);
    assert_reads(&other, 1, 0, 1000).await;
    let late = piece(1, 600, 700);
    assert!(matches!(archiver.append(&late, body(&late)).await, Err(LogError::Conflict { .. })));
}

#[tokio::test]
async fn log_that_retention_took_does_not_come_back() {
    let (ours, theirs) = (Place::memory(), Place::memory());
    let (mut log, mut other) = (ours.open().await, open_other(&theirs).await);
    append_all(&mut log, 1, 0, 1000, 250).await;
    copy(&log, &mut other, NEW).await.unwrap();
    theirs.store.delete(&theirs.keys().await[0]).await.unwrap();
    other.load().await.unwrap();
    let first = other.chain().pieces(1)[0].start.offset;
    assert_eq!(first, 250);
    assert!(copy(&log, &mut other, ALL).await.unwrap().is_nothing());
    // A hole in the middle is no retention.
    theirs.store.delete(&theirs.keys().await[1]).await.unwrap();
    other.load().await.unwrap();
    assert_eq!(other.chain().gaps().len(), 1);
    assert_eq!(copy(&log, &mut other, ALL).await.unwrap().bytes, 250);
    assert_eq!(other.chain().gaps(), []);
}
