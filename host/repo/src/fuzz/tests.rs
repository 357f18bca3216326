//! Replays what the fuzz targets know, and makes the first of it.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use super::*;
use crate::log::{self, LogChain, fuzz as doors};
use crate::{BackupOptions, FileAttributes, KdfCost, LockKind, Repository, SnapshotMeta, Store, Unlocked};
use backstay_core::{BackupManifest, Finding, Position, RelativePath, Segment, Timestamp, Volume};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// Everything that is committed for a target: seeds, what mutations of them reached, and what once failed.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    };
    let mut inputs: Vec<_> = std::fs::read_dir(corpus(target)).unwrap().map(read).collect();
    inputs.sort();
    inputs
}

/// Shows an input to a door, as every target does.
fn show(door: Door, input: &[u8]) -> Seen {
    let mut seen = Seen::default();
    let memory = allocation_counter::measure(|| seen = door(input)).bytes_max;
    let bytes = (input.len(), seen.bytes);
    assert!(
        memory <= seen.memory_bytes_max() as u64,
        "{memory} bytes of memory for input and what was parsed, {bytes:?}"
    );
    seen
}

#[test]
fn a_door_that_takes_more_memory_than_its_input_is_worth_is_noticed() {
    let takes = |bytes: usize| drop(std::hint::black_box(vec![1u8; bytes]));
    assert_eq!(allocation_counter::measure(|| takes(1000)).bytes_max, 1000);
    let greedy: Door = |input| {
        drop(std::hint::black_box(vec![1u8; (1 << 20) + 65]));
        Seen::of(input.len())
    };
    show(greedy, b"two");
    assert!(std::panic::catch_unwind(|| show(greedy, b"1")).is_err());
}

#[test]
fn every_known_input_is_taken_or_refused() {
    let (mut replayed, mut bytes) = (0, 0);
    for (target, door) in DOORS {
        let inputs = inputs(target);
        for (name, input) in &inputs {
            println!("{target}/{name}");
            let seen = show(door, input);
            assert!(seen.taken || !name.starts_with("seed-"), "{target}/{name} is a real object, and was refused");
            replayed += 1;
            bytes += input.len();
        }
        assert!(inputs.iter().any(|(name, _)| name.starts_with("seed-")), "{target} has no seeds");
    }
    assert!(bytes <= 200 << 10, "{replayed} inputs have {bytes} bytes: too many to be kept with the code");
}

#[test]
fn every_known_input_cut_anywhere_is_taken_or_refused() {
    for (target, door) in DOORS {
        for (name, input) in inputs(target).iter().filter(|(name, _)| name.starts_with("seed-")) {
            println!("{target}/{name}");
            let step = (input.len() / 64).max(1);
            for length in (0..input.len()).step_by(step) {
                show(door, &input[..length]);
                let mut bad = input.clone();
                bad[length] ^= 1 << (length % 8);
                show(door, &bad);
            }
        }
    }
}

/// Random, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) as usize % bound.max(1)
    }

    /// A few changes of the kinds that break parsers.
    fn mutate(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(4) {
            let (at, length) = (self.below(bytes.len()), self.below(40));
            let end = (at + length).min(bytes.len());
            match self.below(8) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = [0, 0xff, 0x7f, b'"', b'\\', b'9', b'{', b'\n'][self.below(8)],
                2 => drop(bytes.drain(at..end)),
                3 => {
                    let twice = bytes[at..end].to_vec();
                    drop(bytes.splice(at..at, twice));
                }
                4 => bytes.truncate(at),
                5 => {
                    let from = self.below(other.len());
                    let part = other[from..(from + length * 4).min(other.len())].to_vec();
                    drop(bytes.splice(at..end, part));
                }
                6 => {
                    let number =
                        ["0", "-1", "18446744073709551615", "4294967295", "1e999", "null", "[]"][self.below(7)];
                    drop(bytes.splice(at..end, number.bytes()));
                }
                _ => {
                    let number = [0, 1, u32::MAX, 1 << 31, 65_535][self.below(5)].to_le_bytes();
                    drop(bytes.splice(at..(at + 4).min(bytes.len()), number));
                }
            }
        }
        bytes
    }
}

/// What libFuzzer does better, where there is none: BACKSTAY_FUZZ_MILLIS for each target.
#[test]
fn mutations_of_known_inputs_are_taken_or_refused() {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let patience = std::time::Duration::from_millis(number("BACKSTAY_FUZZ_MILLIS", 200));
    let first = number("BACKSTAY_SEED", 1);
    for (target, door) in DOORS {
        let inputs = inputs(target);
        let (begun, mut seed, mut taken) = (std::time::Instant::now(), first, 0u64);
        while begun.elapsed() < patience {
            let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            let (one, other) = (dice.below(inputs.len()), dice.below(inputs.len()));
            let bad = dice.mutate(&inputs[one].1, &inputs[other].1);
            let seen = std::panic::catch_unwind(|| show(door, &bad));
            let seen =
                seen.unwrap_or_else(|_| panic!("{target} fails with BACKSTAY_SEED={seed}: {}", hex::encode(&bad)));
            taken += u64::from(seen.taken);
            seed += 1;
        }
        println!("{target}: {} inputs, {taken} taken", seed - first);
    }
}

/// Real objects, sealed with the fixed key, and what they hold. With `BACKSTAY_UPDATE_SEEDS=1` they become the seeds.
#[tokio::test]
async fn what_is_written_today_is_taken() {
    let key = Arc::new(fixed_key());
    let store = Store::from_object_store(Arc::new(object_store::memory::InMemory::new()), "memory");
    let file = KeyFile::new(&key, &Password::new("x"), KdfCost::TRIVIAL).unwrap();
    let config = format!(r#"{{"version":2,"id":"{}","chunker_polynomial":"25b468838dcb75"}}"#, Id::of(b"repository"));
    let unlocked = Unlocked {
        key_id: Id::of(b"key"),
        master_key: zeroize::Zeroizing::new(String::from_utf8(key.to_json().to_vec()).unwrap()),
    };
    store.put_new("config", key.seal(config.as_bytes())).await.unwrap();
    let repository = Repository::open_unlocked(store.clone(), &unlocked).await.unwrap();
    let mut first = None;
    for round in 0..2 {
        let session = repository.backup(BackupOptions::default()).await.unwrap();
        let attributes = FileAttributes { mode: 0o4640, modified: Timestamp::from_micros(1_795_316_645_678_901) };
        let path = |text: &str| RelativePath::new(text).unwrap();
        for (name, body) in [("data/base/1", &[7; 20_000][..]), ("data/a \"b\"\n\u{200b}é", b"x"), ("data/empty", b"")]
        {
            let body = futures::stream::iter([Ok(Bytes::copy_from_slice(body))]);
            session.put_file(&path(name), attributes, body).await.unwrap();
        }
        if round == 1 {
            session.put_symlink(&path("data/link"), "../é", attributes.modified).await.unwrap();
        }
        let tags = vec!["target=shop".to_owned()];
        let meta = SnapshotMeta { hostname: "db1".into(), tags, parent: first, ..SnapshotMeta::default() };
        first = Some(session.commit(meta).await.unwrap().id);
    }
    let pinned = first.unwrap();
    repository.pin(&pinned, "audit \"2026\"\n").await.unwrap();
    let lock = repository.lock(LockKind::Shared).await.unwrap();
    log_objects(&store, &key).await;

    let folders = DOORS.map(|(target, _)| (target, corpus(target)));
    for (_, folder) in &folders {
        std::fs::create_dir_all(folder).unwrap();
    }
    let update = std::env::var_os("BACKSTAY_UPDATE_SEEDS").is_some();
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let door = DOORS.iter().find(|(known, _)| *known == target).map(|(_, door)| door).unwrap();
        assert!(show(*door, bytes).taken, "{target}/{name} is a real object, and was refused");
        if update {
            std::fs::write(corpus(target).join(format!("seed-{name}")), bytes).unwrap();
        }
    };
    write("key", "plain", &document::to_json(&file).unwrap());
    write("config", "stored", &store.get("config", 1 << 20).await.unwrap());
    write("config", "plain", config.as_bytes());
    let stored = store.get(&pin::key(&pinned), 1 << 20).await.unwrap();
    write("pin", "stored", &stored);
    write("pin", "plain", &key.open(&stored).unwrap());
    write("manifest", "plain", &serde_json::to_vec_pretty(&a_manifest()).unwrap());
    for (folder, target) in [("index", "index"), ("snapshots", "snapshot"), ("locks", "lock")] {
        for (number, object) in store.list(folder).await.unwrap().iter().enumerate() {
            let stored = store.get(&object.key, 1 << 20).await.unwrap();
            let packed = key.open(&stored).unwrap();
            write(target, &format!("stored-{number}"), &stored);
            write(target, &format!("packed-{number}"), &packed);
            write(target, &format!("plain-{number}"), &decompress(&packed[1..], 1 << 20).unwrap());
        }
    }
    for (number, object) in store.list("data").await.unwrap().iter().enumerate() {
        let pack = store.get(&object.key, 1 << 20).await.unwrap();
        let blobs = read_header(&key, &pack).unwrap();
        let mut header = Vec::new();
        write_entries(&blobs, &mut header);
        write("pack_header", &format!("stored-{number}"), &pack);
        write("pack_header", &format!("plain-{number}"), &header);
        for (at, blob) in blobs.iter().enumerate() {
            let sealed = &pack[blob.offset as usize..][..blob.length as usize];
            let mut plain = AlignedBuffer::default();
            blob.open(&key, &mut sealed.to_vec(), &mut plain).unwrap();
            if blob.kind == BlobKind::Tree {
                write("tree", &format!("{number}-{at}"), plain.bytes());
                write("references", &format!("{number}-{at}"), plain.bytes());
            }
            if blob.raw_length != 0 {
                let claim = ((blob.raw_length >> 8) as u16).to_le_bytes();
                write("zstd", &format!("blob-{number}-{at}"), &[&claim[..], &key.open(sealed).unwrap()].concat());
            }
        }
    }
    let id = Id::of(b"").to_string();
    for (name, text) in [("escaped", r#"a\"b\\\n\xff\u200b\U0001f600\303\251"#), ("id", id.as_str())] {
        write("name", name, text.as_bytes());
    }
    let sealer = doors::sealer().unwrap();
    for object in store.list("logs").await.unwrap() {
        let stored = store.get(&object.key, 1 << 20).await.unwrap();
        let short = object.key.replace("00000000000000000", "").replace('/', "-");
        let name = object.key.strip_prefix("logs/shop/").unwrap();
        write("name", &short, name.as_bytes());
        let end = sealer.header_end(&doors::object_name(name), &stored).unwrap();
        write("log_header", &format!("stored-{short}"), &stored);
        write("log_header", &format!("plain-{short}"), &key.open(&stored[12..end]).unwrap());
        let body = decompress(&key.open(&stored[end..]).unwrap(), 1 << 20).unwrap();
        match short.rsplit('-').next().unwrap() {
            "identity" | "confirmed" => {
                write("log_document", &format!("plain-{short}"), &body);
                write("log_document", &format!("stored-{short}"), &stored);
            }
            "index" => {
                write("log_index", "plain", &body);
                write("log_index", "stored", &stored);
            }
            "claim" => {
                write("log_claim", &format!("plain-{short}"), &body);
                write("log_claim", &format!("stored-{short}"), &stored);
            }
            _ => {}
        }
    }
    lock.release().await.unwrap();
}

/// With everything in it that one can have.
fn a_manifest() -> BackupManifest {
    let at = |offset: u64| Position { epoch: 1, offset, label: format!("0/{offset:X}") };
    let time = |second: u64| Timestamp::from_micros((1_795_316_645 + second) * 1_000_000);
    let finding = Finding { path: "data/base/1".into(), offset: 8192, what: "the checksum of a page is wrong".into() };
    let volume = Volume { name: "volume-16385".into(), title: "fast".into(), location: "/srv/fast".into() };
    BackupManifest {
        format: 1,
        target: doors::TARGET.parse().unwrap(),
        engine: "postgresql".into(),
        engine_version: "0.1.0".into(),
        database_version: "15.1".into(),
        identity: "7312345678901234567".into(),
        method: "stream".into(),
        started: time(0),
        finished: time(9),
        start: at(0x200_0028),
        end: at(0x200_0130),
        log_from: at(0x200_0000),
        consistent_at: Some(time(8)),
        main: "data".into(),
        volumes: vec![volume],
        bytes: 20_001,
        files: 3,
        findings: vec![finding],
        more_findings: 1,
        notes: r#"{"wal_segment_size":16777216}"#.into(),
    }
}

/// A log of two epochs, merged in part.
async fn log_objects(store: &Store, key: &Arc<MasterKey>) {
    let target = doors::TARGET.parse().unwrap();
    let mut log = LogChain::open(store.clone(), key.clone(), doors::REPOSITORY, target).await.unwrap();
    log.identify("postgresql", "7312345678901234567").await.unwrap();
    let at = |epoch, offset| Position { epoch, offset, label: format!("0/{offset:X}") };
    for (epoch, start, end) in [(1, 0, 1000), (1, 1000, 2000), (1, 2000, 3000), (2, 2500, 3500)] {
        let piece = Segment {
            start: at(epoch, start),
            end: at(epoch, end),
            follows: (epoch == 2).then(|| at(1, 2500)),
            first_commit: Some(Timestamp::from_micros(1_795_316_645_000_000)),
            last_commit: Some(Timestamp::from_micros(1_795_316_646_000_000)),
            file: format!("0000000{epoch}0000000000000000"),
            file_offset: start,
        };
        log.append(&piece, Bytes::from(vec![epoch as u8; (end - start) as usize])).await.unwrap();
    }
    log.confirm(&at(2, 3500), Timestamp::from_micros(1_795_316_647_000_000)).await.unwrap();
    log.put_note("00000002.history", Bytes::from_static(b"1\t0/9C4\tno recovery target specified\n")).await.unwrap();
    let policy = log::CompactPolicy {
        age_min: std::time::Duration::ZERO,
        small_pieces_max: 2,
        index_pieces_min: 1,
        ..log::CompactPolicy::default()
    };
    log.compact(&policy, Timestamp::from(std::time::SystemTime::now() + std::time::Duration::from_secs(60)))
        .await
        .unwrap();
}
