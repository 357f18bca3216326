//! `INCREMENTAL.<name>`: the blocks of a data file that changed since an earlier backup.
//!
//! ```text
//!   d3ae1f0d │ n │ truncation │ n block numbers │ zeros │ n blocks, in the same order
//!   ─────────────────────────────────────────── │ ───── │ ──────────────────────────
//!     u32 each, in the server's byte order      │ up to a whole block, if n > 0
//! ```
//!
//! Block numbers count from the start of the file. With the file of the earlier backup, which may
//! itself be put together, this is the whole file:
//!
//! ```text
//!   block     0     1     2     3     4     5     6
//!   listed          •                 •           •
//!   from    earlier here earlier earlier here  zeros  here
//!                                          └ truncation: 5 blocks
//! ```
//!
//! What is listed comes from here. Below the truncation length the rest comes from the earlier file,
//! or is zeros where that one ends before. From there on the rest is zeros. The file ends with the
//! truncation length or with the last block listed, whichever is later: [`Header::runs`],
//! [`Header::inherited_bytes`], [`Header::file_bytes`].
//!
//! That is how `pg_combinebackup` does it, and it is wrong for a relation that `VACUUM` cut and `COPY`
//! made longer again. The server then adds blocks of zeros that its log does not mention, so they are
//! not listed, and what lay there before the cut comes back: rows that were deleted. The server's
//! summaries of its log tell where a relation was cut: [`Header::relation_was_cut`].
//!
//! Servers as of 17 send these files in the archives of `BASE_BACKUP (INCREMENTAL)`. Follows
//! `sendFile` in `backup/basebackup.c`, `backup/basebackup_incremental.c` and `reconstruct.c` of
//! `pg_combinebackup`.

use crate::relation_file::{Layout, segment_number};
use crate::{Error, ErrorKind, Result};

/// What the file begins with: `INCREMENTAL_MAGIC`.
const MAGIC: u32 = 0xd3ae_1f0d;

/// What comes before the name of the whole file.
const NAME_PREFIX: &str = "INCREMENTAL.";

/// The magic number, the count of blocks and the truncation length.
const FIXED_WORDS: u64 = 3;

/// Every number of the header.
const WORD_BYTES: usize = 4;

/// The path of the whole file that `path` holds changed blocks of: `base/5/16384.1` for
/// `base/5/INCREMENTAL.16384.1`. Nothing where it is not such a file.
#[must_use]
pub fn full_name(path: &str) -> Option<String> {
    let (folder, name) = path.rsplit_once('/')?;
    let full = format!("{folder}/{}", name.strip_prefix(NAME_PREFIX)?);
    // Servers do this to files of relations only. Anything else is a file that a user called so.
    segment_number(&full).map(|_segment| full)
}

/// Bytes of the whole file that lie side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Where they begin.
    pub offset: u64,
    /// How many there are, a whole number of blocks, at least one.
    pub bytes: u64,
}

/// Which blocks there are, and how long the whole file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    layout: Layout,
    file_blocks: u32,
    inherited_blocks: u32,
    blocks: Vec<u32>,
}

impl Header {
    /// `blocks` are below the layout's bound; `truncation_blocks` need not be.
    fn new(layout: Layout, truncation_blocks: u32, blocks: Vec<u32>) -> Self {
        // Older servers of 17 and 18 name, for a segment before the last, where all of the relation
        // was cut. Later ones cut that down just so.
        let inherited_blocks = truncation_blocks.min(layout.segment_blocks());
        let file_blocks = blocks.last().map_or(0, |last| last + 1).max(inherited_blocks);
        Self { layout, file_blocks, inherited_blocks, blocks }
    }

    /// Takes in that the relation was cut down to `blocks` at some time since the earlier backup; the
    /// file is its segment `segment`. What is not listed from there on is zeros.
    ///
    /// `blocks` is the least `relblocknumber` of the rows of `pg_wal_summary_contents` for the file
    /// node and fork that have `is_limit_block`, in the summaries that begin before this backup's start
    /// and end behind the earlier one's.
    pub fn relation_was_cut(&mut self, segment: u32, blocks: u32) {
        let before = u64::from(segment) * u64::from(self.layout.segment_blocks());
        let here = u64::from(blocks).saturating_sub(before);
        self.inherited_blocks =
            u32::try_from(here).map_or(self.inherited_blocks, |here| here.min(self.inherited_blocks));
    }

    /// The numbers of the blocks in the file, ascending, below the layout's
    /// [`segment_blocks`](Layout::segment_blocks).
    #[must_use]
    pub fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// The same as runs of the whole file, ascending, no two of them adjacent. The blocks that follow
    /// the header belong into them, back to back.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        self.blocks
            .chunk_by(|block, next| block + 1 == *next)
            .map(|run| Run { offset: self.bytes(u64::from(run[0])), bytes: self.bytes(run.len() as u64) })
    }

    /// Up to here, what is not listed comes from the file of the earlier backup; from here on it is
    /// zeros.
    #[must_use]
    pub fn inherited_bytes(&self) -> u64 {
        self.bytes(u64::from(self.inherited_blocks))
    }

    /// How long the whole file is.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.bytes(u64::from(self.file_blocks))
    }

    /// How many bytes come before the blocks.
    #[must_use]
    pub fn bytes_before_blocks(&self) -> u64 {
        let header = (FIXED_WORDS + self.blocks.len() as u64) * WORD_BYTES as u64;
        if self.blocks.is_empty() { header } else { header.next_multiple_of(self.bytes(1)) }
    }

    /// How many bytes the blocks take.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        self.bytes(self.blocks.len() as u64)
    }

    fn bytes(&self, blocks: u64) -> u64 {
        blocks * u64::from(self.layout.block_bytes())
    }
}

/// What a decoder saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// The header, once. The blocks follow.
    Header(Header),
    /// Bytes of blocks, at least one.
    Data(&'a [u8]),
}

/// What the next bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Magic,
    /// The count of blocks.
    Count,
    /// The truncation length.
    Truncation {
        count: u32,
    },
    /// Block numbers.
    Blocks {
        left: u32,
    },
    /// Zeros up to the first block.
    Padding {
        left: u64,
        content: u64,
    },
    /// Blocks.
    Content {
        left: u64,
    },
}

/// Decodes one file. After an error it must not be used again.
#[derive(Debug)]
pub struct Decoder {
    layout: Layout,
    state: State,
    /// The part of a number that came already.
    held: [u8; WORD_BYTES],
    held_bytes: usize,
    truncation_blocks: u32,
    blocks: Vec<u32>,
}

impl Decoder {
    /// A decoder at the start of a file of a cluster with that layout.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            state: State::Magic,
            held: [0; WORD_BYTES],
            held_bytes: 0,
            truncation_blocks: 0,
            blocks: Vec::new(),
        }
    }

    /// The next event in `input`, which moves on behind what was read. Nothing: all of `input` is
    /// read, and more is needed or the file is complete.
    ///
    /// # Errors
    /// `Malformed` when the bytes are no such file or go on behind the last block, `Unsupported` when
    /// they are of a big-endian machine.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>> {
        loop {
            self.state = match self.state {
                State::Magic => {
                    let Some(magic) = self.word(input) else { return Ok(None) };
                    check_magic(magic)?;
                    State::Count
                }
                State::Count => {
                    let Some(count) = self.word(input) else { return Ok(None) };
                    if count > self.layout.segment_blocks() {
                        return Err(malformed(format_args!("lists {count} blocks, more than a data file has")));
                    }
                    State::Truncation { count }
                }
                State::Truncation { count } => {
                    let Some(blocks) = self.word(input) else { return Ok(None) };
                    self.truncation_blocks = blocks;
                    State::Blocks { left: count }
                }
                State::Blocks { left: 0 } => {
                    let header = Header::new(self.layout, self.truncation_blocks, std::mem::take(&mut self.blocks));
                    let words = (FIXED_WORDS + header.blocks.len() as u64) * WORD_BYTES as u64;
                    self.state =
                        State::Padding { left: header.bytes_before_blocks() - words, content: header.content_bytes() };
                    return Ok(Some(Event::Header(header)));
                }
                State::Blocks { left } => {
                    let Some(block) = self.word(input) else { return Ok(None) };
                    self.take_block(block)?;
                    State::Blocks { left: left - 1 }
                }
                State::Padding { left: 0, content } => State::Content { left: content },
                State::Padding { left, content } => {
                    let zeros = take(input, left);
                    if zeros.iter().any(|&byte| byte != 0) {
                        return Err(malformed("has other bytes than zeros before its first block"));
                    }
                    if zeros.is_empty() {
                        return Ok(None);
                    }
                    State::Padding { left: left - zeros.len() as u64, content }
                }
                State::Content { .. } if input.is_empty() => return Ok(None),
                State::Content { left: 0 } => return Err(malformed("goes on behind its last block")),
                State::Content { left } => {
                    let data = take(input, left);
                    self.state = State::Content { left: left - data.len() as u64 };
                    return Ok(Some(Event::Data(data)));
                }
            };
        }
    }

    /// Says that no more bytes come. An error when blocks are missing.
    pub fn finish(&self) -> Result<()> {
        match self.state {
            State::Content { left: 0 } | State::Padding { left: 0, content: 0 } => Ok(()),
            _ => Err(malformed("is cut short")),
        }
    }

    /// Servers sort the numbers, and name none twice: the order is what makes runs of them.
    fn take_block(&mut self, block: u32) -> Result<()> {
        if block >= self.layout.segment_blocks() {
            return Err(malformed(format_args!("lists block {block}, which no data file has")));
        }
        if let Some(&last) = self.blocks.last()
            && last >= block
        {
            return Err(malformed(format_args!("lists block {block} behind block {last}")));
        }
        self.blocks.push(block);
        Ok(())
    }

    /// One whole number, across as many inputs as it takes.
    fn word(&mut self, input: &mut &[u8]) -> Option<u32> {
        let part = take(input, (WORD_BYTES - self.held_bytes) as u64);
        self.held[self.held_bytes..][..part.len()].copy_from_slice(part);
        self.held_bytes += part.len();
        if self.held_bytes < WORD_BYTES {
            return None;
        }
        self.held_bytes = 0;
        Some(u32::from_le_bytes(self.held))
    }
}

fn check_magic(magic: u32) -> Result<()> {
    if magic == MAGIC {
        return Ok(());
    }
    if magic == MAGIC.swap_bytes() {
        return Err(Error::new(ErrorKind::Unsupported, "the incremental file is of a server on a big-endian machine")
            .with_hint("make full backups of it"));
    }
    Err(malformed(format_args!("begins with {magic:08x}")))
}

fn malformed(what: impl std::fmt::Display) -> Error {
    Error::malformed(format_args!("the incremental file {what}"))
}

/// At most `max` bytes off the front of `input`.
fn take<'a>(input: &mut &'a [u8], max: u64) -> &'a [u8] {
    let length = usize::try_from(max).unwrap_or(usize::MAX).min(input.len());
    let (front, rest) = input.split_at(length);
    *input = rest;
    front
}

#[cfg(test)]
mod tests;
