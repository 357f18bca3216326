//! Streams on the bare contract: handed back, copied, broken, held.

use crate::support::{job::Job, plugins, stores::MemoryBackup};
use backstay_sandbox::SandboxError;
use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

const SIZES: [usize; 7] = [0, 1, 999, 262_143, 262_144, 262_145, 5 << 20];

fn fill(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for size in SIZES {
        let bytes: Vec<u8> = (0..size).map(|place| (place % 253) as u8 ^ (place >> 16) as u8).collect();
        fs::write(folder.join(size.to_string()), &bytes).unwrap();
        files.insert(size.to_string(), bytes);
    }
    files
}

async fn run(how: &str, folder: &Path) -> (Result<(), SandboxError>, Arc<MemoryBackup>) {
    let backup = MemoryBackup::new();
    let job = Job::new(how.into()).folder("data", folder);
    let plugin = plugins::load("raw");
    let ended = plugin.backup(job.context(), "streams", "b1", backup.clone());
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the backup hangs");
    (ended.map(drop), backup)
}

#[tokio::test]
async fn a_stream_that_is_handed_back_or_copied_arrives_whole() {
    let folder = tempfile::tempdir().unwrap();
    let files = fill(folder.path());
    for how in ["splice", "copy"] {
        let (ended, backup) = run(how, folder.path()).await;
        ended.unwrap_or_else(|error| panic!("{how}: {error}"));
        assert_eq!(backup.files().len(), files.len(), "{how}");
        for (path, bytes) in &files {
            assert!(backup.file(path).as_ref() == Some(bytes), "{how}: {path} differs");
        }
    }
}

#[tokio::test]
async fn handing_streams_back_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..2000 {
        fs::write(folder.path().join(format!("{number:04}")), number.to_string()).unwrap();
    }
    for how in ["splice", "copy"] {
        let (ended, backup) = run(how, folder.path()).await;
        ended.unwrap_or_else(|error| panic!("{how}: {error}"));
        assert_eq!(backup.files().len(), 2000, "{how}");
        assert_eq!(backup.file("1234").unwrap(), b"1234", "{how}");
    }
}

#[tokio::test]
async fn a_stream_that_was_read_a_little_is_handed_back_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let files = fill(folder.path());
    let (ended, backup) = run("splice-part", folder.path()).await;
    ended.unwrap();
    for (path, bytes) in &files {
        match (bytes.get(1000..), backup.file(path)) {
            (Some(rest), stored) => assert!(stored.as_deref() == Some(rest), "{path} differs"),
            // The plugin may have seen the end of a short one already.
            (None, stored) => assert!(stored.unwrap_or_default().is_empty(), "{path} was read twice"),
        }
    }
}

#[tokio::test]
async fn the_stream_of_a_file_that_cannot_be_read_never_becomes_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (ended, backup) = run("broken", folder.path()).await;
    let error = ended.unwrap_err().to_string();
    assert!(error.contains("failed to read") && error.contains("missing"), "{error}");
    assert!(backup.is_empty());
}

#[tokio::test]
async fn a_stream_without_a_byte_is_an_empty_file() {
    let folder = tempfile::tempdir().unwrap();
    let (ended, backup) = run("silent", folder.path()).await;
    ended.unwrap();
    assert_eq!(backup.file("silent").unwrap(), b"");
}

#[tokio::test]
async fn a_file_still_open_when_the_backup_answers_is_not_stored() {
    let folder = tempfile::tempdir().unwrap();
    let (_ended, backup) = run("hold", folder.path()).await;
    assert!(backup.is_empty(), "{:?}", backup.files());
}
