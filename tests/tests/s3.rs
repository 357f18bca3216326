//! End to end on an S3 server whose network has a bad day: refused, delayed, cut and lost requests all the while.

use anyhow::{Context, Result, ensure};
use backstay_tests::{
    backstay::Backstay,
    fault_proxy::{Fault, FaultProxy},
    history::History,
    ledger::{self, Ledger, Workload},
    postgres::{Hba, Installation, Options, Postgres},
    rehearsal::{Rehearsal, adopt_restic_restore, restic_restore},
    s3::S3,
    scratch::Scratch,
    seed::Seed,
    target,
};
use std::time::Duration;

#[test]
fn a_store_that_fails_one_request_in_six_loses_nothing() -> Result<()> {
    let mut seed = Seed::from_env("s3");
    let s3 = S3::start()?;
    let proxy = FaultProxy::start(s3.address(), 6, &mut seed)?;
    let installation = Installation::postgres_15()?;
    let server = Postgres::create(&installation, &Options { hba: Hba::Md5, ..Options::default() })?;
    ledger::create(&server, None)?;
    let backstay = Backstay::on_s3(&server.address(), &s3, proxy.address())?;
    let from = ledger::mark(&server)?;

    let mut archive = backstay.archive()?;
    server.wait_streaming("backstay").with_context(|| archive.log())?;
    let load = Workload::start(&server, 4, 150, &mut seed)?;
    let first = backstay.backup()?;
    ledger::run_for(&server, Duration::from_secs(5), Duration::from_millis(300), "first ")?;
    let second = backstay.backup()?;
    ledger::run_for(&server, Duration::from_secs(3), Duration::from_millis(300), "second ")?;
    load.stop(&server)?;
    let history = History::read(&server, from)?;
    let ends = Ledger::read(&server)?;
    backstay.wait_archived(&mut archive, server.flushed()?)?;
    archive.stop()?;

    let rehearsal = Rehearsal::new(&backstay, &installation, &history, &ends, &first);
    rehearsal.at(&target::Stop::latest(), &["--backup", &first.id])?;
    for _ in 0..3 {
        rehearsal.at(&history.random_target(&mut seed, first.end)?, &[])?;
    }
    backstay.ok(&["repo", "check", "main", "--read-data"])?;
    let injected = proxy.injected();
    eprintln!("{} requests, injected {injected:?}", proxy.requests());
    let faults = [
        (Fault::InternalError, "500"),
        (Fault::AppliedThenError, "500 after the fact"),
        (Fault::SlowDown, "503"),
        (Fault::CutRequest, "connection cut while we wrote"),
        (Fault::CutAnswer, "connection cut while we read"),
    ];
    for (fault, what) in faults {
        ensure!(injected.contains_key(&fault), "no {what} among {injected:?}");
    }
    ensure!(injected.values().sum::<u64>() >= 10, "too few faults to tell anything: {injected:?}");

    let root = Scratch::new()?;
    backstay.restic().restore(&second.snapshot, root.path())?;
    let data = restic_restore(root.path())?;
    adopt_restic_restore(root.path(), &data)?;
    let mut restored = Postgres::adopt(&installation, &data)?;
    restored.start().context("what stock restic restored must start under PostgreSQL")?;
    drop(restored);
    backstay.finish()
}
