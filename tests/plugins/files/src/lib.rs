//! The smallest honest engine: backs up a folder, and puts it back.
//!
//! Read this first when you write a plugin of your own. A plugin is a type that
//! implements [`Engine`], exported once at the end of the file. The host calls four of
//! its functions, each time in a fresh instance:
//!
//! ```text
//!   describe ──► who are you, what do you need?   no grant, no I/O
//!   inspect  ──► look at the database             changes nothing
//!   backup   ──► write into the BackupWriter      the host stores the bytes
//!   restore  ──► read from the BackupReader       the host gives them back
//! ```
//!
//! An engine with a log also writes `archive` and `locate`. A folder has none.
//!
//! The operator's side, in `backstay.toml`:
//!
//! ```toml
//! [targets.photos]
//! engine = "files"
//! repository = "main"
//! settings = { exclude = ["**/*.tmp", "cache"] }
//! [targets.photos.grants]
//! directories.data = "/srv/photos"
//! ```
//!
//! Build it with `backstay plugin build tests/plugins/files`.

use backstay_sdk::*;
use serde::Deserialize;

/// The name of the folder's grant.
const GRANT: &str = "data";
/// Where the folder lies in the backup.
const MAIN: &str = "files";

/// The target's settings. The host has checked them against [`SCHEMA`].
#[derive(Deserialize)]
struct Settings {
    /// Globs of what is left out; `*` stays inside one folder, `**` does not.
    #[serde(default)]
    exclude: Vec<String>,
}

const SCHEMA: &str = r#"{
    "type": "object",
    "additionalProperties": false,
    "properties": {
        "exclude": {
            "description": "globs of what is left out, relative to the folder",
            "type": "array",
            "items": { "type": "string" }
        }
    }
}"#;

struct Files;

impl Engine for Files {
    /// Is asked often and must always answer the same.
    fn describe() -> Description {
        Description {
            name: "files".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "a folder of files".to_owned(),
            methods: vec![Method {
                name: "copy".to_owned(),
                summary: "every file as it is found".to_owned(),
                grants: Vec::new(),
                builds_on: Vec::new(),
            }],
            replay: ReplayKind::None,
            grants: vec![GrantRequest {
                kind: GrantKind::DirectoryRead,
                name: GRANT.to_owned(),
                purpose: "the folder to back up".to_owned(),
                required: true,
            }],
            config_schema: SCHEMA.to_owned(),
        }
    }

    /// Opening the folder proves that it was granted; `?` passes the host's error on.
    async fn inspect() -> Result<Facts> {
        let folder = host::open_directory(GRANT)?;
        let mut warnings = Vec::new();
        if folder.entries("").next().await?.is_none() {
            warnings.push("the folder is empty: is it the right one, and is it mounted?".to_owned());
        }
        Ok(Facts {
            identity: identity(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            role: "folder".to_owned(),
            tail: None,
            warnings,
        })
    }

    /// The host walks, reads and stores the folder on all cores; not a byte of it passes
    /// through here. A plugin that makes bytes of its own uses `into.put_file` instead.
    async fn backup(_job: BackupJob, into: BackupWriter) -> Result<BackupReport> {
        let settings: Settings = serde_json::from_str(&host::config())
            .map_err(|error| Error::new(ErrorKind::BadConfig, format!("failed to read the settings: {error}")))?;
        let rules: Vec<Rule> = settings
            .exclude
            .into_iter()
            .map(|pattern| Rule { pattern, action: RuleAction::Exclude })
            .collect();
        let folder = host::open_directory(GRANT)?;
        into.identify(&identity()).await?;
        into.put_node(main_folder()).await?;
        let stored = into.put_tree(MAIN, &folder, &rules, "").await?;
        host::log(Level::Info, &format!("stored {} files, {} bytes", stored.files, stored.bytes));
        Ok(BackupReport {
            start: nowhere(),
            end: nowhere(),
            log_from: nowhere(),
            consistent_at: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            main: MAIN.to_owned(),
            volumes: Vec::new(),
            notes: "{}".to_owned(),
        })
    }

    /// Without a log there is one state to restore: the backup's.
    async fn restore(
        job: RestoreJob,
        from: BackupReader,
        _logs: Option<LogReader>,
        into: Directory,
    ) -> Result<RestoreReport> {
        if !matches!(job.target, RecoveryTarget::BackupEnd | RecoveryTarget::Latest) {
            return Err(Error::new(ErrorKind::Unsupported, "a folder has no log to recover to a point with")
                .hint("restore a backup as it is: --to backup-end"));
        }
        let placed = from.place(MAIN, &into, &[]).await?;
        host::log(Level::Info, &format!("{} files are in place, {} bytes", placed.files, placed.bytes));
        Ok(RestoreReport { next_steps: Vec::new() })
    }
}

/// Names the database for life, so that two never mix in one target. A folder has no
/// such name: whatever the operator grants is the one.
fn identity() -> String {
    "folder".to_owned()
}

/// The folder in the backup: stored on its own, so that an empty one can be restored too.
fn main_folder() -> Node {
    let attributes = FileAttributes { mode: 0o755, modified: host::now() };
    Node { path: MAIN.to_owned(), kind: NodeKind::Directory, attributes }
}

/// The position of an engine without a log.
fn nowhere() -> Position {
    Position { epoch: 0, offset: 0, label: "none".to_owned() }
}

export_engine!(Files);
