#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::page::{LONG_HEADER_BYTES, SHORT_HEADER_BYTES};
use super::*;

const SEGMENT: u64 = 1 << 20;
const MAGIC_15: u16 = 0xd110;
/// 2026-01-01, by the server's count.
const TIME: i64 = 820_540_800_000_000;

/// Writes log as a server does.
struct Log {
    start: u64,
    bytes: Vec<u8>,
}

impl Log {
    fn new(start: u64) -> Self {
        assert!(start.is_multiple_of(SEGMENT));
        Self { start, bytes: Vec::new() }
    }

    fn at(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn page(&mut self, remaining: usize, flags: u16) {
        let at = self.at();
        assert!(at.is_multiple_of(PAGE_BYTES));
        let long = at.is_multiple_of(SEGMENT);
        let info = flags | u16::from(remaining > 0) | if long { 2 } else { 0 };
        self.bytes.extend(MAGIC_15.to_le_bytes());
        self.bytes.extend(info.to_le_bytes());
        self.bytes.extend(1u32.to_le_bytes());
        self.bytes.extend(at.to_le_bytes());
        self.bytes.extend((remaining as u32).to_le_bytes());
        self.bytes.extend([0; 4]);
        assert_eq!(SHORT_HEADER_BYTES, 24);
        if long {
            self.bytes.extend(77u64.to_le_bytes());
            self.bytes.extend((SEGMENT as u32).to_le_bytes());
            self.bytes.extend((PAGE_BYTES as u32).to_le_bytes());
            assert_eq!(LONG_HEADER_BYTES, 40);
        }
    }

    /// Appends a record; answers where it starts and ends.
    fn record(&mut self, rmgr: u8, info: u8, xid: u32, body: &[u8]) -> (u64, u64) {
        let mut record = ((body.len() + 24) as u32).to_le_bytes().to_vec();
        record.extend(xid.to_le_bytes());
        record.extend([0; 8]);
        record.extend([info, rmgr, 0, 0, 0, 0, 0, 0]);
        record.extend(body);
        if self.at().is_multiple_of(PAGE_BYTES) {
            self.page(0, 0);
        }
        let start = self.at();
        let mut rest = record.as_slice();
        while !rest.is_empty() {
            if self.at().is_multiple_of(PAGE_BYTES) {
                self.page(rest.len(), 0);
            }
            let room = (PAGE_BYTES - self.at() % PAGE_BYTES) as usize;
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.bytes.extend(now);
            rest = later;
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        (start, self.at())
    }

    fn commit(&mut self, xid: u32, time: i64) -> (u64, u64) {
        self.record(RMGR_TRANSACTION, 0, xid, &main(&time.to_le_bytes()))
    }
}

fn main(data: &[u8]) -> Vec<u8> {
    match u8::try_from(data.len()) {
        Ok(length) => [&[255, length], data].concat(),
        Err(_) => [&[254], (data.len() as u32).to_le_bytes().as_slice(), data].concat(),
    }
}

fn scan(start: u64, bytes: &[u8], piece: usize) -> Result<Vec<Record>, crate::Error> {
    let mut scanner = Scanner::new(start);
    let mut records = Vec::new();
    for mut input in bytes.chunks(piece.max(1)) {
        while let Some(record) = scanner.next(&mut input)? {
            records.push(record);
        }
        assert!(input.is_empty());
    }
    assert_eq!(scanner.position(), start + bytes.len() as u64);
    Ok(records)
}

fn commit_detail(xid: u32, micros: i64) -> Detail {
    Detail::Commit { xid, time: crate::replication::from_server_time(TIME + micros) }
}

#[test]
fn records_are_found_across_pages_and_segments() {
    let mut log = Log::new(5 * SEGMENT);
    let mut places = Vec::new();
    for n in 0..400u32 {
        let length = (n as usize * 97) % 20_000;
        places.push(log.record(10, 0, n, &vec![n as u8; length]));
        places.push(log.commit(n, TIME + i64::from(n)));
    }
    assert!(log.bytes.len() as u64 > 3 * SEGMENT);
    for piece in [7, 4096, 8192, 100_000, usize::MAX] {
        let records = scan(5 * SEGMENT, &log.bytes, piece).unwrap();
        let got: Vec<_> = records.iter().map(|r| (r.start, r.end)).collect();
        assert_eq!(got, places);
        for (n, pair) in records.chunks(2).enumerate() {
            assert_eq!(pair[0].detail, None);
            assert_eq!(pair[1].detail, Some(commit_detail(n as u32, n as i64)));
        }
    }
}

#[test]
fn a_start_in_the_middle_of_a_record_or_a_page_finds_the_next_one() {
    let mut log = Log::new(0x1_0000_0000);
    log.record(10, 0, 1, &[1; 30_000]);
    let (start, end) = log.commit(2, TIME);
    log.record(10, 0, 3, &[3; 9_000]);
    let last = log.commit(4, TIME);
    for from in [8192usize, 16384, 8193, 20_000] {
        let records = scan(0x1_0000_0000 + from as u64, &log.bytes[from..], 1000).unwrap();
        assert_eq!((records[0].start, records[0].end), (start, end), "{from}");
    }
    // Within the commit's own page, the next header is one later.
    let from = 24_576 + 100;
    let records = scan(0x1_0000_0000 + from as u64, &log.bytes[from..], 1000).unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].start, records[0].end), last);
}

#[test]
fn prepared_transactions_are_known_by_the_one_that_was_prepared() {
    let mut data = TIME.to_le_bytes().to_vec();
    data.extend(0b1_0001_1111u32.to_le_bytes());
    data.extend([9; 8]);
    for (count, bytes) in [(3u32, 4usize), (2, 12), (1, 12), (5, 16)] {
        data.extend(count.to_le_bytes());
        data.extend(vec![9; count as usize * bytes]);
    }
    data.extend(4711u32.to_le_bytes());
    data.extend(b"gid\0");
    let mut log = Log::new(SEGMENT);
    let mut body = vec![253, 1, 0];
    body.extend(main(&data));
    log.record(RMGR_TRANSACTION, 0xb0, 0, &body);
    log.record(RMGR_TRANSACTION, 0xc0, 0, &main(&data));
    for piece in [1, 4096] {
        let records = scan(SEGMENT, &log.bytes, piece).unwrap();
        assert_eq!(records[0].detail, Some(commit_detail(4711, 0)));
        assert!(matches!(records[1].detail, Some(Detail::Abort { xid: 4711, .. })));
    }
}

#[test]
fn a_switch_skips_to_the_next_segment() {
    let mut log = Log::new(SEGMENT);
    log.record(RMGR_XLOG, 0x40, 0, b"");
    log.bytes.resize(SEGMENT as usize, 0);
    let (start, _) = log.commit(7, TIME);
    let records = scan(SEGMENT, &log.bytes, 5000).unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].detail, Some(Detail::Switch));
    assert_eq!(records[0].end, 2 * SEGMENT);
    assert_eq!(records[1].start, start);
}

#[test]
fn a_record_that_a_crash_cut_is_passed_over() {
    let mut log = Log::new(SEGMENT);
    log.record(10, 0, 1, &[0; 10_000]);
    log.bytes.truncate(PAGE_BYTES as usize);
    log.page(0, 8);
    let (start, _) = log.commit(7, TIME);
    let records = scan(SEGMENT, &log.bytes, 5000).unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].start, start);
}

#[test]
fn zeros_are_the_end() {
    let mut log = Log::new(SEGMENT);
    log.commit(7, TIME);
    log.bytes.resize(100_000, 0);
    let mut scanner = Scanner::new(SEGMENT);
    let mut input = log.bytes.as_slice();
    assert!(scanner.next(&mut input).unwrap().is_some());
    assert!(scanner.next(&mut input).unwrap().is_none());
    assert!(scanner.is_at_end());
    assert_eq!(scanner.system_identifier(), Some(77));
    assert_eq!(scanner.segment_bytes(), Some(SEGMENT as u32));
    assert_eq!(scanner.major_version(), Some(15));
}

#[test]
fn after_an_error_the_next_page_is_tried() {
    let mut log = Log::new(SEGMENT);
    log.commit(7, TIME);
    let broken = log.bytes.len();
    log.record(10, 0, 1, &[0; 9_000]);
    let (start, _) = log.commit(8, TIME);
    log.bytes[broken..broken + 4].copy_from_slice(&5u32.to_le_bytes());
    let mut scanner = Scanner::new(SEGMENT);
    let mut input = log.bytes.as_slice();
    assert!(scanner.next(&mut input).unwrap().is_some());
    assert!(scanner.next(&mut input).is_err());
    assert_eq!(scanner.next(&mut input).unwrap().unwrap().start, start);
}

proptest! {
    #[test]
    fn any_bytes_are_log_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        start: u64,
        piece in 1usize..500,
    ) {
        let mut scanner = Scanner::new(start);
        for mut input in bytes.chunks(piece) {
            while !input.is_empty() {
                let before = input.len();
                let found = scanner.next(&mut input);
                prop_assert!(input.len() < before || matches!(found, Ok(Some(_)) | Err(_)));
            }
        }
    }

    #[test]
    fn log_with_broken_bytes_never_panics(
        breaks in prop::collection::vec((0usize..60_000, any::<u8>()), 1..20),
        piece in 1usize..20_000,
    ) {
        let mut log = Log::new(SEGMENT);
        while log.bytes.len() < 60_000 {
            log.record(10, 0, 1, &vec![1; log.bytes.len() % 4000]);
            log.commit(1, TIME);
        }
        for (at, byte) in breaks {
            log.bytes[at] = byte;
        }
        let mut scanner = Scanner::new(SEGMENT);
        for mut input in log.bytes.chunks(piece) {
            while !input.is_empty() {
                let _ = scanner.next(&mut input);
            }
        }
    }

    #[test]
    fn what_is_found_does_not_depend_on_how_it_is_cut(
        lengths in prop::collection::vec(0usize..9000, 1..30),
        piece in 1usize..20_000,
    ) {
        let mut log = Log::new(SEGMENT);
        let mut places = Vec::new();
        for length in lengths {
            places.push(log.record(10, 0, 1, &vec![1; length]));
        }
        let got: Vec<_> = scan(SEGMENT, &log.bytes, piece)
            .unwrap()
            .iter()
            .map(|r| (r.start, r.end))
            .collect();
        prop_assert_eq!(got, places);
    }
}
