//! `backstay window`: where a target can be restored to, and what is missing.

use crate::{catalog::Catalog, context::Context, failure::Result};
use backstay_core::{Gap, Position, Window};
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
    /// The log that is missing between its end and the next window, oldest first; for the oldest window also what is
    /// missing before it.
    gaps: Vec<&'a Gap>,
}

/// Shows the windows, oldest first.
pub(crate) fn run(args: &WindowArgs, context: &Context) -> Result<()> {
    let Catalog { records, chain, confirmed } = context.catalog(&args.target)?;
    let backups: Vec<_> = records.into_iter().map(|record| record.backup).collect();
    let windows = backstay_core::windows(&backups, &chain, confirmed.as_ref());
    let gaps = chain.gaps();
    context.output().result(&views(&windows, &gaps), page(&args.target, &windows, &gaps))
}

/// Each gap belongs to one window, so that none is told twice and none is left out.
fn views<'a>(windows: &'a [Window], gaps: &'a [Gap]) -> Vec<View<'a>> {
    // Databases number their branches upwards, so this is the order of time.
    let order = |position: &Position| (position.epoch, position.offset);
    let end = |view: &View<'_>| order(&view.window.to.position);
    let mut views: Vec<View<'_>> = windows.iter().map(|window| View { window, gaps: Vec::new() }).collect();
    for gap in gaps {
        let before = |view: &&mut View<'_>| end(view) <= order(&gap.from);
        let owner = match views.iter_mut().filter(before).max_by_key(|view| end(view)) {
            Some(owner) => Some(owner),
            None => views.iter_mut().min_by_key(|view| end(view)),
        };
        // Without a window there is nothing to restore, and `repo check` tells what the log lacks.
        if let Some(owner) = owner {
            owner.gaps.push(gap);
        }
    }
    views
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

#[cfg(test)]
mod tests {
    use super::*;
    use backstay_core::{Point, Timestamp};

    fn place(epoch: u64, offset: u64) -> Position {
        Position { epoch, offset, label: String::new() }
    }

    fn window(epoch: u64, from: u64, to: u64) -> Window {
        let point = |offset| Point { position: place(epoch, offset), time: Timestamp::EPOCH };
        Window { from: point(from), to: point(to), epoch, abandoned: false, backups: Vec::new() }
    }

    fn gap(from: u64, to: u64) -> Gap {
        Gap { from: place(1, from), to: place(1, to) }
    }

    #[test]
    fn every_gap_is_told_with_exactly_one_window() {
        let windows = [window(2, 90, 120), window(1, 20, 30), window(1, 60, 65)];
        // Before all, at an end, behind another gap, behind the end of a backup without log, before a branch.
        let gaps = [gap(5, 10), gap(30, 40), gap(45, 50), gap(66, 70), gap(80, 90)];
        let views = views(&windows, &gaps);
        let told: Vec<Vec<u64>> = views.iter().map(|v| v.gaps.iter().map(|gap| gap.from.offset).collect()).collect();
        assert_eq!(told, [vec![], vec![5, 30, 45], vec![66, 80]]);
    }
}
