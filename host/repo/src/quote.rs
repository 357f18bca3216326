//! Names in trees, escaped as Go's `strconv.Quote` does and restic expects.
//!
//! restic stores a node's name as the inside of a Go string literal: printable characters as
//! they are, the rest as `\n`, `\x07`, `\u200b`, `\U000e0001`; bytes that are not UTF-8 as `\xff`.

/// The inside of the Go literal for `name`.
pub(crate) fn quote(name: &[u8]) -> String {
    let mut quoted = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        quote_text(chunk.valid(), &mut quoted);
        chunk.invalid().iter().for_each(|byte| quoted.push_str(&format!("\\x{byte:02x}")));
    }
    quoted
}

fn quote_text(text: &str, quoted: &mut String) {
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            c if c < ' ' || c == '\x7f' => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            // Escapes that Go reads back, though it would write the character itself when it is
            // printable: which are printable changes with the Unicode version.
            c if c.is_ascii() || c.is_alphanumeric() => quoted.push(c),
            c if (c as u32) < 0x1_0000 => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            c => quoted.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
}

/// Reads the inside of a Go literal; nothing when it is none.
pub(crate) fn unquote(quoted: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(quoted.len());
    let mut rest = quoted;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = rest[at + 1..].chars().next()?;
        rest = &rest[at + 1 + escape.len_utf8()..];
        let mut digits = |count: usize, radix: u32| {
            let (head, tail) = rest.split_at_checked(count)?;
            rest = tail;
            let plain = head.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u32::from_str_radix(head, radix).ok()).flatten()
        };
        let byte = match escape {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' => b'\\',
            '"' => b'"',
            'x' => digits(2, 16)? as u8,
            'u' | 'U' => {
                let c = char::from_u32(digits(if escape == 'u' { 4 } else { 8 }, 16)?)?;
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            '0'..='7' => {
                let low = digits(2, 8)?;
                u8::try_from(escape.to_digit(8)? * 64 + low).ok()?
            }
            _ => return None,
        };
        bytes.push(byte);
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_written_as_go_writes_them() {
        let cases = [
            ("plain.txt", "plain.txt"),
            ("a\"b\\c", "a\\\"b\\\\c"),
            ("\u{7}\u{1}\n", "\\a\\x01\\n"),
            ("é", "é"),
            ("\u{200b}", "\\u200b"),
        ];
        for (name, quoted) in cases {
            assert_eq!(quote(name.as_bytes()), quoted);
        }
        assert_eq!(quote(b"a\xff\xc3\xa9\xc3"), "a\\xffé\\xc3");
        assert_eq!(unquote("\\xc3\\xa9\\303\\251").as_deref(), Some("éé".as_bytes()));
        assert_eq!(unquote("\\xff").as_deref(), Some(&b"\xff"[..]));
        assert_eq!(unquote("\\"), None);
    }

    proptest! {
        #[test]
        fn every_name_reads_back(name in any::<Vec<u8>>(), text in any::<String>()) {
            for name in [name, text.into_bytes()] {
                prop_assert_eq!(unquote(&quote(&name)), Some(name));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(quoted in any::<String>()) {
            let _ = unquote(&quoted);
            let _ = unquote(&format!("\\{quoted}"));
        }
    }
}
