//! Azure: where a shared access signature opens the container, removal is the plain request for one blob.
//!
//! The library below removes by `Blob Batch`, which asks for a signature over the whole container and for servers that
//! read signatures inside a batch; not all do. [Delete Blob] asks for the permission `d` on what is removed, and the
//! signature stands in its URL as in every other request.
//!
//! [Delete Blob]: https://learn.microsoft.com/en-us/rest/api/storageservices/delete-blob

use crate::limits::DELETES_AT_ONCE;
use async_trait::async_trait;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use http::StatusCode;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    azure::{AzureCredential, MicrosoftAzure},
    client::{HttpClient, HttpRequestBody},
    path::Path,
};
use std::{fmt, sync::Arc};
use url::Url;

/// A container.
#[derive(Debug)]
pub(super) struct Azure {
    files: Arc<MicrosoftAzure>,
    removal: Arc<Removal>,
}

#[derive(Debug)]
struct Removal {
    client: HttpClient,
    container: Url,
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    /// In the library's words, which decide whether it is tried again.
    #[error("Server returned non-2xx status code: {0}: {1}")]
    Status(StatusCode, String),
    #[error("failed to make the request: {0}")]
    Request(http::Error),
}

impl Azure {
    /// `container` is the URL that `files` are found below.
    pub(super) fn new(files: MicrosoftAzure, client: HttpClient, container: Url) -> Self {
        Self { files: Arc::new(files), removal: Arc::new(Removal { client, container }) }
    }
}

impl fmt::Display for Azure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

impl Removal {
    /// `signature` are the pairs of a URL's query.
    async fn remove(&self, location: Path, signature: &[(String, String)]) -> Result<Path> {
        let mut url = self.container.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(location.parts());
        }
        url.query_pairs_mut().extend_pairs(signature);
        let request = http::Request::builder().method("DELETE").uri(url.as_str());
        let request = request.body(HttpRequestBody::empty()).map_err(|error| generic(Refused::Request(error)))?;
        let answer = self.client.execute(request).await.map_err(generic)?;
        let (parts, body) = answer.into_parts();
        let body = body.bytes().await.map_err(generic)?;
        if parts.status.is_success() {
            return Ok(location);
        }
        let (path, text) = (location.to_string(), String::from_utf8_lossy(&body).into_owned());
        let source = Box::new(Refused::Status(parts.status, text));
        Err(match parts.status {
            StatusCode::NOT_FOUND => Error::NotFound { path, source },
            StatusCode::UNAUTHORIZED => Error::Unauthenticated { path, source },
            StatusCode::FORBIDDEN => Error::PermissionDenied { path, source },
            // A lease, or a policy that keeps what is in the container.
            StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Error::Precondition { path, source },
            _ => Error::Generic { store: "MicrosoftAzure", source },
        })
    }
}

#[async_trait]
impl ObjectStore for Azure {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.files.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.files.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let removed = remove_all(Arc::clone(&self.files), Arc::clone(&self.removal), locations);
        stream::once(removed).try_flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }
}

async fn remove_all(
    files: Arc<MicrosoftAzure>,
    removal: Arc<Removal>,
    locations: BoxStream<'static, Result<Path>>,
) -> Result<BoxStream<'static, Result<Path>>> {
    let credential = files.credentials().get_credential().await?;
    let AzureCredential::SASToken(signature) = &*credential else { return Ok(files.delete_stream(locations)) };
    let signature = Arc::new(signature.clone());
    let removals = locations.map(move |location| {
        let (removal, signature) = (Arc::clone(&removal), Arc::clone(&signature));
        async move { removal.remove(location?, &signature).await }
    });
    Ok(removals.buffered(DELETES_AT_ONCE).boxed())
}

fn generic(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Generic { store: "MicrosoftAzure", source: Box::new(source) }
}
