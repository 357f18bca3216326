//! A cluster of gigabytes: the second backup of an unchanged one uploads next to nothing, and a table of 2 GB
//! comes back to a random place like a small one.

use anyhow::{Result, ensure};
use backstay_tests::{
    backstay::Backstay,
    history::History,
    ledger::{self, Ledger, Workload},
    memory::Watch,
    postgres::{Installation, Options, Postgres},
    rehearsal::Rehearsal,
    seed::Seed,
};
use std::time::{Duration, Instant};

/// Of one job, however much there is: packs on their way and those that fill, or eight reads, or four pieces of log.
const MEBIBYTES_MAX: u64 = 256;

/// Rows of 1,000 bytes that do not compress: seven to a page.
fn fill(server: &Postgres, megabytes: u32) -> Result<()> {
    let rows = megabytes * 128 * 7;
    server.sql(&format!("INSERT INTO large SELECT n, gen_random_bytes(1000) FROM generate_series(1, {rows}) n"))?;
    Ok(())
}

fn sum(server: &Postgres) -> Result<String> {
    server.sql("SELECT count(*), sum(hashtextextended(encode(substr(body, 1, 16), 'hex'), id)::numeric) FROM large")
}

#[test]
fn an_unchanged_gigabyte_uploads_nothing_and_two_come_back_to_a_random_place() -> Result<()> {
    let mut seed = Seed::from_env("large");
    let installation = Installation::postgres_15()?;
    // The history is read from the server's log of some twenty seconds: how much that is, its speed says.
    let options = Options {
        conf: vec!["wal_keep_size = '1GB'".into(), "max_wal_size = '1GB'".into(), "fsync = off".into()],
        ..Options::default()
    };
    let server = Postgres::create(&installation, &options)?;
    server.sql("CREATE EXTENSION pgcrypto")?;
    server.sql("CREATE TABLE large (id bigint, body bytea)")?;
    server.sql("ALTER TABLE large ALTER body SET STORAGE PLAIN")?;
    fill(&server, 1024)?;
    server.sql("VACUUM (FREEZE) large")?;
    let backstay = Backstay::in_folder(&server.address())?;

    let (start, watch) = (Instant::now(), Watch::start());
    let first = backstay.backup()?;
    ensure!(first.bytes > 1 << 30, "the first backup has {} bytes", first.bytes);
    let (full, memory) = (start.elapsed(), watch.peak_mebibytes());
    let start = Instant::now();
    let second = backstay.backup()?;
    eprintln!(
        "1 GB: {} bytes uploaded in {full:?}, unchanged: {} bytes in {:?}",
        first.uploaded,
        second.uploaded,
        start.elapsed()
    );
    ensure!(second.uploaded * 100 < first.uploaded, "unchanged, it uploads {} of {}", second.uploaded, first.uploaded);

    ledger::create(&server, None)?;
    fill(&server, 1040)?;
    ensure!(server.value::<u64>("SELECT pg_table_size('large')")? > 2 << 30, "the table has less than 2 GB");
    server.sql("CHECKPOINT")?;
    let from = ledger::mark(&server)?;
    let mut archive = backstay.archive()?;
    server.wait_streaming("backstay")?;
    let load = Workload::start(&server, 4, 150, &mut seed)?;
    let third = backstay.backup()?;
    ledger::run_for(&server, Duration::from_secs(3), Duration::from_millis(500), "large ")?;
    // Pages all over the large table change while the log is archived.
    server.sql("UPDATE large SET id = id + 10000000 WHERE id % 500 = 7")?;
    ledger::run_for(&server, Duration::from_secs(3), Duration::from_millis(500), "changed ")?;
    load.stop(&server)?;
    let history = History::read(&server, from)?;
    let ends = Ledger::read(&server)?;
    let large = sum(&server)?;
    backstay.wait_archived(&mut archive, server.flushed()?)?;
    archive.stop()?;
    drop_when_done(server)?;

    let rehearsal = Rehearsal::new(&backstay, &installation, &history, &ends, &third);
    let restored = rehearsal.at(&history.random_target(&mut seed, third.end)?, &[])?;
    drop(restored);
    let watch = Watch::start();
    let restored = rehearsal.at(&backstay_tests::target::Stop::latest(), &[])?;
    for (job, mebibytes) in [("backup", memory), ("restore", watch.peak_mebibytes())] {
        eprintln!("memory of a {job}: {mebibytes} MiB");
        ensure!((16..=MEBIBYTES_MAX).contains(&mebibytes), "a {job} takes {mebibytes} MiB of memory");
    }
    ensure!(sum(&restored.server)? == large, "the large table is not what it was");
    drop(restored);
    backstay.finish()
}

/// Gives the source's gigabytes back before restores need them.
fn drop_when_done(mut server: Postgres) -> Result<()> {
    server.stop(backstay_tests::postgres::Stop::Fast)
}
