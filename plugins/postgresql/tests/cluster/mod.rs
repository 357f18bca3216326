//! A PostgreSQL cluster in a scratch folder, on a free loopback port, gone when dropped.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // each test file uses a part

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Which server programs to use: `BACKSTAY_TEST_PG_BIN`, or Debian's PostgreSQL 15.
pub fn bin() -> PathBuf {
    std::env::var_os("BACKSTAY_TEST_PG_BIN").map_or_else(|| "/usr/lib/postgresql/15/bin".into(), PathBuf::from)
}

/// Whether the server programs are of this major version or a later one.
pub fn version_is_at_least(major: u32) -> bool {
    let output = run(Command::new(bin().join("postgres")).arg("--version"));
    let text = String::from_utf8(output.stdout).unwrap();
    let number = text.split(')').nth(1).unwrap().trim().split(['.', 'b', 'd', 'r']).next().unwrap();
    number.parse::<u32>().unwrap() >= major
}

/// Whether the server program was built with TLS; some embeddable builds are not.
pub fn has_tls() -> bool {
    let program = std::fs::read(bin().join("postgres")).unwrap();
    program.windows(11).any(|window| window == b"SSL_CTX_new")
}

/// A command as a user whom the server allows: it refuses to run as root.
pub fn as_postgres(program: &Path) -> Command {
    if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

fn run(command: &mut Command) -> Output {
    let output = command.env("LC_ALL", "C").stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A running server with the roles `postgres` (superuser, trusted on the socket), `backup`
/// (password `secret`, REPLICATION) and `plain` (password `secret`, no rights).
pub struct Cluster {
    folder: tempfile::TempDir,
    pub port: u16,
}

/// How the server is set up.
pub struct Setup {
    /// The method for `host` lines: `trust`, `md5`, `scram-sha-256`, `password`.
    pub method: &'static str,
    /// `password_encryption`.
    pub encryption: &'static str,
    /// Whole lines for `postgresql.conf`.
    pub settings: String,
    /// Whether the server has a certificate.
    pub tls: bool,
    /// `host`, `hostssl` or `hostnossl`.
    pub host_kind: &'static str,
    /// Further arguments for `initdb`.
    pub initdb: &'static [&'static str],
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            method: "scram-sha-256",
            encryption: "scram-sha-256",
            settings: String::new(),
            tls: false,
            host_kind: "host",
            initdb: &["--data-checksums"],
        }
    }
}

impl Cluster {
    pub fn start(setup: &Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(folder.path()));
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let cluster = Self { folder, port };
        run(as_postgres(&bin().join("initdb"))
            .args(["--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8", "-D"])
            .arg(cluster.data())
            .args(setup.initdb));
        let mut conf = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\n\
             fsync = off\npassword_encryption = '{}'\n{}\n",
            cluster.folder.path().display(),
            setup.encryption,
            setup.settings
        );
        if setup.tls {
            cluster.make_certificate();
            writeln!(conf, "ssl = on").unwrap();
        }
        cluster.append("postgresql.auto.conf", &conf);
        let hba = format!(
            "local all all trust\nlocal replication all trust\n\
             {0} all all 127.0.0.1/32 {1}\n{0} replication all 127.0.0.1/32 {1}\n",
            setup.host_kind, setup.method
        );
        std::fs::write(cluster.data().join("pg_hba.conf"), hba).unwrap();
        cluster.pg_ctl(&["start"]);
        cluster.sql("CREATE ROLE backup LOGIN REPLICATION PASSWORD 'secret'");
        cluster.sql("CREATE ROLE plain LOGIN PASSWORD 'secret'");
        cluster
    }

    /// A running standby of this cluster, made of a copy of its data folder.
    pub fn standby(&self, data: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let standby = Self { folder, port };
        run(Command::new("cp").arg("-r").arg(data).arg(standby.data()));
        standby.append("standby.signal", "");
        let folder = standby.path().display();
        let conf = format!(
            "port = {port}\nunix_socket_directories = '{folder}'\n\
             primary_conninfo = 'host={} port={} user=postgres'\n",
            self.path().display(),
            self.port
        );
        standby.append("postgresql.auto.conf", &conf);
        run(Command::new("chmod").arg("700").arg(standby.data()));
        if is_root() {
            run(Command::new("chown").args(["-R", "postgres"]).arg(standby.path()));
        }
        standby.pg_ctl(&["start"]);
        standby
    }

    /// Waits until this standby has replayed what `primary` has written, restart point included.
    pub fn wait_for(&self, primary: &Self) {
        let end = primary.sql("SELECT pg_current_wal_flush_lsn()");
        for _ in 0..300 {
            if self.sql(&format!("SELECT pg_last_wal_replay_lsn() >= '{end}'")) == "t" {
                self.sql("CHECKPOINT");
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("the standby does not catch up");
    }

    fn bin_has(&self, program: &str) -> bool {
        bin().join(program).exists()
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn append(&self, file: &str, text: &str) {
        let path = self.data().join(file);
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(path, old + text).unwrap();
    }

    fn make_certificate(&self) {
        let data = self.data();
        run(Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-sha256", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"])
            .arg("-keyout")
            .arg(data.join("server.key"))
            .arg("-out")
            .arg(data.join("server.crt")));
        run(Command::new("chmod").arg("600").arg(data.join("server.key")));
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(data.join("server.key")).arg(data.join("server.crt")));
        }
    }

    pub fn pg_ctl(&self, arguments: &[&str]) {
        run(as_postgres(&bin().join("pg_ctl"))
            .args(arguments)
            .args(["-w", "-s", "-D"])
            .arg(self.data())
            .arg("-l")
            .arg(self.path().join("log"))
            .stdout(Stdio::null()));
    }

    /// Runs SQL as the superuser over the socket; answers psql's unaligned output.
    pub fn sql(&self, sql: &str) -> String {
        let psql = if self.bin_has("psql") { bin().join("psql") } else { PathBuf::from("psql") };
        let output = run(Command::new(psql)
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-h"])
            .arg(self.path())
            .args(["-p", &self.port.to_string(), "-c", sql]));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The folder for a tablespace.
    pub fn tablespace(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir(&path).unwrap();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&path));
        }
        path
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ =
            as_postgres(&bin().join("pg_ctl")).args(["stop", "-m", "immediate", "-s", "-D"]).arg(self.data()).output();
    }
}
