//! Packs: sealed blobs back to back, a sealed header, its length.
//!
//! ```text
//!   pack   = blob ‖ blob ‖ … ‖ sealed header ‖ u32 LE length of the sealed header
//!   header = entry ‖ entry ‖ …
//!   entry  = 0|1 (data|tree) ‖ u32 LE length ‖ id                              37 bytes
//!          | 2|3 (the same, compressed) ‖ u32 LE length ‖ u32 LE raw length ‖ id   41 bytes
//! ```

use crate::aligned::AlignedBuffer;
use crate::crypto::{IV_BYTES, SEAL_OVERHEAD};
use crate::limits::{PACK_HEADER_BYTES_MAX, PACK_TAIL_BYTES};
use crate::{Id, MasterKey, RepoError, RepoErrorKind, Result, Store};
use serde::{Deserialize, Serialize};

/// What a blob holds. Our packs hold one kind each, those of old restic both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BlobKind {
    /// Part of a file.
    Data,
    /// A folder's nodes.
    Tree,
}

/// A blob's place in its pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PackedBlob {
    pub(crate) id: Id,
    pub(crate) kind: BlobKind,
    pub(crate) offset: u32,
    /// Sealed bytes.
    pub(crate) length: u32,
    /// Plaintext bytes when it is compressed, else 0.
    pub(crate) raw_length: u32,
}

impl PackedBlob {
    /// Bytes of plaintext.
    pub(crate) fn plain_length(&self) -> u32 {
        if self.raw_length == 0 { self.length.saturating_sub(SEAL_OVERHEAD as u32) } else { self.raw_length }
    }

    /// What it takes in the pack's header.
    pub(crate) fn header_bytes(&self) -> usize {
        if self.raw_length == 0 { 37 } else { 41 }
    }

    /// Opens, decompresses and verifies the blob from its sealed bytes; it alone is in `plain` then.
    pub(crate) fn open(&self, key: &MasterKey, sealed: &mut [u8], plain: &mut AlignedBuffer) -> Result<()> {
        plain.clear();
        self.open_unverified(key, sealed, plain)?;
        self.verify(Id::of(plain.bytes()))
    }

    /// Opens and decompresses the blob to the end of `plain`. That it fits its id is left to be seen.
    pub(crate) fn open_unverified(&self, key: &MasterKey, sealed: &mut [u8], plain: &mut AlignedBuffer) -> Result<()> {
        let text = key.open_in_place(sealed)?;
        if self.raw_length != 0 {
            return crate::compression::decompress_onto(text, self.raw_length as usize, plain);
        }
        plain.extend(text.len()).copy_from_slice(text);
        Ok(())
    }

    /// Whether what was opened is what was put, by the id of its bytes.
    pub(crate) fn verify(&self, id: Id) -> Result<()> {
        match id == self.id {
            true => Ok(()),
            false => Err(RepoError::new(RepoErrorKind::Damaged, "its content does not fit its id")),
        }
    }
}

/// Size of a whole pack that holds exactly these blobs.
pub(crate) fn pack_bytes(blobs: &[PackedBlob]) -> u64 {
    let entries: usize = blobs.iter().map(PackedBlob::header_bytes).sum();
    let bodies: u64 = blobs.iter().map(|blob| u64::from(blob.length)).sum();
    bodies + (entries + SEAL_OVERHEAD + 4) as u64
}

/// Whether these blobs, in the order of their offsets, follow one another from a pack's beginning on.
pub(crate) fn is_gapless(blobs: &[PackedBlob]) -> bool {
    let end =
        blobs.iter().try_fold(0u32, |end, blob| (blob.offset == end).then(|| end.checked_add(blob.length)).flatten());
    end.is_some()
}

/// A pack that is being filled.
#[derive(Default)]
pub(crate) struct OpenPack {
    pub(crate) bytes: AlignedBuffer,
    pub(crate) blobs: Vec<PackedBlob>,
}

impl OpenPack {
    /// Adds a sealed blob.
    pub(crate) fn push(&mut self, id: Id, kind: BlobKind, sealed: &[u8], raw_length: u32) {
        // A pack is closed long before 4 GiB, and no blob is longer than that.
        self.blobs.push(PackedBlob {
            id,
            kind,
            offset: self.bytes.len() as u32,
            length: sealed.len() as u32,
            raw_length,
        });
        self.bytes.extend(sealed.len()).copy_from_slice(sealed);
    }

    /// Appends header and length. The pack's id is then that of its bytes.
    pub(crate) fn close(&mut self, key: &MasterKey) {
        let mut header = vec![0; IV_BYTES];
        write_entries(&self.blobs, &mut header);
        key.seal_tail(&mut header, 0);
        let length = (header.len() as u32).to_le_bytes();
        header.extend_from_slice(&length);
        self.bytes.extend(header.len()).copy_from_slice(&header);
        debug_assert_eq!(self.bytes.len() as u64, pack_bytes(&self.blobs));
    }
}

/// Appends the entries of a header.
pub(crate) fn write_entries(blobs: &[PackedBlob], header: &mut Vec<u8>) {
    for blob in blobs {
        let kind = match blob.kind {
            BlobKind::Data => 0,
            BlobKind::Tree => 1,
        };
        header.push(if blob.raw_length == 0 { kind } else { kind + 2 });
        header.extend_from_slice(&blob.length.to_le_bytes());
        if blob.raw_length != 0 {
            header.extend_from_slice(&blob.raw_length.to_le_bytes());
        }
        header.extend_from_slice(blob.id.as_bytes());
    }
}

/// Reads the header of a whole pack.
pub(crate) fn read_header(key: &MasterKey, pack: &[u8]) -> Result<Vec<PackedBlob>> {
    read_header_from(key, pack, pack.len() as u64)
}

/// Reads the header of a pack of `bytes` bytes with a request or two: it lies at the end.
pub(crate) async fn fetch_header(store: &Store, key: &MasterKey, id: Id, bytes: u64) -> Result<Vec<PackedBlob>> {
    let (name, damaged) = (id.pack_key(), |error| RepoError::damaged(id.pack_key(), error));
    let mut tail = store.get_range(&name, bytes.saturating_sub(PACK_TAIL_BYTES)..bytes).await?;
    let length = header_length(&tail).map_err(damaged)? as u64;
    if length + 4 > tail.len() as u64 && length + 4 <= bytes {
        tail = store.get_range(&name, bytes - length - 4..bytes).await?;
    }
    read_header_from(key, &tail, bytes).map_err(damaged)
}

/// Bytes of the sealed header, from a pack's end.
fn header_length(tail: &[u8]) -> Result<usize> {
    let damaged = |why: &str| RepoError::new(RepoErrorKind::Damaged, why);
    let (_, length) = tail.split_last_chunk::<4>().ok_or_else(|| damaged("it is cut short"))?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > PACK_HEADER_BYTES_MAX {
        return Err(damaged("its header's length makes no sense"));
    }
    Ok(length)
}

/// The header in the end of a pack of `bytes` bytes.
fn read_header_from(key: &MasterKey, tail: &[u8], bytes: u64) -> Result<Vec<PackedBlob>> {
    let damaged = |why: &str| RepoError::new(RepoErrorKind::Damaged, why);
    let length = header_length(tail)?;
    let rest = &tail[..tail.len() - 4];
    if length > rest.len() {
        return Err(damaged("its header's length makes no sense"));
    }
    let blobs = read_entries(&key.open(&rest[rest.len() - length..])?)?;
    if pack_bytes(&blobs) != bytes {
        return Err(damaged("its size does not fit its header"));
    }
    Ok(blobs)
}

/// Reads the entries of a header.
pub(crate) fn read_entries(header: &[u8]) -> Result<Vec<PackedBlob>> {
    let damaged = |why: &str| RepoError::new(RepoErrorKind::Damaged, why);
    let mut entries = header;
    let mut blobs = Vec::new();
    let mut offset = 0u32;
    while let Some((&kind, after)) = entries.split_first() {
        let cut = || damaged("its header is cut short");
        let (length, after) = after.split_first_chunk::<4>().ok_or_else(cut)?;
        let (raw_length, after) = match kind {
            0 | 1 => (0, after),
            2 | 3 => {
                let (raw, after) = after.split_first_chunk::<4>().ok_or_else(cut)?;
                (u32::from_le_bytes(*raw), after)
            }
            _ => return Err(damaged("its header names an unknown kind of blob")),
        };
        let (id, after) = after.split_first_chunk::<32>().ok_or_else(cut)?;
        let length = u32::from_le_bytes(*length);
        let kind = if kind & 1 == 0 { BlobKind::Data } else { BlobKind::Tree };
        blobs.push(PackedBlob { id: Id::from_bytes(*id), kind, offset, length, raw_length });
        offset = offset.checked_add(length).ok_or_else(|| damaged("its blobs are longer than a pack may be"))?;
        entries = after;
    }
    Ok(blobs)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pack_reads_back_its_header() {
        let key = MasterKey::random();
        let mut pack = OpenPack::default();
        pack.push(Id::of(b"one"), BlobKind::Data, &key.seal(b"one"), 0);
        let frame = crate::compression::compress(&[7; 5000]).unwrap();
        pack.push(Id::of(&[7; 5000]), BlobKind::Data, &key.seal(&frame), 5000);
        pack.close(&key);
        let blobs = read_header(&key, pack.bytes.bytes()).unwrap();
        assert_eq!(blobs, pack.blobs);
        for blob in blobs {
            let sealed = &pack.bytes.bytes()[blob.offset as usize..][..blob.length as usize];
            let mut plain = AlignedBuffer::default();
            blob.open(&key, &mut sealed.to_vec(), &mut plain).unwrap();
            assert_eq!(plain.len(), blob.plain_length() as usize);
            let other = PackedBlob { id: Id::of(b"other"), ..blob };
            let refused = other.open(&key, &mut sealed.to_vec(), &mut plain).unwrap_err();
            assert_eq!(refused.kind(), RepoErrorKind::Damaged);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_pack_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let key = MasterKey::random();
            prop_assert!(read_header(&key, &bytes).is_err());
            // The same as the plaintext of a header, so that the parser sees it.
            let mut pack = key.seal(&bytes);
            let length = pack.len() as u32;
            pack.extend_from_slice(&length.to_le_bytes());
            let _ = read_header(&key, &pack);
        }
    }
}
