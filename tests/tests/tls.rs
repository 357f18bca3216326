//! The host does TLS for the plugin: every grade of trust, names, client certificates, channel binding.
//!
//! One table against one server that nobody reaches without TLS; all rows that fail are told.

use anyhow::{Context, Result, ensure};
use backstay_tests::{
    backstay::{Backstay, TARGET},
    certificate::{Authority, Certificate, Hash},
    postgres::{BACKUP_USER, CERTIFIED_USER, Installation, Options, Postgres, Tls},
};

/// What the rows work on.
struct Scene {
    server: Postgres,
    authority: Authority,
    /// Whom the server does not know, and who did not sign its certificate.
    stranger: Authority,
    /// The server's, in the name that the address has.
    right: Certificate,
    /// The same with a longer hash.
    longer: Certificate,
    /// The server's, in a name that the address does not have.
    elsewhere: Certificate,
}

/// One way to connect.
struct Row {
    name: &'static str,
    /// What the server shows.
    shows: fn(&Scene) -> &Certificate,
    /// The target's settings.
    settings: &'static str,
    /// What stands beside the address in the endpoint's table.
    endpoint: fn(&Scene) -> Result<String>,
    user: &'static str,
    /// The exit code, and what the message holds when it is not 0.
    code: i32,
    words: &'static [&'static str],
}

fn right(scene: &Scene) -> &Certificate {
    &scene.right
}

fn longer(scene: &Scene) -> &Certificate {
    &scene.longer
}

fn elsewhere(scene: &Scene) -> &Certificate {
    &scene.elsewhere
}

fn nothing(_: &Scene) -> Result<String> {
    Ok(String::new())
}

fn authority(scene: &Scene) -> Result<String> {
    Ok(format!(", ca-file = \"{}\"", scene.authority.file().display()))
}

fn stranger(scene: &Scene) -> Result<String> {
    Ok(format!(", ca-file = \"{}\"", scene.stranger.file().display()))
}

fn client(scene: &Scene, signer: &Authority, subject: &str) -> Result<String> {
    let Certificate { certificate, key } = signer.issue(subject, "DNS:client", Hash::Sha256)?;
    let (certificate, key) = (certificate.display(), key.display());
    Ok(format!("{}, client-cert-file = \"{certificate}\", client-key-file = \"{key}\"", authority(scene)?))
}

const fn row(name: &'static str, settings: &'static str, code: i32, words: &'static [&'static str]) -> Row {
    Row { name, shows: right, settings, endpoint: authority, user: BACKUP_USER, code, words }
}

const ROWS: &[Row] = &[
    Row { endpoint: nothing, ..row("require believes any certificate", "sslmode = \"require\"", 0, &[]) },
    Row { endpoint: nothing, ..row("prefer takes TLS where it is", "sslmode = \"prefer\"", 0, &[]) },
    Row { endpoint: nothing, ..row("allow takes TLS where nothing else is let in", "sslmode = \"allow\"", 0, &[]) },
    row("disable is refused where TLS is demanded", "sslmode = \"disable\"", 3, &["pg_hba.conf"]),
    row("verify-full with the right authority and name", "sslmode = \"verify-full\"", 0, &[]),
    Row {
        endpoint: nothing,
        ..row("verify-full with the machine's authorities only", "sslmode = \"verify-full\"", 3, &["certificate"])
    },
    Row {
        endpoint: stranger,
        ..row("verify-full with another authority", "sslmode = \"verify-full\"", 3, &["certificate"])
    },
    Row {
        endpoint: stranger,
        ..row("verify-ca with another authority", "sslmode = \"verify-ca\"", 3, &["certificate"])
    },
    Row {
        endpoint: |scene| Ok(authority(scene)? + ", server-name = \"db.example.org\""),
        ..row("verify-full with a name asked for that is not there", "sslmode = \"verify-full\"", 3, &["certificate"])
    },
    Row {
        endpoint: |scene| client(scene, &scene.authority, CERTIFIED_USER),
        user: CERTIFIED_USER,
        ..row("a client certificate that the server asks for", "sslmode = \"verify-full\"", 0, &[])
    },
    Row {
        user: CERTIFIED_USER,
        ..row("no client certificate where one is asked for", "sslmode = \"verify-full\"", 3, &["certificate"])
    },
    Row {
        endpoint: |scene| client(scene, &scene.authority, "somebody"),
        user: CERTIFIED_USER,
        ..row("a client certificate in another's name", "sslmode = \"verify-full\"", 3, &[CERTIFIED_USER])
    },
    // The server's word for it is lost where it hangs up while we write, so none is asked for.
    Row {
        endpoint: |scene| client(scene, &scene.stranger, CERTIFIED_USER),
        user: CERTIFIED_USER,
        ..row("a client certificate that nobody knows the signer of", "sslmode = \"verify-full\"", 3, &[])
    },
    row("a login tied to the session, SHA-256", "sslmode = \"verify-full\", channel-binding = \"require\"", 0, &[]),
    Row {
        shows: longer,
        ..row(
            "a login tied to the session, SHA-384",
            "sslmode = \"verify-full\", channel-binding = \"require\"",
            0,
            &[],
        )
    },
    Row { shows: elsewhere, ..row("verify-full with another name", "sslmode = \"verify-full\"", 3, &["certificate"]) },
    Row { shows: elsewhere, ..row("verify-ca does not mind the name", "sslmode = \"verify-ca\"", 0, &[]) },
    Row {
        shows: elsewhere,
        endpoint: |scene| Ok(authority(scene)? + ", server-name = \"db.example.org\""),
        ..row("verify-full with the name that the operator gave", "sslmode = \"verify-full\"", 0, &[])
    },
];

fn scene() -> Result<Scene> {
    let (authority, stranger) = (Authority::new()?, Authority::new()?);
    let right = authority.issue("right", "IP:127.0.0.1", Hash::Sha256)?;
    let tls = Tls { certificate: right.clone(), authority: authority.file() };
    let server = Postgres::create(&Installation::postgres_15()?, &Options { tls: Some(tls), ..Options::default() })?;
    Ok(Scene {
        server,
        right,
        longer: authority.issue("right", "IP:127.0.0.1", Hash::Sha384)?,
        elsewhere: authority.issue("elsewhere", "DNS:db.example.org", Hash::Sha256)?,
        authority,
        stranger,
    })
}

fn connect(backstay: &mut Backstay, scene: &Scene, row: &Row) -> Result<()> {
    let more = (row.endpoint)(scene)?;
    backstay.reconfigure(|config| {
        config.settings = row.settings.to_owned();
        config.grants[0] = format!("endpoints.primary = {{ address = \"{}\"{more} }}", scene.server.address());
        config.grants[1] = config.grants[1].replace(BACKUP_USER, row.user);
    })
}

/// The sessions that the server let in since its log had `from` bytes must all have been encrypted.
fn must_be_encrypted(scene: &Scene, from: usize, user: &str) -> Result<()> {
    let log = scene.server.log()?;
    let sessions: Vec<&str> =
        log[from..].lines().filter(|line| line.contains(&format!("connection authorized: user={user} "))).collect();
    ensure!(!sessions.is_empty(), "the server knows of no session:\n{}", &log[from..]);
    for session in sessions {
        ensure!(session.contains("SSL enabled"), "not encrypted: {session}");
    }
    Ok(())
}

#[test]
fn every_row_of_the_table_connects_as_it_must_or_says_why_not() -> Result<()> {
    let scene = scene()?;
    let mut backstay = Backstay::in_folder(&scene.server.address())?;
    let plain = backstay.config().clone();
    let mut failures = Vec::new();
    let mut shown: Option<&Certificate> = None;
    for row in ROWS {
        let mut play = || -> Result<()> {
            let certificate = (row.shows)(&scene);
            if shown.is_none_or(|shown| shown.certificate != certificate.certificate) {
                scene.server.use_certificate(certificate)?;
                shown = Some(certificate);
            }
            backstay.reconfigure(|config| *config = plain.clone())?;
            connect(&mut backstay, &scene, row)?;
            let from = scene.server.log()?.len();
            let outcome = backstay.run(&["inspect", TARGET])?;
            eprintln!("{}: {} {}", row.name, outcome.code, outcome.stderr.trim_end());
            if row.code != 0 {
                return outcome.must_fail(row.code, row.words);
            }
            ensure!(outcome.code == 0, "exit code {}\n{}", outcome.code, outcome.stderr);
            must_be_encrypted(&scene, from, row.user)
        };
        if let Err(error) = play() {
            failures.push(format!("{}: {error:#}", row.name));
        }
    }
    ensure!(failures.is_empty(), "{} rows are not as they must be:\n\n{}", failures.len(), failures.join("\n\n"));

    // A backup and the log, with all of it demanded.
    scene.server.use_certificate(&scene.longer)?;
    backstay.reconfigure(|config| *config = plain.clone())?;
    let all = Row {
        endpoint: |scene| client(scene, &scene.authority, CERTIFIED_USER),
        user: CERTIFIED_USER,
        ..row("all of it", "sslmode = \"verify-full\", channel-binding = \"require\"", 0, &[])
    };
    connect(&mut backstay, &scene, &all)?;
    let from = scene.server.log()?.len();
    let mut archive = backstay.archive()?;
    scene.server.wait_streaming("backstay").with_context(|| archive.log())?;
    backstay.backup()?;
    scene.server.sql("CREATE TABLE late (n int)")?;
    backstay.wait_archived(&mut archive, scene.server.flushed()?)?;
    archive.stop()?;
    must_be_encrypted(&scene, from, CERTIFIED_USER)?;
    backstay.finish()
}
