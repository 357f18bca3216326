//! What happens meanwhile, on standard error.

use crate::args::{GlobalArgs, LogFormat};
use std::io::{self, IsTerminal, Write};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// The variable that overrides `-v` and `--quiet`, in the syntax of `RUST_LOG`.
pub(crate) const FILTER_VARIABLE: &str = "BACKSTAY_LOG";

/// Sets the process's log up. Called once.
pub(crate) fn set_up(args: &GlobalArgs, bars: &indicatif::MultiProgress) {
    let level = match (args.quiet, args.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, 2) => "debug",
        (false, _) => "trace",
    };
    let own = format!(
        "off,backstay={level},backstay_core={level},backstay_repo={level},backstay_sandbox={level},backstay_pipeline={level},plugin={level}"
    );
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new(own));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(BesideBars(bars.clone()));
    let done = match args.log_format {
        LogFormat::Text => builder.with_target(args.verbose > 1).compact().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // Only a second call can fail, and there is none; without a log a command still works.
    let _ = done;
}

/// Log lines go above the progress line and leave it whole.
struct BesideBars(indicatif::MultiProgress);

impl<'a> MakeWriter<'a> for BesideBars {
    type Writer = BesideBarsLine<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        BesideBarsLine(&self.0)
    }
}

struct BesideBarsLine<'a>(&'a indicatif::MultiProgress);

impl Write for BesideBarsLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().lock().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}
