//! Parts of files shown to a plugin while they are stored: what it finds is kept, and what it does wrong ends the
//! backup with words.

use crate::support::{job::Job, plugins, stores::MemoryBackup};
use backstay_sandbox::{EngineErrorKind, SandboxError};
use std::{fs, path::Path, sync::Arc};

async fn backup(folder: &Path) -> (Result<(), SandboxError>, Arc<MemoryBackup>) {
    let backup = MemoryBackup::new();
    let job = Job::crime("inspect").folder("data", folder);
    let made = plugins::load("hostile").backup(job.context(), "crime", "b1", backup.clone()).await;
    (made.map(drop), backup)
}

fn with(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_is_kept_by_file_and_place_and_the_backup_with_it() {
    let mut large = vec![b'.'; (2 << 20) + 10];
    large[(2 << 20) + 3] = b'x';
    let folder = with(&[("large", &large), ("small", b"..x"), ("fine", b"..."), ("empty", b"")]);
    let (made, backup) = backup(folder.path()).await;
    made.unwrap();
    let mut found: Vec<_> = backup.found().into_iter().map(|found| (found.path, found.offset, found.what)).collect();
    found.sort();
    let place = |path: &str, offset: u64, in_part: u64| {
        (format!("data/{path}"), offset, format!("{in_part} of {path} in the context"))
    };
    assert_eq!(found, [place("large", (2 << 20) + 3, 3), place("small", 2, 2)]);
    assert_eq!(backup.file("data/small").unwrap(), b"..x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_goes_wrong_ends_the_backup_with_words() {
    for (first, words) in [
        ("loop", "it computed for 1 seconds without moving a byte"),
        ("trap", "unreachable"),
        ("fail", "the part cannot be read"),
        // Nothing is granted to whoever only looks.
        ("grant", "asks for directory `data`, which is not granted"),
    ] {
        let folder = with(&[("file", first.as_bytes())]);
        let (made, _) = backup(folder.path()).await;
        let error = made.unwrap_err();
        assert!(error.to_string().contains(words), "{first}: {error}");
        if first == "fail" {
            assert!(matches!(error, SandboxError::Engine(error) if error.kind == EngineErrorKind::Corrupt));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_are_bounded_and_made_printable() {
    let folder = with(&[("file", b"many")]);
    let (made, backed_up) = backup(folder.path()).await;
    made.unwrap();
    assert_eq!(backed_up.found().len(), 1000);

    let folder = with(&[("file", b"escape")]);
    let (made, backed_up) = backup(folder.path()).await;
    made.unwrap();
    let found = backed_up.found();
    assert!(!found[0].what.contains(char::is_control), "{found:?}");
}
