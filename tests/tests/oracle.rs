//! The judge is judged first: plain PostgreSQL, restored by its own means to random targets, must end
//! exactly where the oracle says. Backstay takes no part.

use anyhow::{Context, Result};
use backstay_tests::{
    history::History,
    ledger::{self, Ledger, Workload},
    postgres::{Installation, Options, Postgres, Stop},
    scratch::{Scratch, run},
    seed::Seed,
    target,
};
use std::{process::Command, time::Duration};

fn prove(installation: &Installation, targets: usize, crash: bool) -> Result<()> {
    let mut seed = Seed::from_env("oracle");
    let mut primary = Postgres::create(installation, &Options::default())?;
    primary.tablespace("elsewhere")?;
    ledger::create(&primary, Some("elsewhere"))?;
    let standby = primary.standby("second")?;
    let load = Workload::start(&primary, 6, 300, &mut seed)?;
    std::thread::sleep(Duration::from_secs(1));

    let scratch = Scratch::new()?;
    let from = ledger::mark(&primary)?;
    let base = scratch.join("base");
    let spaces = Scratch::new()?;
    primary.base_backup(&base, &["-X", "none", "--checkpoint=fast"], &spaces)?;
    let consistent = primary.flushed()?;
    ledger::run_for(&primary, Duration::from_secs(3), Duration::from_millis(300), "before ")?;
    primary.sql("CHECKPOINT")?;
    primary.sql("SELECT pg_switch_wal()")?;
    ledger::run_for(&primary, Duration::from_secs(1), Duration::from_millis(300), "between ")?;

    if crash {
        primary.stop(Stop::Kill)?;
    } else {
        primary.stop(Stop::Fast)?;
    }
    load.stop_with_server()?;
    standby.promote()?;
    let load = Workload::start(&standby, 6, 300, &mut seed)?;
    ledger::run_for(&standby, Duration::from_secs(3), Duration::from_millis(300), "after ")?;
    load.stop(&standby)?;

    let history = History::read(&standby, from)?;
    assert_eq!(history.timelines.len(), 2, "{:?}", history.timelines);
    let ends = Ledger::read(&standby)?;
    assert!(ends.transactions() > 500, "{} transactions are too few", ends.transactions());
    // The last file of the log is archived as it is: recovery reads zeros behind its end.
    let wal = scratch.folder("wal")?;
    run(Command::new("cp").arg("-r").arg(standby.data().join("pg_wal/.")).arg(&wal))?;
    // What the first timeline had of the file in which the second begins, where a server put it aside.
    for file in std::fs::read_dir(&wal)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "partial") {
            std::fs::rename(&path, path.with_extension(""))?;
        }
    }
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(&wal))?;

    for number in 0..targets {
        let stop = if number == 0 { target::Stop::latest() } else { history.random_target(&mut seed, consistent)? };
        let copy = Scratch::new()?;
        let data = copy.join("data");
        run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&base).arg(&data))?;
        for space in std::fs::read_dir(data.join("pg_tblspc"))? {
            let link = space?.path();
            let to = copy.join("space");
            run(Command::new("cp").arg("-a").arg(std::fs::read_link(&link)?).arg(&to))?;
            std::fs::remove_file(&link)?;
            std::os::unix::fs::symlink(&to, &link)?;
        }
        std::fs::write(data.join("recovery.signal"), "")?;
        // The log lies in place: at the end of recovery a server reads prepared transactions again, and looks for
        // them nowhere else. Fetched, the file in which a timeline begins would be there under one name only.
        run(Command::new("cp").arg("-r").arg(wal.join(".")).arg(data.join("pg_wal")))?;
        let mut restored = Postgres::adopt(installation, &data)?;
        restored.configure("restore_command = 'false'")?;
        for line in stop.settings()? {
            restored.configure(&line)?;
        }
        restored.start_without_waiting()?;
        restored.wait_recovered()?;
        let found = Ledger::read(&restored).with_context(|| format!("{stop}"))?;
        let expected = ends.expected_at(&history, &stop)?;
        eprintln!("{stop}: {} of {} transactions", expected.transactions(), ends.transactions());
        found.must_equal(&expected, &history).with_context(|| format!("{stop}\n{}", restored.log_tail()))?;
    }
    Ok(())
}

#[test]
fn postgresql_15_restored_by_its_own_means_ends_where_the_oracle_says() -> Result<()> {
    prove(&Installation::postgres_15()?, 13, false)
}

#[test]
fn postgresql_18_restored_by_its_own_means_ends_where_the_oracle_says() -> Result<()> {
    prove(&Installation::postgres_18()?, 13, true)
}
