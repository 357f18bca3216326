//! A target's settings: free in form here, judged by the engine's own JSON Schema later.

use super::{
    error::{ConfigError, Source},
    section::Section,
};
use serde_json::{Map, Number, Value};
use std::{collections::BTreeMap, ops::Range};
use toml::{Spanned, de::DeValue};

/// The settings as JSON, and where each value stands.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Always an object.
    pub(crate) json: Value,
    /// JSON pointer (RFC 6901) to the value's first byte as line and column.
    places: BTreeMap<String, (usize, usize)>,
}

impl Settings {
    /// No settings; complaints go to the target's head.
    pub(crate) fn none(at: (usize, usize)) -> Self {
        Self { json: Value::Object(Map::new()), places: BTreeMap::from([(String::new(), at)]) }
    }

    /// Reads the table as it stands.
    pub(crate) fn from_section(section: &Section<'_>) -> Result<Self, ConfigError> {
        let source = section.source();
        let mut settings = Self::none(source.place(section.span().start));
        let mut object = Map::new();
        for (key, value) in section.entries() {
            let pointer = step("", key.value);
            let json = settings.convert(source, &pointer, &section.key(key.value), value)?;
            object.insert(key.value.to_owned(), json);
        }
        settings.json = Value::Object(object);
        Ok(settings)
    }

    /// Line and column of the value at `pointer`, or of the nearest value around it.
    pub(crate) fn place(&self, pointer: &str) -> (usize, usize) {
        let mut pointer = pointer;
        loop {
            if let Some(place) = self.places.get(pointer) {
                return *place;
            }
            match pointer.rfind('/') {
                Some(slash) => pointer = &pointer[..slash],
                None => return (1, 1),
            }
        }
    }

    fn convert(
        &mut self,
        source: &Source,
        pointer: &str,
        name: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Value, ConfigError> {
        let span: Range<usize> = value.span();
        self.places.insert(pointer.to_owned(), source.place(span.start));
        Ok(match value.get_ref() {
            DeValue::String(text) => Value::String(text.clone().into_owned()),
            DeValue::Boolean(truth) => Value::Bool(*truth),
            DeValue::Datetime(time) => Value::String(time.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map(|number| Value::Number(number.into()))
                .map_err(|_| source.error(span, format!("{name} is too large for a whole number")))?,
            DeValue::Float(number) => number
                .as_str()
                .parse()
                .ok()
                .and_then(Number::from_f64)
                .map(Value::Number)
                .ok_or_else(|| source.error(span, format!("{name} is not a number that can be used")))?,
            DeValue::Array(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    let (pointer, name) = (step(pointer, &index.to_string()), format!("{name}[{index}]"));
                    list.push(self.convert(source, &pointer, &name, item)?);
                }
                Value::Array(list)
            }
            DeValue::Table(table) => {
                let mut object = Map::new();
                for (key, item) in table.iter() {
                    let key: &str = key.get_ref();
                    let json = self.convert(source, &step(pointer, key), &format!("{name}.{key}"), item)?;
                    object.insert(key.to_owned(), json);
                }
                Value::Object(object)
            }
        })
    }
}

/// `pointer/part`, escaped as RFC 6901 wants.
fn step(pointer: &str, part: &str) -> String {
    format!("{pointer}/{}", part.replace('~', "~0").replace('/', "~1"))
}
