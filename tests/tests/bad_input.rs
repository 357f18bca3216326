//! Everything that can be wrong, each with one clear line and the right exit code.
//!
//! One table, run from top to bottom against one healthy server and its repository; all rows that fail are told.

#[path = "bad_input/damage.rs"]
mod damage;

use anyhow::{Context, Result, ensure};
use backstay_tests::{
    account,
    backstay::{Backstay, Config, Outcome, TARGET},
    ledger, limits,
    postgres::{BACKUP_PASSWORD, Hba, Installation, Options, Postgres},
    scratch::{Scratch, free_port, run, wait_for},
    target,
};
use damage::{close, corrupt_packs, files, flip, flip_end, flip_header, flip_middle, newest_piece, truncate};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// What the rows work on.
struct Scene {
    server: Postgres,
    /// Another cluster, in which every row may set up what it needs.
    other: Postgres,
    backstay: Backstay,
    scratch: Scratch,
    /// When the first backup began, in microseconds.
    began: i64,
}

/// One thing that is wrong.
struct Row {
    name: &'static str,
    /// Makes it wrong in the configuration.
    change: fn(&mut Config, &Scene) -> Result<()>,
    arguments: fn(&Scene) -> Result<Vec<String>>,
    code: i32,
    /// The message holds these.
    words: &'static [&'static str],
}

fn as_it_is(_: &mut Config, _: &Scene) -> Result<()> {
    Ok(())
}

fn backup(_: &Scene) -> Result<Vec<String>> {
    Ok(vec!["backup".into(), TARGET.into()])
}

fn inspect(_: &Scene) -> Result<Vec<String>> {
    Ok(vec!["inspect".into(), TARGET.into()])
}

fn archive(_: &Scene) -> Result<Vec<String>> {
    Ok(vec!["archive".into(), TARGET.into()])
}

fn check(_: &Scene) -> Result<Vec<String>> {
    Ok(vec!["repo".into(), "check".into(), "main".into()])
}

fn check_data(_: &Scene) -> Result<Vec<String>> {
    Ok(vec!["repo".into(), "check".into(), "main".into(), "--read-data".into()])
}

fn restore_to(scene: &Scene, to: &str) -> Result<Vec<String>> {
    restore_into(scene, "restore-of-a-bad-row", to)
}

fn restore_into(scene: &Scene, folder: &str, to: &str) -> Result<Vec<String>> {
    let into = scene.scratch.join(folder);
    Ok(vec!["restore".into(), TARGET.into(), "--into".into(), into.display().to_string(), "--to".into(), to.into()])
}

fn endpoint(config: &mut Config, address: &str) {
    config.grants[0] = format!("endpoints.primary = \"{address}\"");
}

fn credential(config: &mut Config, scene: &Scene, user: &str, password: &str) -> Result<()> {
    let file = scene.scratch.join(format!("password-of-{user}"));
    account::write(&file, password)?;
    config.grants[1] = format!("credentials.primary = {{ user = \"{user}\", password-file = \"{}\" }}", file.display());
    Ok(())
}

/// A copy of the repository that a row may damage.
fn damaged(config: &mut Config, scene: &Scene, name: &str, damage: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let copy = scene.scratch.join(name);
    run(Command::new("cp").arg("-a").arg(scene.backstay.repository()).arg(&copy))?;
    damage(&copy)?;
    config.repository[0] = format!("url = \"file://{}\"", copy.display());
    Ok(())
}

const ROWS: &[Row] = &[
    Row {
        name: "wrong password of the database",
        change: |config, scene| credential(config, scene, "backup", "wrong"),
        arguments: backup,
        code: 3,
        words: &["password authentication failed"],
    },
    Row {
        name: "wrong password of the database, when archiving",
        change: |config, scene| credential(config, scene, "backup", "wrong"),
        arguments: archive,
        code: 3,
        words: &["password authentication failed"],
    },
    Row {
        name: "wrong password of the repository",
        change: |config, scene| {
            let file = scene.scratch.join("wrong");
            account::write(&file, "wrong\n")?;
            let last = config.repository.len() - 1;
            config.repository[last] = format!("password-file = \"{}\"", file.display());
            Ok(())
        },
        arguments: backup,
        code: 2,
        words: &["password"],
    },
    Row {
        name: "no repository there",
        change: |config, scene| {
            config.repository[0] = format!("url = \"file://{}\"", scene.scratch.join("nothing").display());
            Ok(())
        },
        arguments: backup,
        code: 2,
        words: &["repository"],
    },
    Row {
        name: "no such target",
        change: as_it_is,
        arguments: |_| Ok(vec!["backup".into(), "shpo".into()]),
        code: 2,
        words: &["shpo"],
    },
    Row {
        name: "no such repository",
        change: as_it_is,
        arguments: |_| Ok(vec!["repo".into(), "check".into(), "mian".into()]),
        code: 2,
        words: &["mian"],
    },
    Row {
        name: "no such engine",
        change: |config, _| {
            config.engine = "postgres".into();
            Ok(())
        },
        arguments: backup,
        code: 2,
        words: &["engine", "postgres"],
    },
    Row {
        name: "no such method",
        change: as_it_is,
        arguments: |_| Ok(vec!["backup".into(), TARGET.into(), "--method".into(), "teleport".into()]),
        code: 2,
        words: &["teleport"],
    },
    Row {
        name: "no such backup",
        change: as_it_is,
        arguments: |scene| {
            let mut arguments = restore_to(scene, "latest")?;
            arguments.extend(["--backup".into(), "0123456789abcdef".into()]);
            Ok(arguments)
        },
        code: 2,
        words: &["0123456789abcdef"],
    },
    Row {
        name: "an unknown setting",
        change: |config, _| {
            config.settings = "sslmood = \"prefer\"".into();
            Ok(())
        },
        arguments: backup,
        code: 2,
        words: &["sslmood"],
    },
    Row {
        name: "an unknown key in the configuration, told with its line",
        change: |config, _| {
            config.repository.push("colour = \"blue\"".into());
            Ok(())
        },
        arguments: backup,
        code: 2,
        words: &["colour", "4:1"],
    },
    Row {
        name: "a grant is missing",
        change: |config, _| {
            config.grants.remove(1);
            Ok(())
        },
        arguments: backup,
        code: 2,
        words: &["credential"],
    },
    Row {
        name: "server down",
        change: |config, _| {
            endpoint(config, &format!("127.0.0.1:{}", free_port()?));
            Ok(())
        },
        arguments: backup,
        code: 3,
        words: &["refused"],
    },
    Row {
        name: "server down, when inspecting",
        change: |config, _| {
            endpoint(config, &format!("127.0.0.1:{}", free_port()?));
            Ok(())
        },
        arguments: inspect,
        code: 3,
        words: &["refused"],
    },
    Row {
        name: "no such host",
        change: |config, _| {
            endpoint(config, "nowhere.invalid:5432");
            Ok(())
        },
        arguments: backup,
        code: 3,
        words: &["nowhere.invalid"],
    },
    Row {
        name: "TLS demanded of a server without",
        change: |config, _| {
            config.settings.push_str(", sslmode = \"require\"");
            Ok(())
        },
        arguments: backup,
        code: 3,
        words: &["tls"],
    },
    Row {
        name: "role without REPLICATION",
        change: |config, scene| credential(config, scene, "plain", BACKUP_PASSWORD),
        arguments: backup,
        code: 3,
        words: &["replication"],
    },
    Row {
        name: "another cluster behind the same address, when backing up",
        change: |config, scene| {
            endpoint(config, &scene.other.address());
            Ok(())
        },
        arguments: backup,
        code: 1,
        words: &["another"],
    },
    Row {
        name: "another cluster behind the same address, when archiving",
        change: |config, scene| {
            endpoint(config, &scene.other.address());
            Ok(())
        },
        arguments: archive,
        code: 1,
        words: &["another"],
    },
    Row {
        name: "corrupted packs, when checking",
        change: |config, scene| damaged(config, scene, "flipped-for-check", corrupt_packs),
        arguments: check_data,
        code: 5,
        words: &["damage"],
    },
    Row {
        name: "corrupted packs, when restoring",
        change: |config, scene| damaged(config, scene, "flipped-for-restore", corrupt_packs),
        arguments: |scene| restore_to(scene, "latest"),
        code: 5,
        words: &["damaged"],
    },
    Row {
        name: "a pack that is gone",
        change: |config, scene| {
            damaged(config, scene, "without-pack", |copy| Ok(std::fs::remove_file(&files(&copy.join("data"))?[0])?))
        },
        arguments: check,
        code: 5,
        words: &["damage"],
    },
    Row {
        name: "truncated index",
        change: |config, scene| damaged(config, scene, "half-index", |copy| truncate(&files(&copy.join("index"))?[0])),
        arguments: check,
        code: 5,
        words: &["damage"],
    },
    Row {
        name: "truncated index, when restoring",
        change: |config, scene| {
            damaged(config, scene, "half-index-for-restore", |copy| truncate(&files(&copy.join("index"))?[0]))
        },
        arguments: |scene| restore_to(scene, "latest"),
        code: 5,
        words: &["index/", "damage"],
    },
    Row {
        name: "a piece of log that is damaged",
        change: |config, scene| {
            damaged(config, scene, "flipped-log", |copy| {
                for piece in files(&copy.join("logs"))? {
                    let middle = piece.metadata()?.len() as usize / 2;
                    flip(&piece, middle)?;
                }
                Ok(())
            })
        },
        arguments: check_data,
        code: 5,
        words: &["damage"],
    },
    Row {
        name: "one pack of data that is damaged, when restoring",
        change: |config, scene| {
            damaged(config, scene, "one-flipped-pack", |copy| flip_middle(&files(&copy.join("data"))?[0]))
        },
        arguments: |scene| restore_into(scene, "restored-in-part", "latest"),
        code: 5,
        words: &["data/", "damaged"],
    },
    Row {
        name: "one piece of log that is damaged, when restoring across it",
        change: |config, scene| damaged(config, scene, "one-flipped-piece", |copy| flip_end(&newest_piece(copy)?)),
        arguments: |scene| restore_into(scene, "restored-without-log", "latest"),
        code: 5,
        words: &["logs/", "damaged"],
    },
    Row {
        name: "the last piece of log is unreadable, when all of the log is wanted",
        change: |config, scene| damaged(config, scene, "flipped-end", |copy| flip_header(&newest_piece(copy)?)),
        arguments: |scene| restore_into(scene, "restored-too-little", "latest"),
        code: 5,
        words: &["all of the log", "damaged"],
    },
    Row {
        name: "a store that takes nothing any more, when archiving",
        change: |config, scene| {
            damaged(config, scene, "closed", |copy| close(&copy.join("logs").join(TARGET)))?;
            // Something to archive.
            scene.server.sql("INSERT INTO ledger VALUES (2, 2, 2, 0, 'row')").map(drop)
        },
        arguments: archive,
        code: 3,
        words: &["denied"],
    },
    Row {
        name: "a log file to standard output, where the JSON goes",
        change: as_it_is,
        arguments: |_| Ok(["log", "fetch", TARGET, "000000010000000000000001", "-"].map(String::from).to_vec()),
        code: 2,
        words: &["standard output"],
    },
    Row {
        name: "non-empty destination",
        change: |_, scene| {
            let folder = scene.scratch.folder("occupied")?;
            account::write(&folder.join("precious"), "mine")
        },
        arguments: |scene| {
            let into = scene.scratch.join("occupied").display().to_string();
            Ok(["restore", TARGET, "--into", &into].map(String::from).to_vec())
        },
        code: 2,
        words: &["empty"],
    },
    Row {
        name: "a time in the future",
        change: as_it_is,
        arguments: |scene| restore_to(scene, "time:2999-01-01T00:00:00Z"),
        code: 4,
        words: &["future"],
    },
    Row {
        name: "a time before the first backup",
        change: as_it_is,
        arguments: |scene| restore_to(scene, &format!("time:{}", target::rfc3339(scene.began - 60_000_000)?)),
        code: 4,
        words: &["before"],
    },
    Row {
        name: "a position that the log does not reach",
        change: as_it_is,
        arguments: |scene| restore_to(scene, "position:7/0"),
        code: 4,
        words: &["7/0"],
    },
    Row {
        name: "a transaction that the log does not have",
        change: as_it_is,
        arguments: |scene| restore_to(scene, "xid:123456789"),
        code: 4,
        words: &["123456789"],
    },
    Row {
        name: "a restore point that the log does not have",
        change: as_it_is,
        arguments: |scene| restore_to(scene, "name:never"),
        code: 4,
        words: &["never"],
    },
    Row {
        name: "a time that is none",
        change: as_it_is,
        arguments: |scene| restore_to(scene, "time:yesterday"),
        code: 2,
        words: &["yesterday", "rfc 3339"],
    },
];

/// Holds a walsender, and a slot when it is given one.
fn receiver(server: &Postgres, slot: Option<&str>, folder: &Path) -> Result<Child> {
    account::create_dir(folder)?;
    let mut command = server.installation.tool("pg_receivewal");
    server.connection(&mut command);
    command.arg("-D").arg(folder);
    if let Some(slot) = slot {
        command.args(["--slot", slot]);
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    server.wait_streaming("pg_receivewal")?;
    Ok(child)
}

fn scene() -> Result<Scene> {
    let installation = Installation::postgres_15()?;
    let server = Postgres::create(&installation, &Options::default())?;
    let password = BACKUP_PASSWORD.replace('\'', "''");
    server.sql(&format!("CREATE ROLE plain LOGIN PASSWORD '{password}'"))?;
    ledger::create(&server, None)?;
    let other = Postgres::create(&installation, &Options { hba: Hba::Scram, ..Options::default() })?;
    let backstay = Backstay::in_folder(&server.address())?;
    let began: i64 = server.value("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")?;
    let mut running = backstay.archive()?;
    server.wait_streaming("backstay")?;
    backstay.backup()?;
    server.sql("INSERT INTO ledger VALUES (1, 1, 1, 0, 'row')")?;
    backstay.wait_archived(&mut running, server.flushed()?)?;
    running.stop()?;
    Ok(Scene { server, other, backstay, scratch: Scratch::new()?, began })
}

/// Runs a row's command and gives it a bounded time: a bad configuration is found out quickly.
fn try_out(backstay: &Backstay, arguments: &[String]) -> Result<Outcome> {
    let all: Vec<&str> = arguments.iter().map(String::as_str).chain(["--json"]).collect();
    backstay.spawn(&all)?.wait(Duration::from_secs(90))
}

#[test]
fn every_row_of_the_table_has_its_clear_line_and_its_exit_code() -> Result<()> {
    let mut scene = scene()?;
    let healthy = scene.backstay.config().clone();
    let window = scene.backstay.ok(&["window", TARGET])?;
    let mut failures = Vec::new();
    for row in ROWS {
        let mut config = healthy.clone();
        let mut play = || -> Result<()> {
            (row.change)(&mut config, &scene)?;
            let arguments = (row.arguments)(&scene)?;
            scene.backstay.reconfigure(|current| *current = config.clone())?;
            let outcome = try_out(&scene.backstay, &arguments)?;
            eprintln!("{}: {}", row.name, outcome.stderr.trim_end());
            outcome.must_fail(row.code, row.words)
        };
        if let Err(error) = play() {
            failures.push(format!("{}: {error:#}", row.name));
        }
    }
    scene.backstay.reconfigure(|current| *current = healthy.clone())?;

    // Rows that need a server of their own kind.
    let mut play = |name: &str, result: Result<()>| {
        if let Err(error) = result {
            failures.push(format!("{name}: {error:#}"));
        }
    };
    play("slot taken", slot_taken(&scene));
    play("not enough WAL senders", senders(&mut scene));
    scene.backstay.reconfigure(|current| *current = healthy.clone())?;
    play("wrong wal_level", wal_level(&mut scene));
    scene.backstay.reconfigure(|current| *current = healthy.clone())?;
    play("full disk", full_disk(&scene));

    // Nothing of all that went into the chain.
    let after = scene.backstay.ok(&["window", TARGET])?;
    if after[0]["from"] != window[0]["from"] || after.as_array().map(Vec::len) != window.as_array().map(Vec::len) {
        failures.push(format!("the windows changed from {window} to {after}"));
    }
    ensure!(failures.is_empty(), "{} rows are not as they must be:\n\n{}", failures.len(), failures.join("\n\n"));
    scene.backstay.finish()
}

fn slot_taken(scene: &Scene) -> Result<()> {
    let slot = backstay_tests::backstay::SLOT;
    let mut holder = receiver(&scene.server, Some(slot), &scene.scratch.join("receiver"))?;
    let outcome = try_out(&scene.backstay, &archive(scene)?);
    holder.kill()?;
    holder.wait()?;
    let outcome = outcome?;
    eprintln!("slot taken: {}", outcome.stderr.trim_end());
    outcome.must_fail(3, &["slot", slot])
}

fn senders(scene: &mut Scene) -> Result<()> {
    scene.other.configure("max_wal_senders = 1")?;
    scene.other.restart()?;
    let mut holder = receiver(&scene.other, None, &scene.scratch.join("receiver-of-one"))?;
    let address = scene.other.address();
    scene.backstay.reconfigure(|config| endpoint(config, &address))?;
    let outcome = try_out(&scene.backstay, &backup(scene)?);
    holder.kill()?;
    holder.wait()?;
    let outcome = outcome?;
    eprintln!("not enough WAL senders: {}", outcome.stderr.trim_end());
    outcome.must_fail(3, &["max_wal_senders"])
}

fn wal_level(scene: &mut Scene) -> Result<()> {
    scene.other.configure("wal_level = minimal")?;
    scene.other.configure("max_wal_senders = 0")?;
    scene.other.restart()?;
    let address = scene.other.address();
    scene.backstay.reconfigure(|config| endpoint(config, &address))?;
    let inspected = scene.backstay.ok(&["inspect", TARGET]).context("inspect tells, it does not refuse")?;
    ensure!(inspected["warnings"].to_string().contains("wal_level"), "no warning about wal_level: {inspected}");
    let outcome = try_out(&scene.backstay, &backup(scene)?)?;
    eprintln!("wrong wal_level: {}", outcome.stderr.trim_end());
    outcome.must_fail(2, &["wal_level"])
}

/// A restore onto a file system of 8 MB, mounted where only this command sees it.
fn full_disk(scene: &Scene) -> Result<()> {
    let disk = scene.scratch.folder("small-disk")?;
    let mut command = Command::new("unshare");
    if rustix::process::getuid().is_root() {
        command.arg("--mount");
    } else {
        command.args(["--user", "--map-root-user", "--mount"]);
    }
    scene.backstay.prepare(&mut command);
    command.args(["sh", "-c", "mount -t tmpfs -o size=8m,mode=777 tmpfs \"$0\" && exec \"$@\""]).arg(&disk);
    command.args(account::setpriv()).arg(&scene.backstay.install().program);
    command.args(["restore", TARGET, "--json", "--into"]).arg(disk.join("data"));
    let outcome = scene.backstay.spawn_command(command)?.wait(limits::COMMAND)?;
    eprintln!("full disk: {}", outcome.stderr.trim_end());
    outcome.must_fail(1, &["no space"])?;
    wait_for("the private mount to go", Duration::from_secs(5), || {
        Ok(std::fs::read_dir(&disk)?.next().is_none().then_some(()))
    })
}
