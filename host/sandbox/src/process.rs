//! A granted native program, run without a shell.
#![allow(unreachable_pub)] // the generated bindings name the handle types

use crate::{
    error::{EngineError, EngineErrorKind},
    limits,
    log_gate::printable,
    ports::Body,
};
use futures::StreamExt;
use std::{
    io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex as Lock},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::{Mutex, watch},
    time::timeout,
};

/// A running tool; clones share it. When the last is dropped the program is killed, unless it
/// was asked to end before: then it has its time.
#[derive(Clone)]
pub struct Process {
    tool: Arc<str>,
    /// Turns true when the program shall end.
    end: Arc<watch::Sender<bool>>,
    /// The exit code, once it has ended.
    ended: watch::Receiver<Option<Result<i32, String>>>,
    stdin: Arc<Mutex<Option<ChildStdin>>>,
    stdout: Arc<Lock<Option<ChildStdout>>>,
    stderr: Arc<Lock<Vec<u8>>>,
}

impl Process {
    /// Starts a program with an empty environment but for `PATH` and `LC_ALL=C`. `running` is
    /// held until the program has ended, which may be after the last handle is gone.
    pub(crate) fn start(
        tool: &str,
        program: &Path,
        arguments: &[String],
        running: Arc<()>,
    ) -> Result<Self, EngineError> {
        Self::start_with(tool, program, arguments, running, limits::TERMINATE)
    }

    fn start_with(
        tool: &str,
        program: &Path,
        arguments: &[String],
        running: Arc<()>,
        patience: Duration,
    ) -> Result<Self, EngineError> {
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                EngineError::new(
                    EngineErrorKind::BadConfig,
                    format!("failed to run {}: {}", program.display(), crate::connection::plain_words(&error)),
                )
                .hint(format!("check tools.{tool} in the configuration"))
            })?;
        let stderr = Arc::new(Lock::new(Vec::new()));
        let tail = child.stderr.take().map(|pipe| tokio::spawn(keep_tail(pipe, stderr.clone())));
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (end, asked) = watch::channel(false);
        let (tell, ended) = watch::channel(None);
        tokio::spawn(async move {
            let status = until_ended(child, asked, patience).await;
            // What it said last is there when its end is known. Its own children may hold the pipe open.
            if let Some(tail) = tail {
                let _ = timeout(limits::STDERR_REST, tail).await;
            }
            drop(running);
            tell.send_replace(Some(status.map(code).map_err(|error| error.to_string())));
        });
        Ok(Self {
            tool: tool.into(),
            end: Arc::new(end),
            ended,
            stdin: Arc::new(Mutex::new(stdin)),
            stdout: Arc::new(Lock::new(stdout)),
            stderr,
        })
    }

    pub(crate) async fn feed(&self, mut body: Body) -> Result<u64, EngineError> {
        let Some(mut stdin) = self.stdin.lock().await.take() else {
            return Err(EngineError::new(EngineErrorKind::Internal, "standard input was already given"));
        };
        let mut fed_bytes = 0;
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|error| crate::pump::from_io(&error))?;
            stdin.write_all(&bytes).await.map_err(|error| {
                EngineError::new(
                    EngineErrorKind::Internal,
                    format!("{} stopped reading its input: {}", self.tool, crate::connection::plain_words(&error)),
                )
            })?;
            fed_bytes += bytes.len() as u64;
        }
        Ok(fed_bytes)
    }

    pub(crate) fn take_stdout(&self) -> Option<ChildStdout> {
        self.stdout.lock().ok()?.take()
    }

    pub(crate) fn stderr_tail(&self, max: u32) -> String {
        let Ok(tail) = self.stderr.lock() else { return String::new() };
        let from = tail.len().saturating_sub((max as usize).min(limits::STDERR_BYTES_MAX));
        let text = String::from_utf8_lossy(&tail[from..]).into_owned();
        text.lines().map(|line| printable(line, limits::TEXT_BYTES_MAX)).collect::<Vec<_>>().join("\n")
    }

    pub(crate) async fn wait(&self) -> Result<i32, EngineError> {
        let failed = |reason: &str| {
            EngineError::new(EngineErrorKind::Internal, format!("failed to wait for {}: {reason}", self.tool))
        };
        let mut ended = self.ended.clone();
        let status = ended.wait_for(Option::is_some).await.map_err(|_| failed("nobody looks after it any more"))?;
        match &*status {
            Some(Ok(code)) => Ok(*code),
            Some(Err(reason)) => Err(failed(reason)),
            None => Err(failed("it has not ended")),
        }
    }

    /// Asks the program to end; it is killed when it has not in time.
    pub(crate) fn terminate(&self) {
        self.end.send_replace(true);
    }
}

/// The one owner of a program: it alone waits for it, so the id that is signalled is still the
/// program's own.
async fn until_ended(mut child: Child, mut asked: watch::Receiver<bool>, patience: Duration) -> io::Result<ExitStatus> {
    let asked = tokio::select! {
        status = child.wait() => return status,
        asked = asked.wait_for(|end| *end) => asked.is_ok(),
    };
    // Nobody is left who could wait for it: the job is over.
    if asked {
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended just now; then `wait` knows.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if let Ok(status) = timeout(patience, child.wait()).await {
            return status;
        }
    }
    child.start_kill()?;
    child.wait().await
}

async fn keep_tail(mut pipe: ChildStderr, kept: Arc<Lock<Vec<u8>>>) {
    let mut chunk = vec![0; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        let Ok(mut tail) = kept.lock() else { break };
        tail.extend_from_slice(&chunk[..count]);
        let over = tail.len().saturating_sub(limits::STDERR_BYTES_MAX);
        tail.drain(..over);
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Instant;

    const PATIENCE: Duration = Duration::from_millis(300);

    fn sh(script: &str) -> (Process, Arc<()>) {
        let running = Arc::new(());
        let arguments = ["-c".to_owned(), script.to_owned()];
        let process = Process::start_with("sh", Path::new("/bin/sh"), &arguments, running.clone(), PATIENCE).unwrap();
        (process, running)
    }

    /// Waits until the program says something, so that its traps are set.
    async fn says(process: &Process) -> String {
        let mut stdout = process.take_stdout().unwrap();
        let mut bytes = vec![0; 64];
        let count = stdout.read(&mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes[..count]).trim().to_owned()
    }

    async fn gone(running: &Arc<()>) {
        let waited = Instant::now();
        while Arc::strong_count(running) > 1 {
            assert!(waited.elapsed() < Duration::from_secs(10), "the program goes on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_program_that_is_waited_for_can_be_asked_to_end() {
        let (process, _) = sh("trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done");
        says(&process).await;
        let waiting = tokio::spawn({
            let process = process.clone();
            async move { process.wait().await }
        });
        tokio::task::yield_now().await;
        process.terminate();
        assert_eq!(waiting.await.unwrap().unwrap(), 7);
        assert_eq!(process.wait().await.unwrap(), 7, "its end is known for good");
    }

    #[tokio::test]
    async fn a_program_that_does_not_listen_is_killed_in_time() {
        let (process, _) = sh("trap '' TERM; echo up; while :; do sleep 0.05; done");
        says(&process).await;
        let asked = Instant::now();
        process.terminate();
        assert_eq!(process.wait().await.unwrap(), 128 + 9);
        assert!(asked.elapsed() >= PATIENCE);
    }

    #[tokio::test]
    async fn a_program_that_nobody_holds_is_killed_at_once() {
        let (process, running) = sh("trap '' TERM; echo up; while :; do sleep 0.05; done");
        says(&process).await;
        let dropped = Instant::now();
        drop(process);
        gone(&running).await;
        assert!(dropped.elapsed() < PATIENCE);
    }

    #[tokio::test]
    async fn a_program_that_was_asked_to_end_has_its_time_though_nobody_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let note = folder.path().join("note");
        let script = format!(
            "trap 'sleep 0.1; echo tidy > {}; exit' TERM; echo up; while :; do sleep 0.01; done",
            note.display()
        );
        let (process, running) = sh(&script);
        says(&process).await;
        process.terminate();
        drop(process);
        gone(&running).await;
        assert_eq!(std::fs::read_to_string(note).unwrap(), "tidy\n");
    }

    #[tokio::test]
    async fn what_a_program_said_last_is_there_when_its_end_is_known() {
        let (process, _) =
            sh("i=0; while [ $i -lt 9000 ]; do echo 0123456789 >&2; i=$((i+1)); done; echo last >&2; exit 3");
        assert_eq!(process.wait().await.unwrap(), 3);
        assert!(process.stderr_tail(u32::MAX).len() <= limits::STDERR_BYTES_MAX);
        assert_eq!(process.stderr_tail(15), "0123456789\nlast"[1..].to_owned());
    }

    #[tokio::test]
    async fn a_child_that_keeps_the_pipe_does_not_keep_the_end_secret() {
        let (process, _) = sh("sleep 30 & echo said >&2; exit 4");
        assert_eq!(process.wait().await.unwrap(), 4);
        assert_eq!(process.stderr_tail(100), "said");
    }
}
