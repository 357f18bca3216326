//! `backstay plugin`: what is installed, what it wants, and building one.

use crate::{
    config,
    context::Context,
    failure::{Failure, Result},
    job::table,
    output::{self, Fields, Table},
    plugin_build::{self, Build},
};
use backstay_pipeline::FailureKind;
use backstay_sandbox::{Description, Installed};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What to do with plugins.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum PluginCommand {
    /// List the plugins in every folder, the first of a name wins
    List,
    /// One plugin: its contract version, imports, methods, settings, and the grants it asks for
    Show(ShowArgs),
    /// Build a Rust plugin crate into a component with whichever toolchain this machine has
    Build(BuildArgs),
}

/// Arguments of `backstay plugin show`.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// The engine's name
    name: String,
}

/// Arguments of `backstay plugin build`.
#[derive(Debug, clap::Args)]
pub(crate) struct BuildArgs {
    /// The plugin's crate: the folder with its Cargo.toml
    dir: PathBuf,
    /// The folder for the component, ENGINE.wasm; else the current one
    #[arg(long, short, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// A plugin in a list, as `--json` shows it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Listed<'a> {
    name: &'a str,
    path: &'a Path,
    version: Option<&'a str>,
    contract: Option<&'a str>,
    imports: &'a [String],
    /// Why it is not used.
    refused: Option<&'a str>,
}

impl<'a> From<&'a Installed> for Listed<'a> {
    fn from(plugin: &'a Installed) -> Self {
        let header = plugin.header.as_ref().ok();
        Self {
            name: &plugin.engine,
            path: &plugin.path,
            version: header.and_then(|header| header.version.as_deref()),
            contract: header.map(|header| header.contract.as_str()),
            imports: header.map_or(&[], |header| &header.imports),
            refused: plugin.header.as_ref().err().map(String::as_str),
        }
    }
}

/// One plugin with all it says, as `--json` shows it.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    listed: Listed<'a>,
    description: &'a Description,
}

/// Lists, shows or builds.
pub(crate) fn run(command: &PluginCommand, context: &Context) -> Result<()> {
    match command {
        PluginCommand::List => list(context),
        PluginCommand::Show(args) => show(args, context),
        PluginCommand::Build(args) => build(args, context),
    }
}

fn list(context: &Context) -> Result<()> {
    let folders = context.plugin_folders();
    let installed = backstay_sandbox::installed(&folders);
    let views: Vec<Listed<'_>> = installed.iter().map(Listed::from).collect();
    let mut table = Table::new(&["name", "version", "contract", "path", "note"]);
    for view in &views {
        table.row([
            view.name.to_owned(),
            view.version.unwrap_or("-").to_owned(),
            view.contract.unwrap_or("-").to_owned(),
            view.path.display().to_string(),
            view.refused.unwrap_or_default().to_owned(),
        ]);
    }
    let text = if table.is_empty() {
        let looked_in: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        format!("no plugin in {}", looked_in.join(", "))
    } else {
        table.to_string()
    };
    context.output().result(&views, text)
}

fn show(args: &ShowArgs, context: &Context) -> Result<()> {
    let installed = backstay_sandbox::installed(&context.plugin_folders());
    let Some(plugin) = installed.iter().find(|plugin| plugin.engine == args.name) else {
        let known = installed.iter().map(|plugin| plugin.engine.as_str());
        let advice = config::advice(&args.name, known);
        return Err(Failure::usage(format!("failed to find a plugin for engine `{}`{advice}", args.name))
            .hint("`backstay plugin list` lists them, --plugin-dir adds a folder to look in"));
    };
    if let Err(reason) = &plugin.header {
        return Err(Failure::usage(reason.as_str()).hint("it cannot be run; ask its author"));
    }
    let description = context.describe(&plugin.path)?;
    let listed = Listed::from(plugin);
    let text = page(&listed, &description);
    context.output().result(&Shown { listed, description: &description }, text)
}

/// Everything a person wants to know before granting anything.
fn page(listed: &Listed<'_>, description: &Description) -> String {
    let log = if description.has_log { "yes: `backstay archive` follows it" } else { "no" };
    let mut fields = vec![
        ("name", description.name.clone()),
        ("version", description.version.clone()),
        ("summary", description.summary.clone()),
        ("file", listed.path.display().to_string()),
        ("contract", listed.contract.unwrap_or("-").to_owned()),
        ("log", log.to_owned()),
    ];
    fields.extend(listed.imports.iter().map(|import| ("imports", import.clone())));
    let mut methods = Table::new(&["method", "what it does", "grants beyond the required"]);
    for method in &description.methods {
        methods.row([method.name.clone(), method.summary.clone(), method.grants.join(", ")]);
    }
    let mut grants = Table::new(&["grant", "needed", "what for"]);
    for grant in &description.grants {
        let kind = table(grant.kind);
        let needed = if grant.required { "always" } else { "by some" };
        grants.row([format!("{kind}.{}", grant.name), needed.to_owned(), grant.purpose.clone()]);
    }
    format!("{}\n{methods}\n{grants}\n{}", Fields(fields), settings(&description.config_schema))
}

/// The settings a JSON Schema names, one a line.
fn settings(schema: &serde_json::Value) -> Table {
    let mut table = Table::new(&["setting", "values", "default", "what it is"]);
    let text = |value: Option<&serde_json::Value>| match value {
        None => String::new(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    for (name, about) in schema.get("properties").and_then(|properties| properties.as_object()).into_iter().flatten() {
        let values = match about.get("enum").and_then(|values| values.as_array()) {
            Some(values) => values.iter().map(|value| text(Some(value))).collect::<Vec<_>>().join(" "),
            None => text(about.get("type")),
        };
        table.row([name.clone(), values, text(about.get("default")), text(about.get("description"))]);
    }
    table
}

fn build(args: &BuildArgs, context: &Context) -> Result<()> {
    let wanted = Build { crate_folder: args.dir.clone(), out: args.out.clone() };
    let built = plugin_build::build(&wanted).map_err(|error| {
        Failure::new(FailureKind::Failed, format!("failed to build {}: {error:#}", args.dir.display()))
    })?;
    let result = serde_json::json!({
        "engine": built.engine,
        "path": built.path,
        "bytes": built.bytes,
        "toolchain": built.toolchain,
    });
    let size = output::size(built.bytes);
    let text = format!("{}: {size}, built with {}, at {}", built.engine, built.toolchain, built.path.display());
    context.output().result(&result, text)
}
