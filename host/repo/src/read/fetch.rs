//! Reading blobs, many in one request where they lie close together.

use crate::aligned::AlignedBuffer;
use crate::index::{Index, Place};
use crate::limits::{BATCH_BYTES, READ_BYTES_MAX, READ_GAP_BYTES_MAX};
use crate::pack::{BlobKind, PackedBlob};
use crate::{Id, MasterKey, RepoError, RepoErrorKind, Result, Store};
use bytes::{Bytes, BytesMut};
use std::{ops::Range, sync::Arc};

/// One request: a stretch of a pack and who wants which blobs of it.
pub(crate) struct Read<T> {
    pub(crate) pack: u32,
    pub(crate) range: Range<u64>,
    /// In the order of offsets; a blob that several want comes several times, one after another.
    pub(crate) wants: Vec<(PackedBlob, T)>,
}

/// Joins wants, sorted by pack and offset, to requests.
pub(crate) struct Reads<T, I: Iterator<Item = (Place, T)>> {
    wants: std::iter::Peekable<I>,
}

impl<T, I: Iterator<Item = (Place, T)>> Reads<T, I> {
    pub(crate) fn new(sorted: I) -> Self {
        Self { wants: sorted.peekable() }
    }
}

impl<T, I: Iterator<Item = (Place, T)>> Iterator for Reads<T, I> {
    type Item = Read<T>;

    fn next(&mut self) -> Option<Read<T>> {
        let (first, want) = self.wants.next()?;
        let start = u64::from(first.blob.offset);
        let mut read = Read {
            pack: first.pack,
            range: start..start + u64::from(first.blob.length),
            wants: vec![(first.blob, want)],
        };
        // A blob that very many want must not make the list long without bound.
        while read.wants.len() < 4096 {
            let joined = self.wants.next_if(|(place, _)| {
                let (start, length) = (u64::from(place.blob.offset), u64::from(place.blob.length));
                place.pack == read.pack
                    && start <= read.range.end + READ_GAP_BYTES_MAX
                    && (start + length).max(read.range.end) - read.range.start <= READ_BYTES_MAX
            });
            let Some((place, want)) = joined else { break };
            read.range.end = read.range.end.max(u64::from(place.blob.offset) + u64::from(place.blob.length));
            read.wants.push((place.blob, want));
        }
        Some(read)
    }
}

/// Reads one blob.
pub(crate) async fn read_blob(
    store: &Store,
    key: &Arc<MasterKey>,
    index: &Index,
    kind: BlobKind,
    id: &Id,
) -> Result<Bytes> {
    let place = index.require(kind, id)?;
    let (pack, blob) = (index.pack(place.pack).pack_key(), place.blob);
    let start = u64::from(blob.offset);
    let sealed = get(store, &pack, start..start + u64::from(blob.length)).await?;
    let key = Arc::clone(key);
    let opened = tokio::task::spawn_blocking(move || {
        let mut plain = AlignedBuffer::default();
        blob.open(&key, &mut own(sealed), &mut plain).map(|()| plain.into_bytes(0))
    });
    opened.await?.map_err(|error| RepoError::damaged(format!("blob {id} in {pack}"), error))
}

/// Reads part of a pack; that it is missing means damage here.
pub(crate) async fn get(store: &Store, pack: &str, range: Range<u64>) -> Result<Bytes> {
    store.get_range(pack, range).await.map_err(|error| match error.kind() {
        RepoErrorKind::NotFound => RepoError::damaged(pack, "it is missing"),
        _ => error,
    })
}

/// Bytes to be opened where they lie: nobody else has them, but for a store in memory.
pub(crate) fn own(bytes: Bytes) -> BytesMut {
    bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]))
}

/// Those of a pack's blobs that do not open, and why. It lies in `pack` from its beginning on.
pub(crate) fn unopened(key: &MasterKey, pack: Bytes, blobs: Vec<PackedBlob>) -> Vec<(PackedBlob, RepoError)> {
    let (mut pack, mut plain) = (own(pack), AlignedBuffer::default());
    let mut open = |blob: &PackedBlob| {
        let range = blob.offset as usize..blob.offset as usize + blob.length as usize;
        match pack.get_mut(range) {
            Some(sealed) => blob.open(key, sealed, &mut plain),
            None => Err(RepoError::new(RepoErrorKind::Damaged, "the pack ends before it")),
        }
    };
    blobs.into_iter().filter_map(|blob| Some((blob, open(&blob).err()?))).collect()
}

/// Opens the blobs of a read, each once, into `plain`, and hands them out in order and in groups, verified: the group's
/// plaintext, and which part of it everybody wants.
pub(crate) fn open_all<T>(
    key: &MasterKey,
    pack: &str,
    read: Read<T>,
    bytes: Bytes,
    plain: &mut AlignedBuffer,
    mut take: impl FnMut(&[u8], Vec<(T, Range<usize>)>) -> Result<()>,
) -> Result<()> {
    let damaged = |blob: &PackedBlob, error| RepoError::damaged(format!("blob {} in {pack}", blob.id), error);
    let mut bytes = own(bytes);
    let mut wants = read.wants.into_iter().peekable();
    while wants.peek().is_some() {
        // As many as are hashed together; one that several want is opened for the first of them.
        let mut opened: Vec<(PackedBlob, Range<usize>)> = Vec::new();
        let mut takers: Vec<(T, Range<usize>)> = Vec::new();
        plain.clear();
        while let Some((blob, want)) = wants.next_if(|(next, _)| {
            let again = opened.last().is_some_and(|(last, _)| last.id == next.id);
            again || opened.is_empty() || plain.len() + next.plain_length() as usize <= BATCH_BYTES
        }) {
            let place = match opened.last() {
                Some((last, place)) if last.id == blob.id => place.clone(),
                _ => {
                    // The range was made to hold all of them.
                    let start = (u64::from(blob.offset) - read.range.start) as usize;
                    let sealed = &mut bytes[start..start + blob.length as usize];
                    let before = plain.len();
                    blob.open_unverified(key, sealed, plain).map_err(|error| damaged(&blob, error))?;
                    opened.push((blob, before..plain.len()));
                    before..plain.len()
                }
            };
            takers.push((want, place));
        }
        let parts: Vec<&[u8]> = opened.iter().map(|(_, place)| &plain.bytes()[place.clone()]).collect();
        for ((blob, _), id) in opened.iter().zip(Id::of_each(&parts)) {
            blob.verify(id).map_err(|error| damaged(blob, error))?;
        }
        take(plain.bytes(), takers)?;
    }
    Ok(())
}
