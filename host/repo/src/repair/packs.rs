//! What index files say, held against the packs that are there and what those say themselves.

use super::rot::{self, Rot};
use super::{DamagedFile, RottenPack};
use crate::index::{Index, IndexFile, IndexPack, load_file};
use crate::limits::LOADS_MAX;
use crate::pack::{PackedBlob, fetch_header, pack_bytes};
use crate::{Id, RepoErrorKind, Repository, Result};
use futures::{StreamExt, TryStreamExt};
use std::collections::{HashMap, HashSet};

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
    /// What opens of rotten packs.
    pub(super) salvage: Vec<(Id, Vec<PackedBlob>)>,
    /// Index files that cannot stay as they are.
    pub(super) remove: Vec<Id>,
    /// Packs that no index file names.
    pub(super) added: Vec<Id>,
    /// Packs that are there in another shape than an index file says.
    pub(super) corrected: Vec<Id>,
    /// Packs that are named and not there.
    pub(super) gone: HashSet<Id>,
    /// Packs without a right entry whose own header cannot be read.
    pub(super) unreadable: Vec<DamagedFile>,
    /// Packs whose bytes are not what was written.
    pub(super) rotten: Vec<RottenPack>,
    /// Right entries of packs that have one already.
    pub(super) repeated: u64,
    /// What the entries say that are dropped.
    pub(super) dropped: Vec<PackedBlob>,
    good: HashSet<Id>,
    suspect: HashSet<Id>,
}

impl Sorted {
    /// Reads index files, and the headers of packs of which they say nothing right.
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
        sorted.read_headers(repository, &there).await?;
        Ok(sorted)
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
                    self.suspect.insert(pack.id);
                    self.dropped.extend(blobs);
                }
                Some(_) if !self.good.insert(pack.id) => self.repeated += 1,
                Some(_) => kept.push(pack),
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
        let unread = there.iter().filter(|(id, _)| !self.good.contains(id));
        let mut unread: Vec<(Id, u64)> = unread.map(|(id, bytes)| (*id, *bytes)).collect();
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
        while let Some((id, header)) = headers.try_next().await? {
            match header {
                Ok(blobs) => {
                    let packs = if self.suspect.contains(&id) { &mut self.corrected } else { &mut self.added };
                    packs.push(id);
                    self.moved.push(IndexPack::new(id, &blobs));
                }
                Err(error) => self.unreadable.push(DamagedFile { object: id.pack_key(), why: error.to_string() }),
            }
        }
        Ok(())
    }

    /// Reads every byte of the packs, and takes out what is rotten.
    pub(super) async fn read(
        &mut self,
        repository: &Repository,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<()> {
        let packs = self.packs().map(|pack| (pack.id, pack.packed())).collect();
        let rot = rot::find(repository, packs, progress).await?;
        self.take_out(&rot);
        Ok(())
    }

    /// All that a new index may name.
    fn packs(&self) -> impl Iterator<Item = &IndexPack> {
        self.clean.iter().flat_map(|(_, file)| &file.packs).chain(&self.moved)
    }

    /// Takes rotten packs out.
    fn take_out(&mut self, rot: &Rot) {
        let is_rotten = |pack: &IndexPack| rot.contains_key(&pack.id);
        let clean = std::mem::take(&mut self.clean);
        let (touched, clean): (Vec<_>, Vec<_>) =
            clean.into_iter().partition(|(_, file)| file.packs.iter().any(is_rotten));
        self.clean = clean;
        for (id, file) in touched {
            self.remove.push(id);
            self.moved.extend(file.packs);
        }
        let (out, moved): (Vec<_>, Vec<_>) = std::mem::take(&mut self.moved).into_iter().partition(is_rotten);
        self.moved = moved;
        for pack in out {
            let lost = &rot[&pack.id];
            let (lost, whole): (Vec<_>, Vec<_>) =
                pack.packed().into_iter().partition(|blob| lost.contains(&blob.offset));
            self.rotten.push(RottenPack {
                pack: pack.id,
                whole_blobs: whole.len() as u64,
                lost_blobs: lost.len() as u64,
            });
            self.dropped.extend(lost);
            self.salvage.push((pack.id, whole));
        }
        for packs in [&mut self.added, &mut self.corrected] {
            packs.retain(|pack| !rot.contains_key(pack));
        }
        self.rotten.sort_by_key(|rotten| rotten.pack);
    }

    /// Where what can be read lies: of a blob that lies in two packs, a place where it opens. `unnamed` says whether packs
    /// count that no index file describes as they are.
    pub(super) fn index(&self, unnamed: bool) -> Index {
        let left_out: HashSet<&Id> = match unnamed {
            true => HashSet::new(),
            false => self.added.iter().chain(&self.corrected).collect(),
        };
        let whole = self.salvage.iter().map(|(pack, blobs)| IndexPack::new(*pack, blobs));
        let packs = self.packs().filter(|pack| !left_out.contains(&pack.id)).cloned().chain(whole).collect();
        Index::from_files(HashSet::new(), &[IndexFile { packs, ..IndexFile::default() }])
    }
}

fn is_gapless(blobs: &[PackedBlob]) -> bool {
    let end =
        blobs.iter().try_fold(0u32, |end, blob| (blob.offset == end).then(|| end.checked_add(blob.length)).flatten());
    end.is_some()
}
