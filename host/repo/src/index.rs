//! The index: in which pack, and where in it, each blob lies.
//!
//! On the store it is JSON in `index/`; in memory a sorted table of 52 bytes a blob.

use crate::crypto::SEAL_OVERHEAD;
use crate::limits::{BLOB_BYTES_MAX, LOADS_MAX};
use crate::marks::Marks;
use crate::pack::{BlobKind, PackedBlob};
use crate::{Id, MasterKey, RepoError, Result, Store, document};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// One index file.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct IndexFile {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) supersedes: Vec<Id>,
    #[serde(default)]
    pub(crate) packs: Vec<IndexPack>,
}

/// A pack in an index file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IndexPack {
    pub(crate) id: Id,
    pub(crate) blobs: Vec<IndexBlob>,
}

/// A blob in an index file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IndexBlob {
    id: Id,
    #[serde(rename = "type")]
    kind: BlobKind,
    offset: u32,
    length: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    uncompressed_length: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the shape serde asks for
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl IndexPack {
    pub(crate) fn new(id: Id, blobs: &[PackedBlob]) -> Self {
        let blob = |b: &PackedBlob| IndexBlob {
            id: b.id,
            kind: b.kind,
            offset: b.offset,
            length: b.length,
            uncompressed_length: b.raw_length,
        };
        Self { id, blobs: blobs.iter().map(blob).collect() }
    }

    /// The blobs in the order of their offsets.
    pub(crate) fn packed(&self) -> Vec<PackedBlob> {
        let mut blobs: Vec<PackedBlob> = self.blobs.iter().map(IndexBlob::packed).collect();
        blobs.sort_by_key(|blob| blob.offset);
        blobs
    }
}

impl IndexBlob {
    fn packed(&self) -> PackedBlob {
        PackedBlob {
            id: self.id,
            kind: self.kind,
            offset: self.offset,
            length: self.length,
            raw_length: self.uncompressed_length,
        }
    }
}

/// Where a blob lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Number of the pack in the index.
    pub(crate) pack: u32,
    pub(crate) blob: PackedBlob,
}

/// The whole index in memory.
#[derive(Default)]
pub(crate) struct Index {
    packs: Vec<Id>,
    /// Sorted by id, then kind; each pair once.
    places: Vec<Place>,
    /// The files it was read from.
    files: HashSet<Id>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Index({} blobs)", self.len())
    }
}

impl Index {
    /// Reads all index files; takes `loaded` when it has just those.
    ///
    /// Snapshots must have been listed before: a snapshot that is there has its index written.
    pub(crate) async fn load(store: &Store, key: &Arc<MasterKey>, loaded: Option<&Arc<Index>>) -> Result<Arc<Index>> {
        // In their order: of a blob that lies in two packs always the same one is read.
        let listed: Vec<Id> =
            store.list("index").await?.iter().filter_map(|object| Id::from_key(&object.key)).collect();
        let ids: HashSet<Id> = listed.iter().copied().collect();
        if let Some(loaded) = loaded.filter(|loaded| loaded.files == ids) {
            return Ok(Arc::clone(loaded));
        }
        let files: Vec<IndexFile> =
            futures::stream::iter(listed).map(|id| load_file(store, key, id)).buffered(LOADS_MAX).try_collect().await?;
        let index = tokio::task::spawn_blocking(move || Index::from_files(ids, &files)).await?;
        Ok(Arc::new(index))
    }

    pub(crate) fn from_files(ids: HashSet<Id>, files: &[IndexFile]) -> Index {
        Self::from_packs(ids, files.iter().flat_map(|file| &file.packs))
    }

    pub(crate) fn from_packs<'a>(ids: HashSet<Id>, packs: impl Iterator<Item = &'a IndexPack> + Clone) -> Index {
        let blobs = packs.clone().map(|pack| pack.blobs.len()).sum();
        let mut index = Index { packs: Vec::new(), places: Vec::with_capacity(blobs), files: ids };
        for pack in packs {
            let number = index.packs.len() as u32;
            index.packs.push(pack.id);
            index.places.extend(pack.blobs.iter().map(|blob| Place { pack: number, blob: blob.packed() }));
        }
        index.places.sort_unstable_by_key(|place| (place.blob.id, place.blob.kind, place.pack));
        index.places.dedup_by_key(|place| (place.blob.id, place.blob.kind));
        index.places.shrink_to_fit();
        index
    }

    /// Finds a blob.
    pub(crate) fn find(&self, kind: BlobKind, id: &Id) -> Option<Place> {
        self.position(kind, id).map(|at| self.places[at])
    }

    /// A blob's place in the order of all.
    pub(crate) fn position(&self, kind: BlobKind, id: &Id) -> Option<usize> {
        self.places.binary_search_by(|place| (place.blob.id, place.blob.kind).cmp(&(*id, kind))).ok()
    }

    /// A data blob's number, which is shorter than its id.
    pub(crate) fn number(&self, id: &Id) -> Result<u32> {
        self.number_of(BlobKind::Data, id)
    }

    /// The same for a blob of any kind: from 0 to [`Index::len`], without the end.
    pub(crate) fn number_of(&self, kind: BlobKind, id: &Id) -> Result<u32> {
        self.require(kind, id)?;
        let at = self.position(kind, id).and_then(|at| u32::try_from(at).ok());
        at.ok_or_else(|| RepoError::damaged("index", "it names more than 4 billion blobs"))
    }

    /// The index files that it was read from.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Id> {
        self.files.iter()
    }

    /// The blob with this number.
    pub(crate) fn place(&self, number: u32) -> Place {
        self.places[number as usize]
    }

    /// The blob at this place in the order of all.
    pub(crate) fn place_at(&self, position: usize) -> Place {
        self.places[position]
    }

    /// Finds a blob that a tree or snapshot names.
    pub(crate) fn require(&self, kind: BlobKind, id: &Id) -> Result<Place> {
        let place =
            self.find(kind, id).ok_or_else(|| RepoError::damaged(format!("blob {id}"), "no index file names it"))?;
        let longest = place.blob.plain_length().max(place.blob.length.saturating_sub(SEAL_OVERHEAD as u32));
        if longest as usize > BLOB_BYTES_MAX {
            return Err(RepoError::damaged(format!("blob {id}"), "its length makes no sense"));
        }
        Ok(place)
    }

    /// The pack with this number.
    pub(crate) fn pack(&self, number: u32) -> Id {
        self.packs[number as usize]
    }

    /// How many packs it names; their numbers are below that.
    pub(crate) fn packs(&self) -> usize {
        self.packs.len()
    }

    /// The used blobs that readers find in these packs, by pack and in the order of their offsets.
    pub(crate) fn used_in(&self, packs: &BTreeSet<Id>, used: &Marks) -> BTreeMap<Id, Vec<Place>> {
        let mut found: BTreeMap<Id, Vec<Place>> = BTreeMap::new();
        for (number, place) in self.places.iter().enumerate() {
            let pack = self.pack(place.pack);
            if used.has(number) && packs.contains(&pack) {
                found.entry(pack).or_default().push(*place);
            }
        }
        found.values_mut().for_each(|places| places.sort_by_key(|place| place.blob.offset));
        found
    }

    /// How many different blobs it knows.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }
}

/// Reads one index file.
pub(crate) async fn load_file(store: &Store, key: &Arc<MasterKey>, id: Id) -> Result<IndexFile> {
    document::load(store, key, "index", id).await
}
