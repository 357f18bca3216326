//! A granted native program.

use crate::{ByteStream, FileWriter, Result, platform};

/// A granted native program, run without a shell. Dropping it ends the program.
pub struct Process(pub(crate) platform::Process);

impl Process {
    /// Standard input; `finish` closes it.
    pub fn stdin(&self) -> FileWriter {
        FileWriter::new(self.0.stdin())
    }

    /// Standard output, once.
    pub fn stdout(&self) -> ByteStream {
        ByteStream(self.0.stdout())
    }

    /// The last `max` bytes of standard error, printable.
    pub fn stderr_tail(&self, max: u32) -> String {
        self.0.stderr_tail(max)
    }

    /// The exit code; a signal answers as 128 + its number.
    pub async fn wait(&self) -> Result<i32> {
        self.0.wait().await
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.0.terminate();
    }
}
