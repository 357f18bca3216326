//! The exit codes: one table, for the code, `--help` and the reference.

use std::process::ExitCode;

/// How a run of `backstay` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All that was asked is done.
    Done = 0,
    /// Anything that has no code of its own.
    Failed = 1,
    /// The command line or the configuration is wrong; nothing was tried.
    Usage = 2,
    /// The database or the store does not answer, or refuses.
    Unreachable = 3,
    /// The time or position asked for cannot be restored to, or log is missing.
    OutsideWindow = 4,
    /// Stored bytes are missing or not what was written.
    Damaged = 5,
}

/// Every code with what it means, in order.
pub(crate) const TABLE: &[(Exit, &str)] = &[
    (Exit::Done, "done"),
    (Exit::Failed, "failed"),
    (Exit::Usage, "usage or configuration is wrong; nothing was done"),
    (Exit::Unreachable, "target or store unreachable, or access denied"),
    (Exit::OutsideWindow, "outside the recovery window, or a gap in the log"),
    (Exit::Damaged, "repository damaged"),
];

impl Exit {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The table as `--help` shows it.
pub(crate) fn help() -> String {
    let mut text = String::from("Exit codes:\n");
    for (exit, meaning) in TABLE {
        text.push_str(&format!("  {}  {meaning}\n", exit.code()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_code_once_and_in_order() {
        let codes: Vec<u8> = TABLE.iter().map(|(exit, _)| exit.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn the_reference_quotes_the_table() {
        let reference = include_str!("../../../docs/src/reference/exit-codes.md");
        for (exit, meaning) in TABLE {
            let row = format!("| {} | {meaning} |", exit.code());
            assert!(reference.contains(&row), "docs/src/reference/exit-codes.md lacks the row {row:?}");
        }
    }
}
