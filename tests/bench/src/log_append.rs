//! What it takes until a piece of log is durable: an append to the log chain in a local repository, against writing
//! and syncing the same bytes as plain files on the same file system, which nothing that is durable can beat.
//!
//! `log-append [--in FOLDER] [--rounds 5]`

mod bench;

use anyhow::{Context, Result, bail};
use backstay_core::{Position, Segment};
use backstay_repo::log::LogChain;
use bytes::Bytes;
use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

/// Bytes of a piece, and how many pieces a round has: single commits, and whole files under load.
const KINDS: [(usize, u32); 2] = [(8 << 10, 300), (16 << 20, 64)];

/// Half of it compresses, as log does.
fn body(length: usize) -> Result<Bytes> {
    let mut body = vec![0; length];
    getrandom::fill(&mut body[..length / 2]).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    Ok(body.into())
}

fn at(offset: u64) -> Position {
    Position { epoch: 1, offset, label: format!("{offset}") }
}

/// Seconds that each of `count` appends of `body` took until it was durable.
async fn append(folder: &Path, body: &Bytes, count: u32) -> Result<Vec<f64>> {
    let folder = tempfile::tempdir_in(folder)?;
    let repository = bench::create(folder.path()).await?;
    let (key, id) = (repository.shared_key().clone(), repository.id().to_string());
    let target = "bench".parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut log = LogChain::open(repository.store().clone(), key, &id, target).await?;
    let mut took = Vec::with_capacity(count as usize);
    let mut offset = 0;
    for _ in 0..count {
        let end = offset + body.len() as u64;
        let piece = Segment {
            start: at(offset),
            end: at(end),
            follows: None,
            first_commit: None,
            last_commit: None,
            file: format!("{offset}"),
            file_offset: 0,
        };
        let start = Instant::now();
        log.append(&piece, body.clone()).await?;
        took.push(start.elapsed().as_secs_f64());
        offset = end;
    }
    Ok(took)
}

/// Seconds for as many plain files: written under another name, synced, renamed, the folder synced.
fn plain(folder: &Path, body: &Bytes, count: u32) -> Result<f64> {
    let folder = tempfile::tempdir_in(folder)?;
    let start = Instant::now();
    for number in 0..count {
        let (new, name) = (folder.path().join("new"), folder.path().join(number.to_string()));
        let mut file = File::create_new(&new)?;
        file.write_all(body)?;
        file.sync_all()?;
        std::fs::rename(&new, &name)?;
        File::open(folder.path())?.sync_all()?;
    }
    Ok(start.elapsed().as_secs_f64())
}

#[allow(clippy::print_stdout)] // the answer
fn main() -> Result<()> {
    let (mut folder, mut rounds) = (std::env::temp_dir(), 5);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--in" => folder = PathBuf::from(value),
            "--rounds" => rounds = value.parse()?,
            _ => bail!("usage: log-append [--in FOLDER] [--rounds N]"),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for (length, count) in KINDS {
        let body = body(length)?;
        let (mut ratios, mut all, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let ceiling = plain(&folder, &body, count)?;
            let took = runtime.block_on(append(&folder, &body, count))?;
            let ours: f64 = took.iter().sum();
            ratios.push(ours / ceiling);
            rates.push(f64::from(count) * length as f64 / 1e6 / ours);
            all.extend(took);
        }
        all.sort_by(f64::total_cmp);
        rates.sort_by(f64::total_cmp);
        println!(
            "append {length} bytes, {rounds} rounds of {count}, log chain : plain files\nwall  {}\nuntil durable and \
             acknowledged: median {:.2} ms, 99 of 100 within {:.2} ms; {:.0} MB/s sustained ({:.0} to {:.0})",
            bench::summary(&ratios),
            all[all.len() / 2] * 1e3,
            all[all.len() * 99 / 100] * 1e3,
            rates[rates.len() / 2],
            rates[0],
            rates[rates.len() - 1]
        );
    }
    Ok(())
}
