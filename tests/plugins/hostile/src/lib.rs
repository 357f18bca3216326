//! A plugin that does what no plugin may, so that tests can see the host stop it.
//!
//! The target's settings choose the crime: `{"behaviour": "loop"}`. Some take more:
//! `path` for those that name a file, `name` for those that ask for a grant.
//!
//! | module | crimes |
//! |---|---|
//! | [`crime`] | those that any call can commit: loops, memory, stack, logs, handles, grants |
//! | [`inspect`] | parts of files, looked at badly |
//! | [`lie`] | reports that contradict themselves |
//! | [`store`] | bytes stored wrongly: unidentified, abandoned, outside the backup |
//! | [`log`] | log with gaps, overlaps and wrong lengths |
//! | [`escape`] | ways out of the folder of a restore |
//! | [`tool`] | granted programs, run as they may be and as they may not |
//!
//! What the host refuses comes back as the call's own error, so that a test sees the
//! host's words. `honest` does nothing wrong: it shows that the others fail for their crime.

mod crime;
mod escape;
mod inspect;
mod lie;
mod log;
mod store;
mod tool;

use backstay_sdk::*;
use serde_json::Value;

struct Hostile;

impl Engine for Hostile {
    fn describe() -> Description {
        let settings = Settings::read();
        crime::commit_now(&settings);
        lie::description(&settings)
    }

    async fn inspect() -> Result<Facts> {
        let settings = Settings::read();
        crime::commit_now(&settings);
        crime::commit(&settings).await?;
        tool::commit(&settings).await?;
        Ok(lie::facts(&settings))
    }

    async fn backup(_job: BackupJob, into: BackupWriter) -> Result<BackupReport> {
        let settings = Settings::read();
        crime::commit_now(&settings);
        crime::commit(&settings).await?;
        store::commit(&settings, &into).await?;
        Ok(lie::report(&settings))
    }

    fn inspect_part(part: &FilePart, bytes: &[u8]) -> Result<Vec<Finding>> {
        inspect::part(part, bytes)
    }

    async fn archive(into: LogWriter) -> Result<()> {
        let settings = Settings::read();
        crime::commit_now(&settings);
        log::commit(&settings, &into).await
    }

    async fn restore(
        _job: RestoreJob,
        from: BackupReader,
        _logs: Option<LogReader>,
        into: Directory,
    ) -> Result<RestoreReport> {
        let settings = Settings::read();
        crime::commit_now(&settings);
        crime::commit(&settings).await?;
        escape::commit(&settings, &from, &into).await?;
        Ok(lie::steps(&settings))
    }
}

/// What the test asked for.
struct Settings(Value);

impl Settings {
    fn read() -> Self {
        Self(serde_json::from_str(&host::config()).unwrap_or(Value::Null))
    }

    fn behaviour(&self) -> &str {
        self.text("behaviour", "honest")
    }

    fn text<'a>(&'a self, key: &str, otherwise: &'a str) -> &'a str {
        self.0.get(key).and_then(Value::as_str).unwrap_or(otherwise)
    }
}

fn position(epoch: u64, offset: u64) -> Position {
    Position { epoch, offset, label: format!("{epoch}/{offset}") }
}

fn attributes() -> FileAttributes {
    FileAttributes { mode: 0o600, modified: 1_000_000 }
}

export_engine!(Hostile);
