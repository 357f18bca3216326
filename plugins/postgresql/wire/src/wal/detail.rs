//! What a record's body says, gathered while the body goes by in parts.
//!
//! A body is a list of block headers, then perhaps an origin and a top-level transaction,
//! then the length of the main data, and (the records looked into have no blocks) the main
//! data itself. [`Gatherer`] asks for one field after the other and copies only those.

use super::{Detail, RMGR_TRANSACTION, RMGR_XLOG, page::major_version};
use crate::replication::from_server_time;

/// The longest field: a restore point, 8 bytes of time and 64 of name.
const FIELD_BYTES_MAX: usize = 72;

const ID_DATA_SHORT: u8 = 255;
const ID_DATA_LONG: u8 = 254;
const ID_ORIGIN: u8 = 253;
const ID_TOPLEVEL_XID: u8 = 252;

const XACT_HAS_INFO: u8 = 0x80;
const XACT_OPERATIONS: u8 = 0x70;
const XINFO_DATABASE: u32 = 1;
const XINFO_SUBTRANSACTIONS: u32 = 1 << 1;
const XINFO_RELATIONS: u32 = 1 << 2;
const XINFO_INVALIDATIONS: u32 = 1 << 3;
const XINFO_TWO_PHASE: u32 = 1 << 4;
const XINFO_DROPPED_STATISTICS: u32 = 1 << 8;

/// What kind of record is looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Checkpoint { shutdown: bool },
    RestorePoint,
    EndOfRecovery,
    BackupEnd,
    Commit { prepared: bool },
    Abort { prepared: bool },
}

/// Which field is being gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    BlockId,
    Origin,
    TopLevelXid,
    ShortLength,
    LongLength,
    Main,
    Xinfo,
    /// The number of items in the list that this flag announces.
    Count(u32),
    TwoPhase,
    Done,
}

/// Gathers one record's [`Detail`].
#[derive(Debug)]
pub(super) struct Gatherer {
    kind: Kind,
    has_info: bool,
    field: Field,
    need: usize,
    have: usize,
    skip: u64,
    buffer: [u8; FIELD_BYTES_MAX],
    statistics_item_bytes: u64,
    xid: u32,
    time: u64,
    xinfo: u32,
    detail: Option<Detail>,
}

impl Gatherer {
    /// One for that record, if it is of a kind that is looked into.
    pub(super) fn new(rmgr: u8, info: u8, xid: u32, magic: u16) -> Option<Self> {
        let kind = match (rmgr, info & 0xf0) {
            (RMGR_XLOG, 0x00) => Kind::Checkpoint { shutdown: true },
            (RMGR_XLOG, 0x10) => Kind::Checkpoint { shutdown: false },
            (RMGR_XLOG, 0x50) => Kind::BackupEnd,
            (RMGR_XLOG, 0x70) => Kind::RestorePoint,
            (RMGR_XLOG, 0x90) => Kind::EndOfRecovery,
            (RMGR_TRANSACTION, info) => match info & XACT_OPERATIONS {
                0x00 => Kind::Commit { prepared: false },
                0x20 => Kind::Abort { prepared: false },
                0x30 => Kind::Commit { prepared: true },
                0x40 => Kind::Abort { prepared: true },
                _ => return None,
            },
            _ => return None,
        };
        Some(Self {
            kind,
            has_info: rmgr == RMGR_TRANSACTION && info & XACT_HAS_INFO != 0,
            field: Field::BlockId,
            need: 1,
            have: 0,
            skip: 0,
            buffer: [0; FIELD_BYTES_MAX],
            // As of 18 the object's number has 64 bits.
            statistics_item_bytes: if major_version(magic) >= Some(18) { 16 } else { 12 },
            xid,
            time: 0,
            xinfo: 0,
            detail: None,
        })
    }

    /// Takes the next part of the body.
    pub(super) fn feed(&mut self, mut part: &[u8]) {
        while self.field != Field::Done && !part.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(part.len() as u64);
                self.skip -= skipped;
                // Bounded by the part's length.
                part = &part[skipped as usize..];
                continue;
            }
            let taken = (self.need - self.have).min(part.len());
            self.buffer[self.have..self.have + taken].copy_from_slice(&part[..taken]);
            part = &part[taken..];
            self.have += taken;
            if self.have == self.need {
                self.have = 0;
                self.complete();
            }
        }
    }

    /// What was gathered; nothing when the body was not what such a record has.
    pub(super) fn finish(self) -> Option<Detail> {
        self.detail
    }

    fn want(&mut self, field: Field, need: usize) {
        (self.field, self.need) = (field, need);
    }

    fn u32_at(&self, at: usize) -> u32 {
        let b = &self.buffer;
        u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from(self.u32_at(at)) | u64::from(self.u32_at(at + 4)) << 32
    }

    fn time_at(&self, at: usize) -> u64 {
        from_server_time(self.u64_at(at).cast_signed())
    }

    fn complete(&mut self) {
        match self.field {
            Field::BlockId => match self.buffer[0] {
                ID_DATA_SHORT => self.want(Field::ShortLength, 1),
                ID_DATA_LONG => self.want(Field::LongLength, 4),
                ID_ORIGIN => self.want(Field::Origin, 2),
                ID_TOPLEVEL_XID => self.want(Field::TopLevelXid, 4),
                // Block references: no record that is looked into has them.
                _ => self.field = Field::Done,
            },
            Field::Origin | Field::TopLevelXid => self.want(Field::BlockId, 1),
            Field::ShortLength => self.main(u32::from(self.buffer[0])),
            Field::LongLength => self.main(self.u32_at(0)),
            Field::Main => self.body(),
            Field::Xinfo => {
                self.xinfo = self.u32_at(0);
                if self.xinfo & XINFO_DATABASE != 0 {
                    self.skip = 8;
                }
                self.list_after(XINFO_DATABASE);
            }
            Field::Count(flag) => {
                let item_bytes = match flag {
                    XINFO_SUBTRANSACTIONS => 4,
                    XINFO_RELATIONS => 12,
                    XINFO_DROPPED_STATISTICS => self.statistics_item_bytes,
                    _ => 16,
                };
                self.skip = u64::from(self.u32_at(0)) * item_bytes;
                self.list_after(flag);
            }
            Field::TwoPhase => {
                self.xid = self.u32_at(0);
                self.transaction();
            }
            Field::Done => {}
        }
    }

    /// Moves on to the list that comes after the one `flag` announces, or to what follows them.
    fn list_after(&mut self, flag: u32) {
        const LISTS: [u32; 5] =
            [XINFO_DATABASE, XINFO_SUBTRANSACTIONS, XINFO_RELATIONS, XINFO_DROPPED_STATISTICS, XINFO_INVALIDATIONS];
        let next = LISTS.iter().skip_while(|&&list| list != flag).skip(1).find(|&&list| self.xinfo & list != 0);
        match next {
            Some(&list) => self.want(Field::Count(list), 4),
            None if self.xinfo & XINFO_TWO_PHASE != 0 => self.want(Field::TwoPhase, 4),
            None => self.transaction(),
        }
    }

    fn main(&mut self, length: u32) {
        let need = match self.kind {
            Kind::Checkpoint { .. } | Kind::EndOfRecovery => 16,
            Kind::RestorePoint => 72,
            Kind::BackupEnd | Kind::Commit { .. } | Kind::Abort { .. } => 8,
        };
        if length >= need {
            // At most the buffer's length.
            self.want(Field::Main, need as usize);
        } else {
            self.field = Field::Done;
        }
    }

    fn body(&mut self) {
        self.detail = match self.kind {
            Kind::Checkpoint { shutdown } => Some(Detail::Checkpoint {
                redo: self.u64_at(0),
                timeline: self.u32_at(8),
                previous_timeline: self.u32_at(12),
                shutdown,
            }),
            Kind::EndOfRecovery => Some(Detail::EndOfRecovery {
                time: self.time_at(0),
                timeline: self.u32_at(8),
                previous_timeline: self.u32_at(12),
            }),
            Kind::RestorePoint => {
                let name = self.buffer[8..].split(|&byte| byte == 0).next();
                Some(Detail::RestorePoint {
                    name: String::from_utf8_lossy(name.unwrap_or(&[])).into_owned(),
                    time: self.time_at(0),
                })
            }
            Kind::BackupEnd => Some(Detail::BackupEnd { start: self.u64_at(0) }),
            Kind::Commit { prepared } | Kind::Abort { prepared } => {
                self.time = self.time_at(0);
                if prepared && self.has_info {
                    self.want(Field::Xinfo, 4);
                } else {
                    self.transaction();
                }
                return;
            }
        };
        self.field = Field::Done;
    }

    fn transaction(&mut self) {
        let (xid, time) = (self.xid, self.time);
        self.detail = Some(match self.kind {
            Kind::Abort { .. } => Detail::Abort { xid, time },
            _ => Detail::Commit { xid, time },
        });
        self.field = Field::Done;
    }
}
