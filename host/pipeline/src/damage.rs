//! A repository in a folder of a test, and what rots in it; a backup's manifest and a piece of log, made up.
#![allow(clippy::unwrap_used)]

use backstay_core::{BackupId, BackupManifest, Position, RelativePath, Segment, TargetName, Timestamp};
use backstay_repo::{
    BackupOptions, FileAttributes, InitOptions, Password, Repository, SnapshotMeta, Store, StoreConfig, log::LogChain,
};
use bytes::Bytes;
use futures::stream;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

const PASSWORD: &str = "open sesame";

/// A repository that goes with its test.
pub(crate) struct Repo(tempfile::TempDir);

impl Repo {
    pub(crate) async fn new() -> Self {
        let repo = Self(tempfile::tempdir().unwrap());
        Repository::init(repo.store(), &Password::new(PASSWORD), InitOptions::default()).await.unwrap();
        repo
    }

    fn store(&self) -> Store {
        Store::connect(&StoreConfig::new(format!("file://{}", self.0.path().display()))).unwrap()
    }

    pub(crate) async fn open(&self) -> Repository {
        Repository::open(self.store(), &Password::new(PASSWORD)).await.unwrap()
    }

    /// The log of the target `shop`.
    pub(crate) async fn log(&self) -> LogChain {
        crate::repository::open_log(&self.open().await, &"shop".parse::<TargetName>().unwrap()).await.unwrap()
    }

    /// A backup of one file, which nothing can make small.
    pub(crate) async fn back_up(&self, path: &str, bytes: usize) -> BackupId {
        let mut noise = vec![0; bytes];
        getrandom::fill(&mut noise).unwrap();
        let session = self.open().await.backup(BackupOptions::default()).await.unwrap();
        let attributes = FileAttributes { mode: 0o600, modified: Timestamp::from_micros(0) };
        let body = stream::iter([Ok(Bytes::from(noise))]);
        session.put_file(&RelativePath::new(path).unwrap(), attributes, body).await.unwrap();
        session.commit(SnapshotMeta::default()).await.unwrap().id
    }

    /// Pieces of log whose bytes are their own offsets.
    pub(crate) async fn append(&self, pieces: &[Segment]) {
        let mut log = self.log().await;
        log.identify("postgresql", "1").await.unwrap();
        for piece in pieces {
            let body = (piece.start.offset..piece.end.offset).map(|offset| offset as u8).collect();
            log.append(piece, body).await.unwrap();
        }
    }

    /// Puts a file where a folder of the repository belongs.
    pub(crate) fn block(&self, folder: &str) {
        let folder = self.0.path().join(folder);
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        fs::write(folder, "").unwrap();
    }

    /// Takes it away again.
    pub(crate) fn unblock(&self, folder: &str) {
        fs::remove_file(self.0.path().join(folder)).unwrap();
    }

    /// Turns one byte over in the middle of the largest file below a folder of the repository.
    pub(crate) fn flip(&self, folder: &str) {
        let largest =
            files(&self.0.path().join(folder)).into_iter().max_by_key(|path| fs::metadata(path).unwrap().len());
        let largest = largest.unwrap();
        let mut bytes = fs::read(&largest).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::set_permissions(&largest, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&largest, bytes).unwrap();
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A backup of the target `shop` that took the log from one place to another.
pub(crate) fn manifest(start: Position, end: Position) -> BackupManifest {
    BackupManifest {
        format: 1,
        target: "shop".parse().unwrap(),
        engine: "postgresql".to_owned(),
        engine_version: "0.1.0".to_owned(),
        database_version: "15.4".to_owned(),
        identity: "7".to_owned(),
        method: "stream".to_owned(),
        started: Timestamp::from_micros(1),
        finished: Timestamp::from_micros(2),
        start: start.clone(),
        end,
        log_from: start,
        consistent_at: None,
        main: "data".to_owned(),
        volumes: Vec::new(),
        bytes: 1,
        files: 1,
        findings: Vec::new(),
        more_findings: 0,
        notes: String::new(),
    }
}

/// A place in the log.
pub(crate) fn at(epoch: u64, offset: u64) -> Position {
    Position { epoch, offset, label: format!("0/{offset:X}") }
}

/// A piece of log from one offset to another.
pub(crate) fn piece(start: u64, end: u64) -> Segment {
    Segment {
        start: at(1, start),
        end: at(1, end),
        follows: None,
        first_commit: None,
        last_commit: None,
        file: "000000010000000000000000".to_owned(),
        file_offset: start,
    }
}
