//! What a component file says of itself, read before anything is compiled.

use crate::{
    error::SandboxError,
    limits::{COMPONENT_BYTES_MAX, MEMORIES_MAX, TABLES_MAX},
};
use std::{collections::BTreeSet, io::Read, path::Path};
use wasmparser::{ComponentName, ComponentNameSectionReader, Encoding, KnownCustom, Parser, Payload};

/// The package every import must come from, its interfaces, and the versions this host speaks.
const CONTRACT: &str = "backstay:engine/";
const CONTRACT_INTERFACES: &[&str] = &["types", "grants", "backup-set", "log-archive", "restore-set"];
const CONTRACT_VERSIONS: &[&str] = &["0.1.0"];

/// What a component file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The component's name, where it carries one.
    pub name: Option<String>,
    /// The component's version, where it carries one.
    pub version: Option<String>,
    /// Everything it imports, sorted.
    pub imports: Vec<String>,
    /// The contract's version, from its imports and exports.
    pub contract: String,
}

/// Reads a component file of a bounded size.
pub(crate) fn read_component(path: &Path) -> Result<Vec<u8>, SandboxError> {
    let not = |reason: String| SandboxError::NotAPlugin { path: path.to_owned(), reason };
    let file = std::fs::File::open(path).map_err(|error| not(crate::connection::plain_words(&error)))?;
    let mut bytes = Vec::new();
    file.take(COMPONENT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| not(error.to_string()))?;
    if bytes.len() as u64 > COMPONENT_BYTES_MAX {
        return Err(not(format!("it is larger than {} MiB", COMPONENT_BYTES_MAX >> 20)));
    }
    Ok(bytes)
}

impl Header {
    /// Reads the header of a component and refuses what wants more than the contract.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, SandboxError> {
        let not = |reason: String| SandboxError::NotAPlugin { path: path.to_owned(), reason };
        let mut imports = BTreeSet::new();
        let mut exports = BTreeSet::new();
        let (mut name, mut version) = (None, None);
        let mut depth = 0_u32;
        let mut is_component = false;
        let (mut memories, mut tables) = (0_usize, 0_usize);
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(|error| not(format!("it is no WebAssembly: {}", error.message())))? {
                Payload::Version { encoding, .. } => {
                    if depth == 0 {
                        is_component = encoding == Encoding::Component;
                    }
                    depth += 1;
                }
                Payload::End(_) => depth -= 1,
                // Of all modules inside. One that is instantiated twice is caught when it is loaded.
                Payload::MemorySection(section) => memories = memories.saturating_add(section.count() as usize),
                Payload::TableSection(section) => tables = tables.saturating_add(section.count() as usize),
                Payload::ComponentImportSection(section) if depth == 1 => {
                    for import in section {
                        let import = import.map_err(|error| not(error.message().to_owned()))?;
                        imports.insert(import.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    for export in section {
                        let export = export.map_err(|error| not(error.message().to_owned()))?;
                        exports.insert(export.name.name.to_owned());
                    }
                }
                Payload::CustomSection(section) if depth == 1 => match section.as_known() {
                    KnownCustom::ComponentName(names) => name = name.or_else(|| component_name(names)),
                    _ if section.name() == "version" => {
                        version = std::str::from_utf8(section.data()).ok().map(short);
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        if !is_component {
            return Err(not("it is a core module, not a component: build it with `backstay plugin build`".to_owned()));
        }
        if memories > MEMORIES_MAX || tables > TABLES_MAX {
            return Err(not(format!(
                "it wants {memories} memories and {tables} tables, a plugin may have {MEMORIES_MAX} and {TABLES_MAX}"
            )));
        }
        let foreign: Vec<String> =
            imports.iter().filter(|import| !is_contract(import)).map(|import| short(import)).collect();
        if !foreign.is_empty() {
            return Err(SandboxError::ForeignImports { path: path.to_owned(), imports: foreign });
        }
        let versions: BTreeSet<&str> = imports
            .iter()
            .chain(&exports)
            .filter_map(|item| item.strip_prefix(CONTRACT)?.split_once('@'))
            .map(|(_, version)| version)
            .collect();
        for version in &versions {
            if !CONTRACT_VERSIONS.contains(version) {
                return Err(SandboxError::ContractVersion { path: path.to_owned(), version: short(version) });
            }
        }
        let Some(contract) = versions.first() else {
            return Err(not(format!("it exports no `{CONTRACT}engine`")));
        };
        if !exports.iter().any(|export| export.starts_with("backstay:engine/engine@")) {
            return Err(not(format!("it exports no `{CONTRACT}engine`")));
        }
        Ok(Self { name, version, contract: (*contract).to_owned(), imports: imports.into_iter().collect() })
    }
}

/// Whether an import is an interface of the contract, of whatever version.
fn is_contract(import: &str) -> bool {
    let interface = import.strip_prefix(CONTRACT).and_then(|item| item.split_once('@'));
    interface.is_some_and(|(interface, _version)| CONTRACT_INTERFACES.contains(&interface))
}

fn component_name(names: ComponentNameSectionReader<'_>) -> Option<String> {
    names.into_iter().find_map(|name| match name {
        Ok(ComponentName::Component { name, .. }) => Some(short(name)),
        _ => None,
    })
}

fn short(text: &str) -> String {
    crate::log_gate::printable(text, 128)
}
