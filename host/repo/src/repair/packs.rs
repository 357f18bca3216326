//! What index files say, held against the packs that are there and what those say themselves.

use super::DamagedFile;
use super::rot::{self, Rotten, Wrong};
use crate::index::{Index, IndexFile, IndexPack, load_file};
use crate::limits::LOADS_MAX;
use crate::pack::{PackedBlob, fetch_header, is_gapless, pack_bytes};
use crate::{Id, RepoErrorKind, Repository, Result};
use futures::{StreamExt, TryStreamExt};
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Everything that index files and packs say, by whether it fits.
#[derive(Default)]
pub(super) struct Sorted {
    /// Index files there are.
    pub(super) index_files: u64,
    /// Those that cannot be read.
    pub(super) damaged_files: Vec<DamagedFile>,
    /// Index files of which all is right.
    pub(super) clean: Vec<(Id, IndexFile)>,
    /// Right entries of files that have others too, and what headers of packs say that no index file describes.
    pub(super) moved: Vec<IndexPack>,
    /// Packs whose bytes are not what was written.
    pub(super) rotten: Vec<Rotten>,
    /// Index files that cannot stay as they are.
    pub(super) remove: Vec<Id>,
    /// Packs that no index file names.
    pub(super) added: Vec<Id>,
    /// Packs that are there in another shape than an index file says.
    pub(super) corrected: Vec<Id>,
    /// Packs that are named and not there.
    pub(super) gone: HashSet<Id>,
    /// Packs of which nothing says what lies in them.
    pub(super) unreadable: Vec<DamagedFile>,
    /// Right entries of packs that have one already.
    pub(super) repeated: u64,
    /// What the entries say that are dropped.
    pub(super) dropped: Vec<PackedBlob>,
    /// Packs that no index file describes as they are: readers do not find what lies in them.
    pub(super) undescribed: HashSet<Id>,
    /// Packs with a right entry, and a digest of it.
    good: HashMap<Id, u64>,
    /// Named, and there in another shape, or named twice and differently: what was said of them.
    suspect: HashMap<Id, Vec<PackedBlob>>,
}

/// What reading index files and headers came to, to be compared with a second look.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict(BTreeSet<(&'static str, String)>);

impl Sorted {
    /// Reads index files, and the headers of packs of which they say nothing right; the whole of those whose header does not
    /// open.
    pub(super) async fn load(repository: &Repository) -> Result<Self> {
        let (store, key) = (repository.store(), repository.shared_key());
        let mut sorted = Self::default();
        let ids: Vec<Id> = store.list("index").await?.iter().filter_map(|object| Id::from_key(&object.key)).collect();
        sorted.index_files = ids.len() as u64;
        let listed = store.list("data").await?.into_iter();
        let there: HashMap<Id, u64> = listed
            .filter_map(|object| {
                Some((Id::from_key(&object.key).filter(|id| id.pack_key() == object.key)?, object.bytes))
            })
            .collect();
        let mut loads = futures::stream::iter(ids)
            .map(|id| async move { (id, load_file(store, key, id).await) })
            .buffered(LOADS_MAX);
        while let Some((id, file)) = loads.next().await {
            match file {
                Ok(file) => sorted.take(id, file, &there),
                Err(error) if error.kind() == RepoErrorKind::Damaged => {
                    sorted.damaged_files.push(DamagedFile { object: id.key("index"), why: error.to_string() });
                    sorted.remove.push(id);
                }
                Err(error) => return Err(error),
            }
        }
        drop(loads);
        let contested: HashSet<Id> = sorted.suspect.keys().copied().filter(|id| sorted.good.contains_key(id)).collect();
        sorted.good.retain(|id, _| !contested.contains(id));
        for pack in sorted.take_entries(|pack| contested.contains(&pack.id)) {
            let blobs = pack.packed();
            sorted.dropped.extend(&blobs);
            // Of all that is said of it, this fits at least its size.
            sorted.suspect.insert(pack.id, blobs);
        }
        sorted.read_headers(repository, &there).await?;
        Ok(sorted)
    }

    /// What it came to.
    pub(super) fn verdict(&self) -> Verdict {
        let packs = |what, packs: &[Id]| packs.iter().map(move |pack| (what, pack.to_string())).collect::<Vec<_>>();
        let files =
            |files: &[DamagedFile]| files.iter().map(|file| ("damaged", file.object.clone())).collect::<Vec<_>>();
        let gone: Vec<Id> = self.gone.iter().copied().collect();
        let rotten: Vec<Id> = self.rotten.iter().map(|rotten| rotten.pack).collect();
        let all = [packs("added", &self.added), packs("corrected", &self.corrected), packs("gone", &gone)];
        let wrong = [packs("rotten", &rotten), files(&self.damaged_files), files(&self.unreadable)];
        Verdict(all.into_iter().chain(wrong).flatten().collect())
    }

    /// Sorts the entries of one file.
    fn take(&mut self, id: Id, file: IndexFile, there: &HashMap<Id, u64>) {
        let all = file.packs.len();
        let mut kept = Vec::with_capacity(all);
        for pack in file.packs {
            let blobs = pack.packed();
            match there.get(&pack.id) {
                None => {
                    self.gone.insert(pack.id);
                    self.dropped.extend(blobs);
                }
                Some(bytes) if *bytes != pack_bytes(&blobs) || !is_gapless(&blobs) => {
                    self.dropped.extend(&blobs);
                    self.suspect.insert(pack.id, blobs);
                }
                Some(_) => match self.good.entry(pack.id) {
                    Entry::Vacant(first) => {
                        first.insert(digest(&blobs));
                        kept.push(pack);
                    }
                    Entry::Occupied(first) if *first.get() == digest(&blobs) => self.repeated += 1,
                    Entry::Occupied(_) => {
                        self.dropped.extend(&blobs);
                        self.suspect.insert(pack.id, blobs);
                    }
                },
            }
        }
        if kept.len() == all {
            self.clean.push((id, IndexFile { packs: kept, ..IndexFile::default() }));
        } else {
            self.remove.push(id);
            self.moved.extend(kept);
        }
    }

    async fn read_headers(&mut self, repository: &Repository, there: &HashMap<Id, u64>) -> Result<()> {
        let (store, key) = (repository.store(), repository.shared_key());
        let unread = there.iter().filter(|(id, _)| !self.good.contains_key(id));
        let mut unread: Vec<(Id, u64)> = unread.map(|(id, bytes)| (*id, *bytes)).collect();
        if unread.is_empty() {
            return Ok(());
        }
        unread.sort();
        let mut headers = futures::stream::iter(unread)
            .map(|(id, bytes)| async move {
                match fetch_header(store, key, id, bytes).await {
                    Ok(blobs) => Ok((id, Ok(blobs))),
                    Err(error) if error.kind() == RepoErrorKind::Damaged => Ok((id, Err(error))),
                    Err(error) => Err(error),
                }
            })
            .buffered(LOADS_MAX);
        let known = Index::from_packs(HashSet::new(), self.packs());
        let mut doubtful = Vec::new();
        while let Some((id, header)) = headers.try_next().await? {
            match (header, self.suspect.remove(&id)) {
                (Ok(blobs), named) => {
                    let packs = if named.is_some() { &mut self.corrected } else { &mut self.added };
                    packs.push(id);
                    self.undescribed.insert(id);
                    // What lies elsewhere too: it may have been copied there because it rots here, and only the index lost it.
                    if blobs.iter().any(|blob| known.find(blob.kind, &blob.id).is_some()) {
                        doubtful.push((id, blobs.clone()));
                    }
                    self.moved.push(IndexPack::new(id, &blobs));
                }
                // A pack that was cut short: most of it is where the index says.
                (Err(_), Some(blobs)) => {
                    self.moved.push(IndexPack::new(id, &blobs));
                    doubtful.push((id, blobs));
                }
                (Err(error), None) => {
                    self.unreadable.push(DamagedFile { object: id.pack_key(), why: error.to_string() });
                }
            }
        }
        drop(headers);
        let wrong = rot::find(repository, doubtful, &|_, _| {}).await?;
        self.take_out(wrong);
        Ok(())
    }

    /// Reads every byte of the packs, and takes out what is rotten.
    pub(super) async fn read(
        &mut self,
        repository: &Repository,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<()> {
        let packs = self.packs().map(|pack| (pack.id, pack.packed())).collect();
        let wrong = rot::find(repository, packs, progress).await?;
        self.take_out(wrong);
        Ok(())
    }

    /// All that a new index may name.
    fn packs(&self) -> impl Iterator<Item = &IndexPack> + Clone {
        self.clean.iter().flat_map(|(_, file)| &file.packs).chain(&self.moved)
    }

    /// Takes the entries of some packs out; index files that had any cannot stay.
    fn take_entries(&mut self, is_out: impl Fn(&IndexPack) -> bool) -> Vec<IndexPack> {
        let clean = std::mem::take(&mut self.clean);
        let (touched, clean): (Vec<_>, Vec<_>) =
            clean.into_iter().partition(|(_, file)| file.packs.iter().any(&is_out));
        self.clean = clean;
        for (id, file) in touched {
            self.remove.push(id);
            self.moved.extend(file.packs);
        }
        let (out, moved): (Vec<_>, Vec<_>) = std::mem::take(&mut self.moved).into_iter().partition(&is_out);
        self.moved = moved;
        out
    }

    /// Takes packs out that are not what the index says: it says what their header does, or they are rotten.
    fn take_out(&mut self, mut wrong: HashMap<Id, Wrong>) {
        let out = self.take_entries(|pack| wrong.contains_key(&pack.id));
        for pack in out {
            self.dropped.extend(pack.packed());
            match wrong.remove(&pack.id) {
                Some(Wrong::Pack(rotten)) => self.rotten.push(rotten),
                Some(Wrong::Entry(blobs)) => {
                    self.moved.push(IndexPack::new(pack.id, &blobs));
                    if self.undescribed.insert(pack.id) {
                        self.corrected.push(pack.id);
                    }
                }
                None => {}
            }
        }
        let rotten: HashSet<Id> = self.rotten.iter().map(|rotten| rotten.pack).collect();
        for packs in [&mut self.added, &mut self.corrected] {
            packs.retain(|pack| !rotten.contains(pack));
        }
    }

    /// Where what can be read lies: of a blob that lies in two packs, a place where it opens. `all` says whether packs count
    /// that no index file describes as they are.
    pub(super) fn index(&self, all: bool) -> Index {
        let whole: Vec<_> = self.rotten.iter().map(|rotten| IndexPack::new(rotten.pack, &rotten.whole)).collect();
        let counts = |pack: &&IndexPack| all || !self.undescribed.contains(&pack.id);
        Index::from_packs(HashSet::new(), self.packs().chain(&whole).filter(counts))
    }
}

fn digest(blobs: &[PackedBlob]) -> u64 {
    let mut hasher = DefaultHasher::new();
    blobs.hash(&mut hasher);
    hasher.finish()
}
