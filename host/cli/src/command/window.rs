//! `backstay window`: where a target can be restored to, and what is missing.

use crate::{catalog::Catalog, context::Context, failure::Result};
use backstay_core::{Gap, Window};
use serde::Serialize;
use std::fmt::Write as _;

/// Arguments of `backstay window`.
#[derive(Debug, clap::Args)]
pub(crate) struct WindowArgs {
    /// A target of the configuration
    target: String,
}

/// A window as `--json` shows it.
#[derive(Serialize)]
struct View<'a> {
    #[serde(flatten)]
    window: &'a Window,
    /// The missing log that ends it, where there is log behind it.
    gap: Option<&'a Gap>,
}

/// Shows the windows, oldest first.
pub(crate) fn run(args: &WindowArgs, context: &Context) -> Result<()> {
    let Catalog { records, chain, confirmed } = context.catalog(&args.target)?;
    let backups: Vec<_> = records.into_iter().map(|record| record.backup).collect();
    let windows = backstay_core::windows(&backups, &chain, confirmed.as_ref());
    let gaps = chain.gaps();
    let views: Vec<View<'_>> = windows
        .iter()
        .map(|window| View { window, gap: gaps.iter().find(|gap| gap.from == window.to.position) })
        .collect();
    context.output().result(&views, page(&args.target, &windows, &gaps))
}

fn page(target: &str, windows: &[Window], gaps: &[Gap]) -> String {
    let mut text = String::new();
    if windows.is_empty() {
        // Writing into a text cannot fail, here and below.
        let _ = writeln!(text, "{target} can be restored to nothing yet: there is no backup");
    }
    for window in windows {
        let (from, to) = (&window.from.position.label, &window.to.position.label);
        let backups = match window.backups.len() {
            1 => "1 backup".to_owned(),
            many => format!("{many} backups"),
        };
        let _ = writeln!(text, "{window}, {from} to {to}, {backups}");
    }
    for gap in gaps {
        let _ = writeln!(text, "gap: {gap}");
    }
    text
}
