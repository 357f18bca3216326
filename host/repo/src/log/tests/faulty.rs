//! An object store that crashes: after so many changes nothing works any more.

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};
use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

/// Lets `changes` puts and deletes through. The one after that is applied or not, as `applies`
/// says, and reported as failed; then everything fails.
#[derive(Clone)]
pub(super) struct Crashing {
    below: Arc<dyn ObjectStore>,
    changes: Arc<AtomicI64>,
    applies: bool,
}

impl Crashing {
    pub(super) fn new(below: Arc<dyn ObjectStore>, changes: i64, applies: bool) -> Self {
        Self { below, changes: Arc::new(AtomicI64::new(changes)), applies }
    }

    pub(super) fn has_crashed(&self) -> bool {
        self.changes.load(Ordering::SeqCst) < 0
    }

    fn check(&self) -> Result<()> {
        if self.has_crashed() { Err(crashed()) } else { Ok(()) }
    }

    /// Whether the change is applied, and whether it is reported as done.
    fn change(&self) -> (bool, bool) {
        match self.changes.fetch_sub(1, Ordering::SeqCst) {
            left if left > 0 => (true, true),
            0 => (self.applies, false),
            _ => (false, false),
        }
    }
}

fn crashed() -> Error {
    // Not worth a retry, so that tests do not wait.
    Error::PermissionDenied { path: "crash".into(), source: "the machine is off".into() }
}

impl fmt::Debug for Crashing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Crashing")
    }
}

impl fmt::Display for Crashing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Crashing")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Crashing {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let (applied, reported) = self.change();
        if !applied {
            return Err(crashed());
        }
        let done = self.below.put_opts(location, payload, opts).await;
        if reported { done } else { Err(crashed()) }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(crashed())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.check()?;
        self.below.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.check()?;
        self.below.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        locations
            .then(move |location| {
                let this = this.clone();
                async move {
                    use object_store::ObjectStoreExt;
                    let location = location?;
                    let (applied, reported) = this.change();
                    if applied {
                        this.below.delete(&location).await?;
                    }
                    if reported { Ok(location) } else { Err(crashed()) }
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.check() {
            Ok(()) => self.below.list(prefix),
            Err(error) => futures::stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.check()?;
        self.below.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(crashed())
    }
}
