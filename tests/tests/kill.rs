//! `kill -9` of the parent or the child of a job, at random moments: fifty times.
//!
//! `BACKSTAY_KILLS` sets another number.

use anyhow::{Context, Result, bail, ensure};
use backstay_tests::{
    backstay::{Backstay, Running, SLOT, TARGET},
    history::{History, What},
    kill::{self, Outcome, Victim, kill_at},
    ledger::{self, Ledger, Workload},
    lsn::Lsn,
    postgres::{Installation, Options, Postgres},
    rehearsal::Rehearsal,
    seed::Seed,
    target,
};
use std::{
    path::Path,
    time::{Duration, Instant},
};

fn kills() -> u32 {
    let text = std::env::var("BACKSTAY_KILLS").unwrap_or("50".into());
    text.parse().expect("BACKSTAY_KILLS is a number")
}

/// Kills a job at a moment, and waits until nothing of it is left. Answers whether it died of it.
fn murder(job: Running, victim: Victim, moment: Duration) -> Result<bool> {
    let Outcome::Killed(family) = kill_at(job.pid(), victim, moment) else {
        let ended = job.reap()?;
        ensure!(ended.code == 0, "nobody was killed, and it ended with {}: {}", ended.code, ended.stderr);
        return Ok(false);
    };
    if victim == Victim::Child {
        // The parent lives to tell: one clear line, no success. A kill after the last word may still be a success.
        let ended = job.reap()?;
        if ended.code != 0 {
            ended.must_fail(1, &["was killed (signal 9)"]).context("the child was killed")?;
        }
    } else {
        let ended = job.reap()?;
        // Who is on the way out already cannot be killed any more.
        ensure!(ended.code == -1 || ended.code == 0, "killed, the parent ended with {}: {}", ended.code, ended.stderr);
        if ended.code == 0 {
            return Ok(false);
        }
    }
    // A child must not outlive its parent for long: it would go on writing.
    kill::bury(&family, Duration::from_secs(20))?;
    Ok(true)
}

/// What PostgreSQL was told is safe: it may throw away everything before.
fn acknowledged(server: &Postgres) -> Result<Lsn> {
    let text = server
        .sql(&format!("SELECT coalesce(restart_lsn, '0/0') FROM pg_replication_slots WHERE slot_name = '{SLOT}'"))?;
    if text.is_empty() { Ok(Lsn(0)) } else { text.parse() }
}

#[test]
fn fifty_kills_damage_nothing_and_lose_nothing_that_was_acknowledged() -> Result<()> {
    kill::adopt_orphans()?;
    let mut seed = Seed::from_env("kill");
    let installation = Installation::postgres_15()?;
    let server = Postgres::create(&installation, &Options { wal_segment_mb: 4, ..Options::default() })?;
    ledger::create(&server, None)?;
    let backstay = Backstay::in_folder(&server.address())?;
    let from = ledger::mark(&server)?;
    // The slot exists before the first row is written, so the chain begins before it.
    let archive = backstay.archive()?;
    server.wait_streaming("backstay")?;
    archive.stop()?;
    let start = Instant::now();
    let first = backstay.backup()?;
    let typical = start.elapsed();
    let load = Workload::start(&server, 3, 60, &mut seed)?;

    let (mut done, mut drawn) = (0, 0);
    while done < kills() {
        drawn += 1;
        ensure!(drawn < 4 * kills() + 20, "{done} kills in {drawn} draws: jobs end before they can be killed");
        // Backups and archiving in turns, at any moment of their lives.
        let died = if drawn % 2 == 0 {
            let (victim, moment) = kill::draw(&mut seed, typical);
            let job = backstay.spawn(&["backup", TARGET, "--json"])?;
            murder(job, victim, moment).with_context(|| format!("backup, {victim:?} at {moment:?}"))?
        } else {
            let (victim, moment) = kill::draw(&mut seed, Duration::from_millis(2500));
            let job = backstay.spawn(&["archive", TARGET, "--json"])?;
            let died = murder(job, victim, moment).with_context(|| format!("archive, {victim:?} at {moment:?}"))?;
            let safe = acknowledged(&server)?;
            let tail = backstay.window_end()?.unwrap_or_default();
            ensure!(safe <= tail.max(first.end), "PostgreSQL was told {safe} is safe, the chain ends at {tail}");
            died
        };
        if !died {
            continue;
        }
        done += 1;
        backstay.restic().check().with_context(|| format!("after kill {done}"))?;
        backstay.backup().with_context(|| format!("the backup after kill {done}"))?;
        if done % 10 == 0 {
            backstay.ok(&["repo", "check", "main"])?;
            eprintln!("{done} kills in {drawn} draws");
        }
    }

    // What was acknowledged is in the chain, before the archiver gets a chance to fetch it again.
    let safe = acknowledged(&server)?;
    let rehearsal_history = History::read(&server, from)?;
    let now = Ledger::read(&server)?;
    let rehearsal = Rehearsal::new(&backstay, &installation, &rehearsal_history, &now, &first);
    let restored = rehearsal.start(&target::Stop::latest(), &["--backup", &first.id])?;
    let found = Ledger::read(&restored.server)?;
    for event in rehearsal_history.events.iter().filter(|event| event.what == What::Commit && event.start < safe) {
        // The record must end before what was acknowledged, too; the next record's start bounds it from above.
        let whole = rehearsal_history.events.iter().any(|next| next.previous >= event.start && next.start <= safe);
        if whole && now.has(event.xid) && !found.has(event.xid) {
            bail!("commit {} at {} was acknowledged (up to {safe}) and is missing", event.xid, event.start);
        }
    }
    drop(restored);

    // And an archiver that lives gets everything.
    load.stop(&server)?;
    let mut archive = backstay.archive()?;
    let history = History::read(&server, from)?;
    let ends = Ledger::read(&server)?;
    backstay.wait_archived(&mut archive, server.flushed()?)?;
    archive.stop()?;
    let rehearsal = Rehearsal::new(&backstay, &installation, &history, &ends, &first);
    rehearsal.at(&target::Stop::latest(), &["--backup", &first.id])?;
    rehearsal.at(&history.random_target(&mut seed, first.end)?, &["--backup", &first.id])?;
    ensure!(Path::new(&backstay.repository()).exists());
    backstay.finish()
}
