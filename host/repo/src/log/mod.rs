//! The log of one target: an unbroken chain of pieces on the store.
//!
//! ```text
//!   logs/<target>/identity                         which database this is
//!                /confirmed                        complete up to here, at this time
//!                /index                            headers of merged pieces, to load faster
//!                /notes/<name>                     notes
//!                /<epoch>/claim                    where the epoch starts
//!                        /<start>                  a piece as it was appended
//!                        /<start>-<end>-<file>     pieces of one database file, merged
//! ```
//!
//! - **Create-if-absent is the fence.** A piece's name is its start alone: of two
//!   archivers exactly one creates it, and the loser learns it before anything is acknowledged.
//! - **An acknowledged piece is durable** and stays readable while it is merged away:
//!   the merged piece is there, and was read back, before its parts go.
//! - **Every object is bound to its place**: sealed with the repository's key, its header
//!   names repository, target and object.
//!
//! The format is specified to the byte in `docs/src/formats/log.md`.

mod append;
mod check;
mod compact;
mod copy;
mod document;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod index;
pub mod limits;
mod name;
mod object;
mod place;
mod read;
#[cfg(test)]
mod tests;
mod trim;
mod usage;

pub use check::{DamagedObject, LogReport};
pub use compact::{CompactPolicy, CompactReport};
pub use copy::{LogCopied, LogCopyOptions};
pub use document::Identity;
pub use error::{LogError, LogResult};
pub use trim::TrimPlan;
pub use usage::LogUsage;

use crate::{MasterKey, ObjectInfo, RepoErrorKind, Store};
use backstay_core::{Chain, Position, Segment, TargetName};
use futures::{StreamExt, TryStreamExt, stream};
use index::Known;
use limits::{HEADER_READ_BYTES, HEADERS_AT_ONCE, LOAD_ATTEMPTS_MAX};
use name::ObjectName;
use object::{Header, PREFIX_BYTES, Sealer};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::time::Instant;

/// The log of one target.
///
/// One task owns it to append; a reader opens its own.
pub struct LogChain {
    store: Store,
    sealer: Sealer,
    chain: Chain,
    objects: Objects,
    damaged: Vec<DamagedObject>,
    known: Known,
    /// When the end of the log was last known to be what `chain` says.
    seen: Sight,
    gap_allowed: bool,
}

/// Which object holds which piece; the key is epoch, start, end.
type Objects = BTreeMap<(u64, u64, u64), ObjectName>;

/// A moment, by two clocks: the steady one stands still while a machine sleeps.
#[derive(Clone, Copy)]
struct Sight {
    steady: Instant,
    wall: SystemTime,
}

impl Sight {
    fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    fn age(self) -> Duration {
        self.steady.elapsed().max(self.wall.elapsed().unwrap_or_default())
    }
}

/// What a listing found.
struct Listing {
    chain: Chain,
    objects: Objects,
    damaged: Vec<DamagedObject>,
    /// Every object with a piece, also those the chain does not need.
    pieces: Vec<Listed>,
    /// Objects below the target's folder whose names mean nothing.
    strangers: Vec<String>,
    /// Epochs that somebody claimed.
    claims: Vec<u64>,
}

/// One object with a piece.
#[derive(Clone)]
struct Listed {
    name: ObjectName,
    info: ObjectInfo,
    piece: Segment,
}

impl LogChain {
    /// Opens the log of `target` and loads what is there. Writes nothing.
    ///
    /// `repository_id` is the `id` in the repository's `config`.
    ///
    /// # Errors
    /// Whatever the store reports. Damaged pieces are no error here: see [`LogChain::damaged`].
    pub async fn open(store: Store, key: Arc<MasterKey>, repository_id: &str, target: TargetName) -> LogResult<Self> {
        let sealer = Sealer { key, repository: repository_id.into(), target };
        let mut log = Self {
            store,
            sealer,
            chain: Chain::default(),
            objects: Objects::new(),
            damaged: Vec::new(),
            known: Known::default(),
            seen: Sight::now(),
            gap_allowed: false,
        };
        log.load().await?;
        Ok(log)
    }

    /// The targets that have a log in this repository.
    ///
    /// # Errors
    /// Whatever the store reports.
    pub async fn targets(store: &Store) -> LogResult<Vec<TargetName>> {
        Ok(store.list_folders("logs").await?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Looks at the store anew.
    ///
    /// # Errors
    /// Whatever the store reports.
    pub async fn load(&mut self) -> LogResult<&Chain> {
        let seen = Sight::now();
        let listing = self.list(&name::folder(&self.sealer.target)).await?;
        (self.chain, self.objects, self.damaged) = (listing.chain, listing.objects, listing.damaged);
        self.seen = seen;
        Ok(&self.chain)
    }

    /// Makes durable what was loaded, and notes. To be called before a database is told that the log is kept up to its tail: on a
    /// local folder the last piece may be seen though whoever wrote it ended before it was durable.
    ///
    /// # Errors
    /// Whatever the store reports.
    pub async fn settle(&self) -> LogResult<()> {
        for epoch in self.chain.epochs() {
            self.store.settle(&name::epoch_folder(self.target(), epoch)).await?;
        }
        Ok(self.store.settle(&name::notes_folder(self.target())).await?)
    }

    /// All pieces as last loaded, with what was appended since.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The end of the last durable piece of the newest epoch.
    pub fn tail(&self) -> Option<&Position> {
        self.chain.tail()
    }

    /// Pieces that could not be read when the log was loaded. The chain has gaps in their place.
    pub fn damaged(&self) -> &[DamagedObject] {
        &self.damaged
    }

    /// The target.
    pub fn target(&self) -> &TargetName {
        &self.sealer.target
    }

    /// Lists `folder` and reads all headers below it. A piece that vanishes meanwhile was
    /// merged: then the listing is made anew.
    async fn list(&self, folder: &str) -> LogResult<Listing> {
        for _ in 1..LOAD_ATTEMPTS_MAX {
            match self.list_once(folder, Some(&self.known)).await {
                Err(error) if error.is_absent() => {}
                done => return done,
            }
        }
        self.list_once(folder, Some(&self.known)).await
    }

    /// As [`LogChain::list`], of everything, and believing nothing that was read before.
    async fn list_anew(&self) -> LogResult<Listing> {
        let folder = name::folder(&self.sealer.target);
        for _ in 1..LOAD_ATTEMPTS_MAX {
            match self.list_once(&folder, None).await {
                Err(error) if error.is_absent() => {}
                done => return done,
            }
        }
        self.list_once(&folder, None).await
    }

    /// Reads the headers that are not `known`; without it all of them.
    async fn list_once(&self, folder: &str, known: Option<&Known>) -> LogResult<Listing> {
        let root = format!("{}/", name::folder(&self.sealer.target));
        let (mut strangers, mut claims) = (Vec::new(), Vec::new());
        let mut found: Vec<(ObjectName, ObjectInfo)> = Vec::new();
        for info in self.store.list(folder).await? {
            match info.key.strip_prefix(&root).and_then(ObjectName::parse) {
                Some(name @ (ObjectName::Appended { .. } | ObjectName::Merged { .. })) => found.push((name, info)),
                Some(ObjectName::Index) if known.is_some() => self.learn(&info).await?,
                Some(ObjectName::Claim { epoch }) => claims.push(epoch),
                Some(_) => {}
                None => strangers.push(info.key),
            }
        }
        let headers = found.into_iter().map(|(name, info)| async move {
            if let Some(piece) = known.and_then(|known| known.piece(&name, &info)) {
                return Ok(Ok(Listed { name, info, piece }));
            }
            match self.header(&name, info.bytes).await.map(|header| header.segment()) {
                Ok(Some(piece)) => {
                    self.known.add(&name, &info, &piece);
                    Ok(Ok(Listed { name, info, piece }))
                }
                // `open_header` lets no piece's object pass without one.
                Ok(None) => Err(LogError::Invalid(format!("{} heads no piece", info.key))),
                Err(error) if error.is_damage() => {
                    Ok(Err(DamagedObject { object: info.key, place: name.place(), why: error.to_string() }))
                }
                Err(error) => Err(error),
            }
        });
        let headers: Vec<_> = stream::iter(headers).buffer_unordered(HEADERS_AT_ONCE).try_collect().await?;
        let (mut pieces, mut damaged) = (Vec::new(), Vec::new());
        for header in headers {
            match header {
                Ok(listed) => pieces.push(listed),
                Err(object) => damaged.push(object),
            }
        }
        damaged.sort_by(|a, b| a.object.cmp(&b.object));
        pieces.sort_by(|a, b| a.name.cmp(&b.name));
        let of = |merged: bool| {
            pieces
                .iter()
                .filter(move |listed| listed.name.is_merged() == merged)
                .map(|listed| listed.piece.clone())
                .collect()
        };
        let chain = Chain::new(of(false), of(true));
        let mut objects = Objects::new();
        for listed in &pieces {
            // Of an appended and a merged piece with the same bytes the merged one stays.
            let place = (listed.piece.start.epoch, listed.piece.start.offset, listed.piece.end.offset);
            if listed.name.is_merged() || !objects.contains_key(&place) {
                objects.insert(place, listed.name.clone());
            }
        }
        Ok(Listing { chain, objects, damaged, pieces, strangers, claims })
    }

    /// The header of one object of `size` bytes.
    async fn header(&self, name: &ObjectName, size: u64) -> LogResult<Header> {
        let key = self.sealer.key_of(name);
        if size < PREFIX_BYTES as u64 {
            return Err(crate::RepoError::damaged(key, "it is cut short").into());
        }
        let mut front = self.store.get_range(&key, 0..size.min(HEADER_READ_BYTES)).await?;
        let end = self.sealer.header_end(name, &front)? as u64;
        if end > size {
            return Err(crate::RepoError::damaged(key, "it is cut short").into());
        }
        if end > front.len() as u64 {
            front = self.store.get_range(&key, 0..end).await?;
        }
        Ok(self.sealer.open_header(name, &front, size)?)
    }

    /// A whole object: header and verified plaintext.
    async fn get(&self, name: &ObjectName) -> LogResult<(Header, bytes::Bytes)> {
        let object = self.store.get(&self.sealer.key_of(name), limits::OBJECT_BYTES_MAX).await?;
        self.sealer.open(name, object).await
    }

    /// As [`LogChain::get`]; nothing where there is no such object.
    async fn get_if_there(&self, name: &ObjectName) -> LogResult<Option<(Header, bytes::Bytes)>> {
        match self.get(name).await {
            Ok(found) => Ok(Some(found)),
            Err(LogError::Repo(error)) if error.kind() == RepoErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl std::fmt::Debug for LogChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogChain({}/{})", self.store.address(), name::folder(&self.sealer.target))
    }
}
