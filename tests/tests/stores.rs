//! Every kind of store on a real server: the promises, and a repository that stock restic judges.

use anyhow::{Context, Result, ensure};
use backstay_conformance::{Removal, keeps_its_promises, noise};
use backstay_core::{RelativePath, Timestamp};
use backstay_repo::{
    BackupOptions, CheckOptions, FileAttributes, InitOptions, KdfCost, Password, PlaceOptions, ReadData, RepoErrorKind,
    Repository, SnapshotMeta, Store, StoreConfig,
};
use backstay_tests::{
    account,
    azure::{self, Azure},
    fault_proxy::FaultProxy,
    gcs::{self, Gcs},
    restic::Restic,
    s3::{self, S3},
    scratch::{Scratch, run},
    seed::Seed,
    webdav::{self, Locks, WebDav},
};
use std::{
    path::Path,
    time::{Duration, Instant},
};

const PASSWORD: &str = "correct horse";

fn config(url: &str, options: &[(&str, &str)]) -> StoreConfig {
    let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    StoreConfig { url: url.to_owned(), options: options.collect() }
}

fn on_s3(server: &S3, prefix: &str, more: &[(&str, &str)]) -> StoreConfig {
    let endpoint = server.endpoint();
    let mut options = vec![
        ("endpoint", endpoint.as_str()),
        ("region", "us-east-1"),
        ("access-key-id", "backstay"),
        ("secret-access-key", "not so secret"),
        ("path-style", "true"),
        ("allow-http", "true"),
    ];
    options.extend(more);
    config(&format!("s3://{}/{prefix}", s3::BUCKET), &options)
}

fn on_gcs(server: &Gcs, prefix: &str) -> Result<StoreConfig> {
    let (endpoint, key) = (server.endpoint(), Gcs::service_account()?);
    let options = [("endpoint", endpoint.as_str()), ("allow-http", "true"), ("service-account-key", key.as_str())];
    Ok(config(&format!("gs://{}/{prefix}", gcs::BUCKET), &options))
}

fn on_azure(server: &Azure, prefix: &str, credentials: (&str, &str)) -> StoreConfig {
    let endpoint = server.endpoint();
    let options = [("endpoint", endpoint.as_str()), ("allow-http", "true"), ("account", azure::ACCOUNT), credentials];
    config(&format!("az://{}/{prefix}", azure::CONTAINER), &options)
}

fn on_webdav(server: &WebDav, prefix: &str) -> StoreConfig {
    let options = [("allow-http", "true"), ("user", webdav::USER), ("user-password", webdav::PASSWORD)];
    config(&format!("{}/{prefix}", server.url()), &options)
}

/// Makes a repository, backs up twice, checks, restores, and compares.
async fn works_as_a_repository(config: &StoreConfig) -> Result<()> {
    let store = Store::connect(config)?;
    let password = Password::new(PASSWORD);
    let repository = Repository::init(store.clone(), &password, InitOptions { kdf: KdfCost::TRIVIAL }).await?;
    let pages = noise(4, 6 << 20);
    let attributes = FileAttributes { mode: 0o640, modified: Timestamp::EPOCH };
    let mut last = None;
    for length in [3 << 20, pages.len()] {
        let options = BackupOptions { pack_bytes: 1 << 20, ..BackupOptions::default() };
        let session = repository.backup(options).await?;
        let body: Vec<_> = pages[..length].chunks(100_000).map(|part| Ok(pages.slice_ref(part))).collect();
        session.put_file(&RelativePath::new("data/1")?, attributes, futures::stream::iter(body)).await?;
        last = Some(session.commit(SnapshotMeta::default()).await?);
    }
    let backup = last.context("there is a backup")?;
    let repository = Repository::open(store, &password).await?;
    let report = repository.check(CheckOptions { read_data: ReadData::Everything }, |_| {}).await?;
    ensure!(report.is_sound(), "{:#?}", report.errors);
    let into = Scratch::new()?;
    let dir = cap_std::fs::Dir::open_ambient_dir(into.path(), cap_std::ambient_authority())?;
    let reader = repository.open_snapshot(&backup.id).await?;
    reader.place(&RelativePath::new("data")?, &dir, PlaceOptions::default()).await?;
    ensure!(std::fs::read(into.join("1"))? == pages, "what was restored differs");
    Ok(())
}

/// For stores whose protocol stock restic does not speak: an exact copy in a folder is judged.
async fn a_copy_is_judged(store: &Store) -> Result<()> {
    let copy = Scratch::new()?;
    let repository = copy.folder("repo")?;
    for object in store.list("").await? {
        let to = repository.join(&object.key);
        account::create_dir(to.parent().context("an object lies in a folder")?)?;
        std::fs::write(&to, store.get(&object.key, object.bytes).await?)?;
        account::give(&to)?;
    }
    judged(&repository.display().to_string(), copy.path(), &[])
}

/// `restic check --read-data` of a repository in restic's words.
fn judged(repository: &str, scratch: &Path, variables: &[(&str, &str)]) -> Result<()> {
    let password = scratch.join("password");
    account::write(&password, PASSWORD)?;
    let mut command = account::command("restic");
    command.args(["-r", repository, "--no-cache", "check", "--read-data"]).env("RESTIC_PASSWORD_FILE", password);
    let output = run(command.envs(variables.iter().copied()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.contains("no errors were found"), "restic said:\n{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_its_promises() -> Result<()> {
    let server = S3::start()?;
    keeps_its_promises(&Store::connect(&on_s3(&server, "deep/prefix", &[]))?, Removal::Works).await
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_a_repository() -> Result<()> {
    let server = S3::start()?;
    works_as_a_repository(&on_s3(&server, "deep/prefix", &[])).await?;
    let scratch = Scratch::new()?;
    account::write(&scratch.join("password"), PASSWORD)?;
    let url = format!("s3:{}/{}/deep/prefix", server.endpoint(), s3::BUCKET);
    Restic::new(url, &scratch.join("password"), Some(server.credentials())).check_read_data()
}

#[tokio::test(flavor = "multi_thread")]
async fn google_cloud_storage_keeps_its_promises() -> Result<()> {
    let server = Gcs::start()?;
    keeps_its_promises(&Store::connect(&on_gcs(&server, "deep/prefix")?)?, Removal::Works).await
}

#[tokio::test(flavor = "multi_thread")]
async fn google_cloud_storage_keeps_a_repository() -> Result<()> {
    let server = Gcs::start()?;
    let config = on_gcs(&server, "deep/prefix")?;
    works_as_a_repository(&config).await?;
    a_copy_is_judged(&Store::connect(&config)?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_keeps_its_promises() -> Result<()> {
    let server = Azure::start()?;
    let config = on_azure(&server, "deep/prefix", ("access-key", azure::KEY));
    keeps_its_promises(&Store::connect(&config)?, Removal::Works).await.with_context(|| server.log())
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_keeps_a_repository_with_a_key_and_with_a_signature() -> Result<()> {
    let server = Azure::start()?;
    let token = server.sas_token()?;
    for (prefix, credentials) in [("with/key", ("access-key", azure::KEY)), ("with/sas", ("sas-token", token.as_str()))]
    {
        let config = on_azure(&server, prefix, credentials);
        works_as_a_repository(&config).await.with_context(|| format!("{prefix}\n{}", server.log()))?;
        a_copy_is_judged(&Store::connect(&config)?).await.context(prefix)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn webdav_keeps_its_promises() -> Result<()> {
    let server = WebDav::start(Locks::Known)?;
    let store = Store::connect(&on_webdav(&server, "deep/prefix"))?;
    keeps_its_promises(&store, Removal::Works).await.with_context(|| server.log())
}

#[tokio::test(flavor = "multi_thread")]
async fn webdav_keeps_a_repository() -> Result<()> {
    let server = WebDav::start(Locks::Known)?;
    works_as_a_repository(&on_webdav(&server, "deep/prefix")).await.with_context(|| server.log())?;
    // What the server keeps is a folder, which stock restic reads where it is.
    judged(&server.folder().join("deep/prefix").display().to_string(), Scratch::new()?.path(), &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn webdav_without_locks_is_refused_for_names_that_two_might_write() -> Result<()> {
    let server = WebDav::start(Locks::Unknown)?;
    let store = Store::connect(&on_webdav(&server, "repo"))?;
    let error = store.put_new("logs/shop/1/0", "piece").await.expect_err("it cannot know whether it is alone");
    ensure!(error.kind() == RepoErrorKind::Store, "{:?}: {error}", error.kind());
    ensure!(error.to_string().contains("no locks (WebDAV class 2)"), "{error}");
    ensure!(store.list("").await?.is_empty(), "something is left of the attempt");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn webdav_with_a_wrong_password_is_denied() -> Result<()> {
    let server = WebDav::start(Locks::Known)?;
    let mut config = on_webdav(&server, "repo");
    config.options.insert("user-password".into(), "wr0ng".into());
    let store = Store::connect(&config)?;
    for error in [store.list("").await.map(drop), store.put_new("config", "x").await, store.get("x", 1).await.map(drop)]
    {
        let error = error.expect_err("the password is wrong");
        ensure!(error.kind() == RepoErrorKind::Denied, "{:?}: {error}", error.kind());
        ensure!(!error.to_string().contains("wr0ng"), "{error}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_bucket_works_and_keeps_what_was_removed() -> Result<()> {
    let server = S3::start_with(s3::Options { object_lock_days: Some(1), ..s3::Options::default() })?;
    let config = on_s3(&server, "locked", &[("object-lock-days", "1")]);
    let store = Store::connect(&config)?;
    ensure!(store.retention() == Some(Duration::from_secs(24 * 60 * 60)), "{:?}", store.retention());
    keeps_its_promises(&store, Removal::Works).await?;

    let key = format!("{}/locked/gone/y", s3::BUCKET);
    let head = server.send("HEAD", &key, &[], b"")?.head.to_ascii_lowercase();
    ensure!(head.contains("x-amz-object-lock-retain-until-date"), "the bucket locks it: {head}");
    store.delete("gone/y").await?;
    ensure!(!store.exists("gone/y").await?, "what was removed is hidden");
    let versions = server.request("GET", &format!("{}?versions&prefix=locked/gone/y", s3::BUCKET), b"")?;
    let versions = String::from_utf8(versions)?;
    ensure!(versions.contains("<DeleteMarker>") && versions.contains("<Version>"), "and still there: {versions}");
    let again = on_s3(&server, "locked-repository", &[("object-lock-days", "1")]);
    works_as_a_repository(&again).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_removals_keeps_all_other_promises() -> Result<()> {
    let server = S3::start()?;
    let proxy = FaultProxy::start(server.address(), 0, &mut Seed::from_env("stores"))?;
    proxy.keep_everything();
    let mut config = on_s3(&server, "kept", &[("object-lock-days", "1")]);
    config.options.insert("endpoint".into(), format!("http://{}", proxy.address()));
    keeps_its_promises(&Store::connect(&config)?, Removal::Refused).await?;
    // The store's own words count, whatever the configuration knows of them.
    config.options.remove("object-lock-days");
    let error = Store::connect(&config)?.delete("kept/x").await.expect_err("it is refused");
    ensure!(error.kind() == RepoErrorKind::Retained, "{:?}: {error}", error.kind());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_asks_to_slow_down_is_given_time() -> Result<()> {
    let server = S3::start()?;
    let proxy = FaultProxy::start(server.address(), 0, &mut Seed::from_env("stores"))?;
    let mut config = on_s3(&server, "slow", &[]);
    config.options.insert("endpoint".into(), format!("http://{}", proxy.address()));
    let store = Store::connect(&config)?;
    proxy.throttle(3);
    let started = Instant::now();
    store.put_new("x", "x").await?;
    ensure!(proxy.requests() == 4, "three refusals and a success, and {} requests", proxy.requests());
    ensure!(started.elapsed() >= Duration::from_secs(3), "it was left alone for {:?}", started.elapsed());
    ensure!(store.get("x", 1).await? == "x", "it is there");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_lost_is_recognised() -> Result<()> {
    // One request in two: the deck holds the fault that applies and then fails.
    let mut seed = Seed::from_env("stores");
    let server = S3::start()?;
    let proxy = FaultProxy::start(server.address(), 2, &mut seed)?;
    let mut config = on_s3(&server, "faulty", &[]);
    config.options.insert("endpoint".into(), format!("http://{}", proxy.address()));
    let store = Store::connect(&config)?;
    for number in 0..20 {
        store.put_new(&format!("x/{number}"), format!("content {number}")).await?;
    }
    for number in 0..20 {
        ensure!(store.get(&format!("x/{number}"), 20).await? == format!("content {number}"), "{number} differs");
    }
    eprintln!("{} requests, injected {:?}", proxy.requests(), proxy.injected());
    Ok(())
}
