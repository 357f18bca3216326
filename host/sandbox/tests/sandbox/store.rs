//! What a plugin stores: only whole files, only after it said of which database, only
//! inside the backup, and only from folders it was given.

use crate::support::{job::Job, plugins, stores::MemoryBackup};
use backstay_sandbox::{BackupReport, EngineErrorKind, SandboxError};
use std::{fs, os::unix::fs::symlink, sync::Arc, time::Duration};

async fn run(job: Job) -> (Result<BackupReport, SandboxError>, Arc<MemoryBackup>) {
    let backup = MemoryBackup::new();
    let plugin = plugins::load("hostile");
    let ended = plugin.backup(job.context(), "crime", "b1", backup.clone());
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the backup hangs");
    (ended, backup)
}

async fn refused(job: Job) -> (EngineErrorKind, String) {
    let (ended, backup) = run(job).await;
    assert!(backup.is_empty(), "something was stored: {:?}", backup.files());
    match ended.unwrap_err() {
        SandboxError::Engine(error) => (error.kind, error.message),
        other => panic!("not the host's refusal: {other:?}"),
    }
}

#[tokio::test]
async fn nothing_is_stored_before_the_plugin_says_of_which_database() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "x").unwrap();
    for behaviour in ["unidentified-file", "unidentified-node", "unidentified-tree"] {
        let (_, message) = refused(Job::crime(behaviour).folder("data", folder.path())).await;
        assert_eq!(message, "the plugin stores bytes before it said of which database", "{behaviour}");
    }
    // Reported as a success all the same: then the host has nothing, not something wrong.
    let (ended, backup) = run(Job::crime("unidentified-swallowed")).await;
    ended.unwrap();
    assert!(backup.is_empty() && backup.identity().is_none());
}

#[tokio::test]
async fn an_identity_is_a_short_printable_name() {
    for behaviour in ["identity-empty", "identity-control", "identity-huge"] {
        let (ended, backup) = run(Job::crime(behaviour)).await;
        let SandboxError::Engine(error) = ended.expect_err(behaviour) else { panic!("{behaviour}") };
        assert!(error.message.contains("identity"), "{behaviour}: {}", error.message);
        assert_eq!(backup.identity(), None, "{behaviour}");
    }
}

#[tokio::test]
async fn no_path_leaves_the_backup() {
    let too_long = "x/".repeat(3000) + "x";
    let paths = ["", "/", ".", "..", "../x", "/etc/passwd", "a/../b", "a//b", "a/", "a\0b", "./a", &too_long];
    for path in paths {
        for behaviour in ["path", "node-path"] {
            let (_, message) = refused(Job::crime(behaviour).at(path)).await;
            assert!(message.contains("is not allowed"), "{behaviour} {path:?}: {message}");
            assert!(message.len() < 1000 && message.chars().all(|c| !c.is_control()), "{message:?}");
        }
    }
}

#[tokio::test]
async fn a_node_is_what_the_contract_knows() {
    let (_, message) = refused(Job::crime("node-file")).await;
    assert_eq!(message, "a file needs bytes: use put-file");
    let (_, message) = refused(Job::crime("mode")).await;
    assert!(message.contains("no permissions"), "{message}");
    for target in ["", "a\0b", &"t".repeat(5000)] {
        let (_, message) = refused(Job::crime("node-link").at(target)).await;
        assert!(message.contains("link"), "{message}");
    }
}

#[tokio::test]
async fn an_abandoned_file_is_not_stored_even_when_the_plugin_reports_success() {
    let (ended, backup) = run(Job::crime("abandon")).await;
    ended.unwrap();
    assert_eq!(backup.files(), ["whole"]);
    assert_eq!(backup.unfinished(), 1);

    let (ended, backup) = run(Job::crime("abandon-many")).await;
    ended.unwrap();
    assert_eq!(backup.files(), ["whole"]);
}

#[tokio::test]
async fn streams_that_nobody_reads_do_not_stop_the_host_from_reading() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), vec![1; 4 << 20]).unwrap();
    for behaviour in ["unread", "trickle"] {
        let (ended, backup) = run(Job::crime(behaviour).folder("data", folder.path())).await;
        ended.unwrap();
        assert_eq!(backup.file("data/file").unwrap().len(), 4 << 20, "{behaviour}");
    }
}

#[tokio::test]
async fn a_plugin_may_use_thousands_of_streams_one_after_another() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), vec![1; 1000]).unwrap();
    let (ended, backup) = run(Job::crime("read-many").folder("data", folder.path())).await;
    ended.unwrap();
    assert_eq!(backup.file("data/file").unwrap().len(), 1000);
}

#[tokio::test]
async fn a_plugin_that_works_long_but_moves_bytes_is_not_stalled() {
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..16 << 20).map(|place: u32| (place % 241) as u8).collect();
    fs::write(folder.path().join("file"), &bytes).unwrap();
    let started = std::time::Instant::now();
    let (ended, backup) = run(Job::crime("slow").folder("data", folder.path())).await;
    ended.unwrap();
    assert!(backup.file("data/file").unwrap() == bytes);
    println!("worked for {:?}; the stall rule gives 1 s without a byte", started.elapsed());
}

#[tokio::test]
async fn no_path_and_no_link_leaves_a_granted_folder() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let folder = tempfile::tempdir().unwrap();
    symlink(outside.path(), folder.path().join("out")).unwrap();
    symlink(outside.path().join("secret"), folder.path().join("direct")).unwrap();
    symlink("../../../../../../etc/passwd", folder.path().join("up")).unwrap();
    let absolute = outside.path().join("secret").to_str().unwrap().to_owned();
    for path in ["../x", "out/secret", "direct", "up", "out/../direct", &absolute] {
        let (_, message) = refused(Job::crime("read").at(path).folder("data", folder.path())).await;
        assert!(!message.contains("secret\n"), "{message}");
    }
    for path in ["..", "out", "/"] {
        refused(Job::crime("entries").at(path).folder("data", folder.path())).await;
    }
}

#[tokio::test]
async fn a_folder_granted_for_reading_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "x").unwrap();
    for behaviour in ["write", "mutate"] {
        let (kind, message) = refused(Job::crime(behaviour).folder("data", folder.path())).await;
        assert_eq!(kind, EngineErrorKind::BadConfig);
        assert!(message.contains("for reading only"), "{message}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"x");
}

#[tokio::test]
async fn a_rule_that_is_no_pattern_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (_, message) = refused(Job::crime("rules").at("[").folder("data", folder.path())).await;
    assert!(message.contains("no pattern"), "{message}");
}
