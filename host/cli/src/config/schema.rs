//! A target's settings against its engine's JSON Schema.

use super::{ConfigError, Target};
use serde_json::Value;
use std::path::Path;

/// Longest message of one complaint: an engine's schema may list a great many choices.
const MESSAGE_CHARS_MAX: usize = 400;

/// A schema that is no schema: the plugin's fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SchemaError {
    /// The settings do not fit.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// The engine's schema cannot be used.
    #[error("the schema of engine `{engine}` is not a JSON Schema: {reason}")]
    Schema {
        /// Whose schema.
        engine: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Target {
    /// Checks the settings; `file` is the configuration's, for the complaint.
    ///
    /// Values are not repeated in messages: somebody may have put a password there.
    pub(crate) fn check_settings(&self, file: &Path, schema: &Value) -> Result<(), SchemaError> {
        let refuse = |reason: String| SchemaError::Schema { engine: self.engine.to_string(), reason };
        let validator = jsonschema::validator_for(schema)
            .map_err(|error| refuse(error.to_string().chars().take(MESSAGE_CHARS_MAX).collect()))?;
        let Some(error) = validator.iter_errors(&self.settings.json).next() else { return Ok(()) };
        let pointer = error.instance_path().to_string();
        let (line, column) = self.settings.place(&pointer);
        let name: String = pointer.split('/').filter(|part| !part.is_empty()).map(|part| format!(".{part}")).collect();
        let complaint: String = error.masked_with("this").to_string().chars().take(MESSAGE_CHARS_MAX).collect();
        let message = format!("targets.{}.settings{name}: {complaint}", self.name);
        Err(ConfigError::At { file: file.to_owned(), line, column, message }.into())
    }
}
