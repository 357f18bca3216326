//! The unavoidable work of a backup, and nothing else: read, page checksum, SHA-256, zstd, AES with Poly1305, on all
//! cores, in buffers that are used again. No repository is written and no sandbox surrounds it; what a backup takes
//! longer is Backstay's own cost.
//!
//! `ceiling FOLDER` answers `{"bytes": …, "seconds": …}`.

use anyhow::{Context, Result};
use backstay_postgresql_wire::page::page_checksum;
use backstay_repo::{Id, MasterKey, limits};
use std::{
    collections::HashSet,
    fs::File,
    hint::black_box,
    io::Write as _,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

/// As a backup cuts files.
const CHUNK: usize = 128 << 10;
/// Bytes before the ciphertext.
const IV_BYTES: usize = 16;
/// A data page.
const PAGE: usize = 8 << 10;
/// What a thread takes at a time.
const RANGE: u64 = limits::BATCH_BYTES as u64;

/// Folders that a backup leaves out.
const LEFT_OUT: [&str; 1] = ["pg_wal"];

fn list(folder: &Path, found: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() && !LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
            list(&entry.path(), found)?;
        } else if metadata.is_file() {
            found.push((entry.path(), metadata.len()));
        }
    }
    Ok(())
}

/// One thread's share: chunks that nobody had before are compressed and sealed.
fn work(ranges: &[(&Path, u64, u64)], next: &AtomicUsize, known: &Mutex<HashSet<Id>>, key: &MasterKey) -> Result<u64> {
    let mut compressor = zstd::bulk::Compressor::new(limits::ZSTD_LEVEL)?;
    let mut buffer = vec![0; RANGE as usize];
    let mut sealed = Vec::new();
    let mut bytes = 0;
    while let Some((path, start, length)) = ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
        let plain = &mut buffer[..*length as usize];
        File::open(path)?.read_exact_at(plain, *start).with_context(|| path.display().to_string())?;
        for (block, page) in plain.chunks_exact(PAGE).enumerate() {
            black_box(page_checksum(page, block as u32));
        }
        let chunks: Vec<&[u8]> = plain.chunks(CHUNK).collect();
        for (chunk, id) in chunks.iter().zip(Id::of_each(&chunks)) {
            bytes += chunk.len() as u64;
            if known.lock().map_err(|_| anyhow::anyhow!("a thread died"))?.insert(id) {
                sealed.resize(IV_BYTES + zstd::zstd_safe::compress_bound(chunk.len()), 0);
                let length = compressor.compress_to_buffer(chunk, &mut sealed[IV_BYTES..])?;
                sealed.truncate(IV_BYTES + length);
                key.seal_tail(&mut sealed, 0);
                black_box(&sealed);
            }
        }
    }
    Ok(bytes)
}

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).context("usage: ceiling FOLDER")?;
    let mut files = Vec::new();
    list(Path::new(&folder), &mut files)?;
    let ranges: Vec<(&Path, u64, u64)> = files
        .iter()
        .flat_map(|(path, length)| {
            (0..*length).step_by(RANGE as usize).map(move |start| (path.as_path(), start, RANGE.min(length - start)))
        })
        .collect();
    let (next, known, key) = (AtomicUsize::new(0), Mutex::new(HashSet::new()), MasterKey::random());
    let total = AtomicU64::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(|| work(&ranges, &next, &known, &key))).collect();
        for thread in threads {
            let bytes = thread.join().map_err(|_| anyhow::anyhow!("a thread died"))??;
            total.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    })?;
    let answer = serde_json::json!({
        "bytes": total.load(Ordering::Relaxed),
        "seconds": begun.elapsed().as_secs_f64(),
    });
    writeln!(std::io::stdout(), "{answer}")?;
    Ok(())
}
