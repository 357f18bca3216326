//! Compiled plugins are kept, and only those are believed that this user kept.

use crate::support::{child, job::Job, plugins};
use backstay_sandbox::{Described, Plugin, SandboxError};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

fn cache() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    (folder, cache)
}

/// The one file that is kept.
fn kept(cache: &Path) -> PathBuf {
    let files: Vec<_> = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[tokio::test]
async fn a_plugin_is_compiled_once_and_loaded_from_then_on() {
    let (_folder, cache) = cache();
    let component = plugins::component("files");
    assert!(Plugin::load(&component, &cache).unwrap().is_none());

    child::compile(&component, &cache).unwrap();
    let first = fs::metadata(kept(&cache)).unwrap();
    assert_eq!(first.mode() & 0o077, 0, "others may touch it");
    assert_eq!(fs::metadata(&cache).unwrap().mode() & 0o077, 0, "others may touch the folder");

    for _ in 0..2 {
        let plugin = Plugin::load(&component, &cache).unwrap().expect("it was compiled");
        plugin.describe(Job::crime("honest").context()).await.unwrap();
    }
    let second = fs::metadata(kept(&cache)).unwrap();
    assert_eq!((first.ino(), first.mtime_nsec()), (second.ino(), second.mtime_nsec()), "it was compiled again");
}

#[test]
fn another_component_is_another_entry() {
    let (_folder, cache) = cache();
    child::compile(&plugins::component("files"), &cache).unwrap();
    assert!(Plugin::load(&plugins::component("hostile"), &cache).unwrap().is_none());
}

#[tokio::test]
async fn a_damaged_entry_is_not_loaded_and_is_compiled_again() {
    let (_folder, cache) = cache();
    let component = plugins::component("files");
    child::compile(&component, &cache).unwrap();
    let entry = kept(&cache);
    let whole = fs::read(&entry).unwrap();
    let damages: [(&str, Vec<u8>); 5] = [
        ("one bit", {
            let mut bytes = whole.clone();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes
        }),
        ("cut short", whole[..whole.len() - 1].to_vec()),
        ("empty", Vec::new()),
        ("only a head", whole[..20].to_vec()),
        ("something else", b"#!/bin/sh\n".to_vec()),
    ];
    for (damage, bytes) in damages {
        fs::write(&entry, bytes).unwrap();
        assert!(Plugin::load(&component, &cache).unwrap().is_none(), "{damage} was loaded");
    }
    child::compile(&component, &cache).unwrap();
    let plugin = Plugin::load(&component, &cache).unwrap().expect("it was compiled again");
    plugin.describe(Job::crime("honest").context()).await.unwrap();
}

#[test]
fn what_others_could_have_written_is_refused() {
    let (folder, cache) = cache();
    let component = plugins::component("files");
    child::compile(&component, &cache).unwrap();
    let entry = kept(&cache);

    for mode in [0o770, 0o707] {
        fs::set_permissions(&cache, fs::Permissions::from_mode(mode)).unwrap();
        assert!(Plugin::load(&component, &cache).unwrap().is_none(), "from a folder of mode {mode:o}");
        let told = child::compile(&component, &cache).unwrap_err();
        assert!(told.contains("can be written by others"), "{told}");
    }
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o700)).unwrap();

    fs::set_permissions(&entry, fs::Permissions::from_mode(0o622)).unwrap();
    assert!(Plugin::load(&component, &cache).unwrap().is_none(), "a file that others can write");
    fs::set_permissions(&entry, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(Plugin::load(&component, &cache).unwrap().is_some());

    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&entry, &elsewhere).unwrap();
    symlink(&elsewhere, &entry).unwrap();
    assert!(Plugin::load(&component, &cache).unwrap().is_none(), "a link");
}

#[test]
fn what_is_no_plugin_is_refused_before_anything_is_compiled() {
    let (folder, cache) = cache();
    let path = folder.path().join("shell.wasm");
    fs::write(&path, plugins::foreign("shell")).unwrap();
    assert!(matches!(Plugin::load(&path, &cache), Err(SandboxError::ForeignImports { .. })));
    assert!(child::compile(&path, &cache).unwrap_err().contains("evil:host/shell"));
    assert!(!cache.exists());
}

#[tokio::test]
async fn what_a_plugin_said_is_known_until_its_bytes_or_its_name_change() {
    let (folder, cache) = cache();
    let component = folder.path().join("hostile.wasm");
    fs::copy(plugins::component("hostile"), &component).unwrap();
    let known = |path: &Path| Described::look(path, &cache).unwrap().known();
    let keep = |said| Described::look(&component, &cache).unwrap().keep(said);
    assert!(known(&component).is_none());
    child::compile(&component, &cache).unwrap();
    let plugin = Plugin::load(&component, &cache).unwrap().unwrap();
    let said = plugin.describe(Job::crime("honest").context()).await.unwrap();
    keep(&said).unwrap();
    assert_eq!(known(&component), Some(said.clone()));

    let renamed = folder.path().join("other.wasm");
    fs::copy(&component, &renamed).unwrap();
    assert!(known(&renamed).is_none(), "under another name");
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o770)).unwrap();
    assert!(known(&component).is_none(), "from a folder that others can write");
    assert!(keep(&said).is_err());
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(known(&component).is_some());
    let before = Described::look(&component, &cache).unwrap();
    let mut bytes = fs::read(&component).unwrap();
    bytes.push(0);
    fs::write(&component, bytes).unwrap();
    assert!(known(&component).is_none(), "other bytes");
    before.keep(&said).unwrap();
    assert!(known(&component).is_none(), "it was kept for bytes that were not looked at");
}
