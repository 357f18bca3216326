//! How fast a backup is written and placed, against a bare loop of its unavoidable work.
//!
//! `cargo run --release -p backstay-repo --example throughput -- FOLDER [FILE]`
//!
//! FOLDER gets a scratch repository. Without FILE, 1 GiB is made: database-like pages, half of
//! which compress.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use backstay_core::{RelativePath, Timestamp};
use backstay_repo::*;
use bytes::Bytes;
use std::path::Path;
use std::time::Instant;

const PART: usize = 256 << 10;
const PAGE: usize = 8192;

fn pages(bytes: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut made = Vec::with_capacity(bytes);
    while made.len() < bytes {
        for row in 0..PAGE / 64 {
            for word in 0..8 {
                let value = if word % 2 == 0 { next() } else { row as u64 };
                made.extend_from_slice(&value.to_le_bytes());
            }
        }
    }
    made
}

fn rate(what: &str, bytes: usize, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    println!("{what:<44} {seconds:7.2} s {:8.0} MB/s", bytes as f64 / seconds / 1e6);
}

/// Hash, compress and seal on two threads; nothing else.
fn bare_loop(data: &Bytes, chunk: usize) {
    let key = MasterKey::random();
    let half = data.len() / 2;
    std::thread::scope(|scope| {
        for part in [data.slice(..half), data.slice(half..)] {
            let key = &key;
            scope.spawn(move || {
                let mut compressor = zstd::bulk::Compressor::new(limits::ZSTD_LEVEL).unwrap();
                for chunk in part.chunks(chunk) {
                    std::hint::black_box(Id::of(chunk));
                    let frame = compressor.compress(chunk).unwrap();
                    std::hint::black_box(key.seal(&frame));
                }
            });
        }
    });
}

async fn back_up(repository: &Repository, data: &Bytes, chunk: usize) -> Committed {
    let session = repository
        .backup(BackupOptions { chunking: Chunking::Fixed { bytes: chunk }, ..BackupOptions::default() })
        .await
        .unwrap();
    let parts: Vec<_> =
        (0..data.len()).step_by(PART).map(|at| Ok(data.slice(at..(at + PART).min(data.len())))).collect();
    let path = RelativePath::new("data/file").unwrap();
    let attributes = FileAttributes { mode: 0o600, modified: Timestamp::EPOCH };
    session.put_file(&path, attributes, futures::stream::iter(parts)).await.unwrap();
    session.commit(SnapshotMeta::default()).await.unwrap()
}

/// Changes one byte in every page of a random hundredth.
fn touch(data: &Bytes) -> Bytes {
    let mut changed = data.to_vec();
    let count = changed.len() / PAGE;
    let mut state = 12345u64;
    for _ in 0..count / 100 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        changed[(state >> 33) as usize % count * PAGE] ^= 0xff;
    }
    changed.into()
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("usage: throughput FOLDER [FILE]");
    let data = Bytes::from(arguments.next().map_or_else(|| pages(1 << 30), |file| std::fs::read(file).unwrap()));
    let changed = touch(&data);
    println!("{} MB", data.len() / 1_000_000);
    for chunk in [64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20] {
        println!("-- chunks of {} KiB", chunk >> 10);
        let root = Path::new(&folder).join(format!("repo-{chunk}"));
        let store = Store::connect(&StoreConfig::new(format!("file://{}", root.display()))).unwrap();
        let repository =
            Repository::init(store, &Password::new("x"), InitOptions { kdf: KdfCost::TRIVIAL }).await.unwrap();
        let started = Instant::now();
        bare_loop(&data, chunk);
        rate("hash, compress, seal: bare loop, two threads", data.len(), started);
        let started = Instant::now();
        let first = back_up(&repository, &data, chunk).await;
        rate("first backup, durable", data.len(), started);
        let started = Instant::now();
        let same = back_up(&repository, &data, chunk).await;
        rate("again, nothing changed", data.len(), started);
        let started = Instant::now();
        let third = back_up(&repository, &changed, chunk).await;
        rate("again, 1 % of pages changed", data.len(), started);
        println!(
            "stored {} MB, nothing changed {} kB, 1 % changed {:.1} % of the first",
            first.totals.uploaded / 1_000_000,
            same.totals.uploaded / 1000,
            third.totals.uploaded as f64 * 100.0 / first.totals.uploaded as f64
        );
        let into = root.with_extension("placed");
        std::fs::create_dir(&into).unwrap();
        let dir = cap_std::fs::Dir::open_ambient_dir(&into, cap_std::ambient_authority()).unwrap();
        let reader = repository.open_snapshot(&first.id).await.unwrap();
        let started = Instant::now();
        reader.place(&RelativePath::new("data").unwrap(), &dir, PlaceOptions::default()).await.unwrap();
        rate("placed, verified, durable", data.len(), started);
        let started = Instant::now();
        repository.check(CheckOptions::everything(), |_| {}).await.unwrap();
        rate("check --read-data", first.totals.uploaded as usize, started);
        std::fs::remove_dir_all(&root).unwrap();
        std::fs::remove_dir_all(&into).unwrap();
    }
}
