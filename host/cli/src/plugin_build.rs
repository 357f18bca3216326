//! Builds a Rust plugin crate into a component, with whichever toolchain the machine has.
//!
//! A plugin needs the standard library for `wasm32-unknown-unknown`. Rustup can bring it
//! prebuilt; Debian's `rustc-web` packages bring its source, from which cargo builds it.

use anyhow::{Context, bail};
use serde::Deserialize;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const TARGET: &str = "wasm32-unknown-unknown";
/// Where Debian's `rust-web-src` puts the standard library's source.
const DEBIAN_SOURCE: &str = "/usr/lib/rustlib/src/rust/library";

/// What to build, and where the component goes.
#[derive(Debug)]
pub(crate) struct Build {
    /// The plugin crate's folder.
    pub(crate) crate_folder: PathBuf,
    /// The folder for `ENGINE.wasm`; nothing: the current one.
    pub(crate) out: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Built {
    /// The engine, as `[package.metadata.backstay] engine` names it, or the package without `backstay-`.
    pub(crate) engine: String,
    /// The component file.
    pub(crate) path: PathBuf,
    /// Its size.
    pub(crate) bytes: u64,
    /// Which toolchain built it, for people.
    pub(crate) toolchain: &'static str,
}

/// Builds. What cargo says goes to standard error.
pub(crate) fn build(build: &Build) -> anyhow::Result<Built> {
    let manifest = build.crate_folder.join("Cargo.toml");
    if !manifest.is_file() {
        bail!("{} is no plugin crate: there is no Cargo.toml in it", build.crate_folder.display());
    }
    let toolchain = Toolchain::find()?;
    let package = Package::read(&toolchain, &manifest)?;
    let module = compile(&toolchain, &manifest, &package)?;
    let module = std::fs::read(&module).with_context(|| format!("failed to read {}", module.display()))?;
    let component = encode(&module, &package)?;
    let folder = build.out.clone().unwrap_or_else(|| PathBuf::from("."));
    std::fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let engine = package.engine();
    let path = folder.join(format!("{engine}.wasm"));
    let beside = folder.join(format!(".{engine}.wasm.new"));
    std::fs::write(&beside, &component).with_context(|| format!("failed to write {}", beside.display()))?;
    std::fs::rename(&beside, &path).with_context(|| format!("failed to write {}", path.display()))?;
    Ok(Built { engine, path, bytes: component.len() as u64, toolchain: toolchain.name })
}

/// A cargo that can build for wasm.
struct Toolchain {
    name: &'static str,
    cargo: PathBuf,
    arguments: &'static [&'static str],
    environment: Vec<(&'static str, String)>,
}

impl Toolchain {
    fn find() -> anyhow::Result<Self> {
        if has_prebuilt_std() {
            return Ok(Self {
                name: "rustup's wasm32-unknown-unknown",
                cargo: "cargo".into(),
                arguments: &[],
                environment: Vec::new(),
            });
        }
        let debian = [Path::new("/usr/bin/cargo"), Path::new("/usr/bin/rustc"), Path::new(DEBIAN_SOURCE)];
        if let (true, Some(linker)) = (debian.iter().all(|path| path.exists()), debian_linker()) {
            return Ok(Self {
                name: "Debian's rustc-web with the standard library built from source",
                cargo: "/usr/bin/cargo".into(),
                arguments: &["-Z", "build-std=std,panic_abort"],
                environment: vec![
                    ("RUSTC", "/usr/bin/rustc".to_owned()),
                    // Building std is an unstable flag of a stable compiler.
                    ("RUSTC_BOOTSTRAP", "1".to_owned()),
                    ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker),
                ],
            });
        }
        bail!(
            "failed to find a toolchain for {TARGET}: run `rustup target add {TARGET}`, \
             or on Debian `apt-get install rustc-web cargo-web rust-web-src lld-22`"
        )
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.cargo);
        command.arg(verb).envs(self.environment.iter().map(|(name, value)| (name, value)));
        // A wrapper that chose another toolchain for this process must not choose for that one.
        if !self.environment.is_empty() {
            command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTDOC");
        }
        command
    }
}

fn has_prebuilt_std() -> bool {
    let printed = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    let Ok(printed) = printed else { return false };
    Path::new(String::from_utf8_lossy(&printed.stdout).trim()).is_dir() && printed.status.success()
}

/// Debian's lld carries its version in its name; the newest is taken.
fn debian_linker() -> Option<String> {
    (14..40).rev().map(|version| format!("wasm-ld-{version}")).find(|name| Path::new("/usr/bin").join(name).exists())
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
    metadata: Option<serde_json::Value>,
    #[serde(skip)]
    target_directory: PathBuf,
}

impl Package {
    fn read(toolchain: &Toolchain, manifest: &Path) -> anyhow::Result<Self> {
        let printed = toolchain
            .command("metadata")
            .args(["--format-version", "1", "--no-deps", "--manifest-path"])
            .arg(manifest)
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("failed to run {}", toolchain.cargo.display()))?;
        if !printed.status.success() {
            bail!("failed to read {}: see cargo's words above", manifest.display());
        }
        let metadata: Metadata = serde_json::from_slice(&printed.stdout).context("failed to read cargo's metadata")?;
        let wanted = manifest.canonicalize()?;
        let package = metadata.packages.into_iter().find(|package| package.manifest_path == wanted);
        let mut package = package.with_context(|| format!("{} is no package", manifest.display()))?;
        package.target_directory = metadata.target_directory.join("plugins");
        Ok(package)
    }

    fn engine(&self) -> String {
        let named = self.metadata.as_ref().and_then(|m| m.get("backstay")?.get("engine")?.as_str());
        named.unwrap_or_else(|| self.name.strip_prefix("backstay-").unwrap_or(&self.name)).to_owned()
    }
}

#[derive(Deserialize)]
struct CargoMessage {
    reason: String,
    package_id: Option<String>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

fn compile(toolchain: &Toolchain, manifest: &Path, package: &Package) -> anyhow::Result<PathBuf> {
    let printed = toolchain
        .command("build")
        .args(["--release", "--lib", "--target", TARGET, "--message-format", "json-render-diagnostics"])
        .args(toolchain.arguments)
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(&package.target_directory)
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_LTO", "true")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")
        // Page checksums and the like run four times as fast.
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", "-C target-feature=+simd128,+bulk-memory")
        .env_remove("RUSTFLAGS")
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("failed to run {}", toolchain.cargo.display()))?;
    if !printed.status.success() {
        bail!("failed to build {}: see cargo's words above", package.name);
    }
    let is_ours = |id: &str| {
        id.contains(&format!("/{}#", package.name))
            || id.contains(&format!("#{}@", package.name))
            || id.contains(&folder_mark(manifest))
    };
    printed
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<CargoMessage>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .filter(|message| message.package_id.as_deref().is_some_and(is_ours))
        .flat_map(|message| message.filenames)
        .rfind(|file| file.extension().is_some_and(|extension| extension == "wasm"))
        .with_context(|| format!("{} made no .wasm: its Cargo.toml needs `crate-type = [\"cdylib\"]`", package.name))
}

/// What a package id holds when the folder is not named like the package.
fn folder_mark(manifest: &Path) -> String {
    let folder = manifest.canonicalize().ok().and_then(|path| path.parent().map(Path::to_owned)).unwrap_or_default();
    format!("{}#", folder.display())
}

fn encode(module: &[u8], package: &Package) -> anyhow::Result<Vec<u8>> {
    let component = wit_component::ComponentEncoder::default()
        .module(module)
        .and_then(|encoder| encoder.validate(true).encode())
        .map_err(|error| anyhow::anyhow!("failed to make a component of {}: {error:#}", package.name))?;
    let mut add = wasm_metadata::AddMetadata::default();
    add.name = wasm_metadata::AddMetadataField::Set(package.engine());
    add.version = wasm_metadata::AddMetadataField::Set(
        package.version.parse().map_err(|error| anyhow::anyhow!("failed to note the version: {error:#}"))?,
    );
    add.to_wasm(&component).map_err(|error| anyhow::anyhow!("failed to note name and version: {error:#}"))
}
