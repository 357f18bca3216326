//! Which database a target is: said by the plugin first thing, and never another one.

use backstay_repo::log::{LogChain, LogResult};
use tokio::sync::Mutex;

/// A target's identity, kept beside its log from the first backup or piece on.
pub(crate) struct Identity {
    engine: String,
    inner: Mutex<(Option<String>, LogChain)>,
}

impl Identity {
    pub(crate) fn new(log: LogChain, engine: &str) -> Self {
        Self { engine: engine.to_owned(), inner: Mutex::new((None, log)) }
    }

    /// Refused with `conflict` when the target is known to be another database: a backup of
    /// one database and the log of another must never meet in a restore.
    pub(crate) async fn tell(&self, identity: &str) -> LogResult<()> {
        let mut inner = self.inner.lock().await;
        let (known, log) = &mut *inner;
        log.identify(&self.engine, identity).await?;
        *known = Some(identity.to_owned());
        Ok(())
    }

    /// What was told, and the log.
    pub(crate) fn into_parts(self) -> (Option<String>, LogChain) {
        self.inner.into_inner()
    }
}
