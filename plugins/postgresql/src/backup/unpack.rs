//! Turns the server's archives into the backup's files, and checks each.

use std::collections::BTreeMap;
use std::pin::Pin;

use backstay_postgresql_wire::backup_label::without_predecessor;
use backstay_postgresql_wire::incremental::full_name;
use backstay_postgresql_wire::limits::MANIFEST_BYTES_MAX;
use backstay_postgresql_wire::manifest::{Hasher, Manifest};
use backstay_postgresql_wire::relation_file::Layout;
use backstay_postgresql_wire::tar::{Decoder, Entry, EntryKind, Event};
use backstay_postgresql_wire::wal_file::WalFile;
use backstay_sdk::{
    BackupWriter, Error, ErrorKind, FileAttributes, FileWriter, Node, NodeKind, Result, StoredFile, host,
};
use futures::stream::{FuturesUnordered, StreamExt as _};

use super::base::Base;
use super::cuts::Cuts;
use super::ledger::Ledger;
use super::patching::{Earlier, Patching, Sent};
use super::stream::MANIFEST_PATH;
use super::wal_watch::WalWatch;
use super::{MAIN, TABLESPACES};
use crate::limits::{FINISHING_MAX, LABEL_BYTES_MAX};
use crate::refusal::from_wire;

/// The file that says where a restore starts, in the main folder.
const LABEL: &str = "backup_label";

type Finishing<'w> = Pin<Box<dyn Future<Output = Result<Finished>> + 'w>>;

/// A file whose every byte was sent, and what the host has of it.
struct Finished {
    what: Whole,
    stored: StoredFile,
}

/// What was sent of a file.
enum Whole {
    /// The manifest itself, of so many bytes.
    Manifest(u64),
    /// A file of so many bytes, by the path that the manifest knows.
    File(String, u64),
    /// Changed blocks of a file, by the path that the server's manifest knows.
    Changes(String, Sent),
}

/// What is being received.
enum Part<'w> {
    Nothing,
    Archive(Box<Archive<'w>>),
    /// Stored as it comes, but for that of changes.
    Manifest {
        writer: Option<FileWriter<StoredFile>>,
        bytes: Vec<u8>,
    },
}

/// What a backup of changes is put together from.
pub(super) struct Changes {
    pub(super) layout: Layout,
    pub(super) base: Base,
    pub(super) cuts: Cuts,
}

/// An archive that is being received.
struct Archive<'w> {
    tar: Decoder,
    root: Root,
    open: Option<OpenFile<'w>>,
}

/// Where an archive's files go.
struct Root {
    /// The folder in the backup.
    stored: String,
    /// What the manifest puts before the paths; empty for the main folder.
    listed: String,
}

/// A file that is being received.
struct OpenFile<'w> {
    taking: Taking<'w>,
    listed: String,
    size: u64,
    kind: FileKind,
}

/// Where a file's bytes go.
enum Taking<'w> {
    Whole(FileWriter<StoredFile>),
    Patch(Box<Patching<'w>>),
    /// Nowhere yet: it is held, and stored when all is known.
    Held,
}

/// What a file's bytes are looked at for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileKind {
    /// Log: for the times of commits.
    Log,
    /// `backup_label`: for the time of the start.
    Label,
    Other,
}

/// Takes in archives and the manifest.
pub(super) struct Unpacker<'w> {
    into: &'w BackupWriter,
    segment_bytes: u64,
    folder_mode: u32,
    changes: Option<Changes>,
    part: Part<'w>,
    finishing: FuturesUnordered<Finishing<'w>>,
    ledger: Ledger,
    /// What became of files of changed blocks, by the path that the server's manifest knows.
    patched: BTreeMap<String, StoredFile>,
    log: WalWatch,
    label: Vec<u8>,
    manifest: Option<Manifest>,
}

/// What came in, verified.
pub(super) struct Unpacked {
    pub(super) manifest: Manifest,
    /// The bytes of `backup_label`.
    pub(super) label: Vec<u8>,
    log: WalWatch,
}

impl Unpacked {
    /// The latest commit, by the server's clock, in the log inside the backup up to `end`.
    pub(super) fn last_commit_before(&self, end: u64) -> Option<u64> {
        self.log.last_commit_before(end)
    }
}

impl<'w> Unpacker<'w> {
    pub(super) fn new(into: &'w BackupWriter, segment_bytes: u64, folder_mode: u32, changes: Option<Changes>) -> Self {
        Self {
            into,
            segment_bytes,
            folder_mode,
            changes,
            patched: BTreeMap::new(),
            part: Part::Nothing,
            finishing: FuturesUnordered::new(),
            ledger: Ledger::default(),
            log: WalWatch::default(),
            label: Vec::new(),
            manifest: None,
        }
    }

    /// An archive begins: a tablespace's, or that of the main folder.
    pub(super) async fn begin_archive(&mut self, oid: Option<u32>, location: &str) -> Result<()> {
        self.end_part().await?;
        let root = match oid {
            None => Root { stored: MAIN.to_owned(), listed: String::new() },
            Some(oid) => Root {
                // A tablespace "in place" lies inside the main folder.
                stored: if location.starts_with('/') {
                    format!("{TABLESPACES}/{oid}")
                } else {
                    format!("{MAIN}/pg_tblspc/{oid}")
                },
                listed: format!("pg_tblspc/{oid}/"),
            },
        };
        // The archive has entries for what is inside only.
        self.put_folder(root.stored.clone(), self.folder_mode, host::now()).await?;
        self.part = Part::Archive(Box::new(Archive { tar: Decoder::new(), root, open: None }));
        Ok(())
    }

    /// The manifest begins.
    pub(super) async fn begin_manifest(&mut self) -> Result<()> {
        self.end_part().await?;
        if self.manifest.is_some() {
            return Err(corrupt("the server sent two manifests".to_owned()));
        }
        let writer = self.changes.is_none().then(|| self.into.put_file(MANIFEST_PATH, private()));
        self.part = Part::Manifest { writer, bytes: Vec::new() };
        Ok(())
    }

    /// Bytes of what began last.
    pub(super) async fn data(&mut self, mut data: &[u8]) -> Result<()> {
        match &mut self.part {
            Part::Nothing => Err(corrupt("the server sent data that belongs to nothing".to_owned())),
            Part::Manifest { writer, bytes } => {
                if bytes.len() + data.len() > MANIFEST_BYTES_MAX {
                    return Err(corrupt(format!("the server's manifest is larger than {MANIFEST_BYTES_MAX} bytes")));
                }
                bytes.extend_from_slice(data);
                match writer {
                    Some(writer) => writer.write(data).await,
                    None => Ok(()),
                }
            }
            Part::Archive(_) => {
                while let Some(event) = self.event(&mut data)? {
                    self.handle(event).await?;
                }
                Ok(())
            }
        }
    }

    fn event<'a>(&mut self, data: &mut &'a [u8]) -> Result<Option<Event<'a>>> {
        match &mut self.part {
            Part::Archive(archive) => archive.tar.next(data).map_err(from_wire),
            Part::Nothing | Part::Manifest { .. } => Ok(None),
        }
    }

    async fn handle(&mut self, event: Event<'_>) -> Result<()> {
        let Part::Archive(archive) = &mut self.part else {
            return Ok(());
        };
        let Archive { root, open, .. } = archive.as_mut();
        match event {
            Event::Entry(entry) => {
                let stored = format!("{}/{}", root.stored, entry.path);
                let listed = format!("{}{}", root.listed, entry.path);
                self.entry(entry, stored, listed).await
            }
            Event::Data(data) => {
                let Some(file) = open else {
                    return Err(corrupt("the server's archive has data outside a file".to_owned()));
                };
                match file.kind {
                    FileKind::Log => self.log.data(data),
                    FileKind::Label => self.label.extend_from_slice(data),
                    FileKind::Other => {}
                }
                match &mut file.taking {
                    Taking::Whole(writer) => writer.write(data).await,
                    Taking::Patch(patching) => patching.write(data).await,
                    Taking::Held => Ok(()),
                }
            }
            Event::FileEnd => {
                let Some(file) = open.take() else {
                    return Err(corrupt("the server's archive ends a file twice".to_owned()));
                };
                match file.taking {
                    Taking::Whole(writer) => self.finish_file(writer, Whole::File(file.listed, file.size)).await,
                    Taking::Patch(patching) => {
                        let (sent, writer) = patching.finish()?;
                        self.finish_file(writer, Whole::Changes(file.listed, sent)).await
                    }
                    Taking::Held => self.ledger.add(file.listed, file.size, crc32c::crc32c(&self.label)),
                }
            }
            Event::End => Ok(()),
        }
    }

    async fn entry(&mut self, entry: Entry, stored: String, listed: String) -> Result<()> {
        let modified = entry.mtime.saturating_mul(1_000_000);
        let mode = entry.mode & 0o777;
        match entry.kind {
            EntryKind::Directory => self.put_folder(stored, mode, modified).await,
            // Links to tablespaces point out of the folder, to where the source's own tablespaces
            // are; `tablespace_map` says the same, and the server makes them from it.
            EntryKind::Symlink(_) if listed.starts_with("pg_tblspc/") => Ok(()),
            // `pg_wal` may be a link on the server; in a backup it is a folder.
            EntryKind::Symlink(_) if listed == "pg_wal" => self.put_folder(stored, self.folder_mode, modified).await,
            EntryKind::Symlink(to) => {
                host::log(
                    backstay_sdk::Level::Warn,
                    &format!("left out {listed:?}, a link to {to:?}: it is not PostgreSQL's own"),
                );
                Ok(())
            }
            EntryKind::File => {
                let log_start = listed
                    .strip_prefix("pg_wal/")
                    .and_then(|name| WalFile::parse(name, self.segment_bytes).ok())
                    .map(|file| file.start());
                let kind = match log_start {
                    Some(start) => {
                        self.log.begin_file(start);
                        FileKind::Log
                    }
                    None if listed == LABEL && entry.size <= LABEL_BYTES_MAX => FileKind::Label,
                    None => FileKind::Other,
                };
                let taking = self.taking(&stored, &listed, kind, FileAttributes { mode, modified })?;
                let file = OpenFile { taking, listed, size: entry.size, kind };
                if let Part::Archive(archive) = &mut self.part
                    && archive.open.replace(file).is_some()
                {
                    return Err(corrupt("the server's archive begins a file inside another".to_owned()));
                }
                Ok(())
            }
        }
    }

    fn taking(&self, stored: &str, listed: &str, kind: FileKind, attributes: FileAttributes) -> Result<Taking<'w>> {
        let Some(Changes { layout, base, cuts }) = &self.changes else {
            return Ok(Taking::Whole(self.into.put_file(stored, attributes)));
        };
        if listed == LABEL {
            // It names the backup before; a server would not start with that.
            return match kind {
                FileKind::Label => Ok(Taking::Held),
                _ => Err(corrupt(format!("the server's {LABEL} is longer than {LABEL_BYTES_MAX} bytes"))),
            };
        }
        let Some(whole) = full_name(listed) else {
            return Ok(Taking::Whole(self.into.put_file(stored, attributes)));
        };
        // Both paths end alike.
        let name = whole.rsplit('/').next().unwrap_or_default();
        let folder = stored.rsplit_once('/').map_or("", |(folder, _)| folder);
        let earlier = Earlier { crc32c: base.sum(&whole), cut: cuts.of(&whole) };
        let patching = Patching::new(self.into, *layout, format!("{folder}/{name}"), attributes, earlier);
        Ok(Taking::Patch(Box::new(patching)))
    }

    async fn put_folder(&mut self, path: String, mode: u32, modified: u64) -> Result<()> {
        let kind = NodeKind::Directory;
        let attributes = FileAttributes { mode, modified };
        // Waited for, so that a folder is there before what it holds.
        self.into.put_node(Node { path, kind, attributes }).await
    }

    /// Every byte of a file is sent.
    async fn finish_file(&mut self, writer: FileWriter<StoredFile>, what: Whole) -> Result<()> {
        while self.finishing.len() >= FINISHING_MAX {
            self.settle_one().await?;
        }
        self.finishing.push(Box::pin(async move { Ok(Finished { what, stored: writer.finish().await? }) }));
        Ok(())
    }

    /// Waits for one of the files that the host still stores. Answers whether there was one.
    async fn settle_one(&mut self) -> Result<bool> {
        let Some(finished) = self.finishing.next().await else {
            return Ok(false);
        };
        let Finished { what, stored } = finished?;
        let fits = |name: &str, size: u64| {
            let message = || format!("{name:?} has {size} bytes, but {} were stored", stored.bytes);
            if stored.bytes == size { Ok(()) } else { Err(Error::new(ErrorKind::Internal, message())) }
        };
        match what {
            Whole::Manifest(size) => fits(MANIFEST_PATH, size)?,
            Whole::File(listed, size) => {
                fits(&listed, size)?;
                // The host's sum, not one of our own: it covers the way into the repository too.
                self.ledger.add(listed, stored.bytes, stored.crc32c)?;
            }
            Whole::Changes(listed, sent) => {
                self.ledger.add(listed.clone(), sent.bytes, sent.crc32c)?;
                self.patched.insert(listed, stored);
            }
        }
        Ok(true)
    }

    /// What began last is complete.
    pub(super) async fn end_part(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.part, Part::Nothing) {
            Part::Nothing => Ok(()),
            Part::Archive(archive) => {
                if archive.open.is_some() {
                    return Err(corrupt("the server's archive ends inside a file".to_owned()));
                }
                archive.tar.finish().map_err(from_wire)
            }
            Part::Manifest { writer, bytes } => {
                self.manifest = Some(Manifest::parse(&bytes).map_err(from_wire)?);
                match writer {
                    Some(writer) => self.finish_file(writer, Whole::Manifest(bytes.len() as u64)).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// Everything came: waits for the host, and compares all files with the manifest.
    pub(super) async fn finish(mut self) -> Result<Unpacked> {
        self.end_part().await?;
        while self.settle_one().await? {}
        let mut manifest = self.manifest.ok_or_else(|| corrupt("the server sent no manifest".to_owned()))?;
        self.ledger.compare(&manifest)?;
        if self.changes.is_some() {
            self.label = without_predecessor(&self.label);
            become_whole(&mut manifest, &self.patched);
            let now = host::now();
            manifest.replace(LABEL, &self.label, now / 1_000_000).map_err(from_wire)?;
            self.into.put_all(&format!("{MAIN}/{LABEL}"), private(), &self.label).await?;
            self.into.put_all(MANIFEST_PATH, private(), &manifest.to_bytes()).await?;
        }
        Ok(Unpacked { manifest, label: self.label, log: self.log })
    }
}

/// The manifest of the files that were put together from changed blocks, as a full backup would have it.
fn become_whole(manifest: &mut Manifest, patched: &BTreeMap<String, StoredFile>) {
    for file in &mut manifest.files {
        let listed = String::from_utf8_lossy(&file.path).into_owned();
        let Some(stored) = patched.get(&listed) else { continue };
        let Some(whole) = full_name(&listed) else { continue };
        file.path = whole.into_bytes();
        file.size = stored.bytes;
        file.checksum = Some(Hasher::Crc32c(stored.crc32c).finish());
    }
}

fn private() -> FileAttributes {
    FileAttributes { mode: 0o600, modified: host::now() }
}

fn corrupt(message: String) -> Error {
    Error::new(ErrorKind::Corrupt, message)
}
