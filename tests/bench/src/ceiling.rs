//! The unavoidable work, and nothing else, on all cores, in buffers that are used again:
//!
//! ```text
//!   ceiling walk FOLDER              list and stat
//!   ceiling reread FOLDER            read, page checksum, SHA-256
//!   ceiling backup FOLDER            read, page checksum, SHA-256, zstd, AES with Poly1305; nothing is written
//!   ceiling packs FOLDER             the same, and SHA-256 of what is sealed, which the format wants of packs
//!   ceiling stored FOLDER SCRATCH    the same, and what is sealed is written past the page cache and made durable
//!   ceiling restore FOLDER SCRATCH   read, Poly1305, AES, zstd, SHA-256, write, make durable
//!   ceiling disk FOLDER REPOSITORY SCRATCH   what a restore reads and writes, past the page cache, and nothing is done with it
//! ```
//!
//! No repository and no sandbox surrounds it; what Backstay takes longer is its own cost. Answers
//! `{"bytes": …, "seconds": …}`.

use anyhow::{Context, Result};
use backstay_postgresql_wire::page::page_checksum;
use backstay_repo::{
    Id, MasterKey,
    aligned::{ALIGNMENT, AlignedBuffer, DIRECT},
    limits,
};
use std::{
    collections::HashSet,
    fs::File,
    hint::black_box,
    io::Write as _,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
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

/// Threads that wait for the disk, so that it always has something to do.
const DISK_THREADS: usize = 8;
/// What is written at a time, as a backup writes packs, and how many may be on their way.
const PACK: usize = 16 << 20;
const PACKS_MAX: usize = 3;

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

/// How far a backup goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Depth {
    Hashed,
    Sealed,
    Packed,
}

/// `buffer` with as much as holds so many bytes and may be read or written directly.
fn whole(buffer: &mut AlignedBuffer, bytes: usize) -> &mut [u8] {
    buffer.clear();
    buffer.extend(bytes.next_multiple_of(ALIGNMENT))
}

/// Packs on their way to the disk, and back.
struct Disk {
    full: SyncSender<AlignedBuffer>,
    empty: Mutex<Receiver<AlignedBuffer>>,
}

impl Disk {
    /// Hands a pack to the disk once it is full; waits while too many are under way.
    fn write(&self, pack: &mut AlignedBuffer, mut sealed: &[u8]) -> Result<()> {
        loop {
            let (now, later) = sealed.split_at(sealed.len().min(PACK - pack.bytes().len()));
            pack.extend(now.len()).copy_from_slice(now);
            sealed = later;
            if pack.bytes().len() < PACK {
                return Ok(());
            }
            let other = self.empty.lock().map_err(|_| anyhow::anyhow!("a thread died"))?.recv()?;
            self.full.send(std::mem::replace(pack, other))?;
        }
    }
}

/// Writes packs one behind the other, until nobody fills any.
fn write_packs(file: &File, full: Receiver<AlignedBuffer>, empty: Sender<AlignedBuffer>) -> Result<()> {
    let mut end = 0;
    for mut pack in full {
        let bytes = pack.bytes().len();
        let whole = whole(&mut pack, bytes);
        file.write_all_at(whole, end)?;
        end += whole.len() as u64;
        pack.clear();
        // Nobody waits for it at the end.
        let _ = empty.send(pack);
    }
    Ok(file.sync_all()?)
}

/// One thread's share: chunks that nobody had before are compressed and sealed.
fn work(
    ranges: &[(&Path, u64, u64)],
    next: &AtomicUsize,
    known: &Mutex<HashSet<Id>>,
    key: &MasterKey,
    depth: Depth,
    disk: Option<&Disk>,
) -> Result<u64> {
    let mut to_disk = disk.map(|_| AlignedBuffer::with_room(PACK));
    let mut compressor = zstd::bulk::Compressor::new(limits::ZSTD_LEVEL)?;
    let mut buffer = AlignedBuffer::with_room(RANGE as usize);
    let (mut sealed, mut pack) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    while let Some((path, start, length)) = ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
        buffer.clear();
        let plain = buffer.extend(*length as usize);
        File::open(path)?.read_exact_at(plain, *start).with_context(|| path.display().to_string())?;
        for (block, page) in plain.chunks_exact(PAGE).enumerate() {
            black_box(page_checksum(page, block as u32));
        }
        let chunks: Vec<&[u8]> = plain.chunks(CHUNK).collect();
        for (chunk, id) in chunks.iter().zip(Id::of_each(&chunks)) {
            bytes += chunk.len() as u64;
            if depth > Depth::Hashed && known.lock().map_err(|_| anyhow::anyhow!("a thread died"))?.insert(id) {
                sealed.resize(IV_BYTES + zstd::zstd_safe::compress_bound(chunk.len()), 0);
                let length = compressor.compress_to_buffer(chunk, &mut sealed[IV_BYTES..])?;
                sealed.truncate(IV_BYTES + length);
                key.seal_tail(&mut sealed, 0);
                black_box(&sealed);
                if depth == Depth::Packed {
                    pack.extend_from_slice(&sealed);
                }
            }
        }
        // Two packs side by side, as a backup hashes them.
        let halves = pack.split_at(pack.len() / 2);
        black_box(Id::of_each(&[halves.0, halves.1]));
        if let (Some(disk), Some(to_disk)) = (disk, &mut to_disk) {
            disk.write(to_disk, &pack)?;
        }
        pack.clear();
    }
    if let (Some(disk), Some(to_disk)) = (disk, to_disk) {
        disk.full.send(to_disk)?;
    }
    Ok(bytes)
}

/// Runs `work` on every core; answers the sum and the seconds.
fn on_all_cores(work: impl Fn() -> Result<u64> + Sync) -> Result<(u64, f64)> {
    on_threads(std::thread::available_parallelism().map_or(2, usize::from), work)
}

/// The same on so many threads.
fn on_threads(count: usize, work: impl Fn() -> Result<u64> + Sync) -> Result<(u64, f64)> {
    let total = AtomicU64::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(&work)).collect();
        for thread in threads {
            let bytes = thread.join().map_err(|_| anyhow::anyhow!("a thread died"))??;
            total.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    })?;
    Ok((total.load(Ordering::Relaxed), begun.elapsed().as_secs_f64()))
}

/// What there is to read, in parts that one thread takes.
fn ranges(files: &[(PathBuf, u64)]) -> Vec<(&Path, u64, u64)> {
    files
        .iter()
        .flat_map(|(path, length)| {
            (0..*length).step_by(RANGE as usize).map(move |start| (path.as_path(), start, RANGE.min(length - start)))
        })
        .collect()
}

fn backup(files: &[(PathBuf, u64)], depth: Depth, disk: Option<&Disk>) -> Result<(u64, f64)> {
    let ranges = ranges(files);
    let (next, known, key) = (AtomicUsize::new(0), Mutex::new(HashSet::new()), MasterKey::random());
    on_all_cores(|| work(&ranges, &next, &known, &key, depth, disk))
}

/// The same, all of it, with what is sealed on the disk in the end.
fn stored(files: &[(PathBuf, u64)], scratch: &Path) -> Result<(u64, f64)> {
    let place = scratch.join("stored");
    let file = File::options().write(true).create_new(true).custom_flags(DIRECT).open(&place)?;
    let (to_disk, full) = sync_channel(PACKS_MAX);
    let (give_back, empty) = channel();
    (0..PACKS_MAX).try_for_each(|_| give_back.send(AlignedBuffer::with_room(PACK)))?;
    let disk = Disk { full: to_disk, empty: Mutex::new(empty) };
    let begun = Instant::now();
    let bytes = std::thread::scope(|scope| -> Result<u64> {
        // Has its ends of both channels: where it fails, everybody ends.
        let file = &file;
        let writer = scope.spawn(move || write_packs(file, full, give_back));
        let (bytes, _) = backup(files, Depth::Packed, Some(&disk))?;
        drop(disk);
        writer.join().map_err(|_| anyhow::anyhow!("a thread died"))??;
        Ok(bytes)
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    std::fs::remove_file(place)?;
    Ok((bytes, seconds))
}

/// A range as it lies sealed, and where it goes.
struct Sealed<'a> {
    path: &'a Path,
    start: u64,
    /// In the file of all that is sealed.
    at: u64,
    chunks: Vec<Chunk>,
}

struct Chunk {
    id: Id,
    sealed: usize,
    plain: usize,
}

/// Seals everything into one file.
fn seal<'a>(ranges: &[(&'a Path, u64, u64)], into: &File, key: &MasterKey) -> Result<Vec<Sealed<'a>>> {
    let (next, end, all) = (AtomicUsize::new(0), AtomicU64::new(0), Mutex::new(Vec::new()));
    on_all_cores(|| {
        let mut compressor = zstd::bulk::Compressor::new(limits::ZSTD_LEVEL)?;
        while let Some((path, start, length)) = ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut plain = vec![0; *length as usize];
            File::open(path)?.read_exact_at(&mut plain, *start)?;
            let (mut sealed, mut chunks) = (Vec::new(), Vec::new());
            for chunk in plain.chunks(CHUNK) {
                let before = sealed.len();
                sealed.resize(before + IV_BYTES, 0);
                sealed.extend_from_slice(&compressor.compress(chunk)?);
                key.seal_tail(&mut sealed, before);
                chunks.push(Chunk { id: Id::of(chunk), sealed: sealed.len() - before, plain: chunk.len() });
            }
            let at = end.fetch_add(sealed.len() as u64, Ordering::Relaxed);
            into.write_all_at(&sealed, at)?;
            all.lock().map_err(|_| anyhow::anyhow!("a thread died"))?.push(Sealed { path, start: *start, at, chunks });
        }
        Ok(0)
    })?;
    Ok(all.into_inner().unwrap_or_default())
}

/// One thread's share of a restore.
fn place(all: &[Sealed<'_>], next: &AtomicUsize, from: &File, places: &Path, key: &MasterKey) -> Result<u64> {
    let mut decompressor = zstd::bulk::Decompressor::new()?;
    let (mut sealed, mut plain, mut bytes) = (AlignedBuffer::default(), AlignedBuffer::default(), 0);
    while let Some(range) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
        sealed.clear();
        plain.clear();
        let mut rest = sealed.extend(range.chunks.iter().map(|chunk| chunk.sealed).sum());
        from.read_exact_at(rest, range.at)?;
        for chunk in &range.chunks {
            let (this, others) = rest.split_at_mut(chunk.sealed);
            let frame = key.open_in_place(this)?;
            decompressor.decompress_to_buffer(frame, plain.extend(chunk.plain))?;
            rest = others;
        }
        let (mut parts, mut rest) = (Vec::new(), plain.bytes());
        for chunk in &range.chunks {
            let (this, others) = rest.split_at(chunk.plain);
            parts.push(this);
            rest = others;
        }
        let right = range.chunks.iter().zip(Id::of_each(&parts)).all(|(chunk, id)| chunk.id == id);
        anyhow::ensure!(right, "{} does not come back as it was", range.path.display());
        let place = places.join(range.path.to_string_lossy().replace('/', "_"));
        File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(place)?
            .write_all_at(plain.bytes(), range.start)?;
        bytes += plain.bytes().len() as u64;
    }
    Ok(bytes)
}

fn restore(files: &[(PathBuf, u64)], scratch: &Path) -> Result<(u64, f64)> {
    let (ranges, key) = (ranges(files), MasterKey::random());
    let packed = scratch.join("sealed");
    let from = File::options().read(true).write(true).create_new(true).open(&packed)?;
    let all = seal(&ranges, &from, &key)?;
    from.sync_all()?;
    let places = scratch.join("placed");
    std::fs::create_dir(&places)?;
    let next = AtomicUsize::new(0);
    let (bytes, seconds) = on_all_cores(|| place(&all, &next, &from, &places, &key))?;
    let begun = Instant::now();
    rustix::fs::syncfs(File::open(&places)?)?;
    let seconds = seconds + begun.elapsed().as_secs_f64();
    std::fs::remove_file(packed)?;
    std::fs::remove_dir_all(places)?;
    Ok((bytes, seconds))
}

/// Reads `sealed` and writes as much as `files` have, side by side and evenly mixed. What is written is what was read
/// last: a disk can make nothing less of it.
fn disk(files: &[(PathBuf, u64)], sealed: &[(PathBuf, u64)], scratch: &Path) -> Result<(u64, f64)> {
    let (reads, writes, next) = (ranges(sealed), ranges(files), AtomicUsize::new(0));
    let share = |at: usize| at * reads.len() / writes.len();
    let (bytes, seconds) = on_threads(DISK_THREADS, || {
        let (mut buffer, mut bytes) = (AlignedBuffer::with_room(RANGE as usize), 0);
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((path, start, length)) = writes.get(at) else { return Ok(bytes) };
            for (path, start, length) in &reads[share(at)..share(at + 1)] {
                let file = File::options().read(true).custom_flags(DIRECT).open(path)?;
                // Shorter at a file's end.
                file.read_at(whole(&mut buffer, *length as usize), *start)
                    .with_context(|| path.display().to_string())?;
            }
            let place = scratch.join(path.to_string_lossy().replace('/', "_"));
            let mut options = File::options();
            let file = options.write(true).create(true).truncate(false).custom_flags(DIRECT).open(place)?;
            file.write_all_at(whole(&mut buffer, *length as usize), *start)?;
            bytes += length;
        }
    })?;
    let begun = Instant::now();
    rustix::fs::syncfs(File::open(scratch)?)?;
    Ok((bytes, seconds + begun.elapsed().as_secs_f64()))
}

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let mut files = Vec::new();
    let (bytes, seconds) = match arguments.iter().map(|one| one.to_str().unwrap_or_default()).collect::<Vec<_>>()[..] {
        ["walk", folder] => {
            let begun = Instant::now();
            list(Path::new(folder), &mut files)?;
            (files.iter().map(|(_, length)| length).sum(), begun.elapsed().as_secs_f64())
        }
        [how @ ("reread" | "backup" | "packs"), folder] => {
            list(Path::new(folder), &mut files)?;
            let depth = match how {
                "reread" => Depth::Hashed,
                "backup" => Depth::Sealed,
                _ => Depth::Packed,
            };
            backup(&files, depth, None)?
        }
        ["stored", folder, scratch] => {
            list(Path::new(folder), &mut files)?;
            stored(&files, Path::new(scratch))?
        }
        ["restore", folder, scratch] => {
            list(Path::new(folder), &mut files)?;
            restore(&files, Path::new(scratch))?
        }
        ["disk", folder, repository, scratch] => {
            let mut sealed = Vec::new();
            list(Path::new(folder), &mut files)?;
            list(Path::new(repository), &mut sealed)?;
            disk(&files, &sealed, Path::new(scratch))?
        }
        _ => anyhow::bail!(
            "usage: ceiling walk|reread|backup|packs FOLDER, ceiling stored|restore FOLDER SCRATCH, or ceiling disk FOLDER REPOSITORY SCRATCH"
        ),
    };
    writeln!(std::io::stdout(), "{}", serde_json::json!({ "bytes": bytes, "seconds": seconds }))?;
    Ok(())
}
