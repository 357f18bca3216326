//! `backstay init`: a configuration to start from.

use crate::{
    config::{EXAMPLE, FILE_NAME},
    context::Context,
    failure::{Failure, Result},
};
use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::PathBuf,
};

/// Arguments of `backstay init`.
#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// The file to write; else the one of --config, else ./backstay.toml
    path: Option<PathBuf>,
}

/// Writes the example; a file that is there stays as it is.
pub(crate) fn run(args: &InitArgs, context: &Context) -> Result<()> {
    let file = args.path.clone().or_else(|| context.config_named().map(PathBuf::from));
    let mut file = file.unwrap_or_else(|| PathBuf::from(FILE_NAME));
    if file.is_dir() {
        file.push(FILE_NAME);
    }
    let written = OpenOptions::new().write(true).create_new(true).open(&file).and_then(|mut open| {
        open.write_all(EXAMPLE.as_bytes())?;
        open.sync_all()
    });
    written.map_err(|error| {
        let failure = Failure::usage(format!("failed to write {}: {error}", file.display()));
        if error.kind() == io::ErrorKind::AlreadyExists {
            failure.hint("it is kept as it is; name another file, or move it away first")
        } else {
            failure
        }
    })?;
    let result = serde_json::json!({ "file": file });
    let text =
        format!("wrote {}\nnext: edit it, put passwords where it says, then `backstay repo init main`", file.display());
    context.output().result(&result, text)
}
