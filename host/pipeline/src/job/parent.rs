//! The parent's side: starts a job's process, passes on what it says, and outlives it.

use super::{
    Event, Failure, FailureKind, Job, JobResult, JobSpec, RestoreSummary,
    child::{Task, TaskResult},
};
use crate::{destinations, limits};
use std::{
    path::{Path, PathBuf},
    process::ExitStatus,
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    signal::unix::{SignalKind, signal},
};

/// Longest line a job may write: a plan with a hundred thousand pieces of log.
const EVENT_BYTES_MAX: u64 = 64 << 20;
/// How long a job has to end by itself after its last event.
const EXIT_WAIT: Duration = Duration::from_secs(10);
/// How glibc is told from which size on memory comes from the kernel and goes back to it (mallopt(3)); others pass over it.
const MMAP_THRESHOLD: &str = "MALLOC_MMAP_THRESHOLD_";

/// How jobs are started.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The program to start with the one argument `job`; nothing: this very program.
    pub program: Option<PathBuf>,
    /// Whether SIGTERM and SIGINT of this process ask the job to wind down.
    pub forward_signals: bool,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { program: None, forward_signals: true }
    }
}

/// Runs one job in a process of its own and answers what came of it. Compiles the plugin
/// first, in yet another process, when that was not done before.
pub async fn run_job(
    spec: JobSpec,
    options: &RunOptions,
    mut on_event: impl FnMut(Event),
) -> Result<JobResult, Failure> {
    let mut spec = spec;
    // A restore is planned and shown by one process and performed by another: only the
    // plan says which folders the second one needs the right to write to, and whether
    // something would be lost in them.
    let Job::Restore(restore) = &mut spec.job else { return perform(&spec, options, &mut on_event).await };
    let only_planned = std::mem::replace(&mut restore.dry_run, true);
    let JobResult::Restore(mut planned) = perform(&spec, options, &mut on_event).await? else {
        return Err(confused());
    };
    let swept = pin(&mut spec.job, &planned)?;
    if only_planned {
        planned.swept = swept;
        return Ok(JobResult::Restore(planned));
    }
    match perform(&spec, options, &mut on_event).await? {
        JobResult::Restore(done) => Ok(JobResult::Restore(RestoreSummary { swept, ..done })),
        _ => Err(confused()),
    }
}

async fn perform(spec: &JobSpec, options: &RunOptions, on_event: &mut impl FnMut(Event)) -> Result<JobResult, Failure> {
    let task = Task::Job(Box::new(spec.clone()));
    match run_compiled(&task, &spec.target.plugin, &spec.cache, options, on_event).await? {
        TaskResult::Job(result) => Ok(*result),
        _ => Err(confused()),
    }
}

/// What was shown is what is done. Answers the folders from which files will be removed.
fn pin(job: &mut Job, planned: &RestoreSummary) -> Result<Vec<PathBuf>, Failure> {
    let Job::Restore(restore) = job else { return Err(confused()) };
    restore.dry_run = false;
    restore.backup = Some(planned.plan.backup.clone());
    restore.volumes =
        planned.volumes.iter().map(|volume| (volume.name.clone(), PathBuf::from(&volume.location))).collect();
    destinations::check(restore)
}

/// Asks a plugin who it is, in a process of its own; one that was asked before is not asked again.
pub async fn describe(
    plugin: PathBuf,
    cache: PathBuf,
    options: &RunOptions,
) -> Result<backstay_sandbox::Description, Failure> {
    let kept = backstay_sandbox::Described::look(&plugin, &cache);
    if let Some(description) = kept.as_ref().and_then(|kept| kept.known()) {
        return Ok(description);
    }
    let task = Task::Describe { plugin: plugin.clone(), cache: cache.clone() };
    let TaskResult::Described(description) = run_compiled(&task, &plugin, &cache, options, &mut |_| ()).await? else {
        return Err(confused());
    };
    if let Some(Err(error)) = kept.map(|kept| kept.keep(&description)) {
        tracing::debug!(%error, "failed to keep what the plugin says of itself: it is asked again");
    }
    Ok(*description)
}

fn confused() -> Failure {
    Failure::new(FailureKind::Failed, "the job process answered something else than was asked")
}

/// Does the task; where the plugin has to be compiled first, that is done in between. Most often it was: to look for that here would be
/// what the other process does anyway, once more.
async fn run_compiled(
    task: &Task,
    plugin: &Path,
    cache: &Path,
    options: &RunOptions,
    on_event: &mut impl FnMut(Event),
) -> Result<TaskResult, Failure> {
    match run_task(task, options, on_event).await? {
        TaskResult::NotCompiled => compile(plugin, cache, options, on_event).await?,
        result => return Ok(result),
    }
    match run_task(task, options, on_event).await? {
        TaskResult::NotCompiled => Err(Failure::new(
            FailureKind::Failed,
            format!("the compiled form of {} in {} may not be believed", plugin.display(), cache.display()),
        )
        .hint("remove that folder; it is made again")),
        result => Ok(result),
    }
}

async fn compile(
    plugin: &Path,
    cache: &Path,
    options: &RunOptions,
    on_event: &mut impl FnMut(Event),
) -> Result<(), Failure> {
    on_event(Event::Progress { phase: "compile".to_owned(), done: 0, total: None });
    let task = Task::Compile { plugin: plugin.to_owned(), cache: cache.to_owned() };
    let compiled = tokio::time::timeout(backstay_sandbox::COMPILE_WALL, run_task(&task, options, on_event));
    match compiled.await {
        Ok(result) => result.map(|_| ()),
        Err(_) => Err(Failure::new(
            FailureKind::Failed,
            format!("failed to compile plugin {} within its time", plugin.display()),
        )),
    }
}

async fn run_task(task: &Task, options: &RunOptions, on_event: &mut impl FnMut(Event)) -> Result<TaskResult, Failure> {
    let mut child = start(options)?;
    let stdin = child.stdin.take().ok_or_else(confused)?;
    let stdout = child.stdout.take().ok_or_else(confused)?;
    let Some(pipe) = tell(stdin, task).await? else {
        // It was gone before it had heard what to do.
        return Err(died(end_of(&mut child).await));
    };
    let mut reins = Reins { pipe, asked: false };
    let mut lines = BufReader::with_capacity(64 << 10, stdout);
    let mut signals = Signals::listen(options.forward_signals)?;
    let mut outcome = None;
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut lines).take(EVENT_BYTES_MAX);
        let mut reading = std::pin::pin!(bounded.read_until(b'\n', &mut line));
        let read = loop {
            tokio::select! {
                read = &mut reading => break read,
                () = signals.next() => reins.ask_to_stop(&mut child).await,
            }
        };
        if !matches!(read, Ok(1..)) || line.last() != Some(&b'\n') {
            break;
        }
        match serde_json::from_slice(&line) {
            Ok(super::child::Line::Event(event)) => on_event(event),
            Ok(super::child::Line::Result(result)) => outcome = Some(Ok(result)),
            Ok(super::child::Line::Failed(failure)) => outcome = Some(Err(failure)),
            Err(_) => return Err(confused()),
        }
    }
    let asked = reins.asked;
    drop(reins);
    let status = end_of(&mut child).await;
    match outcome {
        // What was to be done has not begun, and nobody would hear of the request again.
        Some(Ok(TaskResult::NotCompiled | TaskResult::Compiled)) if asked => {
            Err(Failure::new(FailureKind::Cancelled, "stopped as asked; nothing was begun"))
        }
        outcome => outcome.unwrap_or_else(|| Err(died(status))),
    }
}

/// How it ended; nothing when it had to be killed for that.
async fn end_of(child: &mut Child) -> Option<ExitStatus> {
    match tokio::time::timeout(EXIT_WAIT, child.wait()).await {
        Ok(status) => status.ok(),
        Err(_) => {
            let _ = child.kill().await;
            None
        }
    }
}

fn start(options: &RunOptions) -> Result<Child, Failure> {
    let failed =
        |error: std::io::Error| Failure::new(FailureKind::Failed, format!("failed to start the job process: {error}"));
    let program = match &options.program {
        Some(program) => program.clone(),
        None => std::env::current_exe().map_err(failed)?,
    };
    let mut command = Command::new(program);
    // Whoever runs it may know better.
    if std::env::var_os(MMAP_THRESHOLD).is_none() {
        command.env(MMAP_THRESHOLD, limits::MMAP_THRESHOLD_BYTES.to_string());
    }
    command
        .arg("job")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        // A Ctrl-C on the terminal reaches only this process, which passes it on in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)
}

/// Nothing: it no longer listens.
async fn tell(mut stdin: ChildStdin, task: &Task) -> Result<Option<ChildStdin>, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(FailureKind::Failed, format!("failed to tell the job process what to do: {error}"))
    };
    let mut line = serde_json::to_vec(task).map_err(|error| failed(&error))?;
    line.push(b'\n');
    let told = async {
        stdin.write_all(&line).await?;
        stdin.flush().await
    };
    match told.await {
        Ok(()) => Ok(Some(stdin)),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

/// The pipe to a job. Its end would tell the job that this process died.
struct Reins {
    pipe: ChildStdin,
    asked: bool,
}

impl Reins {
    /// The first request is a word; whoever asks again means it.
    async fn ask_to_stop(&mut self, child: &mut Child) {
        if std::mem::replace(&mut self.asked, true) {
            let _ = child.start_kill();
            return;
        }
        let told = async {
            self.pipe.write_all(b"stop\n").await?;
            self.pipe.flush().await
        };
        if told.await.is_err() {
            tracing::debug!("the job ended before it was asked to stop");
        }
    }
}

struct Signals(Option<(tokio::signal::unix::Signal, tokio::signal::unix::Signal)>);

impl Signals {
    fn listen(wanted: bool) -> Result<Self, Failure> {
        if !wanted {
            return Ok(Self(None));
        }
        let failed = |error| Failure::new(FailureKind::Failed, format!("failed to listen for signals: {error}"));
        let terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        Ok(Self(Some((terminate, interrupt))))
    }

    async fn next(&mut self) {
        let Some((terminate, interrupt)) = &mut self.0 else { return std::future::pending().await };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

fn died(status: Option<ExitStatus>) -> Failure {
    use std::os::unix::process::ExitStatusExt;
    let how = match status {
        Some(status) => match (status.signal(), status.code()) {
            (Some(9), _) => "was killed (signal 9)".to_owned(),
            (Some(signal), _) => format!("was ended by signal {signal}"),
            (None, Some(code)) => format!("ended with code {code} and no answer"),
            (None, None) => "ended with no answer".to_owned(),
        },
        None => "did not end by itself and was killed".to_owned(),
    };
    Failure::new(FailureKind::Failed, format!("the job process {how}"))
        .hint("nothing half-written counts: run the command again; if it dies again, look for an out-of-memory kill in the system log")
}
