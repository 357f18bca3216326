#![allow(clippy::unwrap_used)]
use super::*;
use crate::Store;

/// What is wrong with an address and its options.
fn complaint(url: &str, options: &[(&str, &str)]) -> String {
    let mut config = StoreConfig::new(url);
    config.options.extend(options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let error = Store::connect(&config).unwrap_err();
    assert_eq!(error.kind(), RepoErrorKind::InvalidConfig, "{url} {options:?}: {error}");
    let text = format!("{error} {config:?}");
    assert!(!text.contains("s3cret"), "{text}");
    error.to_string()
}

#[test]
fn an_address_that_makes_no_sense_is_refused() {
    for bad in ["", "/var/lib", "ftp://x/y", "file://host/x", "s3:///x", "gs:///x", "az:///x", "https://h/x?y"] {
        complaint(bad, &[]);
    }
    assert!(complaint("ftp://x/y", &[]).contains("gs://bucket/prefix"));
    for bad in ["https://user:s3cret@h/x", "s3://key:s3cret@b/x", "https://user:s3cret@", "user:s3cret@h"] {
        assert!(!complaint(bad, &[]).contains("user:"));
    }
}

#[test]
fn an_option_that_is_not_known_is_named_and_its_value_is_not() {
    for url in ["file:///x", "s3://b/p", "gs://b/p", "https://h/p"] {
        let complaint = complaint(url, &[("secret-acess-key", "s3cret")]);
        assert!(complaint.contains("secret-acess-key"), "{complaint}");
    }
    let azure = complaint("az://c/p", &[("account", "a"), ("access-key", "AAAA"), ("secret-acess-key", "s3cret")]);
    assert!(azure.contains("secret-acess-key"), "{azure}");
    assert!(complaint("file:///x", &[("connections", "3")]).contains("connections"));
}

#[test]
fn limits_are_numbers_that_can_be_kept() {
    for (name, value) in [
        ("upload-limit", "fast"),
        ("upload-limit", "0"),
        ("download-limit", "1000"),
        ("connections", "0"),
        ("object-lock-days", "0"),
        ("object-lock-days", "99999"),
        ("allow-http", "maybe"),
        ("ca", "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----"),
    ] {
        let complaint = complaint("s3://b/p", &[(name, value)]);
        assert!(complaint.contains(name), "{complaint}");
    }
}

#[test]
fn retention_is_told() {
    let mut config = StoreConfig::new("s3://b/p");
    config.options.insert("object-lock-days".into(), "7".into());
    let week = Duration::from_secs(7 * 24 * 60 * 60);
    assert_eq!(Store::connect(&config).unwrap().retention(), Some(week));
    assert_eq!(Store::connect(&StoreConfig::new("s3://b/p")).unwrap().retention(), None);
}

#[test]
fn a_name_and_a_password_belong_together() {
    assert!(complaint("https://h/p", &[("user-password", "s3cret")]).contains("needs `user`"));
    assert!(complaint("https://h/p", &[("user", "a:b"), ("user-password", "s3cret")]).contains("colon"));
}
