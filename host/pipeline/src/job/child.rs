//! The child's side: is told, opens, confines itself, works, answers.

use super::{Event, Failure, FailureKind, JobResult, JobSpec, LogLevel};
use crate::{confinement, reporter::JobReporter, work};
use backstay_sandbox::Plugin;
use serde::{Deserialize, Serialize};
use std::{
    io::{BufRead, Read, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};
use tokio::sync::watch;

/// Longest task: settings and secrets have a few KiB.
const TASK_BYTES_MAX: u64 = 16 << 20;
/// Threads for chunking, hashing and sealing beside the one that runs the plugin.
const WORKERS_MAX: usize = 64;
// Beside all batches, two for a core, there are threads for their uploads.
const _: () = assert!(2 * WORKERS_MAX >= backstay_repo::limits::BATCHES_MAX as usize);

/// What a process is started for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Task {
    /// Compile a plugin and keep the result.
    Compile { plugin: PathBuf, cache: PathBuf },
    /// Ask a plugin who it is.
    Describe { plugin: PathBuf, cache: PathBuf },
    /// Do a job.
    Job(Box<JobSpec>),
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum TaskResult {
    /// The plugin has to be compiled first; nothing was done.
    NotCompiled,
    Compiled,
    Described(Box<backstay_sandbox::Description>),
    Job(Box<JobResult>),
}

/// One line on standard output.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Line {
    Event(Event),
    Result(TaskResult),
    Failed(Failure),
}

/// What the hidden subcommand `job` does. Call it first thing in `main`, while this is
/// the process's only thread: it confines the thread it runs on.
pub fn child_main() -> ExitCode {
    die_with_parent();
    let answer = match read_task() {
        Ok(task) => run(task),
        Err(failure) => Err(failure),
    };
    let (line, code) = match answer {
        Ok(result) => (Line::Result(result), ExitCode::SUCCESS),
        Err(failure) => (Line::Failed(failure), ExitCode::FAILURE),
    };
    write_line(&line);
    code
}

/// The kernel kills this process when its parent ends, however that ends. Where it cannot,
/// the end of standard input tells (see `listen`).
fn die_with_parent() {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}

fn read_task() -> Result<Task, Failure> {
    let mut line = Vec::new();
    let mut stdin = std::io::stdin().lock();
    let told = (&mut stdin).take(TASK_BYTES_MAX).read_until(b'\n', &mut line);
    let task = told.ok().and_then(|_| serde_json::from_slice(&line).ok());
    task.ok_or_else(|| {
        Failure::new(FailureKind::Usage, "`backstay job` is started by backstay itself, with a task on standard input")
    })
}

fn run(task: Task) -> Result<TaskResult, Failure> {
    match task {
        Task::Compile { plugin, cache } => {
            backstay_sandbox::compile(&plugin, &cache)?;
            Ok(TaskResult::Compiled)
        }
        Task::Describe { plugin, cache } => {
            let Some(plugin) = Plugin::load(&plugin, &cache)? else { return Ok(TaskResult::NotCompiled) };
            backstay_sandbox::confine(&backstay_sandbox::Rights::default()).map_err(unconfined)?;
            let reporter = Arc::new(JobReporter::new(write_event));
            let description = runtime()?.block_on(work::describe(&plugin, reporter))?;
            Ok(TaskResult::Described(Box::new(description)))
        }
        Task::Job(spec) => {
            let level = spec.log_level;
            crate::reporter::install_log(level, write_event);
            let loaded = Plugin::load(&spec.target.plugin, &spec.cache)?;
            let Some(plugin) = loaded else { return Ok(TaskResult::NotCompiled) };
            let opened = confinement::open(&spec)?;
            let confinement = backstay_sandbox::confine(&confinement::rights(&spec)).map_err(unconfined)?;
            match confinement {
                backstay_sandbox::Confinement::None => {
                    tracing::warn!("this kernel has no Landlock: the job keeps every right of its user");
                }
                some => tracing::debug!(confinement = ?some, "confined"),
            }
            let reporter = Arc::new(JobReporter::new(write_event));
            let (stop_sender, stop) = watch::channel(false);
            std::thread::Builder::new()
                .name("stop".to_owned())
                .spawn(move || listen(&stop_sender))
                .map_err(|error| Failure::new(FailureKind::Failed, format!("failed to start a thread: {error}")))?;
            let result = runtime()?.block_on(work::perform(*spec, plugin, opened, reporter, stop))?;
            Ok(TaskResult::Job(Box::new(result)))
        }
    }
}

fn unconfined(reason: String) -> Failure {
    Failure::new(FailureKind::Failed, reason)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, WORKERS_MAX))
        .max_blocking_threads(2 * cores.clamp(2, WORKERS_MAX) + 8)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(FailureKind::Failed, format!("failed to start the runtime: {error}")))
}

/// Waits for the word `stop`. An end of the input without it means that the parent died.
fn listen(stop: &watch::Sender<bool>) {
    let mut line = String::new();
    let mut stdin = std::io::stdin().lock();
    loop {
        line.clear();
        match stdin.read_line(&mut line) {
            Ok(1..) if line.trim_end() == "stop" => {
                stop.send_replace(true);
            }
            Ok(1..) => {}
            _ => std::process::exit(1),
        }
    }
}

fn write_event(event: Event) {
    write_line(&Line::Event(event));
}

fn write_line(line: &Line) {
    let Ok(mut bytes) = serde_json::to_vec(line) else { return };
    bytes.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    // A parent that is gone reads nothing, and this process ends with it.
    let _ = stdout.write_all(&bytes).and_then(|()| stdout.flush());
}

impl From<LogLevel> for tracing_subscriber::filter::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Trace => Self::TRACE,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Info => Self::INFO,
            LogLevel::Warn => Self::WARN,
            LogLevel::Error => Self::ERROR,
        }
    }
}
