//! Finds the records in a stream of log.

use super::detail::Gatherer;
use super::page::{LONG_HEADER_BYTES, PAGE_BYTES, PageHeader, header_bytes};
use super::{Detail, RMGR_XLOG, Record};
use crate::limits::WAL_RECORD_BYTES_MAX;
use crate::lsn::Lsn;
use crate::{Error, Result};

/// The fixed part of a record.
const RECORD_HEADER_BYTES: usize = 24;
/// Records begin at multiples of this.
const ALIGNMENT: u64 = 8;
/// Log has not been written beyond here by any server: near the end, sums could overflow.
const POSITION_MAX: u64 = i64::MAX as u64;
const XLOG_SWITCH: u8 = 0x40;

/// What the payload of the page at hand is.
#[derive(Debug)]
enum State {
    /// The middle of something; the next page header tells where a record begins.
    Lost,
    /// The rest of a record whose beginning was not seen.
    Rest { left: u32 },
    /// A record's header, of which `have` bytes came.
    Header { have: usize },
    /// A record's body.
    Body { left: u32 },
    /// What a switch of segments left empty, to the next segment's first page.
    Emptied,
    /// Zeros: the log was not written further.
    Ended,
}

/// The record being read.
#[derive(Debug, Default)]
struct Open {
    start: u64,
    rmgr: u8,
    info: u8,
    xid: u32,
    gatherer: Option<Box<Gatherer>>,
}

/// Finds the records in a stream of log.
#[derive(Debug)]
pub struct Scanner {
    /// Where the next byte lies in the log.
    at: u64,
    state: State,
    open: Open,
    record_header: [u8; RECORD_HEADER_BYTES],
    page_header: [u8; LONG_HEADER_BYTES],
    page_header_have: usize,
    /// The next byte belongs to a page's header.
    in_page_header: bool,
    magic: u16,
    timeline: Option<u32>,
    system_identifier: Option<u64>,
    segment_bytes: Option<u32>,
}

impl Scanner {
    /// A scanner whose first byte lies at `start` in the log. Inside a page it passes over
    /// the rest of that page, which may begin in the middle of a record.
    #[must_use]
    pub fn new(start: u64) -> Self {
        Self {
            at: start,
            state: State::Lost,
            open: Open::default(),
            record_header: [0; RECORD_HEADER_BYTES],
            page_header: [0; LONG_HEADER_BYTES],
            page_header_have: 0,
            in_page_header: start.is_multiple_of(PAGE_BYTES),
            magic: 0,
            timeline: None,
            system_identifier: None,
            segment_bytes: None,
        }
    }

    /// Where the next byte lies in the log.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.at
    }

    /// The timeline of the last page header.
    #[must_use]
    pub fn timeline(&self) -> Option<u32> {
        self.timeline
    }

    /// The cluster's identity, once a segment's first page was seen.
    #[must_use]
    pub fn system_identifier(&self) -> Option<u64> {
        self.system_identifier
    }

    /// `wal_segment_size` in bytes, once a segment's first page was seen.
    #[must_use]
    pub fn segment_bytes(&self) -> Option<u32> {
        self.segment_bytes
    }

    /// The server's major version, once a page header was seen.
    #[must_use]
    pub fn major_version(&self) -> Option<u16> {
        super::major_version(self.magic)
    }

    /// Whether zeros came where a record would begin: the file was not written further.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// The next record that ends in `input`, which moves on behind what was read. Nothing:
    /// all of `input` is read, and more is needed.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Record>> {
        if self.at.checked_add(input.len() as u64).is_none_or(|end| end > POSITION_MAX) {
            *input = &[];
            return Err(Error::malformed("the log goes on beyond the end of all log"));
        }
        while !input.is_empty() {
            if self.in_page_header {
                self.page_header(input)?;
                continue;
            }
            match self.payload(input) {
                Ok(None) => {}
                Ok(Some(record)) => return Ok(Some(record)),
                Err(error) => {
                    self.state = State::Lost;
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// Bytes from here to the end of the page.
    fn page_left(&self) -> u64 {
        PAGE_BYTES - self.at % PAGE_BYTES
    }

    /// At most `max` bytes of the page's payload.
    fn take<'a>(&mut self, input: &mut &'a [u8], max: u64) -> &'a [u8] {
        // A page is small.
        let length = max.min(self.page_left()).min(input.len() as u64) as usize;
        let (front, rest) = input.split_at(length);
        *input = rest;
        self.at += length as u64;
        self.in_page_header = self.at.is_multiple_of(PAGE_BYTES);
        front
    }

    fn page_header(&mut self, input: &mut &[u8]) -> Result<()> {
        let have = self.page_header_have;
        let need = if have < 4 { 4 } else { header_bytes(&self.page_header) };
        let taken = (need - have).min(input.len());
        let (front, rest) = input.split_at(taken);
        self.page_header[have..have + taken].copy_from_slice(front);
        *input = rest;
        self.at += taken as u64;
        self.page_header_have += taken;
        if self.page_header_have < need || need == 4 {
            return Ok(());
        }
        self.page_header_have = 0;
        self.in_page_header = false;
        let unwritten = self.page_header[..need].iter().all(|&byte| byte == 0);
        match self.state {
            State::Emptied if unwritten => return Ok(()),
            State::Lost | State::Header { have: 0 } | State::Ended if unwritten => {
                self.state = State::Ended;
                return Ok(());
            }
            _ => {}
        }
        let page = self.at - need as u64;
        let header = match PageHeader::parse(&self.page_header[..need], page) {
            Ok(header) => header,
            Err(error) => {
                self.state = State::Lost;
                return Err(error);
            }
        };
        self.magic = header.magic;
        self.timeline = Some(header.timeline);
        if let Some(long) = header.long {
            self.system_identifier = Some(long.system_identifier);
            self.segment_bytes = Some(long.segment_bytes);
        }
        self.enter_page(&header)
    }

    /// Fits what was going on to what the page's header says.
    fn enter_page(&mut self, header: &PageHeader) -> Result<()> {
        let expected = match self.state {
            State::Emptied => {
                if header.long.is_none() {
                    return Ok(());
                }
                0
            }
            State::Lost | State::Ended => header.remaining,
            State::Rest { left } | State::Body { left } => left,
            State::Header { have: 0 } => 0,
            State::Header { have } => self.record_length().saturating_sub(have as u32),
        };
        let beginning =
            if header.remaining > 0 { State::Rest { left: header.remaining } } else { State::Header { have: 0 } };
        if header.overwrites {
            // The server crashed inside the record before and wrote over its rest.
            self.state = State::Header { have: 0 };
            return Ok(());
        }
        if expected != header.remaining {
            self.state = beginning;
            return Err(Error::malformed(format_args!(
                "the log page at {} continues a record with {} bytes where {expected} are missing",
                Lsn(header.address),
                header.remaining
            )));
        }
        if matches!(self.state, State::Lost | State::Emptied | State::Ended) {
            self.state = beginning;
        }
        Ok(())
    }

    /// The length in the record header at hand; its first four bytes must have come.
    fn record_length(&self) -> u32 {
        let h = &self.record_header;
        u32::from_le_bytes([h[0], h[1], h[2], h[3]])
    }

    fn payload(&mut self, input: &mut &[u8]) -> Result<Option<Record>> {
        match self.state {
            State::Lost | State::Emptied | State::Ended => {
                self.take(input, u64::MAX);
                Ok(None)
            }
            State::Rest { left } => {
                let taken = self.take(input, u64::from(left)).len() as u32;
                self.state = State::Rest { left: left - taken };
                if taken == left {
                    self.state = State::Header { have: 0 };
                    self.pass_padding(input);
                }
                Ok(None)
            }
            State::Header { have } => self.header(input, have),
            State::Body { left } => {
                let part = self.take(input, u64::from(left));
                if let Some(gatherer) = &mut self.open.gatherer {
                    gatherer.feed(part);
                }
                let left = left - part.len() as u32;
                self.state = State::Body { left };
                if left > 0 {
                    return Ok(None);
                }
                self.record_end(input).map(Some)
            }
        }
    }

    fn header(&mut self, input: &mut &[u8], have: usize) -> Result<Option<Record>> {
        if have == 0 {
            let padding = self.at.next_multiple_of(ALIGNMENT) - self.at;
            if padding > 0 {
                self.take(input, padding);
                return Ok(None);
            }
            self.open.start = self.at;
        }
        let part = self.take(input, (RECORD_HEADER_BYTES - have) as u64);
        self.record_header[have..have + part.len()].copy_from_slice(part);
        let have = have + part.len();
        self.state = State::Header { have };
        if have < 4 {
            return Ok(None);
        }
        let length = self.record_length();
        if length == 0 {
            self.state = State::Ended;
            return Ok(None);
        }
        if length < RECORD_HEADER_BYTES as u32 || length > WAL_RECORD_BYTES_MAX {
            return Err(Error::malformed(format_args!(
                "the log record at {} has the unlawful length {length}",
                Lsn(self.open.start)
            )));
        }
        if have < RECORD_HEADER_BYTES {
            return Ok(None);
        }
        let h = &self.record_header;
        self.open.xid = u32::from_le_bytes([h[4], h[5], h[6], h[7]]);
        self.open.info = h[16];
        self.open.rmgr = h[17];
        self.open.gatherer = Gatherer::new(self.open.rmgr, self.open.info, self.open.xid, self.magic).map(Box::new);
        let left = length - RECORD_HEADER_BYTES as u32;
        self.state = State::Body { left };
        if left == 0 {
            return self.record_end(input).map(Some);
        }
        Ok(None)
    }

    /// The record at hand is complete.
    fn record_end(&mut self, input: &mut &[u8]) -> Result<Record> {
        let open = std::mem::take(&mut self.open);
        let detail = match open.gatherer {
            None => None,
            Some(gatherer) => match gatherer.finish() {
                Some(detail) => Some(detail),
                None => {
                    self.state = State::Header { have: 0 };
                    return Err(Error::malformed(format_args!(
                        "the log record at {} is not what its kind should be",
                        Lsn(open.start)
                    )));
                }
            },
        };
        let mut record = Record {
            start: open.start,
            end: self.at.next_multiple_of(ALIGNMENT),
            rmgr: open.rmgr,
            info: open.info,
            xid: open.xid,
            detail,
        };
        if record.rmgr == RMGR_XLOG && record.info & 0xf0 == XLOG_SWITCH {
            record.detail = Some(Detail::Switch);
            if let Some(bytes) = self.segment_bytes {
                record.end = record.end.next_multiple_of(u64::from(bytes));
            }
            self.state = State::Emptied;
        } else {
            self.state = State::Header { have: 0 };
            self.pass_padding(input);
        }
        Ok(record)
    }

    /// Records are padded to 8 bytes, so padding never leaves its page.
    fn pass_padding(&mut self, input: &mut &[u8]) {
        let padding = self.at.next_multiple_of(ALIGNMENT) - self.at;
        if padding > 0 {
            self.take(input, padding);
        }
    }
}
