//! Looks at parts of files that go as no look may go, and one that is honest.
//!
//! The first byte of a part says what happens: `b`ad bytes are found at every `x`, `l`ooping, `t`rapping, `f`ailing,
//! `m`any findings, `g`rants asked for, an `e`scape sequence said.

use backstay_sdk::*;

pub(crate) fn part(part: &FilePart, bytes: &[u8]) -> Result<Vec<Finding>> {
    let finding = |offset: usize| Finding {
        offset: part.offset + offset as u64,
        what: format!("{} of {} in {}", offset, part.path, part.context),
    };
    match bytes.first() {
        Some(b'l') => loop {
            std::hint::black_box(bytes);
        },
        Some(b't') => panic!("a part that nobody expected"),
        Some(b'f') => Err(Error::new(ErrorKind::Corrupt, "the part cannot be read")),
        Some(b'm') => Ok((0..5000).map(finding).collect()),
        Some(b'g') => host::open_directory("data").map(|_| Vec::new()),
        Some(b'e') => Ok(vec![Finding { offset: 0, what: "red \x1b[31m alert\nand more".to_owned() }]),
        _ => Ok(bytes.iter().enumerate().filter(|(_, byte)| **byte == b'x').map(|(at, _)| finding(at)).collect()),
    }
}
