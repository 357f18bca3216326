//! The program under test, driven the way a user drives it: a configuration, commands, `--json`, exit codes.

use crate::{
    account,
    install::{Install, install},
    kill, limits,
    lsn::Lsn,
    postgres::{BACKUP_PASSWORD, BACKUP_USER},
    restic::Restic,
    s3::{BUCKET, S3},
    scratch::{Scratch, tail, wait_for},
};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    ffi::OsStr,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The repository's password.
pub const REPOSITORY_PASSWORD: &str = "correct horse battery staple";
/// The name of the one target that most tests have.
pub const TARGET: &str = "shop";
/// The slot of its archive.
pub const SLOT: &str = "backstay_test";

/// What goes into `backstay.toml`. Every field is TOML text, so that a test can spoil any of them.
#[derive(Clone, Debug)]
pub struct Config {
    /// Lines of `[repositories.main]`.
    pub repository: Vec<String>,
    /// The engine.
    pub engine: String,
    /// The target's settings, an inline table's inside.
    pub settings: String,
    /// Lines of `[targets.shop.grants]`.
    pub grants: Vec<String>,
    /// Lines of `[targets.shop.limits]`.
    pub limits: Vec<String>,
    /// The target's repository.
    pub home: String,
    /// More lines of `[targets.shop]`.
    pub target: Vec<String>,
    /// More sections.
    pub sections: Vec<String>,
}

/// A configuration, its secrets, and the repository it names.
pub struct Backstay {
    install: Install,
    scratch: Scratch,
    config: Config,
    extra_plugins: Option<PathBuf>,
    environment: Vec<(&'static str, String)>,
    restic: Restic,
    runs: AtomicU64,
    judged: bool,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output as JSON; null when it is none.
    pub json: Value,
    /// Standard error.
    pub stderr: String,
}

impl Backstay {
    /// A target at `address`, a repository in a folder, initialised.
    pub fn in_folder(address: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let repository = scratch.join("repo");
        let url = format!("url = \"file://{}\"", repository.display());
        let restic = Restic::new(repository.display().to_string(), &scratch.join("repository.password"), None);
        let new = Self::new(scratch, address, vec![url], restic)?;
        new.ok(&["repo", "init", "main"])?;
        Ok(new)
    }

    /// A target at `address`, a repository on an S3 server that is reached at `through`, initialised.
    pub fn on_s3(address: &str, s3: &S3, through: SocketAddr) -> Result<Self> {
        Self::on_s3_with(address, s3, through, &[])
    }

    /// A repository in a bucket that keeps every object so many days.
    pub fn on_locked_s3(address: &str, s3: &S3, days: u32) -> Result<Self> {
        Self::on_s3_with(address, s3, s3.address(), &[format!("object-lock-days = {days}")])
    }

    fn on_s3_with(address: &str, s3: &S3, through: SocketAddr, more: &[String]) -> Result<Self> {
        let scratch = Scratch::new()?;
        let credentials = s3.credentials();
        account::write(&scratch.join("s3.secret"), &credentials.secret_access_key)?;
        let prefix = "some/prefix";
        let mut repository = vec![
            format!("url = \"s3://{BUCKET}/{prefix}\""),
            format!("endpoint = \"http://{through}\""),
            "region = \"us-east-1\"".into(),
            "allow-http = true".into(),
            "path-style = true".into(),
            format!("access-key-id = \"{}\"", credentials.access_key_id),
            format!("secret-access-key-file = \"{}\"", scratch.join("s3.secret").display()),
        ];
        repository.extend_from_slice(more);
        let url = format!("s3:http://{}/{BUCKET}/{prefix}", s3.address());
        let restic = Restic::new(url, &scratch.join("repository.password"), Some(credentials));
        let new = Self::new(scratch, address, repository, restic)?;
        new.ok(&["repo", "init", "main"])?;
        Ok(new)
    }

    fn new(scratch: Scratch, address: &str, mut repository: Vec<String>, restic: Restic) -> Result<Self> {
        let (mine, theirs) = (scratch.join("repository.password"), scratch.join("database.password"));
        account::write(&mine, &format!("{REPOSITORY_PASSWORD}\n"))?;
        account::write(&theirs, &format!("{BACKUP_PASSWORD}\n"))?;
        repository.push(format!("password-file = \"{}\"", mine.display()));
        let config = Config {
            repository,
            engine: "postgresql".into(),
            settings: format!("slot = \"{SLOT}\", flush-interval-ms = 300"),
            grants: vec![
                format!("endpoints.primary = \"{address}\""),
                format!(
                    "credentials.primary = {{ user = \"{BACKUP_USER}\", password-file = \"{}\" }}",
                    theirs.display()
                ),
            ],
            limits: Vec::new(),
            home: "main".into(),
            target: Vec::new(),
            sections: Vec::new(),
        };
        let new = Self {
            install: install()?,
            scratch,
            config,
            extra_plugins: None,
            environment: Vec::new(),
            restic,
            runs: AtomicU64::new(0),
            judged: false,
        };
        new.write_config()?;
        Ok(new)
    }

    /// Changes the configuration.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut Config)) -> Result<()> {
        change(&mut self.config);
        self.write_config()
    }

    /// The configuration as it is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Looks for plugins in this folder first.
    pub fn use_plugins(&mut self, folder: &Path) {
        self.extra_plugins = Some(folder.to_owned());
    }

    /// Sets an environment variable for all commands.
    pub fn set_environment(&mut self, name: &'static str, value: &str) {
        self.environment.push((name, value.to_owned()));
    }

    fn write_config(&self) -> Result<()> {
        let Config { repository, engine, settings, grants, limits, home, target, sections } = &self.config;
        let text = format!(
            "[repositories.main]\n{}\n\n{}\n[targets.{TARGET}]\nengine = \"{engine}\"\nrepository = \"{home}\"\n{}\n\
             settings = {{ {settings} }}\n[targets.{TARGET}.grants]\n{}\n\n[targets.{TARGET}.limits]\n{}\n",
            repository.join("\n"),
            sections.join("\n"),
            target.join("\n"),
            grants.join("\n"),
            limits.join("\n")
        );
        account::write(&self.config_file(), &text)
    }

    /// The configuration's file.
    pub fn config_file(&self) -> PathBuf {
        self.scratch.join("backstay.toml")
    }

    /// Adds a repository in a folder with a password of its own, initialised; answers stock restic on it.
    pub fn add_repository(&mut self, name: &str) -> Result<Restic> {
        let (folder, password) = (self.scratch.join(name), self.scratch.join(format!("{name}.password")));
        account::write(&password, &format!("the password of {name}\n"))?;
        self.reconfigure(|config| {
            config.sections.push(format!(
                "[repositories.{name}]\nurl = \"file://{}\"\npassword-file = \"{}\"\n",
                folder.display(),
                password.display()
            ));
        })?;
        self.ok(&["repo", "init", name])?;
        Ok(Restic::new(folder.display().to_string(), &password, None))
    }

    /// The repository's folder, when it lies in one.
    pub fn repository(&self) -> PathBuf {
        self.scratch.join("repo")
    }

    /// A folder that vanishes with this scenario.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Stock restic on the repository.
    pub fn restic(&self) -> &Restic {
        &self.restic
    }

    /// What is installed.
    pub fn install(&self) -> &Install {
        &self.install
    }

    /// A command, ready to be started as the ordinary user.
    pub fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = account::command(&self.install.program);
        self.prepare(&mut command);
        command.args(arguments);
        command
    }

    /// The environment and the global options.
    pub fn prepare(&self, command: &mut Command) {
        let folders: Vec<&Path> =
            self.extra_plugins.iter().map(PathBuf::as_path).chain([&*self.install.plugins]).collect();
        command
            .env("BACKSTAY_CONFIG", self.config_file())
            .env("BACKSTAY_PLUGINS", std::env::join_paths(folders).unwrap_or_default())
            .env("BACKSTAY_CACHE", &self.install.cache)
            .env_remove("RUST_LOG")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
    }

    /// Starts a command in the background; what it says goes to files.
    pub fn spawn(&self, arguments: &[impl AsRef<OsStr>]) -> Result<Running> {
        self.spawn_command(self.command(arguments))
    }

    /// Starts a prepared command in the background.
    pub fn spawn_command(&self, mut command: Command) -> Result<Running> {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let (out, err) = (self.scratch.join(format!("out{number}")), self.scratch.join(format!("err{number}")));
        let what = format!("{:?}", command.get_args().collect::<Vec<_>>());
        let child = command
            .stdout(std::fs::File::create(&out)?)
            .stderr(std::fs::File::create(&err)?)
            .spawn()
            .with_context(|| format!("failed to start {}", self.install.program.display()))?;
        Ok(Running { child: Some(child), what, out, err })
    }

    /// Runs a command with `--json` to its end.
    pub fn run(&self, arguments: &[impl AsRef<OsStr>]) -> Result<Outcome> {
        let all: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).chain([OsStr::new("--json")]).collect();
        self.spawn(&all)?.wait(limits::COMMAND)
    }

    /// Runs a command that must succeed; answers its JSON.
    pub fn ok(&self, arguments: &[impl AsRef<OsStr>]) -> Result<Value> {
        let outcome = self.run(arguments)?;
        let shown: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        ensure!(outcome.code == 0, "{shown:?} ended with {}\n{}\n{}", outcome.code, outcome.json, outcome.stderr);
        Ok(outcome.json)
    }

    /// Runs a command that must fail with this exit code, and with one clear line that holds `words`.
    pub fn fails(&self, arguments: &[impl AsRef<OsStr>], code: i32, words: &[&str]) -> Result<Outcome> {
        let outcome = self.run(arguments)?;
        let shown: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        outcome.must_fail(code, words).with_context(|| format!("{shown:?}"))?;
        Ok(outcome)
    }

    /// Takes a backup.
    pub fn backup(&self) -> Result<Backup> {
        self.backup_with(&[])
    }

    /// Takes a backup with these options.
    pub fn backup_with(&self, options: &[&str]) -> Result<Backup> {
        Backup::read(&self.ok(&[&["backup", TARGET], options].concat())?)
    }

    /// Restores into `into`, volumes (tablespaces) into folders beside it.
    pub fn restore(&self, into: &Path, arguments: &[String]) -> Result<Value> {
        let mut all = vec!["restore".to_owned(), TARGET.into(), "--into".into(), into.display().to_string()];
        all.extend_from_slice(arguments);
        self.ok(&all)
    }

    /// Starts the archiver.
    pub fn archive(&self) -> Result<Running> {
        self.spawn(&["-v", "archive", TARGET])
    }

    /// The end of the newest recovery window.
    pub fn window_end(&self) -> Result<Option<Lsn>> {
        let windows = self.ok(&["window", TARGET])?;
        let list = windows.as_array().with_context(|| format!("`window` answered no list: {windows}"))?;
        let ends: Result<Vec<Lsn>> = list.iter().map(|window| position(&window["to"])).collect();
        Ok(ends?.into_iter().max())
    }

    /// Waits until the recovery window reaches `lsn`.
    pub fn wait_archived(&self, archive: &mut Running, lsn: Lsn) -> Result<()> {
        let mut last = None;
        wait_for("the archive to catch up", limits::ARCHIVE_CATCH_UP, || {
            archive.must_run()?;
            last = self.window_end()?;
            std::thread::sleep(Duration::from_millis(300));
            Ok((last >= Some(lsn)).then_some(()))
        })
        .with_context(|| format!("at {last:?}, wanted {lsn}\n{}", archive.log()))
    }

    /// The judge's last word: every byte of the repository. Every scenario ends with it.
    pub fn finish(mut self) -> Result<()> {
        self.judged = true;
        self.restic.check_read_data()
    }

    /// For a repository that a test damaged on purpose.
    pub fn finish_damaged(mut self) {
        self.judged = true;
    }
}

impl Drop for Backstay {
    fn drop(&mut self) {
        // A scenario that failed half-way still has a repository that must be sound.
        if !self.judged
            && !std::thread::panicking()
            && let Err(error) = self.restic.check_read_data()
        {
            eprintln!("and stock restic is not content with the repository: {error:#}");
        }
    }
}

/// A position in JSON: `{epoch, offset, label}`, or an object with such a `position`.
pub fn position(value: &Value) -> Result<Lsn> {
    let place = if value["position"].is_object() { &value["position"] } else { value };
    let offset = place["offset"].as_u64().with_context(|| format!("no position in {value}"))?;
    Ok(Lsn(offset))
}

/// What `backup --json` says.
#[derive(Clone, Debug)]
pub struct Backup {
    /// Its id.
    pub id: String,
    /// The restic snapshot.
    pub snapshot: String,
    /// Where it starts.
    pub start: Lsn,
    /// Where it is consistent.
    pub end: Lsn,
    /// Its size.
    pub bytes: u64,
    /// What was sent to the store.
    pub uploaded: u64,
    /// The names of its volumes (tablespaces).
    pub volumes: Vec<String>,
}

impl Backup {
    /// Reads it.
    pub fn read(value: &Value) -> Result<Self> {
        let text = |key: &str| value[key].as_str().map(str::to_owned).with_context(|| format!("no `{key}` in {value}"));
        let number = |key: &str| value[key].as_u64().with_context(|| format!("no `{key}` in {value}"));
        for place in ["start", "end"] {
            for part in ["epoch", "offset", "label"] {
                ensure!(!value[place][part].is_null(), "no `{place}.{part}` in {value}");
            }
        }
        Ok(Self {
            id: text("id")?,
            snapshot: text("snapshot")?,
            start: position(&value["start"])?,
            end: position(&value["end"])?,
            bytes: number("bytes")?,
            uploaded: number("uploaded")?,
            volumes: value["volumes"]
                .as_array()
                .map(|list| list.iter().filter_map(|one| Some(one["name"].as_str()?.to_owned())).collect())
                .unwrap_or_default(),
        })
    }
}

/// A command in the background. Killed on drop.
pub struct Running {
    child: Option<Child>,
    what: String,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// What it said on standard error.
    pub fn log(&self) -> String {
        tail(&self.err, limits::LOG_LINES)
    }

    /// An error when it has ended.
    pub fn must_run(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { bail!("{} is not running", self.what) };
        if let Some(status) = child.try_wait()? {
            bail!("{} ended with {status}:\n{}", self.what, self.log());
        }
        Ok(())
    }

    /// Waits for its end.
    pub fn wait(mut self, limit: Duration) -> Result<Outcome> {
        let mut child = self.child.take().context("it was waited for already")?;
        let status = match wait_for("a command", limit, || Ok(child.try_wait()?)) {
            Ok(status) => status,
            Err(error) => {
                kill::family(&mut child);
                return Err(error.context(format!("{} does not end:\n{}", self.what, self.log())));
            }
        };
        let stdout = std::fs::read(&self.out)?;
        let json = serde_json::from_slice(&stdout).unwrap_or(Value::Null);
        let stderr = String::from_utf8_lossy(&std::fs::read(&self.err)?).into_owned();
        Ok(Outcome { code: status.code().unwrap_or(-1), json, stderr })
    }

    /// SIGTERM; it must drain and end with 0.
    pub fn stop(mut self) -> Result<()> {
        self.must_run()?;
        let pid = Pid::from_child(self.child.as_ref().context("it is running")?);
        kill_process(pid, Signal::TERM)?;
        let outcome = self.wait(limits::ARCHIVE_STOP)?;
        ensure!(outcome.code == 0, "after SIGTERM it ended with {}:\n{}", outcome.code, outcome.stderr);
        Ok(())
    }

    /// Waits for its end after somebody killed a part of it, and answers how it ended.
    pub fn reap(self) -> Result<Outcome> {
        self.wait(limits::ARCHIVE_STOP)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.what, self.log());
        }
        kill::family(&mut child);
    }
}

impl Outcome {
    /// It must have failed with this code, for a person: exactly one `backstay: …` line that holds `words`, lower
    /// case, without a dot at its end, no panic, and the same in JSON; `repo check` has its report there.
    pub fn must_fail(&self, code: i32, words: &[&str]) -> Result<()> {
        let shown = format!("exit code {}\n{}\n{}", self.code, self.json, self.stderr);
        ensure!(self.code == code, "expected exit code {code}, got {shown}");
        ensure!(!self.stderr.contains("panicked"), "it panicked: {shown}");
        let lines: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("backstay: ")).collect();
        let [line] = lines[..] else {
            bail!("expected one line that says what is wrong, got {}: {shown}", lines.len())
        };
        for word in words {
            ensure!(line.to_lowercase().contains(&word.to_lowercase()), "`{word}` is not in the message: {shown}");
        }
        ensure!(!line.ends_with('.'), "a message ends without a dot: {shown}");
        ensure!(line.len() < 600, "a message is one line that people read: {shown}");
        if self.json["problems"].is_array() {
            return Ok(());
        }
        let error = &self.json["error"];
        ensure!(error["exit-code"] == code, "the JSON does not say the exit code: {shown}");
        ensure!(error["message"] == line.trim_start_matches("backstay: "), "the JSON has another message: {shown}");
        ensure!(error["kind"].is_string(), "the JSON has no kind: {shown}");
        Ok(())
    }
}
