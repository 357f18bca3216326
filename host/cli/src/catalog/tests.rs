//! Which repository a job works with.
#![allow(clippy::unwrap_used)]

use super::*;
use backstay_repo::StoreConfig;
use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::Path, time::Instant};

/// A target with a repository and a mirror, both made.
async fn mirrored(folder: &Path) -> Config {
    let file = folder.join("backstay.toml");
    let secret = folder.join("secret");
    fs::write(&secret, "open sesame").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let place = folder.display();
    let text = format!(
        r#"
        [repositories.main]
        url = "file://{place}/main"
        password-file = "secret"

        [repositories.second]
        url = "file://{place}/second"
        password-file = "secret"

        [targets.shop]
        engine = "postgresql"
        repository = "main"
        mirrors = ["second"]
        "#
    );
    fs::write(&file, text).unwrap();
    let config = Config::load(Some(&file), &[]).unwrap();
    for repository in config.repositories.values() {
        backstay_pipeline::repository::init(&repository.spec().unwrap()).await.unwrap();
    }
    config
}

#[tokio::test]
async fn a_mirror_stands_in_for_a_repository_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let config = mirrored(folder.path()).await;
    let target = config.target("shop").unwrap();
    let of = async || {
        let Home { repository, away, .. } = home(&config, target).await.unwrap();
        (repository.name.to_string(), away.len())
    };
    assert_eq!(of().await, ("main".to_owned(), 0));
    let file = folder.path().join("main/config");
    let mut bytes = fs::read(&file).unwrap();
    bytes[20] ^= 1;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, bytes).unwrap();
    assert_eq!(of().await, ("second".to_owned(), 1));
    // As with a disk that fails, no attempt helps.
    fs::remove_dir_all(folder.path().join("main")).unwrap();
    fs::write(folder.path().join("main"), "").unwrap();
    let main = config.repository("main").unwrap();
    let unopened = open_soon(main, &main.spec().unwrap()).await.err().unwrap();
    assert!(matches!(unopened, Unopened::Away(_)));
    assert_eq!(of().await, ("second".to_owned(), 1));
}

#[test]
fn what_others_can_stand_in_for_is_told_from_a_mistake() {
    let is_away = |kind| Unopened::from(RepoError::new(kind, "x")).is_away();
    for kind in [RepoErrorKind::Unreachable, RepoErrorKind::Denied, RepoErrorKind::Store, RepoErrorKind::Damaged] {
        assert!(is_away(kind), "{kind:?}");
    }
    for kind in [RepoErrorKind::WrongPassword, RepoErrorKind::InvalidConfig, RepoErrorKind::Internal] {
        assert!(!is_away(kind), "{kind:?}");
    }
}

#[tokio::test]
async fn a_store_that_takes_a_connection_and_says_nothing_is_known_soon() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = StoreConfig::new("s3://bucket/prefix");
    for (name, value) in [
        ("endpoint", format!("http://{}", listener.local_addr().unwrap())),
        ("allow-http", "true".to_owned()),
        ("region", "x".to_owned()),
        ("access-key-id", "a".to_owned()),
        ("secret-access-key", "b".to_owned()),
    ] {
        config.options.insert(name.to_owned(), value);
    }
    let begun = Instant::now();
    let (store, name) = (Store::connect(&config).unwrap(), "main".parse().unwrap());
    let unopened = contact(store, &name, Duration::from_millis(200)).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(unopened.is_away());
    let failure = Failure::from(unopened);
    assert_eq!(failure.kind(), FailureKind::Unreachable);
    assert_eq!(failure.message(), "failed to reach repository `main`: s3://bucket/prefix did not answer within 200ms");
}
