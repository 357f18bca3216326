//! Folders that vanish.

use crate::account;
use anyhow::{Context, Result};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A temporary folder of the ordinary user. Gone on drop, kept when `BACKSTAY_KEEP` is set.
///
/// Its path is short: PostgreSQL's sockets lie inside, and a socket's path holds 107 bytes.
pub struct Scratch {
    folder: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Scratch {
    /// A new folder.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("bst-").tempdir().context("failed to make a temporary folder")?;
        let path = folder.path().to_owned();
        account::create_dir(&path)?;
        Ok(Self { folder: Some(folder), path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// A new folder inside.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.join(name);
        account::create_dir(&path)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("BACKSTAY_KEEP").is_some()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("kept {}", folder.keep().display());
        }
    }
}

/// Runs a command to its end; an exit code other than 0 is an error that shows what it wrote.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("failed to start {command:?}"))?;
    if !output.status.success() {
        anyhow::bail!(
            "{command:?} ended with {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output)
}

/// The last lines of a log file, for a failure's message.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return format!("({}: {error})", path.display()),
    };
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A port on loopback that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Looks until `condition` answers something, at most `limit`.
pub fn wait_for<T>(
    what: &str,
    limit: std::time::Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = std::time::Instant::now();
    loop {
        if let Some(answer) = condition()? {
            return Ok(answer);
        }
        if start.elapsed() > limit {
            anyhow::bail!("waited {} s for {what} in vain", limit.as_secs());
        }
        std::thread::sleep(crate::limits::POLL);
    }
}
