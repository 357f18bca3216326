//! Where a secret comes from, and reading it when it is needed and not before.

use super::{error::ConfigError, section::Section};
use crate::limits::{PASSWORD_COMMAND_MAX, PASSWORD_COMMAND_POLL, SECRET_BYTES_MAX};
use backstay_core::Secret;
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

/// Where a secret comes from. The configuration itself never holds one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// The text of a file, without the newline at its end.
    File(PathBuf),
    /// What a program prints, without the newline at its end. Run without a shell.
    Command(Vec<String>),
}

/// A secret that could not be read. Says where it was looked for, never what was found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// The file cannot be read.
    #[error("failed to read {}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the operating system said, or what is wrong with the content.
        reason: String,
    },
    /// The program cannot be run, failed, or took too long.
    #[error("failed to run `{program}`: {reason}")]
    Command {
        /// Its first word.
        program: String,
        /// What happened.
        reason: String,
    },
    /// A profile of Amazon's files gives no keys.
    #[error(transparent)]
    Profile(#[from] super::repository::AwsProfileError),
}

impl SecretSource {
    /// Reads `<prefix>-file` or `<prefix>-command` of a section; both at once are refused.
    pub(crate) fn from_section(section: &Section<'_>, prefix: &str) -> Result<Option<Self>, ConfigError> {
        let (file_key, command_key) = (format!("{prefix}-file"), format!("{prefix}-command"));
        let file = section.path(&file_key)?;
        let command = section.texts(&command_key)?;
        match (file, command) {
            (Some(_), Some(command)) => Err(section
                .source()
                .error(command.span, format!("{section} has both `{file_key}` and `{command_key}`, keep one"))),
            (Some(path), None) => Ok(Some(Self::File(path))),
            (None, Some(command)) => Ok(Some(Self::Command(command.value))),
            (None, None) => Ok(None),
        }
    }

    /// The secret. `whose` names it in warnings: "the password of repository `main`".
    pub(crate) fn read(&self, whose: &str) -> Result<Secret, SecretError> {
        match self {
            Self::File(path) => {
                let refuse = |reason: String| SecretError::File { path: path.clone(), reason };
                let bytes = read_file(path, whose).map_err(|error| refuse(error.to_string()))?;
                text(bytes).map_err(|reason| refuse(reason.to_owned()))
            }
            Self::Command(words) => {
                let program = words.first().cloned().unwrap_or_default();
                let refuse = |reason: String| SecretError::Command { program: program.clone(), reason };
                let bytes = run(words).map_err(|error| refuse(error.to_string()))?;
                text(bytes).map_err(|reason| refuse(reason.to_owned()))
            }
        }
    }
}

/// The password as restic would take it: UTF-8, newlines at the end dropped, not empty.
pub(crate) fn text(bytes: Vec<u8>) -> Result<Secret, &'static str> {
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err("it is longer than 4 KiB");
    }
    let mut text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    if text.is_empty() { Err("it is empty") } else { Ok(Secret::new(text)) }
}

fn read_file(path: &Path, whose: &str) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::other("it is a folder"));
    }
    if metadata.is_file() && metadata.permissions().mode() & 0o004 != 0 {
        tracing::warn!("{whose} can be read by everybody on this machine: chmod 600 {}", path.display());
    }
    read_bounded(file)
}

/// One byte more than allowed, so that [`text`] can tell that there was more.
fn read_bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn run(words: &[String]) -> io::Result<Vec<u8>> {
    let (program, arguments) = words.split_first().ok_or_else(|| io::Error::other("there is no program"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::inherit())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let output = child.stdout.take();
    // A thread of its own reads, so that a program that neither ends nor closes its output meets the time limit.
    let reader = std::thread::spawn(move || output.map_or_else(|| Ok(Vec::new()), read_bounded));
    let status = wait(&mut child)?;
    if !status.success() {
        return Err(io::Error::other(status.to_string()));
    }
    reader.join().unwrap_or_else(|_| Err(io::Error::other("its output could not be read")))
}

fn wait(child: &mut Child) -> io::Result<std::process::ExitStatus> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if started.elapsed() > PASSWORD_COMMAND_MAX {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other(format!("it took longer than {} s", PASSWORD_COMMAND_MAX.as_secs())));
        }
        std::thread::sleep(PASSWORD_COMMAND_POLL);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_secret_loses_its_last_newline_and_nothing_else() {
        assert_eq!(text(b" a b \r\n".to_vec()).unwrap().reveal(), " a b ");
        assert!(text(b"\n".to_vec()).is_err());
        assert!(text(vec![0xff]).is_err());
        assert!(text(vec![b'a'; 4097]).is_err());
    }

    #[test]
    fn a_command_is_run_without_a_shell_and_its_failure_is_told() {
        let echo = SecretSource::Command(vec!["printf".into(), "%s\n".into(), "$HOME;x".into()]);
        assert_eq!(echo.read("test").unwrap().reveal(), "$HOME;x");
        let fails = SecretSource::Command(vec!["false".into()]).read("test").unwrap_err();
        assert_eq!(fails.to_string(), "failed to run `false`: exit status: 1");
    }
}
