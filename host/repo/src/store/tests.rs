#![allow(clippy::unwrap_used)]
use super::*;
use std::time::Duration;

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
