//! Quoting for replication commands and SQL.
//!
//! Both grammars double the quote character and know no escape character inside plain
//! quotes (`standard_conforming_strings` is on by default since 9.1).

use crate::limits::IDENTIFIER_BYTES_MAX;
use crate::{Error, ErrorKind, Result};

/// `name` as a quoted identifier.
pub fn identifier(name: &str) -> Result<String> {
    quoted(name, '"')
}

/// `text` as a string literal.
pub fn literal(text: &str) -> Result<String> {
    quoted(text, '\'')
}

fn quoted(text: &str, quote: char) -> Result<String> {
    if text.contains('\0') {
        return Err(Error::new(ErrorKind::BadArgument, "a text for the server holds a NUL character"));
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push(quote);
    for c in text.chars() {
        if c == quote {
            quoted.push(quote);
        }
        quoted.push(c);
    }
    quoted.push(quote);
    Ok(quoted)
}

/// Checks that `name` is what PostgreSQL takes for a slot: 1 to 63 of `a-z`, `0-9` and `_`.
pub fn slot_name(name: &str) -> Result<&str> {
    let lawful = (1..=IDENTIFIER_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if lawful {
        return Ok(name);
    }
    Err(Error::new(ErrorKind::BadArgument, format_args!("{name:?} is not a name for a replication slot"))
        .with_hint("use 1 to 63 lower-case letters, digits and underscores"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(identifier("a\"b").unwrap(), "\"a\"\"b\"");
        assert_eq!(literal("it's").unwrap(), "'it''s'");
        assert!(literal("\0").is_err());
    }

    #[test]
    fn slot_names_are_those_of_postgresql() {
        assert!(slot_name("backstay_1").is_ok());
        for bad in ["", "Upper", "dash-ed", "with space", &"x".repeat(64), "é", "a;b"] {
            assert!(slot_name(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_gets_out_of_the_quotes(text in "[^\0]{0,40}") {
            for (quoted, quote) in [(identifier(&text).unwrap(), '"'), (literal(&text).unwrap(), '\'')] {
                let inner = &quoted[1..quoted.len() - 1];
                // Removing the pairs leaves no single quote.
                let pair: String = [quote, quote].iter().collect();
                prop_assert!(!inner.replace(&pair, "").contains(quote));
                prop_assert_eq!(inner.replace(&pair, &quote.to_string()), text.clone());
            }
        }
    }
}
