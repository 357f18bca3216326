//! What the host calls.

use crate::*;

/// A database engine. Implement it, then [`crate::export_engine!`] the type.
///
/// Functions take no `self`: an instance serves one job and keeps nothing.
#[allow(async_fn_in_trait)] // one thread: the futures need not be Send
pub trait Engine: 'static {
    /// Who this plugin is. Called without any grant; must answer the same always.
    fn describe() -> Description;

    /// Connects and looks; changes nothing.
    async fn inspect() -> Result<Facts>;

    /// Makes a backup.
    async fn backup(job: BackupJob, into: BackupWriter) -> Result<BackupReport>;

    /// Looks at a part of a file that matched [`RuleAction::Inspect`], as it was read; answers what is wrong with it.
    /// Called without any grant, in instances of its own, as many at once as there are cores. Engines that ask for
    /// no inspection keep this.
    fn inspect_part(part: &FilePart, bytes: &[u8]) -> Result<Vec<Finding>> {
        let _ = (part, bytes);
        Ok(Vec::new())
    }

    /// Follows the log until asked to stop, then hands over what it has. Engines without a log keep this.
    async fn archive(into: LogWriter) -> Result<()> {
        let _ = into;
        Err(Error::new(ErrorKind::Unsupported, "this engine has no log to archive"))
    }

    /// Finds a position, transaction or name. Engines without a log keep this.
    async fn locate(target: RecoveryTarget, logs: Option<LogReader>) -> Result<Option<Place>> {
        let _ = (target, logs);
        Err(Error::new(ErrorKind::Unsupported, "this engine has no log to search"))
    }

    /// Puts a backup, and the log up to the target, into a folder.
    async fn restore(
        job: RestoreJob,
        from: BackupReader,
        logs: Option<LogReader>,
        into: Directory,
    ) -> Result<RestoreReport>;
}
