//! One table of the file, read key by key, with every complaint at its line and column.

use super::{
    error::{ConfigError, Source},
    suggestion,
};
use std::{
    fmt,
    ops::{Range, RangeInclusive},
    path::{Path, PathBuf},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A value and where in the file it stands.
#[derive(Clone, Debug)]
pub(crate) struct Located<T> {
    /// The value.
    pub(crate) value: T,
    /// Its bytes in the file.
    pub(crate) span: Range<usize>,
}

/// A table, its name as people write it (`targets.shop`), and the file it stands in.
pub(crate) struct Section<'a> {
    source: &'a Source,
    name: String,
    span: Range<usize>,
    table: &'a DeTable<'a>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(crate) fn root(source: &'a Source, table: &'a Spanned<DeTable<'a>>) -> Self {
        Self { source, name: String::new(), span: table.span(), table: table.get_ref() }
    }

    /// A table that stands as a value under `name`.
    pub(crate) fn from_value(
        source: &'a Source,
        name: String,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Result<Self, ConfigError> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(Self { source, name, span: value.span(), table }),
            other => Err(source.error(value.span(), format!("{name} must be a table, not {}", kind(other)))),
        }
    }

    /// Refuses every key that is not in `known`.
    pub(crate) fn only(self, known: &[&str]) -> Result<Self, ConfigError> {
        for key in self.table.keys() {
            let typed: &str = key.get_ref();
            if !known.contains(&typed) {
                let advice = suggestion::advice(typed, known.iter().copied());
                let message = format!("unknown key `{}` in {self}{advice}", typed.escape_default());
                return Err(self.source.error(key.span(), message));
            }
        }
        Ok(self)
    }

    /// Its bytes in the file: the header, or the whole inline table.
    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The file this section stands in.
    pub(crate) fn source(&self) -> &'a Source {
        self.source
    }

    /// Keys and values, in the order of the keys.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Located<&'a str>, &'a Spanned<DeValue<'a>>)> {
        self.table.iter().map(|(key, value)| {
            let name: &'a str = key.get_ref();
            (Located { value: name, span: key.span() }, value)
        })
    }

    /// The value under `key` as it stands.
    pub(crate) fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(key)
    }

    /// A text, when the key is there.
    pub(crate) fn text(&self, key: &str) -> Result<Option<Located<String>>, ConfigError> {
        self.value(key).map(|value| text(self.source, &self.key(key), value)).transpose()
    }

    /// A text that must be there.
    pub(crate) fn text_required(&self, key: &str) -> Result<Located<String>, ConfigError> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    /// A text that parses into `T`, when the key is there.
    pub(crate) fn parsed<T>(&self, key: &str) -> Result<Option<Located<T>>, ConfigError>
    where
        T: std::str::FromStr,
        T::Err: fmt::Display,
    {
        let Some(text) = self.text(key)? else { return Ok(None) };
        match text.value.parse() {
            Ok(value) => Ok(Some(Located { value, span: text.span })),
            Err(reason) => Err(self.source.error(text.span, format!("{}: {reason}", self.key(key)))),
        }
    }

    /// `true` or `false`, when the key is there.
    pub(crate) fn boolean(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Boolean(truth) => Ok(Some(*truth)),
            other => {
                let message = format!("{} must be true or false, not {}", self.key(key), kind(other));
                Err(self.source.error(value.span(), message))
            }
        }
    }

    /// A whole number within a range, when the key is there.
    pub(crate) fn number(&self, key: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let refuse = |what: &str| {
            let message = format!("{} {what} from {} to {}", self.key(key), range.start(), range.end());
            Err(self.source.error(value.span(), message))
        };
        let DeValue::Integer(digits) = value.get_ref() else { return refuse("must be a whole number") };
        match i64::from_str_radix(digits.as_str(), digits.radix()).ok().and_then(|number| u32::try_from(number).ok()) {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => refuse("must be"),
        }
    }

    /// A list of texts with at least one entry, when the key is there.
    pub(crate) fn texts(&self, key: &str) -> Result<Option<Located<Vec<String>>>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let DeValue::Array(items) = value.get_ref() else {
            let message = format!("{} must be a list of texts, not {}", self.key(key), kind(value.get_ref()));
            return Err(self.source.error(value.span(), message));
        };
        let texts: Vec<String> = items
            .iter()
            .map(|item| text(self.source, &format!("every entry of {}", self.key(key)), item).map(|text| text.value))
            .collect::<Result<_, _>>()?;
        if texts.is_empty() {
            return Err(self.source.error(value.span(), format!("{} must have at least one entry", self.key(key))));
        }
        Ok(Some(Located { value: texts, span: value.span() }))
    }

    /// A path, relative ones from the file's folder, when the key is there.
    pub(crate) fn path(&self, key: &str) -> Result<Option<PathBuf>, ConfigError> {
        self.value(key).map(|value| path(self.source, &self.key(key), value)).transpose()
    }

    /// A table below this one, when the key is there.
    pub(crate) fn section(&self, key: &str) -> Result<Option<Section<'a>>, ConfigError> {
        self.value(key).map(|value| Section::from_value(self.source, self.key(key), value)).transpose()
    }

    /// `targets.shop.engine`: the key as it would be written at the top of the file.
    pub(crate) fn key(&self, key: &str) -> String {
        let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        let key = if bare { key.to_owned() } else { format!("\"{}\"", key.escape_default()) };
        if self.name.is_empty() { key } else { format!("{}.{key}", self.name) }
    }

    /// An error at this section's head.
    pub(crate) fn error(&self, message: impl Into<String>) -> ConfigError {
        self.source.error(self.span.clone(), message)
    }

    /// The error for a key that must be there.
    pub(crate) fn missing(&self, key: &str) -> ConfigError {
        self.error(format!("{self} needs `{key}`"))
    }
}

impl fmt::Display for Section<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() { f.write_str("the file") } else { write!(f, "[{}]", self.name) }
    }
}

/// A text value, not empty.
pub(crate) fn text(source: &Source, name: &str, value: &Spanned<DeValue<'_>>) -> Result<Located<String>, ConfigError> {
    match value.get_ref() {
        DeValue::String(text) if text.is_empty() => Err(source.error(value.span(), format!("{name} is empty"))),
        DeValue::String(text) => Ok(Located { value: text.clone().into_owned(), span: value.span() }),
        other => Err(source.error(value.span(), format!("{name} must be a text in quotes, not {}", kind(other)))),
    }
}

/// A path; relative ones start from the file's folder.
pub(crate) fn path(source: &Source, name: &str, value: &Spanned<DeValue<'_>>) -> Result<PathBuf, ConfigError> {
    let text = text(source, name, value)?;
    if text.value.contains('\0') {
        return Err(source.error(text.span, format!("{name} holds a NUL")));
    }
    let path = source.folder().join(Path::new(&text.value));
    // Absolute, because a job's process starts elsewhere; without touching the file system.
    std::path::absolute(&path).map_err(|error| source.error(text.span, format!("{name}: {error}")))
}

/// What people call a value of this kind.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
