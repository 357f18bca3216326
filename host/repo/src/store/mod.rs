//! The object store, reduced to what a repository needs and hardened by it.
//!
//! ```text
//!   Store ── tries again, recognises its own writes, names errors
//!     ├─ folder ── direct      large objects past the page cache
//!     ├─ S3, GCS, Azure ─┐
//!     └─ WebDAV ─ webdav ┴─ transport ── connections, Retry-After, pace, stalls
//! ```
//!
//! Contracts, the same for every store behind it; `backstay-conformance` tries them on each:
//! - [`Store::put_new`] is atomic and durable, and may be applied twice: an attempt that was
//!   reported as failed but arrived is recognised by its content.
//! - Of two writers of one name exactly one wins; the loser learns it.
//! - A folder shows a name before it is durable. Who builds on what another process put there settles it first
//!   ([`Store::settle`]); where something may go only once something else is gone for good, too.
//! - Whatever may pass (cut connections, 500, slow-down) is tried again with a growing, jittered
//!   pause until a deadline.
//!
//! Objects go in one request each, never in parts: the largest there may be is [`OBJECT_BYTES_MAX`], a tenth of what
//! the narrowest of these stores takes at once. So no upload lies about half done and paid for, and create-if-absent
//! holds for every object; completing an upload in parts knows no such condition everywhere.

mod azure;
mod config;
mod direct;
mod pace;
mod retry;
mod transport;
mod webdav;

pub use config::{StoreAccess, StoreConfig};
use direct::{Direct, Written};
use pace::Pace;
pub use retry::RetryPolicy;

use crate::limits::{
    DIRECT_READ_BYTES_MIN, FOLDER_UPLOADS_MAX, LIST_OBJECTS_MAX, OBJECT_BYTES_MAX, PIECE_BYTES, UPLOADS_MAX,
};
use crate::{RepoError, RepoErrorKind, Result};
use async_trait::async_trait;
use backstay_core::Timestamp;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};
use std::{fmt, ops::Range, path::PathBuf, sync::Arc, time::Duration};

/// A handle to one repository's place on a store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    address: Arc<str>,
    /// The folder of a local store.
    folder: Option<Arc<PathBuf>>,
    /// Whether that folder holds a repository, and nothing is written once it does not any more.
    holds_repository: bool,
    /// How large objects get there.
    direct: Option<Arc<Direct>>,
    /// Nothing: what is seen is durable.
    names: Option<Arc<dyn Names>>,
    /// For stores without a network, whose transport would keep the limits.
    upload: Option<Arc<Pace>>,
    download: Option<Arc<Pace>>,
    retention: Option<Duration>,
    retry: RetryPolicy,
}

/// The names of a store that shows them before they are durable, as file systems do.
#[async_trait]
pub trait Names: Send + Sync {
    /// Makes the names right in `folder` durable as they are, whoever put or removed them. A folder that is not there
    /// has none.
    async fn settle(&self, folder: &str) -> std::io::Result<()>;

    /// Whether a listing shows, whoever asks and from wherever, every name that was there when it began.
    async fn show_at_once(&self) -> bool {
        false
    }
}

/// What a listing knows of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name below the repository's root: `data/ab/ab01…`.
    pub key: String,
    /// Stored bytes.
    pub bytes: u64,
    /// When the store says it was last written, by the store's clock.
    pub modified: Timestamp,
}

impl Store {
    /// Opens the place that `config` names. Touches no network and makes no folder.
    ///
    /// # Errors
    /// [`RepoErrorKind::InvalidConfig`].
    pub fn connect(config: &StoreConfig) -> Result<Self> {
        let built = config.build()?;
        let direct = built.folder.clone().map(|folder| Arc::new(Direct::new(folder)));
        Ok(Self {
            objects: built.objects,
            names: direct.clone().map(|direct| direct as Arc<dyn Names>),
            direct,
            address: config.url.as_str().into(),
            folder: built.folder.map(Arc::new),
            holds_repository: false,
            upload: built.limits.upload.map(|pace| Arc::new(Pace::new(pace))),
            download: built.limits.download.map(|pace| Arc::new(Pace::new(pace))),
            retention: built.retention,
            retry: RetryPolicy::default(),
        })
    }

    /// Any object store; `address` is what people call it.
    pub fn from_object_store(objects: Arc<dyn ObjectStore>, address: &str) -> Self {
        Self {
            objects,
            address: address.into(),
            folder: None,
            holds_repository: false,
            direct: None,
            names: None,
            upload: None,
            download: None,
            retention: None,
            retry: RetryPolicy::default(),
        }
    }

    /// The same place, which shows names before they are durable.
    #[must_use]
    pub fn with_names(mut self, names: Arc<dyn Names>) -> Self {
        self.names = Some(names);
        self
    }

    /// The same place, tried with other patience.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// The same place, with the patience that first contact deserves.
    pub(crate) fn first_contact(&self) -> Self {
        let deadline = self.retry.deadline.min(crate::limits::FIRST_CONTACT_DEADLINE);
        self.clone().with_retry(RetryPolicy { deadline, ..self.retry })
    }

    /// The object store below, to wrap it.
    pub fn object_store(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// What people call this place.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How long the store keeps every object from its writing on, whoever wants it gone; nothing: not at all, or it
    /// was not said.
    pub fn retention(&self) -> Option<Duration> {
        self.retention
    }

    /// The same place, which keeps every object so long, whoever wants it gone.
    #[must_use]
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Until when the store keeps this object, whoever wants it gone; nothing where it may go by now.
    pub fn kept_until(&self, object: &ObjectInfo) -> Option<Timestamp> {
        let retention = u64::try_from(self.retention?.as_micros()).unwrap_or(u64::MAX);
        let until = Timestamp::from_micros(object.modified.as_micros().saturating_add(retention));
        (until > Timestamp::from(std::time::SystemTime::now())).then_some(until)
    }

    /// The same place, known to hold a repository. A folder that holds none later is the place where a disk is not
    /// mounted any more: it would take everything, and what it took is lost to sight once the disk is back.
    pub(crate) fn holding_repository(mut self) -> Self {
        self.holds_repository = true;
        self
    }

    /// Writes where the repository is, and nowhere else: looks before, so that nothing is made in the place of a disk, and
    /// after, so that nothing counts that went there.
    async fn in_its_place<T>(&self, write: impl Future<Output = Result<T>>) -> Result<T> {
        self.expect_repository().await?;
        let written = write.await?;
        self.expect_repository().await?;
        Ok(written)
    }

    async fn expect_repository(&self) -> Result<()> {
        let Some(folder) = self.folder().filter(|_| self.holds_repository) else { return Ok(()) };
        let there = tokio::fs::try_exists(folder.join("config")).await;
        match there {
            Ok(true) => Ok(()),
            Ok(false) => Err(RepoError::new(
                RepoErrorKind::Unreachable,
                format!("failed to write: there is no repository at {} any more", self.address),
            )
            .advise("is its disk mounted?")),
            Err(error) => Err(RepoError::io(format!("failed to look at {}", self.address), error)),
        }
    }

    /// The folder of a local store.
    pub(crate) fn folder(&self) -> Option<&PathBuf> {
        self.folder.as_deref()
    }

    /// Large objects that are worth writing at the same time.
    pub(crate) fn uploads_max(&self) -> usize {
        if self.folder.is_some() { FOLDER_UPLOADS_MAX } else { UPLOADS_MAX }
    }

    /// Writes an object that is not there yet: atomically, durably, at most once.
    ///
    /// # Errors
    /// [`RepoErrorKind::AlreadyExists`] when the name holds other content.
    pub async fn put_new(&self, key: &str, body: impl Into<Bytes>) -> Result<()> {
        let body = body.into();
        pass(&self.upload, body.len()).await;
        self.in_its_place(self.create(key, body)).await
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<()> {
        let path = location(key)?;
        if self.put_directly(key, &body).await? {
            return Ok(());
        }
        let options = PutOptions::from(PutMode::Create);
        let put = || self.objects.put_opts(&path, body.clone().into(), options.clone());
        let refused = match self.retry.run(&format!("write {key}"), put).await {
            Err(error) if error.kind() == RepoErrorKind::AlreadyExists => error,
            other => return other.map(drop),
        };
        // Perhaps an earlier attempt of ours arrived and its answer did not.
        match self.get(key, body.len() as u64).await {
            // That attempt may have ended before the name was durable.
            Ok(there) if there == body => self.settle(folder_of(key)).await,
            // It cannot be told.
            Err(error) if error.is_retryable() => Err(error),
            _ => Err(refused),
        }
    }

    /// Makes what is seen right in `folder` durable: what others put there may vanish with a power cut until then, and
    /// what was removed may come back. Costs nothing where all that is seen is durable.
    ///
    /// # Errors
    /// Whatever the file system reports.
    pub async fn settle(&self, folder: &str) -> Result<()> {
        let Some(names) = &self.names else { return Ok(()) };
        let settled = names.settle(folder).await;
        settled.map_err(|error| RepoError::io(format!("failed to make the names in {folder} durable"), error))
    }

    /// Whether a listing is known to show every name that was there when it began. Stores far away that do as much are
    /// not told from those that do not.
    pub(crate) async fn shows_at_once(&self) -> bool {
        match &self.names {
            Some(names) => names.show_at_once().await,
            None => false,
        }
    }

    /// Writes a large object past the page cache, where that can be done; answers whether it is there.
    async fn put_directly(&self, key: &str, body: &Bytes) -> Result<bool> {
        let Some(direct) = self.direct.as_ref().filter(|direct| direct.fits(body.len())) else { return Ok(false) };
        let (direct, name, copy) = (Arc::clone(direct), key.to_owned(), body.clone());
        let written = tokio::task::spawn_blocking(move || direct.put_new(&name, &copy)).await?;
        match written.map_err(|error| RepoError::io(format!("failed to write {key}"), error))? {
            Written::Whole => Ok(true),
            // What is there is compared, as after any other put.
            Written::Exists | Written::Not => Ok(false),
        }
    }

    /// Writes an object over whatever is there: atomically and durably.
    ///
    /// # Errors
    /// Whatever the store reports.
    pub async fn put_overwrite(&self, key: &str, body: impl Into<Bytes>) -> Result<()> {
        let (path, body) = (location(key)?, body.into());
        pass(&self.upload, body.len()).await;
        let what = format!("write {key}");
        let put = self.retry.run(&what, || self.objects.put(&path, body.clone().into()));
        self.in_its_place(put).await.map(drop)
    }

    /// Reads a whole object of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`RepoErrorKind::NotFound`]; [`RepoErrorKind::Damaged`] when it is longer.
    pub async fn get(&self, key: &str, bytes_max: u64) -> Result<Bytes> {
        let path = location(key)?;
        let bytes_max = bytes_max.min(OBJECT_BYTES_MAX);
        let got = self
            .retry
            .run(&format!("read {key}"), || async {
                let answer = self.objects.get(&path).await?;
                if answer.meta.size > bytes_max {
                    return Ok(Err(answer.meta.size));
                }
                answer.bytes().await.map(Ok)
            })
            .await?;
        let got = got
            .map_err(|size| RepoError::damaged(key, format!("it has {size} bytes, at most {bytes_max} make sense")))?;
        pass(&self.download, got.len()).await;
        Ok(got)
    }

    /// Reads part of an object.
    ///
    /// # Errors
    /// [`RepoErrorKind::NotFound`]; [`RepoErrorKind::Damaged`] when the object ends before `range` does.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let path = location(key)?;
        let wanted = range.end.saturating_sub(range.start);
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        pass(&self.download, usize::try_from(wanted).unwrap_or(usize::MAX)).await;
        if let Some(direct) = self.direct.as_ref().filter(|_| wanted >= DIRECT_READ_BYTES_MIN) {
            let (direct, name, range) = (Arc::clone(direct), key.to_owned(), range.clone());
            if let Some(bytes) = tokio::task::spawn_blocking(move || direct.get_range(&name, range)).await? {
                return Ok(bytes);
            }
        }
        // A range behind the end is an unnamed error with every store: ask for the size, and do not try that again.
        let read = || async {
            match self.objects.get_range(&path, range.clone()).await {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error @ object_store::Error::Generic { .. }) => match self.objects.head(&path).await {
                    Ok(meta) if meta.size < range.end => Ok(None),
                    _ => Err(error),
                },
                Err(error) => Err(error),
            }
        };
        match self.retry.run(&format!("read {key}"), read).await? {
            Some(bytes) if bytes.len() as u64 == wanted => Ok(bytes),
            _ => Err(RepoError::damaged(key, format!("it ends before byte {}", range.end))),
        }
    }

    /// Size and time of an object.
    ///
    /// # Errors
    /// [`RepoErrorKind::NotFound`].
    pub async fn head(&self, key: &str) -> Result<ObjectInfo> {
        let path = location(key)?;
        let meta = self.retry.run(&format!("look at {key}"), || self.objects.head(&path)).await?;
        Ok(info(meta))
    }

    /// Whether an object is there.
    ///
    /// # Errors
    /// Whatever the store reports, other than that it is not there.
    pub async fn exists(&self, key: &str) -> Result<bool> {
        match self.head(key).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == RepoErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All objects in the folder `prefix` and below, sorted by key. `""` is everything.
    ///
    /// # Errors
    /// Whatever the store reports.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let path = location(prefix)?;
        let found = self.retry.run(&format!("list {prefix}"), || collect(self.objects.list(Some(&path)))).await?;
        finish_list(prefix, found)
    }

    /// As [`Store::list`], only keys after `offset` (whether or not that is a key).
    ///
    /// # Errors
    /// Whatever the store reports.
    pub async fn list_with_offset(&self, prefix: &str, offset: &str) -> Result<Vec<ObjectInfo>> {
        let (path, offset) = (location(prefix)?, location(offset)?);
        let found = self
            .retry
            .run(&format!("list {prefix}"), || collect(self.objects.list_with_offset(Some(&path), &offset)))
            .await?;
        let mut found = finish_list(prefix, found)?;
        // Not every store that takes an offset keeps to it.
        found.retain(|object| object.key.as_str() > offset.as_ref());
        Ok(found)
    }

    /// Names of the folders right in `prefix`, sorted; with one LIST, however much they hold.
    ///
    /// # Errors
    /// Whatever the store reports.
    pub async fn list_folders(&self, prefix: &str) -> Result<Vec<String>> {
        let path = location(prefix)?;
        let found = self.retry.run(&format!("list {prefix}"), || self.objects.list_with_delimiter(Some(&path))).await?;
        let mut names: Vec<String> =
            found.common_prefixes.iter().filter_map(|folder| folder.filename().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    /// Removes an object; it is no error that it is not there.
    ///
    /// # Errors
    /// [`RepoErrorKind::Retained`] when the store keeps it, whoever asks; whatever else the store reports.
    pub async fn delete(&self, key: &str) -> Result<()> {
        let path = location(key)?;
        match self.retry.run(&format!("remove {key}"), || self.objects.delete(&path)).await {
            Err(error) if error.kind() == RepoErrorKind::NotFound => Ok(()),
            Err(error) if is_retained(&error) => {
                let kept =
                    RepoError::new(RepoErrorKind::Retained, format!("failed to remove {key}: the store keeps it"));
                Err(kept.because(error).advise("it can be removed once its retention is over"))
            }
            other => other,
        }
    }
}

/// Whether a refused removal is the store's promise to keep things, and not a lack of permission.
fn is_retained(error: &RepoError) -> bool {
    // Azure says conflict to it.
    let refused = matches!(error.kind(), RepoErrorKind::Denied | RepoErrorKind::AlreadyExists);
    refused && retry::speaks_of_retention(&error.to_string())
}

/// Waits for the turn of so many bytes. Few are counted and do not wait: a lock is refreshed while packs take their time.
async fn pass(pace: &Option<Arc<Pace>>, bytes: usize) {
    match pace {
        Some(pace) if bytes > PIECE_BYTES => pace.pass(bytes).await,
        Some(pace) => drop(pace.reserve(bytes)),
        None => {}
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.address)
    }
}

/// The folder that an object lies in.
pub(crate) fn folder_of(key: &str) -> &str {
    key.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn location(key: &str) -> Result<Path> {
    Path::parse(key)
        .map_err(|error| RepoError::new(RepoErrorKind::InvalidConfig, "failed to use an object name").because(error))
}

fn info(meta: object_store::ObjectMeta) -> ObjectInfo {
    ObjectInfo {
        key: meta.location.as_ref().to_owned(),
        bytes: meta.size,
        modified: Timestamp::from_micros(u64::try_from(meta.last_modified.timestamp_micros()).unwrap_or(0)),
    }
}

/// Takes one object more than allowed, so that the caller can tell.
async fn collect(
    list: futures::stream::BoxStream<'_, object_store::Result<object_store::ObjectMeta>>,
) -> object_store::Result<Vec<ObjectInfo>> {
    use futures::StreamExt;
    list.take(LIST_OBJECTS_MAX + 1).map_ok(info).try_collect().await
}

fn finish_list(prefix: &str, mut found: Vec<ObjectInfo>) -> Result<Vec<ObjectInfo>> {
    if found.len() > LIST_OBJECTS_MAX {
        return Err(RepoError::new(
            RepoErrorKind::Store,
            format!("failed to list {prefix}: it holds more than {LIST_OBJECTS_MAX} objects"),
        ));
    }
    found.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(found)
}

#[cfg(test)]
mod tests;
