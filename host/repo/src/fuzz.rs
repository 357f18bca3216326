//! Doors for fuzzing: every byte that comes from a store, to the very parsers that the product uses.
//!
//! Behind the feature `fuzzing`, and in this crate's own tests, rather than a public API of parsers: what they yield
//! (index entries, tree nodes as stored) is nobody's business outside, and a door of its own can also try what hides
//! behind a seal. An input is tried as it would be stored, and as the plaintext of a sealed object, compressed or not:
//! mutations would hardly ever get past an authentication code. What is read is written and read again, and must be the
//! same.
//!
//! The targets themselves are in `fuzz/`, apart from the workspace; their corpora are replayed by the tests here, within the
//! same memory.

use crate::aligned::AlignedBuffer;
use crate::compression::{compress, decompress, decompress_onto};
use crate::crypto::{KeyBytes, SEAL_OVERHEAD};
use crate::frame::yield_bytes_max;
use crate::index::{Index, IndexFile, IndexPack};
use crate::key::KeyFile;
use crate::limits::{BLOB_BYTES_MAX, PLAIN_DOCUMENT_BYTES_MAX};
use crate::lock::LockFile;
use crate::log::fuzz as log_doors;
use crate::node_path::NodePath;
use crate::pack::{BlobKind, OpenPack, PackedBlob, pack_bytes, read_entries, read_header, write_entries};
use crate::pin::{self, Pin};
use crate::quote::{quote, unquote};
use crate::references::References;
use crate::repository::ConfigFile;
use crate::snapshot::SnapshotFile;
use crate::tree::{NodeKind, Tree};
use crate::{Id, MasterKey, Password, document};
use backstay_core::BackupId;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::HashSet;

mod manifest;

/// Memory that an input may take for each of its bytes, and of those that come out of it: a node of a tree has 22 bytes
/// of JSON at least, and 300 in memory, twice while a list grows.
const MEMORY_BYTES_EACH: usize = 64;
/// What any input may take.
const MEMORY_BYTES_ANY: usize = 1 << 20;

/// What a door saw of an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Bytes that were parsed: the input, and what came out where it was compressed. Memory is measured by it.
    pub bytes: usize,
    /// Whether it was taken for what it should be, in one way or another.
    pub taken: bool,
}

/// A door: it panics where something is wrong.
pub type Door = fn(&[u8]) -> Seen;

/// All of them, by the name of the target and the folder of its corpus.
pub const DOORS: [(&str, Door); 16] = [
    ("config", config),
    ("key", key),
    ("lock", lock),
    ("index", index),
    ("snapshot", snapshot),
    ("tree", tree),
    ("references", references),
    ("pin", pin),
    ("manifest", manifest::manifest),
    ("pack_header", pack_header),
    ("zstd", zstd),
    ("name", name),
    ("log_header", log_doors::header),
    ("log_document", log_doors::document),
    ("log_index", log_doors::index),
    ("log_claim", log_doors::claim),
];

/// The key that sealed seeds are sealed with.
pub(crate) fn fixed_key() -> MasterKey {
    MasterKey::from_bytes(KeyBytes::from_kdf(&[4; 64]))
}

impl Seen {
    fn of(bytes: usize) -> Self {
        Self { bytes, taken: false }
    }

    /// Most memory that this may take at once.
    pub fn memory_bytes_max(&self) -> usize {
        self.bytes * MEMORY_BYTES_EACH + MEMORY_BYTES_ANY
    }

    /// Takes note of a thing that was read, or was not.
    pub(crate) fn note<T>(&mut self, read: crate::Result<T>) -> Option<T> {
        // What is wrong is said in one line, whatever the input holds.
        let line = |error: &crate::RepoError| assert!(!error.to_string().contains('\n'), "{error}");
        self.taken |= read.is_ok();
        read.inspect_err(line).ok()
    }
}

/// The input as a sealed document, stored, as its plaintext, and as the JSON in that: each that can be read.
fn documents<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> (Seen, Vec<T>) {
    let (key, mut seen, mut read) = (fixed_key(), Seen::of(bytes.len()), Vec::new());
    let sealed = key.open(bytes).ok();
    for plain in [sealed.as_deref(), Some(bytes)].into_iter().flatten() {
        seen.bytes +=
            plain.get(1..).and_then(yield_bytes_max).unwrap_or(0).min(PLAIN_DOCUMENT_BYTES_MAX as u64) as usize;
        read.extend(seen.note(document::open::<T>(&key, &key.seal(plain))));
    }
    if let Ok(frame) = compress(bytes) {
        read.extend(seen.note(document::open::<T>(&key, &key.seal(&[&[2], &frame[..]].concat()))));
    }
    for value in &read {
        let again = document::seal(&key, value).and_then(|(_, sealed)| document::open::<T>(&key, &sealed));
        let again = again.and_then(|again| document::to_json(&again));
        assert_eq!(again.ok(), document::to_json(value).ok());
    }
    (seen, read)
}

/// The same for what is never compressed, so that it is not opened as the others are.
fn uncompressed<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> (Seen, Vec<T>) {
    let (mut seen, mut read) = documents::<T>(bytes);
    let plain = fixed_key().open(bytes);
    for json in [plain.as_deref().ok(), Some(bytes)].into_iter().flatten() {
        read.extend(seen.note(document::from_json::<T>(json)));
    }
    (seen, read)
}

fn config(bytes: &[u8]) -> Seen {
    uncompressed::<ConfigFile>(bytes).0
}

fn pin(bytes: &[u8]) -> Seen {
    let (seen, pins) = uncompressed::<Pin>(bytes);
    for pin in pins {
        assert_eq!(Id::from_key(&pin::key(&pin.backup)).map(BackupId::from), Some(pin.backup));
    }
    seen
}

fn key(bytes: &[u8]) -> Seen {
    let mut seen = Seen::of(bytes.len());
    let Some(file) = seen.note(document::from_json::<KeyFile>(bytes)) else { return seen };
    let Some((_, _, params)) = seen.note(file.parts()) else { return Seen { taken: false, ..seen } };
    // More is within bounds, and too slow for millions of inputs.
    if params.log_n() <= 4 && u64::from(params.r()) * u64::from(params.p()) <= 16 {
        seen.note(file.open(&Password::new("x")));
    }
    seen
}

fn lock(bytes: &[u8]) -> Seen {
    let (seen, locks) = documents::<LockFile>(bytes);
    for lock in locks {
        let _ = (lock.holder(), lock.is_stale());
    }
    seen
}

fn index(bytes: &[u8]) -> Seen {
    let (seen, files) = documents::<IndexFile>(bytes);
    for file in &files {
        for pack in &file.packs {
            let blobs = pack.packed();
            let mut again = IndexPack::new(pack.id, &blobs).packed();
            again.sort_by_key(|blob| blob.offset);
            assert_eq!(again, blobs);
            assert!(pack_bytes(&blobs) >= blobs.iter().map(|blob| u64::from(blob.length)).sum());
        }
    }
    let index = Index::from_files(HashSet::new(), &files);
    let blobs = files.iter().flat_map(|file| &file.packs).flat_map(IndexPack::packed);
    for blob in blobs {
        assert!(index.find(blob.kind, &blob.id).is_some_and(|place| place.blob.id == blob.id));
        if let Ok(place) = index.require(blob.kind, &blob.id) {
            assert!(place.blob.length as usize <= BLOB_BYTES_MAX + SEAL_OVERHEAD);
        }
    }
    seen
}

fn snapshot(bytes: &[u8]) -> Seen {
    let (seen, files) = documents::<SnapshotFile>(bytes);
    for file in files {
        let _ = file.read(Id::of(bytes));
    }
    seen
}

fn tree(bytes: &[u8]) -> Seen {
    let mut seen = Seen::of(bytes.len());
    let Some(tree) = seen.note(Tree::from_bytes(bytes)) else { return seen };
    let again = tree.to_bytes().and_then(|bytes| Tree::from_bytes(&bytes)).map(|again| again.nodes);
    let again = again.unwrap_or_default();
    assert_eq!(again.len(), tree.nodes.len());
    let parent = NodePath::new(None, b"folder");
    for (node, again) in tree.nodes.into_iter().zip(again) {
        let Some(read) = seen.note(node.clone().read(parent.as_ref())) else { continue };
        assert_eq!(Some(&read), again.read(parent.as_ref()).ok().as_ref());
        let (path, name) = (read.path.as_bytes(), read.path.name());
        assert!(path.starts_with(b"folder/") && path.ends_with(name) && read.path.parts().count() == 2);
        assert!(!matches!(name, b"" | b"." | b"..") && !name.contains(&0) && read.mode & !0o7777 == 0);
    }
    seen
}

/// What counts, prunes and copies, beside what restores: whatever that would read, this has named.
fn references(bytes: &[u8]) -> Seen {
    let mut seen = Seen::of(bytes.len());
    let references = seen.note(References::from_bytes(bytes));
    let nodes = Tree::from_bytes(bytes).map(|tree| tree.nodes).unwrap_or_default();
    let read: Result<Vec<_>, _> = nodes.iter().cloned().map(|node| node.read(None)).collect();
    let Some(references) = references else {
        assert!(nodes.is_empty() || read.is_err(), "a tree restores that nobody could prune around");
        return seen;
    };
    let _ = references.bytes();
    let contents = references.files.iter().flat_map(|file| &file.content);
    let named: HashSet<&Id> = contents.chain(references.folders.iter().map(|folder| &folder.subtree)).collect();
    for node in nodes.into_iter().filter_map(|node| node.read(None).ok()) {
        match node.kind {
            NodeKind::File { content, .. } => assert!(content.iter().all(|id| named.contains(id))),
            NodeKind::Directory { subtree } => assert!(named.contains(&subtree)),
            NodeKind::Symlink { .. } | NodeKind::Other { .. } => {}
        }
    }
    seen
}

fn pack_header(bytes: &[u8]) -> Seen {
    let (key, mut seen) = (fixed_key(), Seen::of(bytes.len()));
    seen.note(read_header(&key, bytes));
    let Some(blobs) = seen.note(read_entries(bytes)) else { return seen };
    let mut again = Vec::new();
    write_entries(&blobs, &mut again);
    // A blob that is marked as compressed and has no length is written as one that is not.
    assert!(again == bytes || again.len() < bytes.len());
    if pack_bytes(&blobs) <= (again.len() * 4) as u64 {
        let mut pack = OpenPack::default();
        for blob in &blobs {
            pack.push(blob.id, blob.kind, &vec![0; blob.length as usize], blob.raw_length);
        }
        pack.close(&key);
        assert_eq!(read_header(&key, pack.bytes.bytes()).ok(), Some(blobs));
    }
    seen
}

/// Two bytes say how long the frame is said to be, the rest is the frame.
fn zstd(bytes: &[u8]) -> Seen {
    let mut seen = Seen::of(bytes.len());
    let Some((claim, frame)) = bytes.split_first_chunk::<2>() else { return seen };
    let claim = u32::from(u16::from_le_bytes(*claim)) << 8;
    // Frames that yield more are as good as these, and slow.
    let most = yield_bytes_max(frame).unwrap_or(0).min(4 << 20) as usize;
    seen.bytes += most;
    let plain = seen.note(decompress(frame, 4 << 20)).unwrap_or_default();
    assert!(plain.len() <= most);
    let mut onto = AlignedBuffer::default();
    for claim in [claim as usize, plain.len(), most] {
        onto.clear();
        if decompress_onto(frame, claim, &mut onto).is_ok() {
            assert!(onto.bytes() == plain && claim == plain.len());
        }
    }
    // As a blob, whose index entry may claim anything.
    let key = fixed_key();
    for (text, raw_length) in [(frame, claim), (frame, plain.len() as u32), (frame, 0), (bytes, 0)] {
        let sealed = key.seal(text);
        let id = Id::of(if raw_length == 0 { text } else { &plain });
        let blob = PackedBlob { id, kind: BlobKind::Data, offset: 0, length: sealed.len() as u32, raw_length };
        let opened = blob.open(&key, &mut sealed.clone(), &mut onto);
        assert!(opened.is_err() || onto.len() == blob.plain_length() as usize);
        assert!(opened.is_ok() || raw_length != 0, "what is not compressed always opens");
    }
    seen
}

/// Names of nodes, as they are stored and as they are, and of objects.
fn name(bytes: &[u8]) -> Seen {
    let mut seen = Seen::of(bytes.len());
    assert_eq!(unquote(&quote(bytes)).as_deref(), Some(bytes));
    if let Some(path) = NodePath::new(None, bytes) {
        assert!(path.as_bytes() == bytes && path.to_string().lines().count() <= 1);
        let within = NodePath::new(Some(&path), bytes);
        assert!(within.is_none_or(|within| within.name() == bytes && within.parts().count() == 2));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return seen };
    seen.taken = unquote(text).is_some();
    if let Some(id) = Id::from_key(text) {
        assert!(text.ends_with(&id.to_string()));
    }
    log_doors::name(text);
    seen
}

#[cfg(test)]
mod tests;
