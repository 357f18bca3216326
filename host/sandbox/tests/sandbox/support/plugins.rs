//! The test plugins, built like `backstay plugin build` does, then compiled and loaded.

use super::child;
use backstay_sandbox::Plugin;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

const TARGET: &str = "wasm32-unknown-unknown";

/// Components that this process has built already, by engine.
static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());

/// A loaded plugin of `tests/plugins`.
pub(crate) fn load(engine: &str) -> Plugin {
    let component = component(engine);
    let cache = folder("compiled");
    if let Some(plugin) = Plugin::load(&component, &cache).unwrap() {
        return plugin;
    }
    child::compile(&component, &cache).unwrap();
    Plugin::load(&component, &cache).unwrap().expect("what was compiled just now is kept")
}

/// The component file of a plugin of `tests/plugins`.
pub(crate) fn component(engine: &str) -> PathBuf {
    // A build that failed in another test fails here again, with its own words.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.entry(engine.to_owned()).or_insert_with(|| build(engine)).clone()
}

/// A component in text form, of `tests/plugins/foreign`.
pub(crate) fn foreign(name: &str) -> Vec<u8> {
    wat::parse_file(sources().join("foreign").join(format!("{name}.wat"))).unwrap()
}

/// A folder below cargo's own for tests, only for this user.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sandbox").join(name);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).unwrap();
    folder
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/plugins")
}

fn build(engine: &str) -> PathBuf {
    let folder = folder("components");
    // Test processes that run at the same time build one after another.
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("plugins");
    let built = toolchain()
        .args(["--release", "--lib", "--target", TARGET, "--manifest-path"])
        .arg(sources().join(engine).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_LTO", "true")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", "-C target-feature=+simd128,+bulk-memory")
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    assert!(built.status.success(), "failed to build {engine}: {}", String::from_utf8_lossy(&built.stderr));
    let module = target.join(TARGET).join("release").join(format!("backstay_{engine}.wasm"));
    let component = encode(engine, &fs::read(module).unwrap());
    let path = folder.join(format!("{engine}.wasm"));
    let beside = folder.join(format!("{engine}.new"));
    fs::write(&beside, component).unwrap();
    fs::rename(beside, &path).unwrap();
    path
}

/// Rustup's, where it has the prebuilt standard library, or Debian's, which builds it.
fn toolchain() -> Command {
    let library = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    let prebuilt = library.is_ok_and(|printed| {
        printed.status.success() && Path::new(String::from_utf8_lossy(&printed.stdout).trim()).is_dir()
    });
    if prebuilt {
        let mut cargo = Command::new("cargo");
        cargo.arg("build");
        return cargo;
    }
    let linker = (14..40)
        .rev()
        .map(|version| format!("wasm-ld-{version}"))
        .find(|name| Path::new("/usr/bin").join(name).exists())
        .expect("Debian's lld, or rustup's wasm32-unknown-unknown");
    let mut cargo = Command::new("/usr/bin/cargo");
    cargo
        .args(["build", "-Z", "build-std=std,panic_abort"])
        .env("RUSTC", "/usr/bin/rustc")
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO")
        .env_remove("RUSTDOC");
    cargo
}

fn encode(engine: &str, module: &[u8]) -> Vec<u8> {
    let component = wit_component::ComponentEncoder::default().module(module).unwrap().validate(true).encode().unwrap();
    let mut add = wasm_metadata::AddMetadata::default();
    add.name = wasm_metadata::AddMetadataField::Set(engine.to_owned());
    add.version = wasm_metadata::AddMetadataField::Set("0.1.0".parse().unwrap());
    add.to_wasm(&component).unwrap()
}
