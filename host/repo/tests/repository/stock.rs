//! Stock `restic`, repositories and backups to show it, and what a folder holds.

use backstay_core::{RelativePath, Timestamp};
use backstay_repo::*;
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use walkdir::{DirEntry, WalkDir};

pub(crate) const PASSWORD: &str = "correct horse";

/// A repository in a folder of its own.
pub(crate) struct Bench {
    pub(crate) root: tempfile::TempDir,
    pub(crate) repository: Repository,
}

pub(crate) fn path(text: &str) -> RelativePath {
    RelativePath::new(text).unwrap()
}

pub(crate) fn attributes() -> FileAttributes {
    FileAttributes { mode: 0o640, modified: "2026-11-22T03:04:05.678901Z".parse().unwrap() }
}

/// A body that arrives in parts of `part` bytes.
pub(crate) fn body(
    bytes: &[u8],
    part: usize,
) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send + Unpin + use<> {
    let parts: Vec<_> = bytes.chunks(part).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
    futures::stream::iter(parts)
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    backstay_conformance::noise(seed, length).into()
}

pub(crate) fn meta() -> SnapshotMeta {
    SnapshotMeta {
        time: Some(Timestamp::from(std::time::SystemTime::now())),
        hostname: "db1".into(),
        username: "backup".into(),
        paths: vec!["/shop".into()],
        tags: vec!["engine=postgresql".into(), "target=shop".into()],
        parent: None,
        program_version: "backstay 0.1.0".into(),
        started: None,
    }
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = store(&root.path().join("repo"));
        let options = InitOptions { kdf: KdfCost { log_n: 10, r: 8, p: 1 } };
        let repository = Repository::init(store, &Password::new(PASSWORD), options).await.unwrap();
        Self { root, repository }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.root.path().join("repo")
    }

    /// A folder for a restore, made if need be.
    pub(crate) fn target(&self, name: &str) -> (PathBuf, cap_std::fs::Dir) {
        let folder = self.root.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let open = open(&folder);
        (folder, open)
    }

    /// Runs stock restic on it.
    pub(crate) fn restic(&self, arguments: &[&str]) -> String {
        let output = restic(&self.folder(), arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "restic {arguments:?} failed:\n{out}\n{err}");
        out.into_owned()
    }

    /// Both checks, reading all data.
    pub(crate) async fn assert_sound(&self) {
        let report = self.repository.check(CheckOptions::everything(), |_| {}).await.unwrap();
        assert!(report.is_sound(), "{:#?}", report.errors);
        let out = self.restic(&["check", "--read-data"]);
        assert!(out.contains("no errors were found"), "{out}");
    }
}

pub(crate) fn store(folder: &Path) -> Store {
    Store::connect(&StoreConfig::new(format!("file://{}", folder.display()))).unwrap()
}

/// A store that is gone with the test.
pub(crate) fn memory() -> Store {
    Store::from_object_store(Arc::new(object_store::memory::InMemory::new()), "memory")
}

pub(crate) async fn in_memory() -> Repository {
    Repository::init(memory(), &Password::new("x"), InitOptions { kdf: KdfCost::TRIVIAL }).await.unwrap()
}

/// Plans under the exclusive lock, and does it.
pub(crate) async fn prune(repository: &Repository, options: &PruneOptions) -> (PrunePlan, PruneReport) {
    let lock = Arc::new(repository.lock(LockKind::Exclusive).await.unwrap());
    let plan = repository.plan_prune(options, &|_| {}).await.unwrap();
    let report = repository.prune(&lock, plan.clone(), &|_| {}).await.unwrap();
    lock.give_back().await.unwrap();
    (plan, report)
}

/// Everything below `root`, the folders too. Links are not followed.
pub(crate) fn walk(root: &Path) -> impl Iterator<Item = DirEntry> {
    WalkDir::new(root).min_depth(1).into_iter().map(Result::unwrap)
}

/// The same without the folders.
pub(crate) fn files_below(root: &Path) -> impl Iterator<Item = DirEntry> {
    walk(root).filter(|entry| !entry.file_type().is_dir())
}

/// Its path, seen from `root`.
pub(crate) fn name_below(root: &Path, entry: &DirEntry) -> String {
    entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned()
}

pub(crate) fn open(folder: &Path) -> cap_std::fs::Dir {
    cap_std::fs::Dir::open_ambient_dir(folder, cap_std::ambient_authority()).unwrap()
}

/// For properties, which are no async functions.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(crate) fn restic(folder: &Path, arguments: &[&str]) -> Output {
    Command::new("restic")
        .args(["--no-cache", "--repo"])
        .arg(folder)
        .args(arguments)
        .env("RESTIC_PASSWORD", PASSWORD)
        .output()
        .expect("restic is installed")
}
