//! The archive as synchronous standby: what a client was told is committed survives the loss of the primary.

use anyhow::{Context, Result, ensure};
use backstay_tests::{
    backstay::Backstay,
    postgres::{Installation, Options, Postgres, Stop},
    scratch::{Scratch, wait_for},
    target,
};
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const CLIENTS: u32 = 6;

/// Commits one row after the other until the server is gone; answers the numbers whose commit was acknowledged,
/// and how long the slowest took.
fn client(
    server: &Postgres,
    number: u32,
    stop: &Arc<AtomicBool>,
) -> Result<std::thread::JoinHandle<(BTreeSet<u64>, Duration)>> {
    let mut psql = server.psql();
    let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut input = child.stdin.take().context("a pipe")?;
    let mut output = BufReader::new(child.stdout.take().context("a pipe")?);
    let stop = Arc::clone(stop);
    Ok(std::thread::spawn(move || {
        let mut acknowledged = BTreeSet::new();
        let mut slowest = Duration::ZERO;
        let mut line = String::new();
        for n in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let start = Instant::now();
            // The second statement answers only once the first has committed.
            let statements = format!("INSERT INTO promised VALUES ({number}, {n});\nSELECT 'done {n}';\n");
            line.clear();
            if input.write_all(statements.as_bytes()).and_then(|()| input.flush()).is_err()
                || output.read_line(&mut line).is_err()
                || line.trim() != format!("done {n}")
            {
                break;
            }
            slowest = slowest.max(start.elapsed());
            acknowledged.insert(n);
        }
        let _ = child.kill();
        let _ = child.wait();
        (acknowledged, slowest)
    }))
}

fn lose_nothing(installation: &Installation) -> Result<()> {
    let mut primary = Postgres::create(installation, &Options::default())?;
    primary.sql("CREATE TABLE promised (client int, n bigint)")?;
    let mut backstay = Backstay::in_folder(&primary.address())?;
    backstay.reconfigure(|config| config.settings.push_str(", application-name = \"vault\""))?;
    let backup = backstay.backup()?;
    let mut archive = backstay.archive()?;
    primary.wait_streaming("vault")?;
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'vault'")?;
    primary.sql("SELECT pg_reload_conf()")?;
    wait_for("the archive to become the synchronous standby", Duration::from_secs(30), || {
        let state = primary.sql("SELECT sync_state FROM pg_stat_replication WHERE application_name = 'vault'")?;
        Ok((state == "sync").then_some(()))
    })?;

    let stop = Arc::new(AtomicBool::new(false));
    let clients: Result<Vec<_>> = (0..CLIENTS).map(|number| client(&primary, number, &stop)).collect();
    std::thread::sleep(Duration::from_secs(6));
    archive.must_run()?;
    primary.stop(Stop::Kill)?;
    std::fs::remove_dir_all(primary.data())?;
    stop.store(true, Ordering::Relaxed);
    let mut promised = BTreeSet::new();
    for (number, client) in clients?.into_iter().enumerate() {
        let (acknowledged, slowest) = client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?;
        eprintln!("client {number}: {} commits, the slowest took {slowest:?}", acknowledged.len());
        promised.extend(acknowledged.into_iter().map(|n| (number as u64, n)));
    }
    ensure!(promised.len() > 30, "{} commits in six seconds are too few to tell anything", promised.len());
    archive.stop()?;

    let scratch = Scratch::new()?;
    let data = scratch.join("data");
    backstay.restore(&data, &target::Stop::latest().arguments()?)?;
    let mut restored = Postgres::adopt(installation, &data)?;
    restored.configure("synchronous_standby_names = ''")?;
    let auto = data.join("postgresql.auto.conf");
    let settings = std::fs::read_to_string(&auto)?;
    let kept: Vec<&str> = settings.lines().filter(|line| !line.starts_with("synchronous_standby_names")).collect();
    backstay_tests::account::write(&auto, &(kept.join("\n") + "\n"))?;
    restored.start_without_waiting()?;
    restored.wait_recovered()?;
    let found: BTreeSet<(u64, u64)> = restored
        .sql("SELECT client, n FROM promised")?
        .lines()
        .filter_map(|line| {
            let (client, n) = line.split_once('|')?;
            Some((client.parse().ok()?, n.parse().ok()?))
        })
        .collect();
    let missing: Vec<_> = promised.difference(&found).collect();
    ensure!(
        missing.is_empty(),
        "{} of {} acknowledged commits are missing: {missing:?}",
        missing.len(),
        promised.len()
    );
    // At most the one commit per client that was under way may be there beyond what was promised.
    ensure!(found.len() <= promised.len() + CLIENTS as usize, "{} rows, {} promised", found.len(), promised.len());
    eprintln!("{} commits were promised since backup {}, {} are there", promised.len(), backup.id, found.len());
    drop(restored);
    backstay.finish()
}

#[test]
fn postgresql_15_destroyed_loses_no_acknowledged_commit() -> Result<()> {
    lose_nothing(&Installation::postgres_15()?)
}

#[test]
fn postgresql_18_destroyed_loses_no_acknowledged_commit() -> Result<()> {
    lose_nothing(&Installation::postgres_18()?)
}
