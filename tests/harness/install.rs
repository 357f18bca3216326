//! The built `backstay` and its plugins, where the ordinary user can run them.
//!
//! `BACKSTAY_BIN` and `BACKSTAY_PLUGINS` name them when they are built already; otherwise they are built here,
//! once per test program, the same way a user would.

use crate::{account, scratch::run};
use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// What a test runs.
#[derive(Clone, Debug)]
pub struct Install {
    /// The program.
    pub program: PathBuf,
    /// The folder with `postgresql.wasm`.
    pub plugins: PathBuf,
    /// The folder for compiled plugins, kept between runs.
    pub cache: PathBuf,
}

/// Builds, or finds what is built.
pub fn install() -> Result<Install> {
    static FOUND: OnceLock<Result<Install, String>> = OnceLock::new();
    FOUND.get_or_init(|| find().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

fn find() -> Result<Install> {
    let program = match std::env::var_os("BACKSTAY_BIN") {
        Some(program) => PathBuf::from(program),
        None => build_program()?,
    };
    let plugins = match std::env::var_os("BACKSTAY_PLUGINS") {
        Some(plugins) => PathBuf::from(plugins),
        None => {
            let folder = target_folder()?.join("plugins");
            std::fs::create_dir_all(&folder)?;
            build_plugin(&program, &workspace().join("plugins/postgresql"), &folder)?;
            folder
        }
    };
    if !plugins.join("postgresql.wasm").is_file() {
        bail!("no postgresql.wasm in {}", plugins.display());
    }
    let runs = account::command(&program).arg("--version").output().is_ok_and(|output| output.status.success());
    let reads = account::command("test").arg("-r").arg(plugins.join("postgresql.wasm")).status()?.success();
    let (program, plugins) = if runs && reads { (program, plugins) } else { copy(&program, &plugins)? };
    let cache = std::env::temp_dir().join(format!("backstay-tests-cache-{}", rustix::process::getuid().as_raw()));
    account::create_dir(&cache)?;
    Ok(Install { program, plugins, cache })
}

/// The folder of build results that this test program came from.
fn target_folder() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.ancestors().nth(3).context("a test program lies in target/PROFILE/deps")?.to_owned())
}

fn build_program() -> Result<PathBuf> {
    let target = target_folder()?;
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    run(Command::new(cargo)
        .args(["build", "--quiet", "-p", "backstay", "--target-dir"])
        .arg(&target)
        .current_dir(workspace())
        .stdin(Stdio::null()))?;
    Ok(target.join("debug/backstay"))
}

/// Builds a plugin crate into the folder `out`, by `backstay plugin build`.
pub fn build_plugin(program: &Path, crate_folder: &Path, out: &Path) -> Result<()> {
    run(Command::new(program).args(["plugin", "build"]).arg(crate_folder).arg("--out").arg(out).stdin(Stdio::null()))?;
    Ok(())
}

/// For build results below a home that the ordinary user cannot enter.
fn copy(program: &Path, plugins: &Path) -> Result<(PathBuf, PathBuf)> {
    let to = std::env::temp_dir().join("backstay-tests-install");
    let fresh = tempfile::Builder::new().prefix("backstay-copy-").tempdir()?;
    run(Command::new("cp").arg("-p").arg(program).arg(fresh.path().join("backstay")))?;
    run(Command::new("cp").arg("-rp").arg(plugins).arg(fresh.path().join("plugins")))?;
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(fresh.path()))?;
    if to.exists() {
        std::fs::remove_dir_all(&to)?;
    }
    std::fs::rename(fresh.keep(), &to)?;
    Ok((to.join("backstay"), to.join("plugins")))
}
