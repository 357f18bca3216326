//! WebDAV, with the promises a repository needs.
//!
//! ```text
//!   put ─► PUT name#random ─► MOVE to name                                    whole or not at all
//!   put, only if absent ─► PUT name#random ─► LOCK name#claim ─► is it there? ─► MOVE ─► UNLOCK, DELETE name#claim
//! ```
//!
//! RFC 4918 has `Overwrite: F`, but servers look first and rename then, so two writers may both win. What the protocol
//! does promise is that an exclusive lock has one holder. So who creates a name holds the lock of its claim meanwhile,
//! and a server without locks (class 1) is refused for such names. Names that are their content's digest need none:
//! whoever comes second brings the same bytes.
//!
//! A claim ends by itself after [`WEBDAV_CLAIM`], and whoever holds it gives up the work long before: a writer that
//! died is not waited for longer than that. What it leaves behind is `name#…`, which no listing shows.
//!
//! Folders are listed one by one, many at a time: servers refuse, or stumble over, a listing of all that is below.

use crate::limits::{LOADS_MAX, WEBDAV_CLAIM, WEBDAV_CLAIMED_WORK};
use async_trait::async_trait;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use http::{HeaderMap, Method, StatusCode};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UpdateVersion,
    client::{HttpClient, HttpRequestBody},
    http::HttpStore,
    path::Path,
};
use std::{
    collections::HashSet,
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};
use url::Url;

/// Between a name and what belongs to its making. No object of a repository has it in its name.
const MARK: char = '#';

const LOCK_BODY: &str = concat!(
    r#"<?xml version="1.0" encoding="utf-8"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>"#,
    r#"<D:locktype><D:write/></D:locktype><D:owner>backstay</D:owner></D:lockinfo>"#
);

/// A WebDAV server, from its root on.
#[derive(Clone, Debug)]
pub(super) struct WebDav {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    origin: Url,
    client: HttpClient,
    files: HttpStore,
    /// Folders that were seen; nobody removes any.
    folders: Mutex<HashSet<Path>>,
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    /// In the words of the library below, which decide whether it is tried again.
    #[error("Server returned non-2xx status code: {0} to {1}")]
    Status(StatusCode, Method),
    #[error("the server speaks no WebDAV")]
    NoDav,
    #[error("the server has no locks (WebDAV class 2), so two writers could not be told apart")]
    NoLocks,
    #[error("somebody else is writing it")]
    Claimed,
    #[error("the server took too long while the claim was held")]
    Slow,
    #[error("failed to make the request: {0}")]
    Request(http::Error),
}

impl WebDav {
    pub(super) fn new(origin: Url, client: HttpClient, files: HttpStore) -> Self {
        Self { inner: Arc::new(Inner { origin, client, files, folders: Mutex::default() }) }
    }
}

impl fmt::Display for WebDav {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebDAV({})", self.inner.origin)
    }
}

impl Inner {
    fn url(&self, path: &Path) -> String {
        let mut url = self.origin.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.parts());
        }
        url.into()
    }

    async fn request(
        &self,
        method: &str,
        path: &Path,
        headers: &[(&'static str, String)],
        body: &'static str,
    ) -> Result<(StatusCode, HeaderMap)> {
        let broken = |error: http::Error| generic(Refused::Request(error));
        let mut request = http::Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(HttpRequestBody::from(body.to_owned())).map_err(broken)?;
        let answer = self.client.execute(request).await.map_err(generic)?;
        let (parts, body) = answer.into_parts();
        // Read to its end, so that the connection can be used again.
        body.bytes().await.map_err(generic)?;
        Ok((parts.status, parts.headers))
    }

    /// Makes the folder that `path` lies in, and those above it.
    async fn make_folder_of(&self, path: &Path) -> Result<()> {
        let folders = || self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let parts: Vec<_> = path.parts().collect();
        // Up to one that is there, then down again.
        let mut depth = parts.len().saturating_sub(1);
        let mut missing = Vec::new();
        while depth > 0 {
            let folder = Path::from_iter(parts[..depth].iter().cloned());
            if folders().contains(&folder) || self.is_folder(&folder).await? {
                folders().insert(folder);
                break;
            }
            missing.push(folder);
            depth -= 1;
        }
        while let Some(folder) = missing.pop() {
            let (status, _) = self.request("MKCOL", &folder, &[], "").await?;
            // Servers have many words for a folder that somebody else made in between: 405, 403, 409.
            if !status.is_success() && !self.is_folder(&folder).await? {
                return Err(refused(status, "MKCOL", &folder));
            }
            folders().insert(folder);
        }
        Ok(())
    }

    async fn is_folder(&self, path: &Path) -> Result<bool> {
        match self.request("PROPFIND", path, &[("depth", "0".to_owned())], "").await? {
            (status, _) if status.is_success() => Ok(true),
            (StatusCode::NOT_FOUND | StatusCode::CONFLICT, _) => Ok(false),
            (StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED, _) => {
                Err(Error::NotSupported { source: Box::new(Refused::NoDav) })
            }
            (status, _) => Err(refused(status, "PROPFIND", path)),
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match self.files.get_opts(location, options.clone()).await {
            // Apache does not tell the length of what is empty when it is only looked at.
            Err(Error::Generic { source, .. }) if options.head && source.to_string().contains("Content-Length") => {
                self.files.get_opts(location, GetOptions { head: false, ..options }).await
            }
            other => other,
        }
    }

    /// Renames; nothing is there already unless `overwrite`.
    async fn rename(&self, from: &Path, to: &Path, overwrite: bool) -> Result<()> {
        let headers = [("destination", self.url(to)), ("overwrite", if overwrite { "T" } else { "F" }.to_owned())];
        match self.request("MOVE", from, &headers, "").await? {
            (status, _) if status.is_success() => Ok(()),
            (StatusCode::PRECONDITION_FAILED, _) if !overwrite => Err(there_already(to)),
            (status, _) => Err(refused(status, "MOVE", to)),
        }
    }

    /// Renames while nobody else may create that name.
    async fn rename_alone(&self, from: &Path, to: &Path) -> Result<()> {
        let claim = beside(to, "claim");
        let headers = [
            ("depth", "0".to_owned()),
            ("timeout", format!("Second-{}", WEBDAV_CLAIM.as_secs())),
            ("content-type", "application/xml; charset=utf-8".to_owned()),
        ];
        let token = match self.request("LOCK", &claim, &headers, LOCK_BODY).await? {
            (status, answer) if status.is_success() => answer.get("lock-token").cloned(),
            (StatusCode::LOCKED, _) => return Err(generic(Refused::Claimed)),
            (StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED, _) => return Err(without_locks()),
            (status, _) => return Err(refused(status, "LOCK", &claim)),
        };
        let Some(token) = token.and_then(|token| Some(token.to_str().ok()?.to_owned())) else {
            return Err(without_locks());
        };
        let work = async {
            match self.get_opts(to, GetOptions { head: true, ..GetOptions::default() }).await {
                Ok(_) => Err(there_already(to)),
                Err(Error::NotFound { .. }) => self.rename(from, to, false).await,
                Err(error) => Err(error),
            }
        };
        let done = tokio::time::timeout(WEBDAV_CLAIMED_WORK, work).await;
        if done.as_ref().map_or(true, |done| done.as_ref().is_err_and(is_unheard)) {
            // The request may still be on its way: the claim ends by itself, later than that.
            return done.unwrap_or_else(|_| Err(generic(Refused::Slow)));
        }
        // Whether this works or not: a claim ends by itself. A claim that somebody else holds by now is not removed,
        // because it is locked.
        let unlocked = self.request("UNLOCK", &claim, &[("lock-token", token)], "").await;
        let removed = self.request("DELETE", &claim, &[], "").await;
        for failed in [unlocked.err(), removed.err()].into_iter().flatten() {
            tracing::debug!(error = %failed, %claim, "a claim was left to end by itself");
        }
        done.unwrap_or_else(|_| Err(generic(Refused::Slow)))
    }

    /// Everything below a folder.
    async fn walk(&self, prefix: Option<Path>) -> Result<Vec<ObjectMeta>> {
        let mut found = Vec::new();
        let mut level = vec![prefix];
        while !level.is_empty() {
            let listed: Vec<ListResult> = stream::iter(level)
                .map(|folder| async move { self.files.list_with_delimiter(folder.as_ref()).await })
                .buffer_unordered(LOADS_MAX)
                .try_collect()
                .await?;
            level = Vec::new();
            for folder in listed {
                found.extend(folder.objects.into_iter().filter(|object| !is_making(&object.location)));
                level.extend(folder.common_prefixes.into_iter().map(Some));
            }
        }
        Ok(found)
    }
}

#[async_trait]
impl ObjectStore for WebDav {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let inner = &self.inner;
        if let PutMode::Update(UpdateVersion { .. }) = options.mode {
            return Err(not_implemented("an update of one version"));
        }
        let mut random = [0; 8];
        crate::crypto::random_bytes(&mut random);
        let making = beside(location, &hex::encode(random));
        let overwrite = PutOptions { mode: PutMode::Overwrite, ..options.clone() };
        let put = async {
            inner.make_folder_of(location).await?;
            let put = inner.files.put_opts(&making, payload, overwrite).await?;
            match options.mode {
                PutMode::Create if !is_digest(location) => inner.rename_alone(&making, location).await?,
                PutMode::Create => inner.rename(&making, location, false).await?,
                _ => inner.rename(&making, location, true).await?,
            }
            Ok(put)
        };
        let done = put.await;
        if done.is_err() {
            // What is there no more, or never was, needs no removing.
            let _ = inner.request("DELETE", &making, &[], "").await;
        }
        done
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(not_implemented("an upload in parts"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, prefix) = (Arc::clone(&self.inner), prefix.cloned());
        stream::once(async move { inner.walk(prefix).await.map(|found| stream::iter(found.into_iter().map(Ok))) })
            .try_flatten()
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.inner.files.list_with_delimiter(prefix).await?;
        listed.objects.retain(|object| !is_making(&object.location));
        Ok(listed)
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(not_implemented("a copy"))
    }
}

/// A name for what belongs to the making of `path`.
fn beside(path: &Path, what: &str) -> Path {
    // Not encoded again: it comes from a path, and hash marks may stand in one.
    Path::parse(format!("{path}{MARK}{what}")).unwrap_or_else(|_| path.clone())
}

fn is_making(path: &Path) -> bool {
    path.filename().is_some_and(|name| name.contains(MARK))
}

/// Whether the name is the SHA-256 of what it holds, as all of restic's are but one.
fn is_digest(path: &Path) -> bool {
    path.filename().is_some_and(|name| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether an error says nothing of what the server did.
fn is_unheard(error: &Error) -> bool {
    matches!(error, Error::Generic { source, .. } if source.downcast_ref::<Refused>().is_none())
}

fn generic(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Generic { store: "WebDAV", source: Box::new(source) }
}

fn there_already(path: &Path) -> Error {
    let source = Refused::Status(StatusCode::PRECONDITION_FAILED, Method::PUT);
    Error::AlreadyExists { path: path.to_string(), source: Box::new(source) }
}

fn without_locks() -> Error {
    Error::NotSupported { source: Box::new(Refused::NoLocks) }
}

fn not_implemented(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: "WebDAV".to_owned() }
}

fn refused(status: StatusCode, method: &'static str, path: &Path) -> Error {
    let method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
    let (path, source) = (path.to_string(), Box::new(Refused::Status(status, method)));
    match status {
        StatusCode::NOT_FOUND => Error::NotFound { path, source },
        StatusCode::UNAUTHORIZED => Error::Unauthenticated { path, source },
        StatusCode::FORBIDDEN => Error::PermissionDenied { path, source },
        StatusCode::INSUFFICIENT_STORAGE => generic(io::Error::new(io::ErrorKind::StorageFull, source)),
        _ => Error::Generic { store: "WebDAV", source },
    }
}
