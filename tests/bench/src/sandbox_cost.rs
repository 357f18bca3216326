//! What the sandbox costs: the same backup of the same server into the same kind of repository, by the same
//! plugin code, once as a component in the sandbox and once compiled into this program.
//!
//! ```text
//!   sandboxed:  postgresql.wasm ── wasmtime ──┐
//!                                             ├── SessionSink ── BackupSession ── a new local repository
//!   native:     backstay_postgresql ── SDK ───┘
//! ```
//!
//! Both run in this process, in turns, so that what differs is the sandbox alone: no start of a program, no
//! compilation of the plugin, the server's pages in memory. Answers are ratios; times drift from machine to machine.
//!
//! `sandbox-cost PLUGIN.wasm [--megabytes 512] [--rounds 5] [--json]`

mod bench;
#[path = "../../../plugins/postgresql/tests/native_host/mod.rs"]
mod native_host;
mod session_sink;

use anyhow::{Context, Result, bail, ensure};
use backstay_core::Secret;
use backstay_repo::{BackupOptions, SnapshotMeta};
use backstay_sandbox::{BackupSink, CredentialGrant, EndpointGrant, Grants, JobContext, Plugin, Reporter};
use backstay_sdk::Engine;
use backstay_tests::postgres::{BACKUP_PASSWORD, BACKUP_USER, Hba, Installation, Options, Postgres};
use native_host::NativeHost;
use session_sink::{NativeSink, SessionSink};
use std::{
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
    sync::Arc,
    time::{Instant, SystemTime},
};

const METHOD: &str = "stream";
const SETTINGS: &str = r#"{"sslmode":"disable"}"#;

/// The argument by which this program compiles the plugin, in a process of its own: that limits itself.
const COMPILE: &str = "--compile-into";

struct Arguments {
    plugin: PathBuf,
    megabytes: u32,
    rounds: usize,
    json: bool,
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut read = Self { plugin: PathBuf::new(), megabytes: 512, rounds: 5, json: false };
        while let Some(word) = words.next() {
            let mut number = || words.next().with_context(|| format!("{word} needs a number"));
            match word.as_str() {
                "--megabytes" => read.megabytes = number()?.parse()?,
                "--rounds" => read.rounds = number()?.parse()?,
                "--json" => read.json = true,
                path => read.plugin = path.into(),
            }
        }
        ensure!(read.plugin.is_file(), "usage: sandbox-cost PLUGIN.wasm [--megabytes N] [--rounds N] [--json]");
        ensure!(read.rounds > 0, "--rounds must be 1 or more");
        Ok(read)
    }
}

/// Nobody looks at the progress of a bench.
struct Silent;

impl Reporter for Silent {
    fn progress(&self, _: &str, _: u64, _: Option<u64>) {}

    fn now(&self) -> backstay_core::Timestamp {
        SystemTime::now().into()
    }
}

/// What one backup took.
#[derive(Clone, Copy)]
struct Cost {
    /// Seconds.
    wall: f64,
    /// Ticks of this process, all threads.
    cpu: f64,
    bytes: u64,
}

/// Processor time of this process so far, in the kernel's ticks: only ratios are made of it.
fn cpu() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    // User and system time are the 14th and the 15th field; the first two are gone.
    Ok(fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum())
}

/// Runs one backup and commits it.
async fn measure<F>(scratch: &Path, back_up: impl FnOnce(Arc<SessionSink>) -> F) -> Result<Cost>
where
    F: Future<Output = Result<()>>,
{
    let folder = tempfile::tempdir_in(scratch)?;
    let repository = bench::create(folder.path()).await?;
    let session = repository.backup(BackupOptions::default()).await?;
    let sink = Arc::new(SessionSink::new(session));
    let (start, cpu_before) = (Instant::now(), cpu()?);
    back_up(Arc::clone(&sink)).await?;
    let sink = Arc::into_inner(sink).context("the backup's sink is still held")?;
    let committed = sink.into_session().commit(SnapshotMeta::default()).await?;
    Ok(Cost { wall: start.elapsed().as_secs_f64(), cpu: cpu()? - cpu_before, bytes: committed.totals.bytes })
}

async fn sandboxed(plugin: &Plugin, server: &Postgres, sink: Arc<SessionSink>) -> Result<()> {
    let (_never, stop) = tokio::sync::watch::channel(false);
    let endpoint = EndpointGrant {
        address: server.address(),
        ca_file: None,
        server_name: None,
        client_cert_file: None,
        client_key_file: None,
    };
    let credential = CredentialGrant { user: BACKUP_USER.into(), password: Secret::new(BACKUP_PASSWORD.to_owned()) };
    let context = JobContext {
        config: SETTINGS.to_owned(),
        grants: Grants {
            endpoints: [("primary".to_owned(), endpoint)].into(),
            credentials: [("primary".to_owned(), credential)].into(),
            ..Grants::default()
        },
        directories: Default::default(),
        reporter: Arc::new(Silent),
        stop,
        limits: Default::default(),
        target: "bench".to_owned(),
        job: "backup",
    };
    let port: Arc<dyn BackupSink> = sink;
    plugin.backup(context, METHOD, "backstay bench", port).await?;
    Ok(())
}

async fn native(server: &Postgres, sink: Arc<SessionSink>) -> Result<()> {
    NativeHost::install(native_host::Grants {
        config: SETTINGS.to_owned(),
        endpoint: server.address(),
        user: BACKUP_USER.to_owned(),
        password: BACKUP_PASSWORD.to_owned(),
    });
    let job = backstay_sdk::BackupJob { method: METHOD.to_owned(), label: "backstay bench".to_owned() };
    let writer = (Rc::new(NativeSink(sink)) as Rc<dyn backstay_sdk::native::BackupSink>).into();
    backstay_postgresql::PostgreSql::backup(job, writer).await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    Ok(())
}

/// A cluster of which half compresses as rows of text do, and half not at all.
fn fill(server: &Postgres, megabytes: u32) -> Result<()> {
    let rows = megabytes / 2 * 128 * 7;
    server.sql("CREATE EXTENSION pgcrypto")?;
    server.sql("CREATE TABLE noise (id bigint, body bytea)")?;
    server.sql("ALTER TABLE noise ALTER body SET STORAGE PLAIN")?;
    server.sql(&format!("INSERT INTO noise SELECT n, gen_random_bytes(1000) FROM generate_series(1, {rows}) n"))?;
    server.sql("CREATE TABLE prose (id bigint, body text)")?;
    server.sql("ALTER TABLE prose ALTER body SET STORAGE PLAIN")?;
    let words = "repeat('customer ' || n || ' ordered ', 20) || repeat(md5(n::text), 18)";
    server.sql(&format!("INSERT INTO prose SELECT n, left({words}, 1000) FROM generate_series(1, {rows}) n"))?;
    server.sql("VACUUM (FREEZE)")?;
    server.sql("CHECKPOINT")?;
    Ok(())
}

fn compiled(plugin: &Path, cache: &Path) -> Result<Plugin> {
    let status = Command::new(std::env::current_exe()?).arg(COMPILE).arg(cache).arg(plugin).status()?;
    ensure!(status.success(), "failed to compile {}", plugin.display());
    Plugin::load(plugin, cache)?.with_context(|| format!("the compiled form of {} is missing", plugin.display()))
}

#[allow(clippy::print_stdout)] // the answer
fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, cache, plugin] = words.as_slice()
        && flag == COMPILE
    {
        return Ok(backstay_sandbox::compile(Path::new(plugin), Path::new(cache))?);
    }
    let arguments = Arguments::read(words.into_iter())?;
    let scratch = tempfile::tempdir()?;
    let cache = scratch.path().join("cache");
    std::fs::create_dir(&cache)?;
    let plugin = compiled(&arguments.plugin, &cache)?;
    let options = Options { hba: Hba::Scram, conf: vec!["fsync = off".into()], ..Options::default() };
    let server = Postgres::create(&Installation::postgres_15()?, &options)?;
    fill(&server, arguments.megabytes)?;

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut rounds = Vec::new();
    for round in 0..=arguments.rounds {
        // Whoever goes first finds colder caches.
        let in_sandbox = || runtime.block_on(measure(scratch.path(), |sink| sandboxed(&plugin, &server, sink)));
        let natively = || runtime.block_on(measure(scratch.path(), |sink| native(&server, sink)));
        let (inside, outside) = if round % 2 == 0 {
            let inside = in_sandbox()?;
            (inside, natively()?)
        } else {
            let outside = natively()?;
            (in_sandbox()?, outside)
        };
        if inside.bytes.abs_diff(outside.bytes) > inside.bytes / 100 {
            bail!("the two backups are not of the same: {} and {} bytes", inside.bytes, outside.bytes);
        }
        // The first round warms up.
        if round > 0 {
            rounds.push((inside, outside));
        }
    }

    let of = |value: fn(&Cost) -> f64| {
        let ratio = |(inside, outside): &(Cost, Cost)| value(inside) / value(outside);
        rounds.iter().map(ratio).collect::<Vec<_>>()
    };
    let (wall, cpu) = (of(|cost| cost.wall), of(|cost| cost.cpu));
    let (inside, outside) = rounds[rounds.len() - 1];
    let speed = |cost: Cost| cost.bytes as f64 / 1e6 / cost.wall;
    if arguments.json {
        let answer = serde_json::json!({
            "bytes": inside.bytes, "rounds": rounds.len(),
            "wall-ratio": bench::median(&wall), "wall-ratios": wall,
            "cpu-ratio": bench::median(&cpu), "cpu-ratios": cpu,
        });
        println!("{answer}");
    } else {
        println!("backup of {:.0} MB, {} rounds, sandboxed : native", inside.bytes as f64 / 1e6, rounds.len());
        println!("wall  {}", bench::summary(&wall));
        println!("cpu   {}", bench::summary(&cpu));
        println!("last round: {:.0} MB/s sandboxed, {:.0} MB/s native", speed(inside), speed(outside));
    }
    Ok(())
}
