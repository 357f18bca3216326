//! Where a store's credentials may come from, each on a real server, with the program as people run it.

use anyhow::{Context, Result, ensure};
use backstay_tests::{
    account,
    azure::{self, Azure, Login},
    backstay::Backstay,
    certificate::{Authority, Hash},
    gcs::{self, Gcs},
    postgres::{Hba, Installation, Options, Postgres},
    s3::{self, S3},
};

/// A configuration with this repository in place of the one in a folder, and these variables.
fn backstay(address: &str, repository: &[String], variables: &[(&'static str, String)]) -> Result<Backstay> {
    let mut backstay = Backstay::in_folder(address)?;
    backstay.reconfigure(|config| {
        config.repository.retain(|line| line.starts_with("password-file"));
        config.repository.extend_from_slice(repository);
    })?;
    for (name, value) in variables {
        backstay.set_environment(name, value);
    }
    Ok(backstay)
}

/// Makes the repository and reads it again: by commands that are no jobs.
fn opens(backstay: &Backstay) -> Result<()> {
    backstay.ok(&["repo", "init", "main"])?;
    backstay.ok(&["repo", "check", "main"])?;
    Ok(())
}

fn on_s3(server: &S3, prefix: &str) -> Vec<String> {
    vec![
        format!("url = \"s3://{}/{prefix}\"", s3::BUCKET),
        format!("endpoint = \"{}\"", server.endpoint()),
        "path-style = true".into(),
    ]
}

#[test]
fn a_pods_web_identity_reaches_the_confined_job_too() -> Result<()> {
    let postgres = Postgres::create(&Installation::postgres_15()?, &Options { hba: Hba::Md5, ..Options::default() })?;
    // Tokens go to STS over TLS alone, so all of it does.
    let authority = Authority::new()?;
    let certificate = authority.issue("localhost", "IP:127.0.0.1", Hash::Sha256)?;
    let server =
        S3::start_with(s3::Options { tls: Some((&certificate, &authority.file())), ..s3::Options::default() })?;
    let mut repository = on_s3(&server, "irsa");
    repository.push(format!("ca-file = \"{}\"", authority.file().display()));
    let mut backstay = backstay(&postgres.address(), &repository, &[])?;
    let token = backstay.scratch().folder("tokens")?.join("token");
    account::write(&token, "header.payload.signature")?;
    for (name, value) in [
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.display().to_string().as_str()),
        ("AWS_ENDPOINT_URL_STS", server.endpoint().as_str()),
        ("AWS_REGION", "us-east-1"),
    ] {
        backstay.set_environment(name, value);
    }
    opens(&backstay)?;
    let backup = backstay.backup().context("a job reads the token itself")?;
    ensure!(backup.bytes > 0, "it is empty");
    backstay.ok(&["repo", "check", "main", "--read-data"])?;
    ensure!(server.log()?.contains("AssumeRoleWithWebIdentity"), "nobody asked for the role:\n{}", server.log()?);

    // The same from the configuration, without variables.
    backstay.reconfigure(|config| {
        config.repository.push("role-arn = \"arn:aws:iam::123456789012:role/other\"".into());
        config.repository.push(format!("web-identity-token-file = \"{}\"", token.display()));
    })?;
    backstay.set_environment("AWS_ROLE_ARN", "");
    backstay.set_environment("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere");
    backstay.ok(&["repo", "check", "main"])?;
    ensure!(server.log()?.contains("other"), "the configuration's role was not asked for:\n{}", server.log()?);
    Ok(())
}

#[test]
fn a_machines_role_is_asked_for() -> Result<()> {
    let server = S3::start()?;
    let mut repository = on_s3(&server, "imds");
    repository.push("allow-http = true".into());
    let variables = [("AWS_METADATA_ENDPOINT", server.endpoint()), ("AWS_REGION", "us-east-1".to_owned())];
    opens(&backstay("127.0.0.1:1", &repository, &variables)?)?;
    let log = server.log()?;
    ensure!(log.contains("PUT /latest/api/token"), "version 2 wants a token first:\n{log}");
    ensure!(log.contains("/latest/meta-data/iam/security-credentials"), "no keys were asked for:\n{log}");
    Ok(())
}

#[test]
fn a_profile_gives_keys_and_region() -> Result<()> {
    let server = S3::start()?;
    let mut repository = on_s3(&server, "profile");
    repository.extend(["allow-http = true".into(), "profile = \"backup\"".into()]);
    let mut backstay = backstay("127.0.0.1:1", &repository, &[])?;
    let (credentials, config) = (backstay.scratch().join("credentials"), backstay.scratch().join("config"));
    account::write(&credentials, "[backup]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = s3cret/+=\n")?;
    account::write(&config, "[profile backup]\nregion = us-east-1\n[profile sso]\nsso_session = x\n")?;
    backstay.set_environment("AWS_SHARED_CREDENTIALS_FILE", &credentials.display().to_string());
    backstay.set_environment("AWS_CONFIG_FILE", &config.display().to_string());
    opens(&backstay)?;

    for (profile, words) in [("sso", "sso_session"), ("absent", "there is none of that name")] {
        backstay.reconfigure(|config| {
            config.repository.pop();
            config.repository.push(format!("profile = \"{profile}\""));
        })?;
        backstay.fails(&["repo", "check", "main"], 2, &["failed to use the AWS profile", profile, words])?;
    }
    Ok(())
}

fn on_gcs(server: &Gcs, prefix: &str) -> Vec<String> {
    vec![
        format!("url = \"gs://{}/{prefix}\"", gcs::BUCKET),
        format!("endpoint = \"{}\"", server.endpoint()),
        "allow-http = true".into(),
    ]
}

#[test]
fn googles_credentials_come_from_a_file_the_environment_or_the_machine() -> Result<()> {
    let server = Gcs::start()?;
    let key = Gcs::service_account()?;
    let mut named = backstay("127.0.0.1:1", &on_gcs(&server, "named"), &[])?;
    let file = named.scratch().join("google.json");
    account::write(&file, &key)?;
    named.reconfigure(|config| config.repository.push(format!("service-account-file = \"{}\"", file.display())))?;
    opens(&named).context("service-account-file")?;

    let variables = [("GOOGLE_APPLICATION_CREDENTIALS", file.display().to_string())];
    opens(&backstay("127.0.0.1:1", &on_gcs(&server, "default"), &variables)?).context("application default")?;
    let variables = [("GCE_METADATA_HOST", server.metadata_host())];
    opens(&backstay("127.0.0.1:1", &on_gcs(&server, "machine"), &variables)?).context("metadata server")?;

    account::write(&file, "{\"type\": \"external_account\"}")?;
    let variables = [("GOOGLE_APPLICATION_CREDENTIALS", file.display().to_string())];
    let foreign = backstay("127.0.0.1:1", &on_gcs(&server, "foreign"), &variables)?;
    foreign.fails(&["repo", "init", "main"], 2, &["the store cannot be set up", "external_account"])?;
    Ok(())
}

#[test]
fn a_workloads_identity_reaches_azure() -> Result<()> {
    let authority = Authority::new()?;
    let certificate = authority.issue("localhost", "IP:127.0.0.1", Hash::Sha256)?;
    let server = Azure::start_with(Some((&certificate, &authority.file())))?;
    let login = Login::start()?;
    let repository = [
        format!("url = \"az://{}/workload\"", azure::CONTAINER),
        format!("endpoint = \"{}\"", server.endpoint()),
        format!("account = \"{}\"", azure::ACCOUNT),
        format!("ca-file = \"{}\"", authority.file().display()),
        // For the stand-in that gives tokens.
        "allow-http = true".into(),
    ];
    let variables = [("AZURE_AUTHORITY_HOST", login.url())];
    let mut backstay = backstay("127.0.0.1:1", &repository, &variables)?;
    let token = backstay.scratch().join("token");
    account::write(&token, azure::ASSERTION)?;
    backstay.reconfigure(|config| {
        config.repository.push(format!("tenant-id = \"{}\"", azure::TENANT));
        config.repository.push(format!("client-id = \"{}\"", azure::CLIENT));
        config.repository.push(format!("federated-token-file = \"{}\"", token.display()));
    })?;
    opens(&backstay).with_context(|| server.log())
}
