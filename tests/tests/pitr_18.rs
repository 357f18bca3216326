//! PostgreSQL 18 under load, with a failover that loses commits: the archive had already seen log that the new
//! primary never got. Restores follow the history that survived, a tablespace along with them.

use anyhow::{Context, Result};
use backstay_tests::{
    backstay::Backstay,
    history::History,
    ledger::{self, Ledger, Workload},
    limits,
    postgres::{Installation, Options, Postgres, Stop},
    rehearsal::Rehearsal,
    scratch::{Scratch, wait_for},
    seed::Seed,
    target,
};
use std::time::Duration;

#[test]
fn restores_follow_the_surviving_history_after_a_crash_that_lost_commits() -> Result<()> {
    let mut seed = Seed::from_env("pitr_18");
    let installation = Installation::postgres_18()?;
    let mut primary = Postgres::create(&installation, &Options::default())?;
    primary.tablespace("elsewhere")?;
    ledger::create(&primary, Some("elsewhere"))?;
    let mut standby = primary.standby("second")?;
    let backstay = Backstay::in_folder(&primary.address())?;
    let from = ledger::mark(&primary)?;

    let mut archive = backstay.archive()?;
    primary.wait_streaming("backstay")?;
    let load = Workload::start(&primary, 6, 250, &mut seed)?;
    std::thread::sleep(Duration::from_secs(1));
    let first = backstay.backup()?;
    ledger::run_for(&primary, Duration::from_secs(3), Duration::from_millis(300), "first ")?;
    primary.sql("CHECKPOINT")?;
    ledger::run_for(&primary, Duration::from_secs(2), Duration::from_millis(300), "second ")?;

    // The standby hears no more; commits go on, and the archive takes them.
    standby.sql("ALTER SYSTEM SET primary_conninfo = ''")?;
    standby.sql("SELECT pg_reload_conf()")?;
    ledger::run_for(&primary, Duration::from_secs(2), Duration::from_millis(300), "lost ")?;
    backstay.wait_archived(&mut archive, primary.flushed()?)?;
    let lost = Ledger::read(&primary)?.transactions();
    primary.stop(Stop::Kill)?;
    load.stop_with_server()?;
    // The archive, which has more than it, does not take it for another server.
    standby.stand_in(&primary)?;
    wait_for("the archive to meet a standby that is behind it", limits::ARCHIVE_CATCH_UP, || {
        archive.must_run()?;
        Ok(archive.log().contains("it is a standby, which may catch up").then_some(()))
    })?;
    standby.promote()?;
    standby.wait_streaming("backstay").with_context(|| archive.log())?;
    let survived = Ledger::read(&standby)?.transactions();
    assert!(survived < lost, "the failover was to lose commits: {survived} of {lost} survived");
    let load = Workload::start(&standby, 6, 250, &mut seed)?;
    ledger::run_for(&standby, Duration::from_secs(4), Duration::from_millis(300), "after ")?;
    load.stop(&standby)?;

    let history = History::read(&standby, from)?;
    let ends = Ledger::read(&standby)?;
    backstay.wait_archived(&mut archive, standby.flushed()?)?;
    archive.stop()?;
    let rehearsal = Rehearsal::new(&backstay, &installation, &history, &ends, &first);
    assert_eq!(rehearsal.volumes.len(), 1, "{:?}", rehearsal.volumes);
    rehearsal.at(&target::Stop::latest(), &[])?;
    for stop in history.targets(&mut seed, first.end, 8)? {
        rehearsal.at(&stop, &[])?;
    }
    // PostgreSQL's own judge of backups, of a restore whose tablespace lies elsewhere.
    let scratch = Scratch::new()?;
    let data = rehearsal.files(&scratch, &history.random_target(&mut seed, first.end)?, &[])?;
    rehearsal.verify(&data)?;
    let switch = history.timelines[1].1;
    for _ in 0..2 {
        rehearsal.at(&history.random_target(&mut seed, switch)?, &[])?;
    }
    backstay.finish()
}
