//! The contract's records, as plain Rust types. See `wit/v0.1/engine.wit` for what each means.

use std::fmt;

/// Microseconds since 1970-01-01T00:00:00Z.
pub type Timestamp = u64;

/// What a plugin's functions answer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A place in a database's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Branch of history.
    pub epoch: u64,
    /// Bytes into that branch.
    pub offset: u64,
    /// What people call this place.
    pub label: String,
}

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
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
    /// Log that is needed no longer exists, or does not continue the chain.
    Gap,
    /// Somebody else holds what is needed.
    Conflict,
    /// The host asked the job to stop.
    Cancelled,
    /// A defect in the plugin.
    Internal,
}

/// What went wrong, and what the operator can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Decides the exit code and whether the host retries.
    pub kind: ErrorKind,
    /// One line, lower case, no trailing full stop.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Error {
    /// An error without a hint.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// The same with a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// What a file keeps beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileAttributes {
    /// Permission bits only.
    pub mode: u32,
    /// Time of last change.
    pub modified: Timestamp,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A file of that many bytes.
    File(u64),
    /// A folder.
    Directory,
    /// A link to that target.
    Symlink(String),
}

/// One entry of a folder or of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Relative, `/`-separated.
    pub path: String,
    /// What it is.
    pub kind: NodeKind,
    /// Its mode and time.
    pub attributes: FileAttributes,
}

/// A user and a secret.
#[derive(Clone)]
pub struct Credential {
    /// The user.
    pub user: String,
    /// The secret; never shown by `Debug`.
    pub password: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("user", &self.user).finish_non_exhaustive()
    }
}

/// How much of the server's certificate the host checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVerification {
    /// Encrypt, believe any certificate.
    None,
    /// The certificate chains to a trusted authority.
    Authority,
    /// And it names the endpoint's host.
    Full,
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Every step.
    Trace,
    /// For the plugin's author.
    Debug,
    /// For the operator.
    Info,
    /// Something will need attention.
    Warn,
    /// Something failed.
    Error,
}

/// What to do with files that match a pattern in [`crate::BackupWriter::put_tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// Leave it out, with all below it.
    Exclude,
    /// Keep the folder, leave its contents out.
    Empty,
    /// Store it after every other file.
    Last,
    /// Store it, and show [`crate::Engine::inspect_part`] its bytes while they are read.
    Inspect,
}

/// A pattern and what to do with what it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// A glob on the relative path.
    pub pattern: String,
    /// What to do.
    pub action: RuleAction,
}

/// What [`crate::BackupWriter::put_file`] stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// How many bytes came.
    pub bytes: u64,
    /// CRC-32C (Castagnoli) of the bytes as the repository received them.
    pub crc32c: u32,
}

/// How a file differs from the previous backup's file of the same path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// Bytes that the file has in the end.
    pub bytes: u64,
    /// How much of the previous file, from its begin, still counts. What lies behind, or behind the previous
    /// file's end, and in no range is zeros.
    pub inherited: u64,
    /// What is replaced, in bytes: ascending, not overlapping, inside `bytes`; at most 262,144 ranges.
    pub ranges: Vec<std::ops::Range<u64>>,
    /// CRC-32C of the previous backup's file, where the engine knows it.
    pub parent_crc32c: Option<u32>,
}

/// A part of a file that is being stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePart {
    /// Relative to the folder that [`crate::BackupWriter::put_tree`] was given.
    pub path: String,
    /// Where in the file the part starts: a multiple of 1 MiB.
    pub offset: u64,
    /// What [`crate::BackupWriter::put_tree`] was given.
    pub context: String,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where in the file.
    pub offset: u64,
    /// One line, for people.
    pub what: String,
}

/// What [`crate::BackupWriter::put_tree`] stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeSummary {
    /// Files stored.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One piece of log, inside one of the database's log files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First byte.
    pub start: Position,
    /// One past the last byte; same epoch.
    pub end: Position,
    /// Where the branch leaves its predecessor; only on the first piece of an epoch.
    pub follows: Option<Position>,
    /// First commit that ends inside.
    pub first_commit: Option<Timestamp>,
    /// Last commit that ends inside.
    pub last_commit: Option<Timestamp>,
    /// The database's file name.
    pub file: String,
    /// Where in the file this piece starts.
    pub file_offset: u64,
}

/// What `place` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaceSummary {
    /// Files in place.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were already right.
    pub kept_bytes: u64,
}

/// What can be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantKind {
    /// A network address or socket.
    Endpoint,
    /// A user and a secret.
    Credential,
    /// A folder to read.
    DirectoryRead,
    /// A folder to read and write.
    DirectoryWrite,
    /// A native program.
    Tool,
}

/// A grant the plugin asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRequest {
    /// What kind.
    pub kind: GrantKind,
    /// Its name in the configuration.
    pub name: String,
    /// What for, for people.
    pub purpose: String,
    /// Whether every job needs it.
    pub required: bool,
}

/// One way to back up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    /// Its name.
    pub name: String,
    /// One line for people.
    pub summary: String,
    /// Grants it needs beyond the required ones.
    pub grants: Vec<String>,
    /// Methods whose backups it may build on, beside its own.
    pub builds_on: Vec<String>,
}

/// How log gets back into the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayKind {
    /// The engine has no log.
    None,
    /// The database replays it when it starts.
    AtStart,
}

/// Who the plugin is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The engine's name.
    pub name: String,
    /// The plugin's version.
    pub version: String,
    /// One line for people.
    pub summary: String,
    /// The first is the default.
    pub methods: Vec<Method>,
    /// How log gets back.
    pub replay: ReplayKind,
    /// What it asks for.
    pub grants: Vec<GrantRequest>,
    /// JSON Schema of the settings.
    pub config_schema: String,
}

/// What `inspect` saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Stays the same for the life of the database.
    pub identity: String,
    /// The server's version.
    pub version: String,
    /// `primary`, `standby`, ...
    pub role: String,
    /// The end of the log.
    pub tail: Option<Position>,
    /// What will not work as configured.
    pub warnings: Vec<String>,
}

/// What to back up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupJob {
    /// A method of the description.
    pub method: String,
    /// The backup's id.
    pub label: String,
}

/// Bytes that live outside the database's main folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The folder in the backup that holds them.
    pub name: String,
    /// What people call it.
    pub title: String,
    /// Where it lies, or goes.
    pub location: String,
}

/// What the plugin says about the backup it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// Where in the log the backup starts.
    pub start: Position,
    /// Consistent from here on.
    pub end: Position,
    /// Log from here on is needed to go beyond `end`.
    pub log_from: Position,
    /// No commit inside is later than this.
    pub consistent_at: Option<Timestamp>,
    /// The database's version.
    pub version: String,
    /// The folder in the backup that holds the main folder.
    pub main: String,
    /// What lies outside it.
    pub volumes: Vec<Volume>,
    /// The engine's own JSON.
    pub notes: String,
}

/// Where to restore to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryTarget {
    /// As early as the backup is consistent.
    BackupEnd,
    /// The end of the log.
    Latest,
    /// The last state at this time.
    Time(Timestamp),
    /// A position as people write it.
    Position(String),
    /// A transaction.
    Transaction(String),
    /// A named restore point.
    Name(String),
}

/// A place that `locate` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Nothing: whichever branch the restore follows.
    pub epoch: Option<u64>,
    /// Bytes into it.
    pub offset: u64,
}

/// What to restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreJob {
    /// Where to.
    pub target: RecoveryTarget,
    /// Whether what lies at the target is part of the result.
    pub inclusive: bool,
    /// The branch of history to follow.
    pub epoch: Option<u64>,
    /// The backup's volumes at the chosen locations.
    pub volumes: Vec<Volume>,
    /// The folder holds an older state that may be reused.
    pub delta: bool,
}

/// What `restore` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// What the operator does next.
    pub next_steps: Vec<String>,
}
