//! Why a command did not do what was asked: one line, what to do next, an exit code.

use crate::{
    config::{ConfigError, SchemaError, SecretError},
    exit::Exit,
    output::Output,
};
use backstay_pipeline::FailureKind;
use backstay_repo::{RepoError, log::LogError};
use std::process::ExitCode;

/// Each kind has one exit code.
fn exit(kind: FailureKind) -> Exit {
    match kind {
        FailureKind::Usage => Exit::Usage,
        FailureKind::Unreachable | FailureKind::Denied => Exit::Unreachable,
        FailureKind::OutsideWindow | FailureKind::Gap => Exit::OutsideWindow,
        FailureKind::Damaged => Exit::Damaged,
        FailureKind::Conflict | FailureKind::Cancelled | FailureKind::Failed => Exit::Failed,
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: FailureKind,
    message: String,
    hint: Option<String>,
    told: bool,
}

/// Result of every command.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure; `message` is one line, lower case, `failed to …`, without a dot at its end.
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: one_line(&message.into()), hint: None, told: false }
    }

    /// The command line asks for what makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Usage, message)
    }

    /// What kind it is.
    #[cfg(test)]
    pub(crate) fn kind(&self) -> FailureKind {
        self.kind
    }

    /// What happened, one line.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// What to do next, one line.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(one_line(&hint.into()));
        self
    }

    /// What to do next besides, where there is log missing.
    #[must_use]
    pub(crate) fn hint_at_gap(self, more: &str) -> Self {
        if self.kind != FailureKind::Gap {
            return self;
        }
        match self.hint.clone() {
            Some(hint) => self.hint(format!("{hint}; {more}")),
            None => self.hint(more),
        }
    }

    /// For a command whose JSON result already tells of the failure: standard output gets one value, not two.
    #[must_use]
    pub(crate) fn told(mut self) -> Self {
        self.told = true;
        self
    }

    /// Tells the operator and answers the exit code.
    pub(crate) fn report(&self, output: &Output) -> ExitCode {
        output.complain(&format!("backstay: {}", self.message));
        if let Some(hint) = &self.hint {
            output.complain(&format!("hint: {hint}"));
        }
        if self.told {
            return exit(self.kind).into();
        }
        output.failure(&self.json());
        exit(self.kind).into()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "error": {
                "kind": self.kind,
                "message": self.message,
                "hint": self.hint,
                "exit-code": exit(self.kind).code(),
            }
        })
    }
}

/// Messages come from servers and plugins too: whatever they hold, people get one printable line.
fn one_line(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What clap has to say: help and versions go to standard output, complaints to standard error, with our codes.
pub(crate) fn refuse_arguments(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Help and version. Nothing is left to be done when even this cannot be printed.
        let _ = error.print();
        return Exit::Done.into();
    }
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return Exit::Usage.into();
    }
    // The arguments did not parse, so `--json` is looked for among them as they are.
    let output = Output { json: std::env::args_os().any(|argument| argument == "--json") };
    let text = error.to_string();
    // What is wrong comes first, over several lines where arguments are listed; then a tip or the usage.
    let what: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    let what = what.join(" ");
    let tip = text.lines().map(str::trim).find_map(|line| line.strip_prefix("tip: "));
    let failure = Failure::usage(what.trim_start_matches("error: "));
    failure.hint(tip.unwrap_or("--help behind the command tells what it takes")).report(&output)
}

impl From<backstay_pipeline::Failure> for Failure {
    fn from(failure: backstay_pipeline::Failure) -> Self {
        let ours = Self::new(failure.kind, failure.message);
        match failure.hint {
            Some(hint) => ours.hint(hint),
            None => ours,
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let missing = matches!(error, ConfigError::Missing { .. });
        let failure = Self::new(FailureKind::Usage, format!("failed to read the configuration: {error}"));
        if missing { failure.hint("write one with `backstay init`, or name one with --config") } else { failure }
    }
}

impl From<SchemaError> for Failure {
    fn from(error: SchemaError) -> Self {
        match error {
            SchemaError::Settings(error) => error.into(),
            error @ SchemaError::Schema { .. } => Self::new(FailureKind::Failed, error.to_string()),
        }
    }
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Self {
        Self::new(FailureKind::Usage, error.to_string())
    }
}

impl From<RepoError> for Failure {
    fn from(error: RepoError) -> Self {
        backstay_pipeline::Failure::from(error).into()
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        backstay_pipeline::Failure::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_escapes_and_newlines_becomes_one_plain_line() {
        let failure = Failure::new(FailureKind::Denied, "failed\n\x1b[31mred\r\n");
        assert_eq!(failure.message, "failed  [31mred");
        assert_eq!(exit(failure.kind), Exit::Unreachable);
    }
}
