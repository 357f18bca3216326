//! Restoring: nothing is written, read or removed outside the folder.

use crate::support::{
    job::{Job, open, with_volumes},
    plugins,
    stores::MemoryBackup,
};
use backstay_sandbox::{DirectoryInner, RecoveryTarget, RestoreJob, RestoreReport, SandboxError};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
    sync::Arc,
};

pub(crate) async fn restore(job: Job, into: Arc<DirectoryInner>) -> Result<RestoreReport, SandboxError> {
    let restore =
        RestoreJob { target: RecoveryTarget::Latest, inclusive: true, epoch: None, volumes: Vec::new(), delta: false };
    plugins::load("hostile").restore(job.context(), restore, MemoryBackup::new(), None, into).await
}

/// A folder with a neighbour that must not change, and links that lead to it.
fn folders() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
    let both = tempfile::tempdir().unwrap();
    let (into, neighbour) = (both.path().join("into"), both.path().join("neighbour"));
    fs::create_dir(&into).unwrap();
    fs::create_dir(&neighbour).unwrap();
    fs::write(neighbour.join("file"), "neighbour").unwrap();
    fs::write(into.join("file"), "mine").unwrap();
    symlink(&neighbour, into.join("out")).unwrap();
    symlink("../neighbour", into.join("up")).unwrap();
    (both, into, neighbour)
}

fn untouched(neighbour: &Path) {
    let names: Vec<_> = fs::read_dir(neighbour).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["file"]);
    assert_eq!(fs::read(neighbour.join("file")).unwrap(), b"neighbour");
}

#[tokio::test]
async fn no_call_reaches_outside_the_folder() {
    let (_both, into, neighbour) = folders();
    let absolute = neighbour.join("file").to_str().unwrap().to_owned();
    let outside = [
        "../neighbour/file",
        "out/file",
        "up/file",
        "out/new",
        "up/new",
        &absolute,
        "a\0b",
        "",
        "out/../../neighbour/file",
    ];
    for behaviour in ["write", "create", "remove", "rename-from", "rename-to", "read", "entries", "link-path"] {
        for path in outside {
            // An empty path is the folder itself, which may be listed.
            if behaviour == "entries" && path.is_empty() {
                continue;
            }
            let volumes = BTreeMap::from([("volume".to_owned(), neighbour.clone())]);
            let ended = restore(Job::crime(behaviour).at(path), with_volumes(&into, true, volumes)).await;
            // Removing what is not there is fine, as long as it is not there.
            let harmless = behaviour == "remove" && path.ends_with("new");
            if !harmless {
                assert!(matches!(ended, Err(SandboxError::Engine(_))), "{behaviour} {path:?}: {ended:?}");
            }
            untouched(&neighbour);
        }
    }
    assert_eq!(fs::read(into.join("file")).unwrap(), b"mine");
}

#[tokio::test]
async fn a_link_points_only_where_the_operator_said() {
    let (_both, into, neighbour) = folders();
    let error = restore(Job::crime("link"), open(&into, true)).await.unwrap_err();
    assert!(error.to_string().contains("volume `elsewhere`"), "{error}");
    let volumes = BTreeMap::from([("elsewhere".to_owned(), neighbour.clone())]);
    restore(Job::crime("link"), with_volumes(&into, true, volumes)).await.unwrap();
    assert_eq!(fs::read_link(into.join("link")).unwrap(), neighbour);
    untouched(&neighbour);
}

#[tokio::test]
async fn set_id_bits_come_only_from_permissions() {
    let (_both, into, _) = folders();
    let error = restore(Job::crime("write-mode"), open(&into, true)).await.unwrap_err();
    assert!(error.to_string().contains("no permissions"), "{error}");
    assert_eq!(fs::metadata(into.join("file")).unwrap().mode() & 0o6000, 0);
}

#[tokio::test]
async fn a_folder_granted_for_reading_is_not_restored_into() {
    let (_both, into, _) = folders();
    for behaviour in ["write", "create", "remove", "rename-to", "link"] {
        let error = restore(Job::crime(behaviour).at("new"), open(&into, false)).await.unwrap_err();
        assert!(error.to_string().contains("for reading only"), "{behaviour}: {error}");
    }
}

#[tokio::test]
async fn a_backup_is_asked_only_for_paths_that_can_be_in_it() {
    let (_both, into, neighbour) = folders();
    for behaviour in ["place", "place-except", "read-backup"] {
        for path in ["../neighbour", "/etc", "a\0b"] {
            let ended = restore(Job::crime(behaviour).at(path), open(&into, true)).await;
            assert!(matches!(ended, Err(SandboxError::Engine(_))), "{behaviour} {path:?}: {ended:?}");
        }
    }
    untouched(&neighbour);
}
