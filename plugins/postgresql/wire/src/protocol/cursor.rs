//! Reads the parts of one message's body.

use crate::{Error, Result};

/// What is left of one message's body. Every read checks the length first.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    rest: &'a [u8],
    /// Names the message in errors.
    what: &'static str,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `body`; errors name the message `what`.
    #[must_use]
    pub fn new(what: &'static str, body: &'a [u8]) -> Self {
        Self { rest: body, what }
    }

    fn short(&self) -> Error {
        Error::malformed(format_args!("the server's {} message is cut short", self.what))
    }

    /// The next `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// A 16-bit number in network order.
    pub fn i16(&mut self) -> Result<i16> {
        self.array().map(i16::from_be_bytes)
    }

    /// A 32-bit number in network order.
    pub fn i32(&mut self) -> Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    /// A 32-bit number in network order.
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A 64-bit number in network order.
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// The bytes up to the next NUL, which is skipped.
    pub fn c_string(&mut self) -> Result<&'a [u8]> {
        let end = self.rest.iter().position(|byte| *byte == 0);
        let Some(end) = end else {
            return Err(Error::malformed(format_args!(
                "the server's {} message holds a text without an end",
                self.what
            )));
        };
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(text)
    }

    /// Like [`Self::c_string`], for texts that must be UTF-8.
    pub fn text(&mut self) -> Result<&'a str> {
        let what = self.what;
        std::str::from_utf8(self.c_string()?)
            .map_err(|_| Error::malformed(format_args!("the server's {what} message holds a text that is not UTF-8")))
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes are left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// Refuses bytes after the last part.
    pub fn end(self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Error::malformed(format_args!("the server's {} message has {} bytes too many", self.what, self.rest.len())))
    }
}
