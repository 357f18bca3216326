//! Timeline history files: `00000003.history` says where timeline 3 and its ancestors began.
//!
//! ```text
//!   1<tab>0/3000110<tab>no recovery target specified
//!   2<tab>0/5000028<tab>before 2026-11-22 21:33:08+00
//! ```
//!
//! Each line is an ancestor, oldest first, and where history left it. Follows
//! `readTimeLineHistory` in `access/timeline.c`.

use crate::limits::HISTORY_LINES_MAX;
use crate::lsn::Lsn;
use crate::{Error, Result};

/// Where history left one timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    /// The timeline that was left.
    pub timeline: u32,
    /// The first byte of log that is not on it.
    pub end: Lsn,
}

/// How one timeline came to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The timeline.
    pub timeline: u32,
    /// Its ancestors, oldest first.
    pub ancestors: Vec<Ancestor>,
}

impl History {
    /// Reads the history file of `timeline`.
    pub fn parse(timeline: u32, bytes: &[u8]) -> Result<Self> {
        let malformed = |what: &str| Error::malformed(format_args!("{} {what}", file_name(timeline)));
        let mut ancestors: Vec<Ancestor> = Vec::new();
        for line in bytes.split(|&byte| byte == b'\n') {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            if ancestors.len() == HISTORY_LINES_MAX {
                return Err(malformed("has too many lines"));
            }
            let mut fields = line
                .split(|byte| byte.is_ascii_whitespace())
                .filter(|field| !field.is_empty())
                .map(|field| std::str::from_utf8(field).unwrap_or(""));
            let ancestor: Option<u32> = fields.next().and_then(|field| field.parse().ok());
            let end: Option<Lsn> = fields.next().and_then(|field| field.parse().ok());
            let (Some(ancestor), Some(end)) = (ancestor, end) else {
                return Err(malformed("has a line that names no timeline and place"));
            };
            if ancestors.last().is_some_and(|last| last.timeline >= ancestor) {
                return Err(malformed("names its timelines out of order"));
            }
            ancestors.push(Ancestor { timeline: ancestor, end });
        }
        if ancestors.last().is_some_and(|last| last.timeline >= timeline) {
            return Err(malformed("names a timeline that is not older"));
        }
        Ok(Self { timeline, ancestors })
    }

    /// Where history left that ancestor; nothing when it is none.
    #[must_use]
    pub fn left(&self, timeline: u32) -> Option<Lsn> {
        self.ancestors.iter().find(|ancestor| ancestor.timeline == timeline).map(|ancestor| ancestor.end)
    }
}

/// The name of a timeline's history file.
#[must_use]
pub fn file_name(timeline: u32) -> String {
    format!("{timeline:08X}.history")
}

/// The timeline whose history file has that name; nothing for other names.
#[must_use]
pub fn parse_file_name(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".history")?;
    let lawful = digits.len() == 8 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    lawful.then(|| u32::from_str_radix(digits, 16).ok()).flatten().filter(|&timeline| timeline > 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ancestors_come_oldest_first() {
        let history = History::parse(
            3,
            b"1\t0/3000110\tno recovery target specified\n\n# by hand\n2 0/5000028\tbefore 2000-01-01\n",
        )
        .unwrap();
        assert_eq!(history.ancestors.len(), 2);
        assert_eq!(history.left(2), Some(Lsn(0x500_0028)));
        assert_eq!(history.left(3), None);
        assert!(History::parse(2, b"").unwrap().ancestors.is_empty());
    }

    #[test]
    fn lines_out_of_order_or_without_a_place_are_malformed() {
        for bad in [b"2\t0/1\tx\n1\t0/2\tx\n".as_slice(), b"3\t0/1\tx\n", b"1\n", b"x\t0/1\n", b"1\t01\n", b"\xff\n"] {
            assert!(History::parse(3, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn file_names_go_there_and_back() {
        assert_eq!(file_name(0x1f), "0000001F.history");
        assert_eq!(parse_file_name("0000001F.history"), Some(0x1f));
        for bad in ["0000001f.history", "00000000.history", "1.history", "0000001F.backup", "0000001é.history"] {
            assert_eq!(parse_file_name(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_history_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = History::parse(9, &bytes);
        }

        #[test]
        fn any_lines_are_a_history_or_an_error(text in "([0-9]{0,3}[\t ]?[0-9A-F]{0,3}/?[0-9A-F]{0,3}\n?){0,9}") {
            let _ = History::parse(9, text.as_bytes());
        }
    }
}
