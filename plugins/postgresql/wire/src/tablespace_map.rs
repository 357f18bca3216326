//! `tablespace_map`: which folder each tablespace's link shall lead to.
//!
//! One line for each: the OID, a space, the folder; backslashes escape line ends and
//! themselves. A server makes the links anew from it when it starts recovery. Follows
//! `read_tablespace_map` in `access/xlogrecovery.c`.

use crate::{Error, ErrorKind, Result};

/// One tablespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Its OID: the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// The absolute path of its folder.
    pub location: String,
}

/// Reads the file.
pub fn parse(bytes: &[u8]) -> Result<Vec<Tablespace>> {
    let mut all: Vec<Tablespace> = Vec::new();
    let mut line = Vec::new();
    let mut escaped = false;
    for &byte in bytes {
        match byte {
            _ if escaped => {
                line.push(byte);
                escaped = false;
            }
            b'\\' => escaped = true,
            b'\n' | b'\r' => finish_line(&mut line, &mut all)?,
            _ => line.push(byte),
        }
    }
    if escaped {
        return Err(Error::malformed("tablespace_map is cut short"));
    }
    finish_line(&mut line, &mut all)?;
    Ok(all)
}

fn finish_line(line: &mut Vec<u8>, all: &mut Vec<Tablespace>) -> Result<()> {
    let line = std::mem::take(line);
    if line.is_empty() {
        return Ok(());
    }
    let malformed =
        || Error::malformed(format_args!("tablespace_map has the unlawful line {:?}", String::from_utf8_lossy(&line)));
    let text = std::str::from_utf8(&line)
        .map_err(|_error| Error::new(ErrorKind::Unsupported, "tablespace_map has a path that is not UTF-8"))?;
    let (oid, location) = text.split_once(' ').ok_or_else(malformed)?;
    let oid = oid.parse().ok().filter(|&oid| oid > 0).ok_or_else(malformed)?;
    if !location.starts_with('/') || location.contains('\0') {
        return Err(malformed());
    }
    if all.iter().any(|one| one.oid == oid) {
        return Err(malformed());
    }
    all.push(Tablespace { oid, location: location.to_owned() });
    Ok(())
}

/// Writes the file.
#[must_use]
pub fn to_bytes(all: &[Tablespace]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Tablespace { oid, location } in all {
        bytes.extend_from_slice(format!("{oid} ").as_bytes());
        for byte in location.bytes() {
            if matches!(byte, b'\n' | b'\r' | b'\\') {
                bytes.push(b'\\');
            }
            bytes.push(byte);
        }
        bytes.push(b'\n');
    }
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_an_oid_and_a_folder() {
        let all = parse(b"16384 /srv/fast disk\n16385 /a\\\nb\\\\c\n").unwrap();
        assert_eq!(all[0].location, "/srv/fast disk");
        assert_eq!(all[1].oid, 16385);
        assert_eq!(all[1].location, "/a\nb\\c");
    }

    #[test]
    fn other_lines_are_malformed() {
        for bad in [b"x /a\n".as_slice(), b"1\n", b"0 /a\n", b"1 a\n", b"1 /a\\", b"1 /a\n1 /b\n", b"1 /\xff\n"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_map_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn maps_go_there_and_back(
            locations in prop::collection::vec("/[a-z \\\\\n\r\u{e4}]{0,20}", 0..5),
        ) {
            let all: Vec<_> = (1u32..)
                .zip(locations)
                .map(|(oid, location)| Tablespace { oid, location })
                .collect();
            prop_assert_eq!(parse(&to_bytes(&all)).unwrap(), all);
        }
    }
}
