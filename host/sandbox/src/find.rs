//! Where plugins lie.

use crate::{
    error::SandboxError,
    header::{Header, read_component},
};
use std::path::{Path, PathBuf};

/// The folder packages install plugins into.
const SYSTEM_FOLDER: &str = "/usr/lib/backstay/plugins";

/// An installed plugin.
#[derive(Clone, Debug)]
pub struct Installed {
    /// The engine: the file's name without `.wasm`.
    pub engine: String,
    /// The file.
    pub path: PathBuf,
    /// What it says of itself, or why it is refused.
    pub header: Result<Header, String>,
}

/// The folders plugins are looked for in, first hit wins: those named on the command
/// line, those in `BACKSTAY_PLUGINS`, `plugins` beside the binary, the system's.
pub fn folders(named: &[PathBuf], variable: Option<&std::ffi::OsStr>, binary: Option<&Path>) -> Vec<PathBuf> {
    let mut folders = named.to_vec();
    if let Some(variable) = variable {
        folders.extend(std::env::split_paths(variable).filter(|path| !path.as_os_str().is_empty()));
    }
    folders.extend(binary.and_then(Path::parent).map(|folder| folder.join("plugins")));
    folders.push(SYSTEM_FOLDER.into());
    folders
}

/// The component file of an engine.
pub fn find(engine: &str, folders: &[PathBuf]) -> Result<PathBuf, SandboxError> {
    let file = format!("{engine}.wasm");
    folders
        .iter()
        .map(|folder| folder.join(&file))
        .find(|path| path.is_file())
        .ok_or_else(|| SandboxError::NotFound { engine: engine.to_owned(), searched: folders.to_vec() })
}

/// Every plugin in the folders; one hidden by an earlier folder is left out.
pub fn installed(folders: &[PathBuf]) -> Vec<Installed> {
    let mut found: Vec<Installed> = Vec::new();
    for folder in folders {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let Some(engine) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
            let is_component = path.extension().is_some_and(|extension| extension == "wasm") && path.is_file();
            if !is_component || found.iter().any(|plugin| plugin.engine == engine) {
                continue;
            }
            let header = read_component(&path).and_then(|bytes| Header::parse(&path, &bytes));
            found.push(Installed { engine: engine.to_owned(), header: header.map_err(|e| e.to_string()), path });
        }
    }
    found.sort_by(|a, b| a.engine.cmp(&b.engine));
    found
}
