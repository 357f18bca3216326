//! Bytes that are not what was written.

use super::compaction::{at_once, later};
use super::*;
use futures::StreamExt;

async fn change(place: &Place, key: &str, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let good = place.store.get(key, limits::OBJECT_BYTES_MAX).await.unwrap();
    let mut bad = good.to_vec();
    change(&mut bad);
    place.store.put_overwrite(key, bad).await.unwrap();
    good
}

#[tokio::test]
async fn every_flipped_bit_of_a_piece_is_found() {
    let place = Place::memory();
    let mut log = place.open().await;
    append_all(&mut log, 1, 0, 300, 100).await;
    let key = log.sealer.key_of(&ObjectName::appended(&piece(1, 100, 200)));
    let bits = place.store.head(&key).await.unwrap().bytes * 8;
    let mut headers = 0;
    // Every byte, and every bit of some.
    for bit in (0..bits).step_by(3) {
        let good = change(&place, &key, |bytes| bytes[bit as usize / 8] ^= 1 << (bit % 8)).await;
        let report = log.check(true).await.unwrap();
        assert!(!report.is_sound(), "bit {bit}");
        assert!(report.damaged.iter().all(|damaged| damaged.object == key), "{report:?}");
        headers += u64::from(!report.gaps.is_empty());
        place.store.put_overwrite(&key, good).await.unwrap();
    }
    assert!(headers > 0 && headers < bits / 3, "some are found in the header, some in the body");
    assert!(log.check(true).await.unwrap().is_sound());
}

#[tokio::test]
async fn a_truncated_or_extended_piece_is_found_without_reading_data() {
    let place = Place::memory();
    let mut log = place.open().await;
    append_all(&mut log, 1, 0, 300, 100).await;
    let key = log.sealer.key_of(&ObjectName::appended(&piece(1, 100, 200)));
    for length in [0, 1, 11, 12, 40, 200, 500, 2000] {
        let good = change(&place, &key, |bytes| bytes.resize(length, 0)).await;
        let log = place.open().await;
        assert_eq!(log.damaged().len(), 1, "{length}");
        assert_eq!(log.chain().gaps().len(), 1, "{length}");
        place.store.put_overwrite(&key, good).await.unwrap();
    }
}

#[tokio::test]
async fn a_piece_that_was_copied_elsewhere_does_not_open() {
    let place = Place::memory();
    let mut log = place.open().await;
    append_all(&mut log, 1, 0, 300, 100).await;
    let from = log.sealer.key_of(&ObjectName::appended(&piece(1, 100, 200)));
    let object = place.store.get(&from, limits::OBJECT_BYTES_MAX).await.unwrap();
    let to = ["logs/other/", "logs/shop/"].map(|root| {
        let epoch = if root.contains("shop") { 9 } else { 1 };
        format!("{root}{}", ObjectName::Appended { epoch, start: 100 })
    });
    for key in &to {
        place.store.put_new(key, object.clone()).await.unwrap();
    }
    let damaged = place.open().await.damaged().to_vec();
    assert_eq!(damaged.len(), 1);
    assert!(damaged[0].why.contains("copied here"), "{}", damaged[0].why);
    assert_eq!(place.open_target("other").await.damaged().len(), 1);
    let elsewhere =
        LogChain::open(place.store.clone(), place.key.clone(), &"0".repeat(64), "shop".parse().unwrap()).await.unwrap();
    assert_eq!(elsewhere.damaged().len(), 4, "another repository's pieces");
    let stranger = Place { store: place.store.clone(), key: Arc::new(MasterKey::random()) };
    assert_eq!(stranger.open().await.damaged().len(), 4, "another key");
}

#[tokio::test]
async fn a_damaged_piece_does_not_stop_the_archiver_behind_it() {
    let place = Place::memory();
    let mut log = place.open().await;
    append_all(&mut log, 1, 0, 300, 100).await;
    let key = log.sealer.key_of(&ObjectName::appended(&piece(1, 100, 200)));
    change(&place, &key, |bytes| bytes[20] ^= 1).await;
    let mut log = place.open().await;
    append_all(&mut log, 1, 300, 400, 100).await;
    assert_eq!(log.chain().gaps(), [Gap { from: at(1, 100), to: at(1, 200) }]);
    let read = log.read(&piece(1, 100, 200)).await.unwrap_err();
    assert!(read.is_damage(), "{read}");
}

#[tokio::test]
async fn a_damaged_part_is_not_merged_away() {
    let place = Place::memory();
    let mut log = place.open().await;
    append_all(&mut log, 1, 0, FILE_BYTES + 10, 500).await;
    let key = log.sealer.key_of(&ObjectName::appended(&piece(1, 500, 1000)));
    change(&place, &key, |bytes| *bytes.last_mut().unwrap() ^= 1).await;
    let before = place.keys().await;
    let error = log.compact(&compaction::at_once(), compaction::later()).await.unwrap_err();
    assert!(error.is_damage() && error.to_string().contains("00000000000000000500"), "{error}");
    assert_eq!(place.keys().await, before);
}

#[tokio::test]
async fn damaged_documents_are_named() {
    let place = Place::memory();
    let mut log = place.open().await;
    append_all(&mut log, 1, 0, 300, 100).await;
    log.identify("postgresql", "1").await.unwrap();
    log.confirm(&at(1, 300), Timestamp::from_micros(1)).await.unwrap();
    log.put_note("n", Bytes::from_static(b"x")).await.unwrap();
    let names = ["logs/shop/confirmed", "logs/shop/identity", "logs/shop/notes/n"];
    for key in names {
        change(&place, key, |bytes| *bytes.last_mut().unwrap() ^= 1).await;
    }
    place.store.put_new("logs/shop/what", "?").await.unwrap();
    let report = log.check(false).await.unwrap();
    let mut damaged: Vec<_> = report.damaged.iter().map(|damaged| damaged.object.as_str()).collect();
    damaged.sort_unstable();
    assert_eq!(damaged, names);
    assert_eq!(report.strangers, ["logs/shop/what"]);
}

#[tokio::test]
async fn random_bytes_are_never_a_piece_and_never_a_panic() {
    let place = Place::memory();
    let log = place.open().await;
    let name = ObjectName::Appended { epoch: 1, start: 0 };
    for length in 0..400 {
        let mut bytes = vec![0; length];
        crate::crypto::random_bytes(&mut bytes);
        for with_magic in [false, true] {
            if with_magic && length >= 12 {
                bytes[..8].copy_from_slice(b"BKSTLOG\x01");
                bytes[8..12].copy_from_slice(&((length as u32 - 12) | (length as u32 % 2 * 0xFF00_0000)).to_le_bytes());
            }
            assert!(log.sealer.open(&name, bytes.clone().into()).await.is_err());
            assert!(log.sealer.open_header(&name, &bytes, length as u64).is_err());
        }
    }
    assert!(log.file("x").unwrap().is_none());
    let nothing = log.joined(0, vec![]).collect::<Vec<_>>().await;
    assert!(nothing.is_empty());
}

#[tokio::test]
async fn no_part_goes_for_a_merged_piece_that_does_not_open() {
    let place = Place::memory();
    let mut log = place.open().await;
    append_all(&mut log, 1, 0, 2 * FILE_BYTES, 512).await;
    let mut parts = Vec::new();
    for key in place.keys().await {
        parts.push((key.clone(), place.store.get(&key, limits::OBJECT_BYTES_MAX).await.unwrap()));
    }
    log.compact(&at_once(), later()).await.unwrap();
    let merged = place.keys().await.into_iter().find(|key| parts.iter().all(|(part, _)| part != key)).unwrap();
    // As if the compactor had ended before it removed what it merged, and the disk had rotted then.
    for (key, part) in &parts {
        place.store.put_overwrite(key, part.clone()).await.unwrap();
    }
    let middle = place.store.head(&merged).await.unwrap().bytes as usize / 2;
    change(&place, &merged, |bytes| bytes[middle] ^= 1).await;
    let error = place.open().await.compact(&at_once(), later()).await.unwrap_err();
    assert!(error.is_damage(), "{error}");
    let keys = place.keys().await;
    assert!(parts.iter().all(|(part, _)| keys.contains(part)), "{keys:?}");
}
