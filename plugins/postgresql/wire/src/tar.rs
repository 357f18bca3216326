//! Tar archives as a server streams them, decoded while they come.
//!
//! ```text
//!   bytes ──▶ Decoder ──▶ Entry, Data, Data, FileEnd, Entry, …, End
//! ```
//!
//! File bodies pass through untouched; held back is at most one header block, or one long
//! name. Understood are ustar with its name prefix, base-256 numbers (files of 8 GiB and
//! more), GNU long names and links, and pax records `path`, `linkpath`, `size` and `mtime`.
//!
//! Servers up to version 14 leave the two zero blocks at the end out, so an archive may also
//! end where a header would begin: [`Decoder::finish`] tells the two apart from a cut one.
//!
//! Follows POSIX.1-2017 "pax Interchange Format" and "ustar Interchange Format".

use crate::limits::{TAR_EXTENSION_BYTES_MAX, TAR_PATH_BYTES_MAX};
use crate::{Error, ErrorKind, Result};

/// Tar's unit: headers are one, bodies are padded to whole ones.
const BLOCK_BYTES: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A file; its bytes follow.
    File,
    /// A folder.
    Directory,
    /// A symbolic link to that target.
    Symlink(String),
}

/// One entry's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative, `/`-separated, without empty, `.` and `..` parts and without a `/` at its end.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes that follow; 0 unless it is a file.
    pub size: u64,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// Time of last change in seconds since 1970; earlier times are 0.
    pub mtime: u64,
}

/// What a decoder saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// A header. A file's bytes follow.
    Entry(Entry),
    /// Bytes of the file whose entry came last, at least one.
    Data(&'a [u8]),
    /// The file whose entry came last is complete; also after an empty one.
    FileEnd,
    /// The two zero blocks. Whatever follows is passed over.
    End,
}

/// What the next bytes are.
#[derive(Debug)]
enum State {
    /// A header block.
    Header,
    /// A file's bytes, and the padding after them.
    Body { left: u64, padding: u64 },
    /// A file's bytes are all there; its end is still to be told.
    BodyEnd { padding: u64 },
    /// Padding.
    Padding { left: u64 },
    /// A long name or pax records, and the padding after them.
    Extension { kind: u8, left: usize, padding: u64 },
    /// Anything, after the end.
    Ended,
}

/// What extensions said about the next entry.
#[derive(Debug, Default)]
struct Overrides {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    mtime: Option<u64>,
}

/// Decodes one archive. After an error it must not be used again.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// The part of a header or an extension that came already.
    held: Vec<u8>,
    zero_blocks: u8,
    overrides: Overrides,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder at the start of an archive.
    #[must_use]
    pub fn new() -> Self {
        Self { state: State::Header, held: Vec::new(), zero_blocks: 0, overrides: Overrides::default() }
    }

    /// The next event in `input`, which moves on behind what was read. Nothing: all of
    /// `input` is read, and more is needed.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>> {
        loop {
            match self.state {
                State::Header => {
                    let Some(block) = self.block(input) else {
                        return Ok(None);
                    };
                    if let Some(event) = self.header(&block)? {
                        return Ok(Some(event));
                    }
                }
                State::Body { left, padding } => {
                    if left == 0 {
                        self.state = State::BodyEnd { padding };
                        continue;
                    }
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let data = take(input, left);
                    self.state = State::Body { left: left - data.len() as u64, padding };
                    return Ok(Some(Event::Data(data)));
                }
                State::BodyEnd { padding } => {
                    self.state = State::Padding { left: padding };
                    return Ok(Some(Event::FileEnd));
                }
                State::Padding { left } => {
                    let left = left - take(input, left).len() as u64;
                    if left > 0 {
                        self.state = State::Padding { left };
                        return Ok(None);
                    }
                    self.state = State::Header;
                }
                State::Extension { kind, left, padding } => {
                    let part = take(input, left as u64);
                    self.held.extend_from_slice(part);
                    let left = left - part.len();
                    if left > 0 {
                        self.state = State::Extension { kind, left, padding };
                        return Ok(None);
                    }
                    let body = std::mem::take(&mut self.held);
                    self.extension(kind, body)?;
                    self.state = State::Padding { left: padding };
                }
                State::Ended => {
                    *input = &[];
                    return Ok(None);
                }
            }
        }
    }

    /// Says that no more bytes come. An error when the archive is cut inside an entry.
    pub fn finish(&self) -> Result<()> {
        let sound = match self.state {
            // One zero block alone comes from writers that count on a second one being added.
            State::Header => self.held.is_empty() && self.overrides.is_empty(),
            State::Padding { left } => left == 0 && self.overrides.is_empty(),
            State::Ended => true,
            State::Body { .. } | State::BodyEnd { .. } | State::Extension { .. } => false,
        };
        if sound {
            return Ok(());
        }
        Err(Error::malformed("the archive is cut short"))
    }

    /// One whole block, across as many inputs as it takes.
    fn block(&mut self, input: &mut &[u8]) -> Option<[u8; BLOCK_BYTES]> {
        let missing = BLOCK_BYTES - self.held.len();
        let part = take(input, missing as u64);
        if self.held.is_empty()
            && let Ok(block) = <[u8; BLOCK_BYTES]>::try_from(part)
        {
            return Some(block);
        }
        self.held.extend_from_slice(part);
        let block = <[u8; BLOCK_BYTES]>::try_from(self.held.as_slice()).ok()?;
        self.held.clear();
        Some(block)
    }

    fn header<'a>(&mut self, block: &[u8; BLOCK_BYTES]) -> Result<Option<Event<'a>>> {
        if block.iter().all(|&byte| byte == 0) {
            if !self.overrides.is_empty() {
                return Err(Error::malformed("the archive ends behind a long name without an entry"));
            }
            self.zero_blocks += 1;
            if self.zero_blocks == 2 {
                self.state = State::Ended;
                return Ok(Some(Event::End));
            }
            return Ok(None);
        }
        if self.zero_blocks > 0 {
            return Err(Error::malformed("the archive goes on behind a zero block"));
        }
        check_sum(block)?;
        let size = self.overrides.size.map_or_else(|| number("size", &block[124..136]), Ok)?;
        let padding = size.wrapping_neg() % BLOCK_BYTES as u64;
        let flag = block[156];
        if let b'L' | b'K' | b'x' | b'g' = flag {
            if size > TAR_EXTENSION_BYTES_MAX as u64 {
                return Err(Error::too_large(format_args!(
                    "the archive has a long name or pax header of {size} bytes"
                )));
            }
            self.state = State::Extension {
                kind: flag,
                // Below the bound just checked.
                left: size as usize,
                padding,
            };
            return Ok(None);
        }
        let overrides = std::mem::take(&mut self.overrides);
        let name = overrides.path.unwrap_or_else(|| ustar_name(block));
        let is_folder = flag == b'5' || (matches!(flag, b'0' | 0) && name.ends_with(b"/"));
        let path = path(&name)?;
        let kind = match flag {
            _ if is_folder => EntryKind::Directory,
            b'0' | b'7' | 0 => EntryKind::File,
            b'2' => {
                let link = overrides.link.unwrap_or_else(|| text(&block[157..257]).to_vec());
                EntryKind::Symlink(utf8("link target", link)?)
            }
            other => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format_args!("the archive has {path:?}, an entry of the unknown kind {:?}", char::from(other)),
                ));
            }
        };
        let mode = number("mode", &block[100..108])? & 0o7777;
        let mtime = overrides.mtime.map_or_else(|| number_or_negative("time", &block[136..148]), Ok)?;
        let size = if kind == EntryKind::File { size } else { 0 };
        self.state = if kind == EntryKind::File {
            State::Body { left: size, padding }
        } else {
            // Folders and links have no body, whatever their header claims.
            State::Header
        };
        Ok(Some(Event::Entry(Entry {
            path,
            kind,
            size,
            // Masked to 12 bits above.
            mode: mode as u32,
            mtime,
        })))
    }

    fn extension(&mut self, kind: u8, mut body: Vec<u8>) -> Result<()> {
        match kind {
            b'L' | b'K' => {
                body.truncate(text(&body).len());
                let place = if kind == b'L' { &mut self.overrides.path } else { &mut self.overrides.link };
                *place = Some(body);
                Ok(())
            }
            b'x' => self.pax(&body),
            // Global records: defaults that no database's archive sets.
            _ => Ok(()),
        }
    }

    /// Records of the shape `length key=value\n`, the length counting all of it.
    fn pax(&mut self, mut body: &[u8]) -> Result<()> {
        let malformed = || Error::malformed("the archive has a pax record that does not add up");
        while !body.is_empty() {
            let space = body.iter().take(20).position(|&byte| byte == b' ').ok_or_else(malformed)?;
            let length: usize = std::str::from_utf8(&body[..space])
                .ok()
                .and_then(|digits| digits.parse().ok())
                .ok_or_else(malformed)?;
            let record = body.get(space + 1..length).ok_or_else(malformed)?;
            let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(malformed)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let decimal = || {
                let whole = value.split(|&byte| byte == b'.').next().unwrap_or(value);
                std::str::from_utf8(whole).ok().and_then(|digits| digits.parse::<i64>().ok()).ok_or_else(malformed)
            };
            match key {
                b"path" => self.overrides.path = Some(value.to_vec()),
                b"linkpath" => self.overrides.link = Some(value.to_vec()),
                b"size" => {
                    self.overrides.size = Some(u64::try_from(decimal()?).map_err(|_negative| malformed())?);
                }
                b"mtime" => self.overrides.mtime = Some(decimal()?.max(0).unsigned_abs()),
                _ => {}
            }
            body = &body[length..];
        }
        Ok(())
    }
}

impl Overrides {
    fn is_empty(&self) -> bool {
        self.path.is_none() && self.link.is_none() && self.size.is_none() && self.mtime.is_none()
    }
}

/// At most `max` bytes off the front of `input`.
fn take<'a>(input: &mut &'a [u8], max: u64) -> &'a [u8] {
    let length = usize::try_from(max).unwrap_or(usize::MAX).min(input.len());
    let (front, rest) = input.split_at(length);
    *input = rest;
    front
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or(field)
}

fn ustar_name(block: &[u8; BLOCK_BYTES]) -> Vec<u8> {
    let name = text(&block[..100]);
    // GNU's own format (`ustar  `) keeps times where POSIX has the prefix.
    let prefix = if block[257..263] == *b"ustar\0" { text(&block[345..500]) } else { b"" };
    if prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

fn utf8(what: &str, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        Error::new(
            ErrorKind::Unsupported,
            format_args!("the archive has a {what} that is not UTF-8: {:?}", String::from_utf8_lossy(error.as_bytes())),
        )
        .with_hint("rename the file on the server")
    })
}

fn path(name: &[u8]) -> Result<String> {
    let mut name = name;
    while let Some(rest) = name.strip_prefix(b"./") {
        name = rest;
    }
    let name = name.strip_suffix(b"/").unwrap_or(name);
    let lawful = name.len() <= TAR_PATH_BYTES_MAX
        && !name.contains(&0)
        && name.split(|&byte| byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."));
    if lawful {
        return utf8("path", name.to_vec());
    }
    Err(Error::malformed(format_args!(
        "the archive has an entry with the unlawful path {:?}",
        String::from_utf8_lossy(&name[..name.len().min(TAR_PATH_BYTES_MAX)])
    )))
}

/// Octal digits, or a big-endian number behind a first byte of 0x80 (GNU's base-256).
fn number(what: &str, field: &[u8]) -> Result<u64> {
    let malformed = || Error::malformed(format_args!("the archive has a header whose {what} is no number"));
    if field[0] & 0x80 != 0 {
        let first = u64::from(field[0] & 0x7f);
        return field[1..].iter().try_fold(first, |sum, &byte| {
            sum.checked_mul(256)
                .map(|sum| sum | u64::from(byte))
                .filter(|&sum| sum <= i64::MAX as u64)
                .ok_or_else(malformed)
        });
    }
    let field = text(field).trim_ascii();
    field.iter().try_fold(0u64, |sum, &byte| match byte {
        b'0'..=b'7' => sum.checked_mul(8).map(|sum| sum | u64::from(byte - b'0')).ok_or_else(malformed),
        _ => Err(malformed()),
    })
}

/// As [`number`], with negative base-256 numbers as 0.
fn number_or_negative(what: &str, field: &[u8]) -> Result<u64> {
    if field[0] & 0xc0 == 0xc0 {
        return Ok(0);
    }
    number(what, field)
}

fn check_sum(block: &[u8; BLOCK_BYTES]) -> Result<()> {
    let stored = number("checksum", &block[148..156])?;
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(at, &byte)| if (148..156).contains(&at) { u64::from(b' ') } else { u64::from(byte) })
        .sum();
    if sum == stored {
        return Ok(());
    }
    Err(Error::malformed("the archive has a header whose checksum is wrong"))
}

#[cfg(test)]
mod tests;
