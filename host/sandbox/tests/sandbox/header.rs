//! What a component file says of itself decides whether it is a plugin at all.

use crate::support::plugins;
use backstay_sandbox::{Header, SandboxError, find, installed};
use std::{fs, path::Path};

fn refusal(bytes: &[u8]) -> SandboxError {
    Header::parse(Path::new("some.wasm"), bytes).unwrap_err()
}

#[test]
fn a_plugin_built_with_the_sdk_imports_the_contract_alone() {
    for engine in ["files", "hostile", "raw"] {
        let path = plugins::component(engine);
        let header = Header::parse(&path, &fs::read(&path).unwrap()).unwrap();
        assert_eq!(header.name.as_deref(), Some(engine));
        assert_eq!(header.version.as_deref(), Some("0.1.0"));
        assert_eq!(header.contract, "0.1.0");
        assert!(header.imports.iter().all(|import| import.starts_with("backstay:engine/")), "{:?}", header.imports);
    }
}

#[test]
fn foreign_imports_are_listed() {
    let SandboxError::ForeignImports { imports, .. } = refusal(&plugins::foreign("shell")) else {
        panic!("not refused for its imports")
    };
    assert_eq!(imports, ["evil:host/shell", "wasi:cli/environment@0.2.0"]);
}

#[test]
fn an_interface_that_only_looks_like_the_contract_is_foreign() {
    let SandboxError::ForeignImports { imports, .. } = refusal(&plugins::foreign("secrets")) else {
        panic!("not refused for its imports")
    };
    assert_eq!(imports, ["backstay:engine/secrets@0.1.0"]);
}

#[test]
fn a_version_of_the_contract_that_does_not_exist_yet_is_named() {
    let SandboxError::ContractVersion { version, .. } = refusal(&plugins::foreign("tomorrow")) else {
        panic!("not refused for its version")
    };
    assert_eq!(version, "9.0.0");
}

#[test]
fn files_that_are_no_components_are_told_apart() {
    let core_module = wat::parse_str("(module)").unwrap();
    let nothing = wat::parse_str("(component)").unwrap();
    let cases: [(&[u8], &str); 5] = [
        (&core_module, "core module"),
        (&nothing, "exports no `backstay:engine/engine`"),
        (b"", "no WebAssembly"),
        (b"\x7fELF\x02\x01\x01", "no WebAssembly"),
        (&nothing[..6], "no WebAssembly"),
    ];
    for (bytes, words) in cases {
        let error = refusal(bytes).to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_cut_or_changed_component_never_brings_the_host_down() {
    let whole = fs::read(plugins::component("files")).unwrap();
    // Every length up to a kilobyte, then steps of a prime.
    for length in (0..1024.min(whole.len())).chain((1024..whole.len()).step_by(997)) {
        let _ = Header::parse(Path::new("cut.wasm"), &whole[..length]);
    }
    for place in (0..whole.len()).step_by(503) {
        let mut changed = whole.clone();
        changed[place] ^= 0xff;
        let _ = Header::parse(Path::new("changed.wasm"), &changed);
    }
}

#[test]
fn a_file_larger_than_any_plugin_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.wasm");
    fs::File::create(&path).unwrap().set_len(65 << 20).unwrap();
    let refused = backstay_sandbox::Plugin::load(&path, folder.path()).map(|_| ());
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("larger than 64 MiB"), "{error}");
}

#[test]
fn the_first_folder_wins_and_refused_plugins_are_listed_with_their_reason() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folders = [first.path().to_owned(), second.path().to_owned()];
    let component = plugins::component("files");
    fs::copy(&component, first.path().join("files.wasm")).unwrap();
    fs::copy(&component, second.path().join("files.wasm")).unwrap();
    fs::write(second.path().join("shell.wasm"), plugins::foreign("shell")).unwrap();
    fs::write(second.path().join("README"), "no plugin").unwrap();

    assert_eq!(find("files", &folders).unwrap(), first.path().join("files.wasm"));
    let missing = find("nothing", &folders).unwrap_err().to_string();
    assert!(missing.contains(first.path().to_str().unwrap()), "{missing}");

    let found = installed(&folders);
    let engines: Vec<_> = found.iter().map(|plugin| plugin.engine.as_str()).collect();
    assert_eq!(engines, ["files", "shell"]);
    assert!(found[0].header.is_ok());
    assert!(found[1].header.as_ref().unwrap_err().contains("evil:host/shell"));
}

#[test]
fn more_memories_or_tables_than_a_plugin_may_have_are_refused_before_anything_is_compiled() {
    let memories = "(core module (memory 1))".repeat(3) + "(component (core module (memory 1) (memory 1)))";
    let tables = format!("(core module {})", "(table 1 funcref)".repeat(33));
    for (parts, words) in
        [(memories, "it wants 5 memories and 0 tables"), (tables, "it wants 0 memories and 33 tables")]
    {
        let bytes = wat::parse_str(format!("(component {parts})")).unwrap();
        let error = refusal(&bytes);
        assert!(matches!(error, SandboxError::NotAPlugin { .. }));
        assert!(error.to_string().contains(words), "{error}");
    }
    let few = wat::parse_str("(component (core module (memory 1) (table 1 funcref)))").unwrap();
    assert!(refusal(&few).to_string().contains("exports no"));
}
