//! Bytes of a database that nobody named could end up beside another's.

use crate::{
    convert,
    error::{EngineError, EngineErrorKind},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Whether a plugin has said, and been believed, of which database its bytes are. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Identified(Arc<AtomicBool>);

impl Identified {
    /// Passes a name on that is fit to be one, and remembers whether it was believed.
    pub(crate) async fn tell(
        &self,
        identity: &str,
        believe: impl AsyncFnOnce(&str) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let believed = match convert::identity(identity) {
            Ok(()) => believe(identity).await,
            Err(error) => Err(error),
        };
        self.0.store(believed.is_ok(), Ordering::Release);
        believed
    }

    /// Refuses what comes before a name.
    pub(crate) fn required(&self) -> Result<(), EngineError> {
        if self.0.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(EngineError::new(EngineErrorKind::Internal, "the plugin stores bytes before it said of which database"))
    }
}
