//! The reference in `docs/src/reference` says what the program says.
//!
//! With `BACKSTAY_UPDATE_DOCS=1` these tests write the generated parts anew instead of comparing them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::{args::Args, config::EXAMPLE};
use clap::CommandFactory;
use std::{fmt::Write as _, fs, path::PathBuf};

/// Compares what stands between `<!-- name -->` and `<!-- /name -->` with `expected`.
fn compare(file: &str, name: &str, expected: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/reference").join(file);
    let text = fs::read_to_string(&path).unwrap();
    let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let start = text.find(&open).expect("the opening mark") + open.len();
    let end = text.find(&close).expect("the closing mark");
    if text[start..end] == *expected {
        return;
    }
    if std::env::var_os("BACKSTAY_UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{}{expected}{}", &text[..start], &text[end..])).unwrap();
        return;
    }
    panic!("docs/src/reference/{file} is out of date: run BACKSTAY_UPDATE_DOCS=1 cargo test -p backstay");
}

/// A section for each command, depth first, with its help as it is printed.
fn sections(command: &mut clap::Command, name: &str, text: &mut String) {
    let help = command.clone().term_width(100).render_long_help().to_string();
    // What is global stands once, with the first command.
    let help = if name == "backstay" { help.as_str() } else { help.split("\nGlobal options:").next().unwrap() };
    let trimmed: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    write!(text, "\n## `{name}`\n\n```text\n{}\n```\n", trimmed.join("\n")).unwrap();
    let shown = command.get_subcommands_mut().filter(|below| !below.is_hide_set());
    for below in shown {
        let name = format!("{name} {}", below.get_name());
        sections(below, &name, text);
    }
}

#[test]
fn the_reference_of_the_command_line_is_its_help() {
    let mut command = Args::command();
    command.build();
    let mut text = String::new();
    sections(&mut command, "backstay", &mut text);
    text.push('\n');
    compare("cli.md", "commands", &text);
}

#[test]
fn the_reference_of_the_configuration_quotes_the_example() {
    compare("configuration.md", "example", &format!("\n```toml\n{EXAMPLE}```\n\n"));
}
