//! A plugin on the bare contract, without the SDK: it does with streams what the SDK
//! has no call for.
//!
//! The target's settings are one JSON string that names what a backup does:
//!
//! | settings | does |
//! |---|---|
//! | `"splice"` | hands each file's stream straight back: the bytes never enter the plugin |
//! | `"splice-part"` | the same after it has read a little |
//! | `"copy"` | reads every byte and sends it on |
//! | `"broken"` | hands back the stream of a file that does not exist |
//! | `"silent"` | gives a stream whose writer is gone without a byte |
//! | `"sleep"` | no backup: describing itself takes an hour |
//! | `"hold"` | sends a byte, keeps the writer, reports success while the file is open |

wit_bindgen::generate!({ path: "../../../wit/v0.1", world: "plugin", generate_all });

use backstay::engine::{
    backup_set::BackupWriter,
    grants::{self, Directory},
    log_archive::{LogReader, LogWriter},
    restore_set::BackupReader,
    types::{Error, ErrorKind, FileAttributes, NodeKind, Position},
};
use exports::backstay::engine::engine::{
    BackupJob, BackupReport, Description, Facts, FilePart, Finding, Guest, Method, Place, RecoveryTarget, ReplayKind,
    RestoreJob, RestoreReport,
};

struct Raw;

impl Guest for Raw {
    async fn describe() -> Description {
        if setting() == "sleep" {
            grants::sleep(u64::MAX).await;
        }
        Description {
            name: "raw".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "the bare contract".to_owned(),
            methods: vec![Method {
                name: "streams".to_owned(),
                summary: "as set".to_owned(),
                grants: Vec::new(),
                builds_on: Vec::new(),
            }],
            replay: ReplayKind::None,
            grants: Vec::new(),
            config_schema: "{}".to_owned(),
        }
    }

    async fn inspect() -> Result<Facts, Error> {
        Err(unsupported())
    }

    async fn backup(_job: BackupJob, into: BackupWriter) -> Result<BackupReport, Error> {
        into.identify("raw".to_owned()).await?;
        let folder = grants::open_directory("data")?;
        match setting().as_str() {
            "broken" => splice(&folder, &into, "missing", 0).await?,
            "silent" => {
                let (writer, body) = wit_stream::new::<u8>();
                drop(writer);
                into.put_file("silent".to_owned(), attributes(), body).await?;
            }
            "hold" => {
                let (mut writer, body) = wit_stream::new::<u8>();
                // The task goes on when the backup has answered.
                wit_bindgen::spawn_local(async move {
                    let _ = into.put_file("held".to_owned(), attributes(), body).await;
                });
                writer.write_all(vec![1]).await;
                std::mem::forget(writer);
            }
            how => {
                let (mut nodes, whole) = folder.entries("");
                while let Some(node) = nodes.next().await {
                    match (&node.kind, how) {
                        (NodeKind::File(_), "splice") => splice(&folder, &into, &node.path, 0).await?,
                        (NodeKind::File(_), "splice-part") => splice(&folder, &into, &node.path, 1000).await?,
                        (NodeKind::File(_), "copy") => copy(&folder, &into, &node.path).await?,
                        _ => {}
                    }
                }
                whole.await?;
            }
        }
        Ok(report())
    }

    fn inspect_part(_part: FilePart, _bytes: Vec<u8>) -> Result<Vec<Finding>, Error> {
        Err(unsupported())
    }

    async fn archive(_into: LogWriter) -> Result<(), Error> {
        Err(unsupported())
    }

    async fn locate(_target: RecoveryTarget, _logs: Option<LogReader>) -> Result<Option<Place>, Error> {
        Err(unsupported())
    }

    async fn restore(
        _job: RestoreJob,
        _from: BackupReader,
        _logs: Option<LogReader>,
        _into: Directory,
    ) -> Result<RestoreReport, Error> {
        Err(unsupported())
    }
}

/// The settings: one string of letters and hyphens, so nothing in it is escaped.
fn setting() -> String {
    grants::config().trim_matches('"').to_owned()
}

/// Reads `before` bytes, then hands the rest of the stream back as the file's body.
async fn splice(folder: &Directory, into: &BackupWriter, path: &str, before: usize) -> Result<(), Error> {
    let (mut body, whole) = folder.read(path, 0, None);
    if before > 0 {
        let (status, _seen) = body.read(Vec::with_capacity(before)).await;
        if !matches!(status, wit_bindgen::StreamResult::Complete(_)) {
            // A stream whose end was seen cannot be handed on.
            return Ok(());
        }
    }
    let stored = into.put_file(path.to_owned(), attributes(), body).await;
    let promised = whole.await;
    // The host's answers agree, or one of them is the error.
    let (stored, promised) = (stored?.bytes, promised?);
    if before == 0 && stored != promised {
        return Err(error(ErrorKind::Corrupt, format!("{path}: {stored} bytes stored, {promised} read")));
    }
    Ok(())
}

async fn copy(folder: &Directory, into: &BackupWriter, path: &str) -> Result<(), Error> {
    let (mut from, whole) = folder.read(path, 0, None);
    let (mut writer, body) = wit_stream::new::<u8>();
    let moving = async move {
        let mut buffer = Vec::with_capacity(64 << 10);
        loop {
            let (status, bytes) = from.read(buffer).await;
            let got = bytes.len();
            buffer = writer.write_all(bytes).await;
            buffer.clear();
            if got == 0 && !matches!(status, wit_bindgen::StreamResult::Complete(_)) {
                break;
            }
        }
        drop(writer);
    };
    // The writer has to move while the host stores.
    wit_bindgen::spawn_local(moving);
    let stored = into.put_file(path.to_owned(), attributes(), body).await?.bytes;
    let promised = whole.await?;
    if stored != promised {
        return Err(error(ErrorKind::Corrupt, format!("{path}: {stored} bytes stored, {promised} read")));
    }
    Ok(())
}

fn attributes() -> FileAttributes {
    FileAttributes { mode: 0o600, modified: 0 }
}

fn report() -> BackupReport {
    let nowhere = || Position { epoch: 0, offset: 0, label: "none".to_owned() };
    BackupReport {
        start: nowhere(),
        end: nowhere(),
        log_from: nowhere(),
        consistent_at: None,
        version: "1".to_owned(),
        main: "data".to_owned(),
        volumes: Vec::new(),
        notes: "{}".to_owned(),
    }
}

fn unsupported() -> Error {
    error(ErrorKind::Unsupported, "this plugin only makes backups".to_owned())
}

fn error(kind: ErrorKind, message: String) -> Error {
    Error { kind, message, hint: None }
}

export!(Raw);
