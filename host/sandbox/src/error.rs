//! What can go wrong around a plugin.

use std::path::PathBuf;

/// What kind of thing went wrong; the contract's `error-kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineErrorKind {
    /// A setting, a grant or an argument is wrong.
    BadConfig,
    /// The database answered and refused.
    Denied,
    /// The database did not answer, or the connection broke.
    Unreachable,
    /// The server or the method cannot do what was asked.
    Unsupported,
    /// Bytes are not what they should be.
    Corrupt,
    /// Log that is needed does not exist, or does not continue the chain.
    Gap,
    /// Somebody else holds what is needed.
    Conflict,
    /// The job was asked to stop.
    Cancelled,
    /// A defect, or a failure of the host itself.
    Internal,
}

/// An error that crosses the contract, in either direction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// Decides the exit code and whether a retry can help.
    pub kind: EngineErrorKind,
    /// One printable line.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl EngineError {
    /// An error without a hint.
    pub fn new(kind: EngineErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// The same with what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether trying again, unchanged, may succeed.
    pub fn is_retryable(&self) -> bool {
        self.kind == EngineErrorKind::Unreachable
    }
}

/// What can go wrong around a plugin, apart from what it says itself.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// No such plugin in any of the folders.
    #[error("failed to find a plugin for engine `{engine}`: looked in {}", list(.searched))]
    NotFound {
        /// What was looked for.
        engine: String,
        /// Where.
        searched: Vec<PathBuf>,
    },
    /// The file is not a plugin at all.
    #[error("failed to read plugin {}: {reason}", .path.display())]
    NotAPlugin {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It wants more than the contract has.
    #[error("plugin {} is refused: it imports {} from outside the contract", .path.display(), .imports.join(", "))]
    ForeignImports {
        /// The file.
        path: PathBuf,
        /// What it imports.
        imports: Vec<String>,
    },
    /// It speaks a version of the contract this host does not.
    #[error("plugin {} is refused: it speaks contract version {version}, this host speaks 0.1", .path.display())]
    ContractVersion {
        /// The file.
        path: PathBuf,
        /// The version in its imports.
        version: String,
    },
    /// Compiling failed or hit a limit.
    #[error("failed to compile plugin {}: {reason}", .path.display())]
    Compile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It did something no plugin may do, or ran out of a limit.
    #[error("plugin `{plugin}` was ended: {reason}")]
    Trapped {
        /// Which.
        plugin: String,
        /// The trap, or the limit.
        reason: String,
    },
    /// It answered something that contradicts itself or the contract.
    #[error("plugin `{plugin}` is not trustworthy: {reason}")]
    Misbehaved {
        /// Which.
        plugin: String,
        /// What does not fit.
        reason: String,
    },
    /// A grant points at something that is not there.
    #[error("failed to open {what}: {reason}")]
    Grant {
        /// Which grant.
        what: String,
        /// Why.
        reason: String,
    },
    /// The plugin's own answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

fn list(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "no folder".to_owned();
    }
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
