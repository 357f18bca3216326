//! Bits that flip on a store: a check names the object and the backups that need it, and no restore ever gives other
//! bytes than were stored.

use crate::stock::*;
use backstay_core::{BackupId, Position, Segment, Timestamp};
use backstay_repo::log::{CompactPolicy, LogChain};
use backstay_repo::*;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// Bits that are flipped, one at a time.
const FLIPS: usize = 1000;
/// Places to flip them at the same time: most of a check's time is a pause.
const WORKERS: usize = 24;
const SECOND: &str = "second password";

/// What a folder holds: path, then mode, time and content of a file, or where a link points.
type Content = BTreeMap<String, (u32, i64, Vec<u8>)>;

/// A backup, as it was put.
struct Backup {
    id: BackupId,
    content: Content,
    /// Its trees and chunks.
    needs: BTreeSet<Id>,
}

/// A repository that is whole, and all that must be known of it to foresee what a flipped bit does.
struct Whole {
    objects: BTreeMap<String, Bytes>,
    /// The newest first.
    backups: Vec<Backup>,
    /// What lies where in each pack; what is behind the last of them is its header.
    packs: BTreeMap<String, Vec<(Range<usize>, Id)>>,
    pieces: Vec<(Segment, Bytes)>,
    first_key: String,
}

async fn copy(objects: &BTreeMap<String, Bytes>) -> Store {
    let store = memory();
    for (key, bytes) in objects {
        store.put_new(key, bytes.clone()).await.unwrap();
    }
    store
}

fn number(range: usize, seed: u64) -> usize {
    u64::from_le_bytes(noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, 16)[8..].try_into().unwrap()) as usize
        % range
}

async fn back_up(repository: &Repository, round: u64) -> Backup {
    let options = BackupOptions { chunking: Chunking::Fixed { bytes: 16 << 10 }, ..BackupOptions::default() };
    let session = repository.backup(options).await.unwrap();
    let mut content = Content::new();
    let modified = Timestamp::from_micros(1_795_316_645_678_901 + round);
    // One is in every backup, one changes in part, one is new every time, one is in every other.
    let mut changing = noise(1, 50_000);
    changing[20_000..20_100].fill(round as u8);
    let mut files = vec![
        ("base/1/same".to_owned(), noise(2, 40_001)),
        ("base/1/changing".to_owned(), changing),
        (format!("base/2/new-{round}"), noise(100 + round, 3000)),
        ("empty".to_owned(), Vec::new()),
    ];
    if round.is_multiple_of(2) {
        files.push(("base/3/even".to_owned(), noise(3, 20_000)));
    }
    for (name, bytes) in files {
        let attributes = FileAttributes { mode: 0o640 | (round as u32 & 7), modified };
        let at = path("data").join(&path(&name)).unwrap();
        session.put_file(&at, attributes, body(&bytes, 10_000)).await.unwrap();
        content.insert(name, (attributes.mode, (modified.as_micros() / 1_000_000) as i64, bytes));
    }
    session.put_symlink(&path("data/link"), "base/1/same", modified).await.unwrap();
    content.insert("link".to_owned(), (0o777, (modified.as_micros() / 1_000_000) as i64, b"base/1/same".to_vec()));
    let meta = SnapshotMeta { time: Some(Timestamp::from_micros(1_795_316_645_000_000 + round)), ..meta() };
    let backup = session.commit(meta).await.unwrap();
    let reader = repository.open_snapshot(&backup.id).await.unwrap();
    let mut needs = BTreeSet::from([backup.tree]);
    for node in reader.nodes().await.unwrap() {
        match node.kind {
            NodeKind::Directory { subtree } => drop(needs.insert(subtree)),
            NodeKind::File { content, .. } => needs.extend(content),
            _ => {}
        }
    }
    Backup { id: backup.id, content, needs }
}

/// A log of two epochs: some of it merged, with everything that lies beside the pieces.
async fn write_log(repository: &Repository) -> Vec<(Segment, Bytes)> {
    let mut log = open_log(repository).await;
    log.identify("postgresql", "7312345678901234567").await.unwrap();
    let at = |epoch, offset| Position { epoch, offset, label: format!("0/{offset:X}") };
    let mut pieces = Vec::new();
    for (epoch, start) in [(1, 0), (1, 1000), (1, 2000), (2, 2000), (2, 3000)] {
        let piece = Segment {
            start: at(epoch, start),
            end: at(epoch, start + 1000),
            follows: (epoch == 2 && start == 2000).then(|| at(1, 2500)),
            first_commit: Some(Timestamp::from_micros(1_795_316_645_000_000)),
            last_commit: Some(Timestamp::from_micros(1_795_316_646_000_000)),
            file: format!("0000000{epoch}0000000000000000"),
            file_offset: start,
        };
        let body = Bytes::from(noise(epoch * 10_000 + start, 1000));
        log.append(&piece, body.clone()).await.unwrap();
        pieces.push((piece, body));
        if (epoch, start) == (1, 2000) {
            let policy = CompactPolicy {
                age_min: Duration::ZERO,
                small_pieces_max: 1,
                index_pieces_min: 1,
                ..CompactPolicy::default()
            };
            let report =
                log.compact(&policy, Timestamp::from(SystemTime::now() + Duration::from_secs(9))).await.unwrap();
            assert!(report.merged > 0);
        }
    }
    log.confirm(&at(2, 4000), Timestamp::from_micros(1_795_316_647_000_000)).await.unwrap();
    log.put_note("00000002.history", Bytes::from_static(b"1\t0/9C4\tno recovery target specified\n")).await.unwrap();
    pieces
}

async fn open_log(repository: &Repository) -> LogChain {
    let (store, key) = (repository.store().clone(), Arc::clone(repository.shared_key()));
    LogChain::open(store, key, &repository.id().to_string(), "shop".parse().unwrap()).await.unwrap()
}

/// Where each blob lies, read from the index files without the crate's own reader.
fn layout(repository: &Repository, objects: &BTreeMap<String, Bytes>) -> BTreeMap<String, Vec<(Range<usize>, Id)>> {
    let mut packs = BTreeMap::new();
    for (_, stored) in objects.iter().filter(|(key, _)| key.starts_with("index/")) {
        let plain = repository.master_key().open(stored).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&zstd::stream::decode_all(&plain[1..]).unwrap()).unwrap();
        for pack in json["packs"].as_array().unwrap() {
            let id = pack["id"].as_str().unwrap();
            let blobs = pack["blobs"].as_array().unwrap().iter().map(|blob| {
                let number = |field: &str| blob[field].as_u64().unwrap() as usize;
                let start = number("offset");
                (start..start + number("length"), blob["id"].as_str().unwrap().parse().unwrap())
            });
            packs.insert(format!("data/{}/{id}", &id[..2]), blobs.collect());
        }
    }
    packs
}

impl Whole {
    async fn make() -> Self {
        let store = copy(&BTreeMap::new()).await;
        let options = InitOptions { kdf: KdfCost::TRIVIAL };
        let repository = Repository::init(store.clone(), &Password::new(PASSWORD), options).await.unwrap();
        let first_key = store.list("keys").await.unwrap().remove(0).key;
        repository.key_add(&Password::new(SECOND), KdfCost::TRIVIAL).await.unwrap();
        let mut backups = Vec::new();
        for round in 0..4 {
            backups.push(back_up(&repository, round).await);
        }
        backups.reverse();
        let pieces = write_log(&repository).await;
        let mut objects = BTreeMap::new();
        for object in store.list("").await.unwrap() {
            let bytes = store.get(&object.key, 1 << 30).await.unwrap();
            objects.insert(object.key, bytes);
        }
        let packs = layout(&repository, &objects);
        Self { objects, backups, packs, pieces, first_key }
    }

    /// The backups that cannot be restored once a bit of this byte is another.
    fn harmed(&self, key: &str, byte: usize) -> BTreeSet<&BackupId> {
        let of = |wanted: &dyn Fn(&Backup) -> bool| {
            self.backups.iter().filter(|backup| wanted(backup)).map(|backup| &backup.id).collect::<BTreeSet<_>>()
        };
        match key.split('/').next().unwrap() {
            "snapshots" => of(&|backup| key.ends_with(backup.id.as_str())),
            // Nobody knows what a damaged file of it named.
            "index" => of(&|_| true),
            "data" => match self.packs[key].iter().find(|(range, _)| range.contains(&byte)) {
                Some((_, blob)) => of(&|backup| backup.needs.contains(blob)),
                None => BTreeSet::new(),
            },
            _ => BTreeSet::new(),
        }
    }

    /// Flips a bit, and judges all that is said and restored.
    async fn flip(&self, store: &Store, key: &str, bit: usize, scratch: &Path) {
        let whole = &self.objects[key];
        let mut bad = whole.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        store.put_overwrite(key, bad).await.unwrap();
        let opened = Repository::open(store.clone(), &Password::new(PASSWORD)).await;
        if key == "config" || key == self.first_key {
            let error = opened.unwrap_err();
            assert_eq!(error.kind(), RepoErrorKind::Damaged, "{error}");
            assert!(error.to_string().starts_with(&format!("{key} is damaged")), "{error}");
        }
        // Another password still opens what is not damaged itself.
        let password = if key == self.first_key { SECOND } else { PASSWORD };
        match Repository::open(store.clone(), &Password::new(password)).await {
            Err(error) => assert!(key == "config" && error.kind() == RepoErrorKind::Damaged, "{error}"),
            Ok(repository) if key.starts_with("logs/") => self.judge_log(&repository, key).await,
            Ok(repository) => {
                self.judge_check(&repository, key, bit).await;
                self.judge_restores(&repository, key, bit, scratch).await;
            }
        }
        store.put_overwrite(key, whole.clone()).await.unwrap();
    }

    async fn judge_check(&self, repository: &Repository, key: &str, bit: usize) {
        let report = repository.check(CheckOptions::everything(), |_| {}).await.unwrap();
        let named = report.errors.iter().find(|problem| problem.object == key);
        let named = named.unwrap_or_else(|| panic!("{key} is not named: {:?}", report.errors));
        let others = report.errors.iter().filter(|problem| problem.object != key);
        // A file of the index that does not open leaves blobs that nobody knows.
        assert!(others.clone().all(|problem| key.starts_with("index/") && problem.object == "index"), "{report:?}");
        if key.starts_with("keys/") {
            assert_eq!(named.affected, None);
            return;
        }
        let harmed = self.harmed(key, bit / 8);
        let affected = named.affected.as_ref().unwrap();
        assert_eq!(affected.listed.iter().collect::<BTreeSet<_>>(), harmed, "{named}");
        assert_eq!(affected.count, harmed.len() as u64, "{named}");
    }

    async fn judge_restores(&self, repository: &Repository, key: &str, bit: usize, scratch: &Path) {
        let harmed = self.harmed(key, bit / 8);
        for backup in &self.backups {
            let into = scratch.join(backup.id.short());
            std::fs::create_dir_all(&into).unwrap();
            let folder = cap_std::fs::Dir::open_ambient_dir(&into, cap_std::ambient_authority()).unwrap();
            let placed = async {
                let reader = repository.open_snapshot(&backup.id).await?;
                reader.place(&path("data"), &folder, PlaceOptions::default()).await
            };
            match placed.await {
                Ok(_) => {
                    assert!(!harmed.contains(&backup.id), "{} was restored without what is damaged", backup.id);
                    assert!(content(&into) == backup.content, "{} was restored wrong", backup.id);
                }
                Err(error) => {
                    assert_eq!(error.kind(), RepoErrorKind::Damaged, "{error}");
                    assert!(harmed.contains(&backup.id), "{} was not restored: {error}", backup.id);
                }
            }
            std::fs::remove_dir_all(&into).unwrap();
        }
    }

    async fn judge_log(&self, repository: &Repository, key: &str) {
        let log = open_log(repository).await;
        let report = log.check(true).await.unwrap();
        let named: BTreeSet<&str> = report.damaged.iter().map(|damaged| damaged.object.as_str()).collect();
        assert_eq!(named, BTreeSet::from([key]));
        for (piece, body) in &self.pieces {
            match log.read(piece).await {
                Ok(read) => assert!(read == body, "log piece {} was read wrong", piece.start),
                Err(error) => assert!(error.is_damage(), "{error}"),
            }
        }
    }
}

/// Everything below `folder` but folders.
fn content(folder: &Path) -> Content {
    let mut found = Content::new();
    for entry in files_below(folder) {
        let (path, there) = (entry.path(), entry.metadata().unwrap());
        let bytes = match there.is_symlink() {
            true => std::fs::read_link(path).unwrap().into_os_string().into_encoded_bytes(),
            false => std::fs::read(path).unwrap(),
        };
        found.insert(name_below(folder, &entry), (there.permissions().mode() & 0o7777, there.mtime(), bytes));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_found_named_and_never_restored() {
    let whole = Arc::new(Whole::make().await);
    let seed = std::env::var("BACKSTAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_125);
    println!("BACKSTAY_SEED={seed}");
    let keys: Vec<&String> = whole.objects.keys().collect();
    for folder in ["config", "data/", "index/", "keys/", "logs/", "snapshots/"] {
        assert!(keys.iter().any(|key| key.starts_with(folder)), "{folder} is not tried");
    }
    // Half of them anywhere in the bytes, half in any object, so that small ones get their share.
    let total: usize = whole.objects.values().map(Bytes::len).sum();
    let flips: Vec<(String, usize)> = (0..FLIPS as u64)
        .map(|flip| {
            let seed = seed + flip * 3;
            if flip % 2 == 0 {
                let key = keys[number(keys.len(), seed)];
                return (key.clone(), number(whole.objects[key].len() * 8, seed + 1));
            }
            let mut bit = number(total * 8, seed + 2);
            let found = whole.objects.iter().find(|(_, bytes)| {
                let inside = bit < bytes.len() * 8;
                bit -= if inside { 0 } else { bytes.len() * 8 };
                inside
            });
            (found.unwrap().0.clone(), bit)
        })
        .collect();
    let next = Arc::new(AtomicUsize::new(0));
    let flips = Arc::new(flips);
    // A disk would be asked to sync for every restore.
    let memory = Path::new("/dev/shm");
    let scratch = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (whole, next, flips) = (whole.clone(), next.clone(), flips.clone());
            let scratch = scratch.path().join(worker.to_string());
            tokio::spawn(async move {
                let store = copy(&whole.objects).await;
                while let Some((key, bit)) = flips.get(next.fetch_add(1, Ordering::Relaxed)) {
                    println!("bit {bit} of {key}");
                    whole.flip(&store, key, *bit, &scratch).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    assert!(next.load(Ordering::Relaxed) >= FLIPS);
}
