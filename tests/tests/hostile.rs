//! Plugins that do what no plugin may: each job ends with one clear line, and the repository stays sound.

use anyhow::{Result, ensure};
use backstay_tests::{
    account,
    backstay::{Backstay, TARGET},
    install::{build_plugin, install, workspace},
    scratch::Scratch,
};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// A behaviour of `tests/plugins/hostile`, the command in which it shows, the exit code, words of the message.
const ROWS: &[(&str, &str, i32, &[&str])] = &[
    ("loop", "backup", 1, &["hostile", "computed for 5 seconds"]),
    ("loop", "inspect", 1, &["hostile", "computed for 5 seconds"]),
    ("allocate", "backup", 1, &["hostile", "memory"]),
    ("panic", "backup", 1, &["hostile"]),
    ("unreachable", "archive", 1, &["hostile"]),
    ("stack", "backup", 1, &["hostile", "memory"]),
    ("stack-deep", "backup", 1, &["hostile", "stack"]),
    ("unidentified-file", "backup", 1, &["before it said of which database"]),
    ("unidentified-swallowed", "backup", 1, &["hostile"]),
    ("path", "backup", 1, &["`../x`", "not allowed"]),
    ("lie-end-before-start", "backup", 1, &["hostile"]),
    ("lie-log-after-end", "backup", 1, &["hostile"]),
    ("lie-log-other-epoch", "backup", 1, &["hostile"]),
    ("lie-main", "backup", 1, &["hostile"]),
    ("lie-volume", "backup", 1, &["hostile"]),
    ("gap", "archive", 4, &["log is missing"]),
    ("short", "archive", 1, &["fewer bytes"]),
    ("long", "archive", 1, &["more bytes"]),
    ("backwards", "archive", 1, &["not valid", "before its start"]),
    ("vast", "archive", 1, &["not valid", "64 mib"]),
    ("log-unidentified", "archive", 1, &["before it said of which database"]),
];

/// A folder with the built plugin.
fn plugins() -> Result<Scratch> {
    let plugins = Scratch::new()?;
    // Built where the toolchain may write, then handed to the ordinary user.
    let built = tempfile::tempdir()?;
    build_plugin(&install()?.program, &workspace().join("tests/plugins/hostile"), built.path())?;
    std::fs::copy(built.path().join("hostile.wasm"), plugins.join("hostile.wasm"))?;
    account::give(&plugins.join("hostile.wasm"))?;
    Ok(plugins)
}

fn scene(plugins: &Scratch, behaviour: &str) -> Result<Backstay> {
    let mut backstay = Backstay::in_folder("127.0.0.1:1")?;
    backstay.use_plugins(plugins.path());
    backstay.reconfigure(|config| {
        config.engine = "hostile".into();
        config.grants.clear();
        // Half a minute is what an operator gives an honest plugin; the liar here is caught as well in less.
        config.limits = vec!["stall-seconds = 5".into()];
    })?;
    behave(&mut backstay, behaviour, "")?;
    Ok(backstay)
}

fn behave(backstay: &mut Backstay, how: &str, more: &str) -> Result<()> {
    backstay.reconfigure(|config| config.settings = format!("behaviour = \"{how}\"{more}"))
}

fn count(list: &serde_json::Value) -> Option<usize> {
    list.as_array().map(Vec::len)
}

#[test]
fn a_plugin_that_misbehaves_loses_its_job_and_nothing_else() -> Result<()> {
    let plugins = plugins()?;
    let mut backups = scene(&plugins, "honest")?;
    let honest = backups.backup()?;
    let mut failures = Vec::new();
    for (how, command, code, words) in ROWS {
        // A chain starts anew for every liar.
        let fresh = if *command == "archive" { Some(scene(&plugins, how)?) } else { None };
        behave(&mut backups, how, "")?;
        let backstay = fresh.as_ref().unwrap_or(&backups);
        let start = Instant::now();
        let outcome = backstay.spawn(&[*command, TARGET, "--json"])?.wait(Duration::from_secs(120))?;
        eprintln!("{how} in {command}, {:.1} s: {}", start.elapsed().as_secs_f64(), outcome.stderr.trim_end());
        if let Err(error) = outcome.must_fail(*code, words) {
            failures.push(format!("{how} in {command}: {error:#}"));
        }
        if let Some(fresh) = fresh {
            fresh.ok(&["repo", "check", "main", "--read-data"])?;
            fresh.finish()?;
        }
    }

    // Claims success in spite of a refused piece: whatever the exit code, the gap is not in the chain.
    let liar = scene(&plugins, "gap-swallowed")?;
    liar.run(&["archive", TARGET])?;
    liar.ok(&["repo", "check", "main", "--read-data"])?;
    liar.finish()?;

    // A restore that leaves its folder.
    let scratch = Scratch::new()?;
    let into = scratch.join("data");
    behave(&mut backups, "create", ", path = \"../outside\"")?;
    let outcome = backups.run(&["restore", TARGET, "--to", "backup-end", "--into", &into.display().to_string()])?;
    if outcome.code == 0 || scratch.join("outside").exists() {
        failures.push(format!("a plugin wrote outside its folder: {}", outcome.stderr));
    }

    // None of the failed jobs left a backup.
    behave(&mut backups, "honest", "")?;
    let list = backups.ok(&["backups", TARGET])?;
    ensure!(count(&list) == Some(1), "only the honest backup counts: {list}");
    ensure!(list[0]["id"] == honest.id.as_str(), "{list}");
    ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
    backups.finish()
}

/// A component that imports `wasi:cli/environment` beside the contract, written by hand.
fn greedy() -> Vec<u8> {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    // One type: an instance without exports.
    section(&mut bytes, 7, &[1, 0x42, 0]);
    let mut imports = vec![2];
    for name in ["backstay:engine/types@0.1.0", "wasi:cli/environment@0.2.0"] {
        imports.push(0);
        imports.push(u8::try_from(name.len()).expect("names are short"));
        imports.extend_from_slice(name.as_bytes());
        imports.extend([5, 0]);
    }
    section(&mut bytes, 10, &imports);
    bytes
}

fn section(bytes: &mut Vec<u8>, id: u8, content: &[u8]) {
    bytes.push(id);
    bytes.push(u8::try_from(content.len()).expect("sections are short"));
    bytes.extend_from_slice(content);
}

fn with_plugin(name: &str, bytes: &[u8]) -> Result<(Backstay, Scratch)> {
    let mut backstay = Backstay::in_folder("127.0.0.1:1")?;
    let plugins = Scratch::new()?;
    let path = plugins.join(format!("{name}.wasm"));
    std::fs::write(&path, bytes)?;
    account::give(Path::new(&path))?;
    backstay.use_plugins(plugins.path());
    backstay.reconfigure(|config| {
        config.engine = name.into();
        config.settings.clear();
        config.grants.clear();
    })?;
    Ok((backstay, plugins))
}

#[test]
fn a_plugin_that_imports_more_than_the_contract_is_refused_with_the_list() -> Result<()> {
    let (backstay, _plugins) = with_plugin("greedy", &greedy())?;
    for command in ["inspect", "backup"] {
        backstay.fails(&[command, TARGET], 2, &["wasi:cli/environment@0.2.0", "contract"])?;
    }
    backstay.fails(&["plugin", "show", "greedy"], 2, &["wasi:cli/environment@0.2.0"])?;
    backstay.finish()
}

#[test]
fn a_file_that_is_no_component_is_refused() -> Result<()> {
    for (name, bytes) in [("text", &b"#!/bin/sh\necho hello\n"[..]), ("module", b"\0asm\x01\0\0\0"), ("empty", b"")] {
        let (backstay, _plugins) = with_plugin(name, bytes)?;
        backstay.fails(&["backup", TARGET], 2, &["plugin"])?;
        backstay.finish()?;
    }
    Ok(())
}
