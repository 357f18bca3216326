#![allow(clippy::unwrap_used)]
use super::*;
use std::time::Duration;

fn local() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}/a folder/é", folder.path().display());
    let store = Store::connect(&StoreConfig::new(url)).unwrap();
    (folder, store)
}

fn memory() -> Store {
    Store::from_object_store(Arc::new(object_store::memory::InMemory::new()), "memory")
}

async fn conforms(store: &Store) {
    assert_eq!(store.list("").await.unwrap(), []);
    assert_eq!(store.get("a/x", 10).await.unwrap_err().kind(), RepoErrorKind::NotFound);
    assert_eq!(store.head("a/x").await.unwrap_err().kind(), RepoErrorKind::NotFound);
    store.put_new("a/x", "one").await.unwrap();
    store.put_new("a/x", "one").await.expect("the same content again is recognised");
    assert_eq!(store.put_new("a/x", "two").await.unwrap_err().kind(), RepoErrorKind::AlreadyExists);
    assert_eq!(store.put_new("a/x", "longer").await.unwrap_err().kind(), RepoErrorKind::AlreadyExists);
    assert_eq!(&store.get("a/x", 3).await.unwrap()[..], b"one");
    assert_eq!(store.get("a/x", 2).await.unwrap_err().kind(), RepoErrorKind::Damaged);
    store.put_overwrite("a/x", "three").await.unwrap();
    assert_eq!(&store.get_range("a/x", 1..3).await.unwrap()[..], b"hr");
    assert_eq!(store.get_range("a/x", 1..9).await.unwrap_err().kind(), RepoErrorKind::Damaged);
    assert_eq!(store.get_range("a/x", 7..9).await.unwrap_err().kind(), RepoErrorKind::Damaged);
    store.put_new("a/b/y", "").await.unwrap();
    store.put_new("ab/z", "z").await.unwrap();
    let keys = |list: Vec<ObjectInfo>| list.into_iter().map(|o| o.key).collect::<Vec<_>>();
    assert_eq!(keys(store.list("a").await.unwrap()), ["a/b/y", "a/x"]);
    assert_eq!(keys(store.list_with_offset("a", "a/b/y").await.unwrap()), ["a/x"]);
    assert_eq!(store.list_folders("").await.unwrap(), ["a", "ab"]);
    store.delete("a/x").await.unwrap();
    store.delete("a/x").await.expect("what is gone may be removed");
    assert!(!store.exists("a/x").await.unwrap());
}

#[tokio::test]
async fn a_local_folder_keeps_the_contract() {
    let (_folder, store) = local();
    conforms(&store).await;
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    conforms(&memory()).await;
}

#[tokio::test]
async fn of_many_writers_of_one_name_one_wins() {
    let (_folder, store) = local();
    let tries = (0..16).map(|i| {
        let store = store.clone();
        async move { store.put_new("logs/0", vec![i; 100]).await.is_ok() }
    });
    let wins = futures::future::join_all(tries).await.into_iter().filter(|won| *won).count();
    assert_eq!(wins, 1);
}

#[test]
fn an_address_that_makes_no_sense_is_refused() {
    for bad in ["", "/var/lib", "ftp://x/y", "file://host/x", "s3:///x"] {
        let error = Store::connect(&StoreConfig::new(bad)).unwrap_err();
        assert_eq!(error.kind(), RepoErrorKind::InvalidConfig, "{bad}");
    }
    let mut config = StoreConfig::new("s3://bucket/prefix");
    config.options.insert("secret-acess-key".into(), "s3cret".into());
    let error = Store::connect(&config).unwrap_err();
    assert!(error.to_string().contains("secret-acess-key"), "{error}");
    assert!(!format!("{config:?} {error}").contains("s3cret"));
}

#[tokio::test]
async fn an_unreachable_store_is_given_up_after_the_deadline() {
    let mut config = StoreConfig::new("s3://bucket/prefix");
    for (name, value) in [
        ("endpoint", "http://127.0.0.1:9"),
        ("allow-http", "true"),
        ("region", "x"),
        ("access-key-id", "a"),
        ("secret-access-key", "b"),
    ] {
        config.options.insert(name.into(), value.into());
    }
    let policy = RetryPolicy { attempts_max: 3, backoff_min: Duration::from_millis(1), ..RetryPolicy::default() };
    let store = Store::connect(&config).unwrap().with_retry(policy);
    let error = store.get("config", 10).await.unwrap_err();
    assert_eq!(error.kind(), RepoErrorKind::Unreachable);
    assert!(error.is_retryable(), "{error}");
}
