//! A table from which nothing is ever taken away, and the load that fills it.

use crate::{
    account,
    history::History,
    limits,
    lsn::Lsn,
    postgres::Postgres,
    scratch::{Scratch, run, tail, wait_for},
    seed::Seed,
    target::Stop,
};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Child, Stdio},
    time::Duration,
};

/// Makes the tables; `spaced` lies in the tablespace, when there is one.
///
/// `ledger` has one row per part of a transaction. `account` is updated in the same transactions, so that its
/// sum must always equal the ledger's: pages that are changed in place tell more about recovery than new ones.
pub fn create(server: &Postgres, tablespace: Option<&str>) -> Result<()> {
    let space = tablespace.map(|name| format!("TABLESPACE {name}")).unwrap_or_default();
    server.sql(&format!(
        "CREATE TABLE ledger (xid bigint, client int, part int, delta int, body text); \
         CREATE INDEX ON ledger (xid); \
         CREATE TABLE spaced (xid bigint, body text) {space}; \
         CREATE INDEX ON spaced (xid) {space}; \
         CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL) WITH (fillfactor = 50); \
         INSERT INTO account SELECT n, 0 FROM generate_series(1, 2000) n"
    ))?;
    Ok(())
}

const XID: &str = "pg_current_xact_id()::text::bigint";

/// What the clients do, with how often. Every way to end a transaction is there.
fn scripts() -> Vec<(&'static str, u32, String)> {
    let row = |part: &str, delta: &str| {
        format!("INSERT INTO ledger SELECT {XID}, :client_id, {part}, {delta}, md5(random()::text)")
    };
    let plain = row("1", "0");
    vec![
        ("one", 4, format!("{plain};\n")),
        (
            "many",
            2,
            format!("\\set parts random(2, 20)\nBEGIN;\n{} FROM generate_series(1, :parts) n;\nEND;\n", row("n", "0")),
        ),
        (
            "transfer",
            6,
            format!(
                "\\set id random(1, 2000)\n\\set delta random(-5000, 5000)\nBEGIN;\n\
                 UPDATE account SET balance = balance + :delta WHERE id = :id;\n{};\nEND;\n",
                row("1", ":delta")
            ),
        ),
        (
            "spaced",
            3,
            format!(
                "BEGIN;\n{};\nINSERT INTO spaced SELECT {XID}, repeat(md5(random()::text), 20);\nEND;\n",
                row("100", "0")
            ),
        ),
        (
            "savepoints",
            2,
            format!(
                "BEGIN;\n{};\nSAVEPOINT a;\n{};\nROLLBACK TO a;\nSAVEPOINT b;\n{};\nRELEASE b;\nEND;\n",
                row("1", "0"),
                row("2", "7"),
                row("3", "0")
            ),
        ),
        ("rolled_back", 1, format!("BEGIN;\n{};\nROLLBACK;\n", row("1", "9"))),
        (
            "two_phases",
            1,
            format!(
                "\\set r random(1, 1000000000)\nBEGIN;\n{plain};\nPREPARE TRANSACTION 'p:client_id.:r';\n\
                 COMMIT PREPARED 'p:client_id.:r';\n"
            ),
        ),
    ]
}

/// Clients that write into the ledger until stopped.
pub struct Workload {
    child: Child,
    scratch: Scratch,
}

impl Workload {
    /// Starts `clients` clients that do about `rate` transactions a second together.
    pub fn start(server: &Postgres, clients: u32, rate: u32, seed: &mut Seed) -> Result<Self> {
        let scratch = Scratch::new()?;
        let mut command = server.installation.tool("pgbench");
        server.connection(&mut command);
        command.args(["-n", "-c", &clients.to_string(), "-j", "1", "-T", "3600", "-R", &rate.to_string()]);
        command.arg(format!("--random-seed={}", seed.next_u64() >> 32));
        for (name, weight, text) in scripts() {
            let path = scratch.join(name);
            account::write(&path, &text)?;
            command.arg("-f").arg(format!("{}@{weight}", path.display()));
        }
        let log = std::fs::File::create(scratch.join("log"))?;
        command.arg("postgres").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("failed to start pgbench")?;
        Ok(Self { child, scratch })
    }

    /// Stops the clients, wherever they are, and waits until the server is through with what they had begun.
    /// An error when they had stopped by themselves.
    pub fn stop(mut self, server: &Postgres) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the load ended by itself with {status}:\n{}", tail(&self.scratch.join("log"), limits::LOG_LINES));
        }
        self.end()?;
        let query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'";
        wait_for("the last transactions to end", Duration::from_secs(30), || {
            Ok((server.value::<u32>(query)? == 0).then_some(()))
        })
    }

    /// Waits until the clients have stopped, because the server went away.
    pub fn stop_with_server(mut self) -> Result<()> {
        let _ = wait_for("the load to notice", Duration::from_secs(5), || Ok(self.child.try_wait()?));
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        if wait_for("pgbench to stop", Duration::from_secs(10), || Ok(self.child.try_wait()?)).is_err() {
            self.child.kill()?;
            self.child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a server's ledger holds: the rows of each transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    rows: BTreeMap<u64, Vec<String>>,
}

impl Ledger {
    /// Reads it, by sequential scan, and checks that the other tables agree with it.
    pub fn read(server: &Postgres) -> Result<Self> {
        // One snapshot for everything: a server that was just restored may be written to already.
        let mut command = server.psql();
        command.args([
            "-c", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off",
            "-c", "SELECT xid, client, part, delta, body FROM ledger ORDER BY xid, part, client, body",
            "-c", "SELECT 'sums', (SELECT sum(balance) FROM account), (SELECT coalesce(sum(delta), 0) FROM ledger)",
            "-c", "SELECT 'spaced', count(*) FROM (SELECT xid FROM ledger WHERE part = 100 EXCEPT SELECT xid FROM spaced) x",
            "-c", "SELECT 'spaced', count(*) FROM (SELECT xid FROM spaced EXCEPT SELECT xid FROM ledger WHERE part = 100) x",
            "-c", "SELECT 'index', count(*) FROM ledger", "-c", "END",
        ]);
        let output = run(&mut command)?;
        let text = String::from_utf8(output.stdout)?;
        let mut rows: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for line in text.lines() {
            match line.split('|').collect::<Vec<_>>()[..] {
                ["sums", accounts, ledger] => {
                    ensure!(accounts == ledger, "accounts sum up to {accounts}, the ledger to {ledger}")
                }
                ["spaced", "0"] | ["index", _] => {}
                ["spaced", n] => bail!("{n} transactions left a row in one of `ledger` and `spaced` only"),
                [xid, ..] => rows.entry(xid.parse().context(line.to_owned())?).or_default().push(line.to_owned()),
                [] => {}
            }
        }
        Ok(Self { rows })
    }

    /// How many transactions it knows.
    pub fn transactions(&self) -> usize {
        self.rows.len()
    }

    /// Whether this transaction's rows are there.
    pub fn has(&self, xid: u64) -> bool {
        self.rows.contains_key(&xid)
    }

    /// The ledger as it must be after a recovery to `stop`, given the final ledger and the history since the backup.
    ///
    /// Transactions that the history does not know committed before it begins, so every recovery has them.
    pub fn expected_at(&self, history: &History, stop: &Stop) -> Result<Self> {
        let all = history.all_committed();
        let reached = history.committed(stop)?;
        let rows = self.rows.iter().filter(|(xid, _)| !all.contains(xid) || reached.contains(xid));
        Ok(Self { rows: rows.map(|(xid, rows)| (*xid, rows.clone())).collect() })
    }

    /// Compares, and tells what differs.
    pub fn must_equal(&self, expected: &Self, history: &History) -> Result<()> {
        if self == expected {
            return Ok(());
        }
        let mine: BTreeSet<&u64> = self.rows.keys().collect();
        let theirs: BTreeSet<&u64> = expected.rows.keys().collect();
        let tell = |xids: Vec<&&u64>| {
            let shown: Vec<String> = xids
                .iter()
                .take(10)
                .map(|xid| match history.events.iter().find(|event| event.xid == ***xid) {
                    Some(event) => format!("{xid} at {} ({:?})", event.start, event.time),
                    None => xid.to_string(),
                })
                .collect();
            format!("{} transactions: {}", xids.len(), shown.join(", "))
        };
        let changed: Vec<&&u64> =
            mine.intersection(&theirs).filter(|xid| self.rows[xid] != expected.rows[xid]).collect();
        bail!(
            "the ledger is not what it was at the target\n  missing {}\n  surplus {}\n  different {}",
            tell(theirs.difference(&mine).collect()),
            tell(mine.difference(&theirs).collect()),
            tell(changed)
        )
    }
}

/// Lets the load run for a while, with a restore point named `{prefix}{n}` every `every`.
pub fn run_for(server: &Postgres, time: Duration, every: Duration, prefix: &str) -> Result<()> {
    let start = std::time::Instant::now();
    let mut number = 0;
    while start.elapsed() < time {
        std::thread::sleep(every.min(time.saturating_sub(start.elapsed())));
        server.sql(&format!("SELECT pg_create_restore_point('{prefix}{number}')"))?;
        number += 1;
    }
    Ok(())
}

/// A place in the log that no client is writing at: what is committed before it is in every backup made later.
pub fn mark(server: &Postgres) -> Result<Lsn> {
    server.flushed()
}
