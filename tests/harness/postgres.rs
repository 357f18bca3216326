//! Scratch PostgreSQL servers.

use crate::{
    account,
    certificate::Certificate,
    limits,
    lsn::Lsn,
    scratch::{Scratch, free_port, run, tail, wait_for},
};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub use crate::installation::Installation;

/// How connections over TCP prove who they are. Local connections of the tests are always trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hba {
    /// Everybody is who they say.
    Trust,
    /// SCRAM-SHA-256.
    Scram,
    /// The old challenge.
    Md5,
    /// SCRAM for databases, replication refused.
    NoReplication,
}

/// How a new cluster is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Page checksums.
    pub checksums: bool,
    /// How TCP connections log in.
    pub hba: Hba,
    /// Lines for `postgresql.conf`, after the harness's own.
    pub conf: Vec<String>,
    /// WAL file size in megabytes.
    pub wal_segment_mb: u32,
    /// The port, where another server's shall be taken over.
    pub port: Option<u16>,
    /// TLS, without which nobody gets in over TCP then.
    pub tls: Option<Tls>,
}

/// How a server does TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The server's own.
    pub certificate: Certificate,
    /// Who signs the certificates of clients. The role [`CERTIFIED_USER`] must have one.
    pub authority: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self { checksums: true, hba: Hba::Scram, conf: Vec::new(), wal_segment_mb: 16, port: None, tls: None }
    }
}

/// The role that takes backups.
pub const BACKUP_USER: &str = "backup";
/// A role like it, of servers with TLS, that must show a client certificate in its name beside the password.
pub const CERTIFIED_USER: &str = "certified";
/// The password of both. The characters are ones that a careless writer of configuration would trip over.
pub const BACKUP_PASSWORD: &str = "s3cret 'quoted\" \\slash ü";

/// How a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Checkpoint, walsenders served to the end.
    Fast,
    /// No checkpoint: recovery at the next start.
    Immediate,
    /// `kill -9` of every process: a machine that lost its power.
    Kill,
}

/// A running (or stopped) server.
pub struct Postgres {
    /// Its programs.
    pub installation: Installation,
    data: PathBuf,
    port: u16,
    log: PathBuf,
    child: Option<Child>,
    scratch: Scratch,
}

impl Postgres {
    /// A new cluster, started, with the role [`BACKUP_USER`].
    pub fn create(installation: &Installation, options: &Options) -> Result<Self> {
        let scratch = Scratch::new()?;
        let data = scratch.join("data");
        let mut initdb = installation.tool("initdb");
        initdb.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        initdb.arg(format!("--wal-segsize={}", options.wal_segment_mb));
        if options.checksums {
            initdb.arg("--data-checksums");
        } else if installation.major >= 18 {
            initdb.arg("--no-data-checksums");
        }
        run(&mut initdb)?;
        let mut conf = vec![
            "listen_addresses = '127.0.0.1'".to_owned(),
            "max_wal_senders = 10".into(),
            "max_replication_slots = 10".into(),
            "max_prepared_transactions = 10".into(),
            "wal_keep_size = '8GB'".into(),
            "max_wal_size = '4GB'".into(),
            "shared_buffers = '64MB'".into(),
            "log_line_prefix = '%m [%p] %b '".into(),
            "log_timezone = 'UTC'".into(),
            "timezone = 'UTC'".into(),
            "log_checkpoints = on".into(),
            "log_replication_commands = on".into(),
        ];
        // Up to version 13 the default is md5.
        let encryption = if options.hba == Hba::Md5 { "md5" } else { "scram-sha-256" };
        conf.push(format!("password_encryption = '{encryption}'"));
        if let Some(tls) = &options.tls {
            conf.push("ssl = on".into());
            conf.push("log_connections = on".into());
            conf.push(format!("ssl_ca_file = '{}'", tls.authority.display()));
            conf.extend(certificate_lines(&tls.certificate));
        }
        conf.extend(options.conf.iter().cloned());
        let old = std::fs::read_to_string(data.join("postgresql.conf"))?;
        account::write(&data.join("postgresql.conf"), &format!("{old}\n{}\n", conf.join("\n")))?;
        let (database, replication) = match options.hba {
            Hba::Trust => ("trust", "trust"),
            Hba::Scram => ("scram-sha-256", "scram-sha-256"),
            Hba::Md5 => ("md5", "md5"),
            Hba::NoReplication => ("scram-sha-256", "reject"),
        };
        let (host, certified) = match options.tls {
            Some(_) => {
                let line = |what| format!("hostssl {what} {CERTIFIED_USER} all scram-sha-256 clientcert=verify-full\n");
                ("hostssl", line("all") + &line("replication"))
            }
            None => ("host", String::new()),
        };
        account::write(
            &data.join("pg_hba.conf"),
            &format!(
                "local all all trust\nlocal replication all trust\n{certified}\
                 {host} all all 127.0.0.1/32 {database}\n{host} replication all 127.0.0.1/32 {replication}\n"
            ),
        )?;
        let mut server = Self::adopt_in(installation, data, scratch, options.port)?;
        server.start()?;
        let password = BACKUP_PASSWORD.replace('\'', "''");
        for role in [BACKUP_USER].into_iter().chain(options.tls.as_ref().map(|_| CERTIFIED_USER)) {
            server.sql(&format!("CREATE ROLE {role} LOGIN REPLICATION PASSWORD '{password}'"))?;
        }
        Ok(server)
    }

    /// An existing data folder, not started yet.
    pub fn adopt(installation: &Installation, data: &Path) -> Result<Self> {
        Self::adopt_in(installation, data.to_owned(), Scratch::new()?, None)
    }

    fn adopt_in(installation: &Installation, data: PathBuf, scratch: Scratch, port: Option<u16>) -> Result<Self> {
        let port = match port {
            Some(port) => port,
            None => free_port()?,
        };
        let log = scratch.join("server.log");
        Ok(Self { installation: installation.clone(), data, port, log, child: None, scratch })
    }

    /// Starts it and waits until it answers.
    pub fn start(&mut self) -> Result<()> {
        self.start_without_waiting()?;
        self.wait_ready(limits::SERVER_START)
    }

    /// Starts it.
    pub fn start_without_waiting(&mut self) -> Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let child = self
            .installation
            .tool("postgres")
            .arg("-D")
            .arg(&self.data)
            .args(["-p", &self.port.to_string(), "-k"])
            .arg(self.scratch.path())
            .args(["-c", "listen_addresses=127.0.0.1"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("failed to start postgres")?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it answers a query.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            if self.sql("SELECT 1").is_ok() {
                return Ok(());
            }
            let ended = match &mut self.child {
                Some(child) => child.try_wait()?,
                None => bail!("the server was not started"),
            };
            if ended.is_some() || start.elapsed() > limit {
                bail!("the server did not become ready ({ended:?}); its log:\n{}", self.log_tail());
            }
            std::thread::sleep(limits::POLL);
        }
    }

    /// Waits until recovery has ended or paused at its target.
    pub fn wait_recovered(&mut self) -> Result<()> {
        self.wait_ready(limits::RECOVERY)?;
        let start = Instant::now();
        let pause = match self.installation.major {
            ..14 => "CASE WHEN pg_is_wal_replay_paused() THEN 'paused' ELSE 'not paused' END",
            _ => "pg_get_wal_replay_pause_state()",
        };
        let query = format!("SELECT CASE WHEN pg_is_in_recovery() THEN {pause} ELSE 'ended' END");
        loop {
            let state = self.sql(&query);
            match state.as_deref() {
                Ok("ended" | "paused") => return Ok(()),
                Ok(_) if start.elapsed() < limits::RECOVERY => std::thread::sleep(limits::POLL),
                Ok(state) => bail!("recovery does not end ({state}); its log:\n{}", self.log_tail()),
                Err(error) => bail!("{error:#}\nthe server's log:\n{}", self.log_tail()),
            }
        }
    }

    /// Ends it.
    pub fn stop(&mut self, how: Stop) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let pid = Pid::from_child(&child);
        match how {
            Stop::Fast => kill_process(pid, Signal::INT)?,
            Stop::Immediate => kill_process(pid, Signal::QUIT)?,
            Stop::Kill => crate::kill::family(&mut child),
        }
        match wait_for("the server to stop", limits::SERVER_STOP, || Ok(child.try_wait()?)) {
            Ok(_) => Ok(()),
            Err(error) => {
                // Never leave a server behind, whatever kept it.
                let _ = child.kill();
                let _ = child.wait();
                Err(error.context(self.log_tail()))
            }
        }
    }

    /// Stops it fast and starts it.
    pub fn restart(&mut self) -> Result<()> {
        self.stop(Stop::Fast)?;
        self.start()
    }

    /// Adds a line to `postgresql.conf`; takes effect at the next start or reload.
    pub fn configure(&self, line: &str) -> Result<()> {
        let path = self.data.join("postgresql.conf");
        let old = std::fs::read_to_string(&path)?;
        account::write(&path, &format!("{old}{line}\n"))
    }

    /// Shows another certificate from now on.
    pub fn use_certificate(&self, certificate: &Certificate) -> Result<()> {
        for line in certificate_lines(certificate) {
            self.configure(&line)?;
        }
        self.sql("SELECT pg_reload_conf()")?;
        wait_for("the server to take its certificate", limits::SERVER_START, || {
            let current = self.sql("SELECT current_setting('ssl_cert_file')")?;
            Ok((Path::new(&current) == certificate.certificate).then_some(()))
        })
    }

    /// Runs SQL in the database `postgres` as superuser; answers rows, columns separated by `|`.
    pub fn sql(&self, text: &str) -> Result<String> {
        let output = run(self.psql().args(["-c", text]))?;
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// As [`Postgres::sql`], parsed.
    pub fn value<T: std::str::FromStr>(&self, text: &str) -> Result<T>
    where
        T::Err: std::fmt::Display,
    {
        let answer = self.sql(text)?;
        answer.parse().map_err(|error| anyhow::anyhow!("`{answer}`: {error}"))
    }

    /// A `psql` connected as superuser, to be given commands.
    pub fn psql(&self) -> Command {
        let mut command = self.installation.tool("psql");
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"]);
        self.connection(&mut command);
        command.args(["-d", "postgres"]);
        command
    }

    /// Adds host, port and user of the superuser.
    pub fn connection(&self, command: &mut Command) {
        command.arg("-h").arg(self.scratch.path()).args(["-p", &self.port.to_string(), "-U", "postgres"]);
    }

    /// Where commits are right now.
    pub fn flushed(&self) -> Result<Lsn> {
        self.value("SELECT pg_current_wal_flush_lsn()")
    }

    /// A folder for a tablespace, made and registered under `name`.
    pub fn tablespace(&self, name: &str) -> Result<PathBuf> {
        let path = self.scratch.folder(name)?;
        self.sql(&format!("CREATE TABLESPACE {name} LOCATION '{}'", path.display()))?;
        Ok(path)
    }

    /// A standby that follows this server, started, with its own place for every tablespace.
    pub fn standby(&self, name: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let data = scratch.join("data");
        self.base_backup(&data, &["-X", "stream", "-R", "--checkpoint=fast"], &scratch)?;
        let mut standby = Self::adopt_in(&self.installation, data, scratch, None)?;
        standby.configure(&format!("cluster_name = '{name}'"))?;
        standby.start()?;
        Ok(standby)
    }

    /// `pg_basebackup` into `data`, tablespaces mapped into `scratch`.
    pub fn base_backup(&self, data: &Path, arguments: &[&str], scratch: &Scratch) -> Result<()> {
        let mut command = self.installation.tool("pg_basebackup");
        self.connection(&mut command);
        command.arg("-D").arg(data).args(arguments);
        let spaces =
            self.sql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE pg_tablespace_location(oid) <> ''")?;
        for (number, from) in spaces.lines().enumerate() {
            let to = scratch.folder(&format!("space{number}"))?;
            command.arg("-T").arg(format!("{from}={}", to.display()));
        }
        run(&mut command)?;
        Ok(())
    }

    /// Makes a standby a primary.
    pub fn promote(&self) -> Result<()> {
        if self.sql("SELECT pg_promote(true, 60)")? != "t" {
            bail!("promotion did not end within a minute; the server's log:\n{}", self.log_tail());
        }
        Ok(())
    }

    /// Makes this standby the primary in place of `old`, at its address, as a failover manager would.
    pub fn take_over(&mut self, old: &Self) -> Result<()> {
        self.stand_in(old)?;
        self.promote()
    }

    /// The first half of a failover: this standby answers at the address of `old`, as a standby.
    pub fn stand_in(&mut self, old: &Self) -> Result<()> {
        self.stop(Stop::Fast)?;
        self.port = old.port;
        self.start()
    }

    /// Waits until somebody streams WAL under this name.
    pub fn wait_streaming(&self, application: &str) -> Result<()> {
        let query = format!(
            "SELECT count(*) FROM pg_stat_replication WHERE application_name = '{application}' AND state = 'streaming'"
        );
        wait_for("somebody to stream WAL", limits::ARCHIVE_CATCH_UP, || {
            Ok((self.value::<u32>(&query)? > 0).then_some(()))
        })
        .with_context(|| format!("{application}; the server's log:\n{}", self.log_tail()))
    }

    /// Takes over another port at the next start.
    pub fn move_to_port(&mut self, port: u16) {
        self.port = port;
    }

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// A folder of this server that vanishes with it, outside its data folder.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The server's log.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned())
    }

    /// The end of the server's log.
    pub fn log_tail(&self) -> String {
        tail(&self.log, limits::LOG_LINES)
    }
}

fn certificate_lines(of: &Certificate) -> [String; 2] {
    let Certificate { certificate, key } = of;
    [format!("ssl_cert_file = '{}'", certificate.display()), format!("ssl_key_file = '{}'", key.display())]
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of the server in {}:\n{}", self.data.display(), self.log_tail());
        }
        if let Err(error) = self.stop(Stop::Immediate) {
            eprintln!("{error:#}");
        }
    }
}
