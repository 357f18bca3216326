//! The host's side of archiving and restoring, natively: a log in memory under the real
//! chain's rules, and a backup in a folder.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // each test file uses a part

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use backstay_core::{Chain, ChainError};
use backstay_sdk::native::{Answer, BackupSource, DirectoryBackend, Incoming, Items, LogSink, LogSource};
use backstay_sdk::{Error, ErrorKind, Node, PlaceSummary, Position, Result, Segment, Timestamp};
use futures::{StreamExt as _, stream};

fn core_position(at: &Position) -> backstay_core::Position {
    backstay_core::Position { epoch: at.epoch, offset: at.offset, label: at.label.clone() }
}

fn core_segment(segment: &Segment) -> backstay_core::Segment {
    let time = backstay_core::Timestamp::from_micros;
    backstay_core::Segment {
        start: core_position(&segment.start),
        end: core_position(&segment.end),
        follows: segment.follows.as_ref().map(core_position),
        first_commit: segment.first_commit.map(time),
        last_commit: segment.last_commit.map(time),
        file: segment.file.clone(),
        file_offset: segment.file_offset,
    }
}

/// A target's log in memory.
#[derive(Default)]
pub struct MemoryLog {
    chain: RefCell<Chain>,
    pub pieces: RefCell<Vec<(Segment, Vec<u8>)>>,
    pub notes: RefCell<BTreeMap<String, Vec<u8>>>,
    pub confirmed: RefCell<Option<(Position, Timestamp)>>,
    pub identity: RefCell<Option<String>>,
    /// Whether the operator allowed to go on behind a gap.
    pub allows_gaps: Cell<bool>,
    /// How long an append takes.
    pub delay: Cell<Duration>,
}

/// A share of a log, since the SDK's traits are implemented for it.
pub struct Sink(pub Rc<MemoryLog>);

impl MemoryLog {
    /// The end of the newest timeline.
    pub fn tail(&self) -> Option<Position> {
        let chain = self.chain.borrow();
        let tail = chain.tail()?;
        Some(Position { epoch: tail.epoch, offset: tail.offset, label: tail.label.clone() })
    }

    fn append(&self, segment: Segment, body: Vec<u8>) -> Result<()> {
        assert!(self.identity.borrow().is_some(), "identify comes first");
        assert_eq!(body.len() as u64, segment.end.offset - segment.start.offset);
        let piece = core_segment(&segment);
        let mut chain = self.chain.borrow_mut();
        let pushed = if self.allows_gaps.get() { chain.push_after_gap(piece) } else { chain.push(piece) };
        pushed.map_err(|error| {
            let kind = match error {
                ChainError::Gap { .. } => ErrorKind::Gap,
                ChainError::Conflict { .. } => ErrorKind::Conflict,
                _ => ErrorKind::Internal,
            };
            Error::new(kind, error.to_string())
        })?;
        self.pieces.borrow_mut().push((segment, body));
        Ok(())
    }

    /// The pieces that lead to the end of `epoch`, oldest first.
    pub fn line(&self, epoch: u64) -> Vec<(Segment, Vec<u8>)> {
        let pieces = self.pieces.borrow();
        let mut line: Vec<(Segment, Vec<u8>)> = Vec::new();
        let (mut at, mut until) = (epoch, u64::MAX);
        loop {
            let mut here: Vec<_> = pieces
                .iter()
                .filter(|(segment, _)| segment.start.epoch == at && segment.start.offset < until)
                .cloned()
                .collect();
            here.sort_by_key(|(segment, _)| segment.start.offset);
            let follows = here.first().and_then(|(segment, _)| segment.follows.clone());
            here.extend(line);
            line = here;
            match follows {
                Some(follows) => (at, until) = (follows.epoch, follows.offset),
                None => return line,
            }
        }
    }

    /// A reader of [`Self::line`].
    pub fn reader(&self, epoch: u64) -> backstay_sdk::LogReader {
        let source = Source { pieces: self.line(epoch), notes: self.notes.borrow().clone() };
        (Rc::new(source) as Rc<dyn LogSource>).into()
    }
}

impl LogSink for Sink {
    fn identify(&self, identity: &str) -> Answer<()> {
        let known = self.0.identity.borrow_mut().get_or_insert_with(|| identity.to_owned()) == identity;
        Box::pin(
            async move { if known { Ok(()) } else { Err(Error::new(ErrorKind::Conflict, "another cluster's log")) } },
        )
    }

    fn tail(&self) -> Option<Position> {
        self.0.tail()
    }

    fn append(&self, segment: Segment, mut body: Incoming) -> Answer<()> {
        let log = self.0.clone();
        Box::pin(async move {
            let mut bytes = Vec::new();
            while let Some(part) = body.next().await {
                bytes.extend(part);
            }
            tokio::time::sleep(log.delay.get()).await;
            log.append(segment, bytes)
        })
    }

    fn confirm(&self, at: Position, when: Timestamp) -> Answer<()> {
        *self.0.confirmed.borrow_mut() = Some((at, when));
        Box::pin(async { Ok(()) })
    }

    fn put_note(&self, name: &str, bytes: &[u8]) -> Answer<()> {
        let kept = self.0.notes.borrow_mut().entry(name.to_owned()).or_insert_with(|| bytes.to_vec()) == bytes;
        Box::pin(async move { if kept { Ok(()) } else { Err(Error::new(ErrorKind::Conflict, "another note")) } })
    }
}

struct Source {
    pieces: Vec<(Segment, Vec<u8>)>,
    notes: BTreeMap<String, Vec<u8>>,
}

impl LogSource for Source {
    fn segments(&self) -> Items<Segment> {
        let all: Vec<_> = self.pieces.iter().map(|(segment, _)| Ok(segment.clone())).collect();
        stream::iter(all).boxed_local()
    }

    fn read(&self, start: Position) -> Items<Vec<u8>> {
        let mut parts = Vec::new();
        for (segment, bytes) in &self.pieces {
            if segment.start.epoch == start.epoch && segment.end.offset > start.offset {
                let skip = start.offset.saturating_sub(segment.start.offset);
                parts.push(Ok(bytes[skip as usize..].to_vec()));
            }
        }
        stream::iter(parts).boxed_local()
    }

    fn place(&self, into: Rc<dyn DirectoryBackend>, path: &str, file_size: u64) -> Answer<u64> {
        let folder = into.location().join(path);
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (segment, bytes) in &self.pieces {
            let file = files.entry(segment.file.clone()).or_insert_with(|| vec![0; file_size as usize]);
            let at = segment.file_offset as usize;
            file[at..at + bytes.len()].copy_from_slice(bytes);
        }
        let count = files.len() as u64;
        for (name, bytes) in files {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
        Box::pin(async move { Ok(count) })
    }

    fn notes(&self) -> Answer<Vec<String>> {
        let names = self.notes.keys().cloned().collect();
        Box::pin(async move { Ok(names) })
    }

    fn read_note(&self, name: &str) -> Answer<Vec<u8>> {
        let note = self.notes.get(name).cloned();
        Box::pin(async move { note.ok_or_else(|| Error::new(ErrorKind::BadConfig, "no such note")) })
    }
}

/// A backup that lies in a folder, as `FolderSink` left it.
pub struct FolderSource {
    pub folder: PathBuf,
    pub notes: String,
}

impl BackupSource for FolderSource {
    fn notes(&self) -> String {
        self.notes.clone()
    }

    fn nodes(&self) -> Items<Node> {
        panic!("not used by this engine")
    }

    fn read(&self, _: &str) -> Items<Vec<u8>> {
        panic!("not used by this engine")
    }

    fn place(&self, subtree: &str, into: Rc<dyn DirectoryBackend>, except: &[String]) -> Answer<PlaceSummary> {
        assert!(except.is_empty());
        let status = std::process::Command::new("rsync").arg("--version").output();
        let (from, to) = (self.folder.join(subtree), into.location());
        let copied = if status.is_ok_and(|output| output.status.success()) {
            let mut command = std::process::Command::new("rsync");
            command.args(["-a", "--delete"]).arg(format!("{}/", from.display())).arg(&to);
            command.status()
        } else {
            for entry in std::fs::read_dir(&to).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    std::fs::remove_dir_all(path).unwrap();
                } else {
                    std::fs::remove_file(path).unwrap();
                }
            }
            std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(&to).status()
        };
        assert!(copied.unwrap().success());
        Box::pin(async { Ok(PlaceSummary { files: 0, bytes: 0, kept_bytes: 0 }) })
    }
}
