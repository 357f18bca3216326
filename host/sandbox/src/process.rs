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
    os::unix::process::ExitStatusExt,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex as Lock},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Mutex,
    time::timeout,
};

/// A running tool; clones share it. When the last is dropped the program is killed.
#[derive(Clone)]
pub struct Process {
    tool: Arc<str>,
    child: Arc<Mutex<Child>>,
    pid: Option<rustix::process::Pid>,
    stdin: Arc<Mutex<Option<ChildStdin>>>,
    stdout: Arc<Lock<Option<ChildStdout>>>,
    stderr: Arc<Lock<Vec<u8>>>,
    _running: Arc<()>,
}

impl Process {
    /// Starts a program with an empty environment but for `PATH` and `LC_ALL=C`.
    pub(crate) fn start(
        tool: &str,
        program: &Path,
        arguments: &[String],
        running: Arc<()>,
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
        if let Some(mut pipe) = child.stderr.take() {
            let tail = stderr.clone();
            tokio::spawn(async move {
                let mut chunk = vec![0; 4096];
                while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
                    let Ok(mut tail) = tail.lock() else { break };
                    tail.extend_from_slice(&chunk[..count]);
                    let over = tail.len().saturating_sub(limits::STDERR_BYTES_MAX);
                    tail.drain(..over);
                }
            });
        }
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        Ok(Self {
            tool: tool.into(),
            child: Arc::new(Mutex::new(child)),
            pid,
            stdin: Arc::new(Mutex::new(stdin)),
            stdout: Arc::new(Lock::new(stdout)),
            stderr,
            _running: running,
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
        let status = self.child.lock().await.wait().await.map_err(|error| {
            EngineError::new(EngineErrorKind::Internal, format!("failed to wait for {}: {error}", self.tool))
        })?;
        Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }

    /// Asks the program to end; kills it when it has not in time.
    pub(crate) fn terminate(&self) {
        let Some(pid) = self.pid else { return };
        let child = self.child.clone();
        tokio::spawn(async move {
            let mut child = child.lock().await;
            if matches!(child.try_wait(), Ok(None)) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                if timeout(limits::TERMINATE, child.wait()).await.is_err() {
                    let _ = child.start_kill();
                }
            }
        });
    }
}
