//! The honest plugin: what goes in comes out, byte for byte.

use crate::support::{
    heard::Lines,
    job::{Job, open},
    plugins,
    stores::MemoryBackup,
};
use backstay_sandbox::{EngineErrorKind, GrantKind, RecoveryTarget, RestoreJob, SandboxError};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

fn restore_to(target: RecoveryTarget) -> RestoreJob {
    RestoreJob { target, inclusive: true, epoch: None, volumes: Vec::new(), delta: false }
}

/// Bytes that differ at every offset a chunk could be swapped or repeated at.
fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

/// Every file below a folder, with its bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                left.push(path);
            } else if metadata.is_file() {
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[tokio::test]
async fn the_description_says_what_the_plugin_needs() {
    let described = plugins::load("files").describe(Job::new(json!({})).context()).await.unwrap();
    assert_eq!(described.name, "files");
    assert!(!described.has_log);
    assert_eq!(described.grants.len(), 1);
    assert_eq!(described.grants[0].kind, GrantKind::DirectoryRead);
    assert_eq!(described.config_schema["type"], "object");
}

#[tokio::test]
async fn a_folder_of_every_size_of_file_comes_back_byte_for_byte() {
    let source = tempfile::tempdir().unwrap();
    let chunk = 256 << 10;
    for (number, length) in [0, 1, chunk - 1, chunk, chunk + 1, 5 << 20].into_iter().enumerate() {
        fs::write(source.path().join(format!("file-{length}")), bytes(length, number as u64)).unwrap();
    }
    fs::create_dir_all(source.path().join("deep/deeper")).unwrap();
    fs::create_dir(source.path().join("empty")).unwrap();
    for number in 0..500 {
        let path = source.path().join(format!("deep/deeper/{number:03}"));
        fs::write(path, bytes(number, number as u64)).unwrap();
    }
    symlink("file-1", source.path().join("link")).unwrap();

    let plugin = plugins::load("files");
    let backup = MemoryBackup::new();
    let job = Job::new(json!({})).folder("data", source.path());
    let report = plugin.backup(job.context(), "copy", "b1", backup.clone()).await.unwrap();
    assert_eq!((report.start.epoch, report.start.offset, report.start.label.as_str()), (0, 0, "none"));
    assert_eq!(report.main.as_str(), "files");
    assert_eq!(backup.identity().as_deref(), Some("folder"));

    let into = tempfile::tempdir().unwrap();
    let job = Job::new(json!({}));
    let folder = open(into.path(), true);
    plugin.restore(job.context(), restore_to(RecoveryTarget::BackupEnd), backup, None, folder).await.unwrap();
    let (before, after) = (contents(source.path()), contents(into.path()));
    assert_eq!(before.len(), 506);
    assert!(before == after, "the folders differ");
    assert!(into.path().join("empty").is_dir());
    assert_eq!(fs::read_link(into.path().join("link")).unwrap(), Path::new("file-1"));
}

#[tokio::test]
async fn an_empty_folder_is_a_backup_too() {
    let source = tempfile::tempdir().unwrap();
    let plugin = plugins::load("files");
    let job = Job::new(json!({})).folder("data", source.path());
    let facts = plugin.inspect(job.context()).await.unwrap();
    assert_eq!(facts.warnings.len(), 1, "{:?}", facts.warnings);

    let backup = MemoryBackup::new();
    plugin.backup(job.context(), "copy", "b1", backup.clone()).await.unwrap();
    let into = tempfile::tempdir().unwrap();
    let target = restore_to(RecoveryTarget::Latest);
    plugin.restore(job.context(), target, backup, None, open(into.path(), true)).await.unwrap();
    assert!(contents(into.path()).is_empty());
}

#[tokio::test]
async fn excluded_files_are_not_in_the_backup() {
    let source = tempfile::tempdir().unwrap();
    fs::create_dir_all(source.path().join("cache/inner")).unwrap();
    for path in ["kept", "gone.tmp", "cache/a", "cache/inner/b", "inner.tmp.kept"] {
        fs::write(source.path().join(path), path).unwrap();
    }
    let backup = MemoryBackup::new();
    let job = Job::new(json!({ "exclude": ["**/*.tmp", "cache"] })).folder("data", source.path());
    plugins::load("files").backup(job.context(), "copy", "b1", backup.clone()).await.unwrap();
    assert_eq!(backup.files(), ["files/inner.tmp.kept", "files/kept"]);
    assert_eq!(backup.node_paths(), ["files"]);
}

#[tokio::test]
async fn a_folder_that_is_not_granted_is_named_in_the_error() {
    let error = plugins::load("files").inspect(Job::new(json!({})).context()).await.unwrap_err();
    let SandboxError::Engine(error) = error else { panic!("{error}") };
    assert_eq!(error.kind, EngineErrorKind::BadConfig);
    assert!(error.message.contains("directory `data`"), "{}", error.message);
    assert!(error.hint.unwrap().contains("directories.data"));
}

#[tokio::test]
async fn a_point_in_time_needs_a_log_that_a_folder_has_not() {
    let into = tempfile::tempdir().unwrap();
    let target = restore_to(RecoveryTarget::Name("before".to_owned()));
    let error = plugins::load("files")
        .restore(Job::new(json!({})).context(), target, MemoryBackup::new(), None, open(into.path(), true))
        .await
        .unwrap_err();
    let SandboxError::Engine(error) = error else { panic!("{error}") };
    assert_eq!(error.kind, EngineErrorKind::Unsupported);
}

#[tokio::test]
async fn what_the_plugin_logs_carries_plugin_target_and_job() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("one"), "1").unwrap();
    let (lines, _hearing) = Lines::hear();
    let job = Job::new(json!({})).folder("data", source.path());
    plugins::load("files").backup(job.context(), "copy", "b1", MemoryBackup::new()).await.unwrap();
    let lines = lines.all();
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in ["INFO", "stored 1 files, 1 bytes", "plugin=files", "database=shop", "job=\"test\""] {
        assert!(lines[0].contains(part), "{part} is not in {}", lines[0]);
    }
}
