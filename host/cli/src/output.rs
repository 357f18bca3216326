//! What a command says: its result on standard output, everything else on standard error.

use crate::{
    failure::{Failure, Result},
    limits::REPORT_LINES_MAX,
};
use backstay_core::Timestamp;
use backstay_pipeline::FailureKind;
use serde::Serialize;
use std::{
    fmt,
    io::{self, Write},
};

/// How results are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// One JSON value, and nothing else, on standard output.
    pub(crate) json: bool,
}

impl Output {
    /// Writes a result: `value` as JSON with `--json`, `text` otherwise. Called once in a run.
    pub(crate) fn result(&self, value: &impl Serialize, text: impl fmt::Display) -> Result<()> {
        if self.json { self.value(value) } else { self.lines(&text.to_string()) }
    }

    /// With `--json`, the failure as the run's one JSON value.
    pub(crate) fn failure(&self, value: &serde_json::Value) {
        if self.json {
            // The exit code tells of the failure even when standard output is gone.
            let _ = self.value(value);
        }
    }

    /// A line for people on standard error.
    pub(crate) fn complain(&self, line: &str) {
        // Standard error may be closed; the exit code remains.
        let _ = writeln!(io::stderr().lock(), "{line}");
    }

    /// Text for people, as it is, with a newline at its end. Only without `--json`.
    pub(crate) fn lines(&self, text: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        finish(write!(out, "{text}{newline}").and_then(|()| out.flush()))
    }

    /// Bytes, as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<()> {
        let mut out = io::stdout().lock();
        finish(out.write_all(bytes).and_then(|()| out.flush()))
    }

    fn value(&self, value: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_string_pretty(value).map_err(|error| {
            Failure::new(FailureKind::Failed, format!("failed to write the result as JSON: {error}"))
        })?;
        text.push('\n');
        let mut out = io::stdout().lock();
        finish(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
    }
}

/// A reader that went away (`| head -1`) has what it wanted.
fn finish(written: io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(FailureKind::Failed, format!("failed to write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Rows under headings, as wide as they need to be.
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns. A heading that starts with `>` sets its column to the right.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with a cell for each heading.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether there is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let right: Vec<bool> = self.headings.iter().map(|heading| heading.starts_with('>')).collect();
        let head: Vec<String> = self.headings.iter().map(|h| h.trim_start_matches('>').to_owned()).collect();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.chain(head.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(&widths).zip(&right) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                line.push_str(&if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") });
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Names with values below each other, `name  value`.
pub(crate) struct Fields(pub(crate) Vec<(&'static str, String)>);

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, value) in &self.0 {
            writeln!(f, "{name:<width$}  {value}")?;
        }
        Ok(())
    }
}

/// Cuts a report for people to what they read; `unlisted` more were not told of at all.
pub(crate) fn shorten(lines: &mut Vec<String>, unlisted: u64) {
    let more = lines.len().saturating_sub(REPORT_LINES_MAX) as u64 + unlisted;
    lines.truncate(REPORT_LINES_MAX);
    if more > 0 {
        lines.push(format!("... and {more} more"));
    }
}

/// Bytes in IEC units with three digits: `1.50 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    backstay_core::Size(bytes).to_string()
}

/// Reads `1073741824`, `500 MiB`, `10G`: units are powers of 1024, as [`size`] writes them.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let power = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(0),
        "k" | "kib" => Some(1),
        "m" | "mib" => Some(2),
        "g" | "gib" => Some(3),
        "t" | "tib" => Some(4),
        _ => None,
    };
    let bytes =
        number.parse::<u64>().ok().zip(power).and_then(|(number, power)| number.checked_mul(1024u64.pow(power)));
    bytes.ok_or_else(|| "write a size like 500 MiB or 10 GiB".to_owned())
}

/// A stretch of time: `0.8 s`, `12 s`, `3 min 20 s`, `2 h 5 min`.
pub(crate) fn duration(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// A time to the second: lists are for looking, `--json` has the rest.
pub(crate) fn seconds(time: Timestamp) -> String {
    Timestamp::from_micros(time.as_micros() / 1_000_000 * 1_000_000).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for (text, bytes) in [("0", 0), ("7", 7), ("500 MiB", 500 << 20), ("10G", 10 << 30), ("1kib", 1024)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "MiB", "1.5 GiB", "-1", "1 MB", "99999999999 TiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_for_people() {
        assert_eq!(duration(Duration::from_millis(840)), "0.8 s");
        assert_eq!(duration(Duration::from_secs(200)), "3 min 20 s");
        assert_eq!(duration(Duration::from_secs(7500)), "2 h 5 min");
    }

    #[test]
    fn a_table_lines_its_columns_up() {
        let mut table = Table::new(&["id", ">size", "what"]);
        table.row(["a".into(), "1 B".into(), "x".into()]);
        table.row(["long".into(), "1023 B".into(), String::new()]);
        assert_eq!(table.to_string(), "id      size  what\na        1 B  x\nlong  1023 B\n");
    }
}
