//! The world as one client's object store.

use crate::world::{Answer, Client, Medium, Object, Outcome, Refusal, Request, World, folder_of, part};
use backstay_repo::store::Names;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};
use std::{fmt, sync::Arc};

/// What one client sees of the store.
#[derive(Clone)]
pub struct Front {
    world: Arc<World>,
    client: Client,
}

impl Front {
    /// The store as `client` sees it.
    pub fn new(world: Arc<World>, client: Client) -> Self {
        Self { world, client }
    }

    /// Asks, and waits until the plan lets it happen.
    async fn ask(&self, request: Request) -> Outcome {
        match self.world.ask(self.client, request).await {
            Ok(outcome) => outcome,
            // The process is dead: it never learns anything any more.
            Err(_) => futures::future::pending().await,
        }
    }

    async fn done(&self, request: Request) -> Result<()> {
        let place = request.place().to_owned();
        self.ask(request).await.map(drop).map_err(|refusal| error(refusal, &place))
    }

    async fn object(&self, key: &str) -> Result<Object> {
        match self.ask(Request::Get { key: key.into() }).await {
            Ok(Answer::Object(object)) => Ok(object),
            Ok(_) => Err(error(Refusal::Passing, key)),
            Err(refusal) => Err(error(refusal, key)),
        }
    }

    async fn page(&self, folder: &str, after: &str) -> Result<(Vec<(String, Object)>, bool)> {
        let request = Request::List { folder: folder.into(), after: after.into(), most: self.world.page };
        match self.ask(request).await {
            Ok(Answer::Names(names, all)) => Ok((names, all)),
            Ok(_) => Err(error(Refusal::Passing, folder)),
            Err(refusal) => Err(error(refusal, folder)),
        }
    }
}

#[async_trait::async_trait]
impl Names for Front {
    async fn settle(&self, folder: &str) -> std::io::Result<()> {
        if self.world.medium == Medium::Folder {
            self.done(Request::Sync { folder: folder.into() }).await.map_err(std::io::Error::other)?;
        }
        Ok(())
    }

    async fn show_at_once(&self) -> bool {
        self.world.medium == Medium::Folder && self.world.lag.is_zero()
    }
}

fn error(refusal: Refusal, place: &str) -> Error {
    match refusal {
        Refusal::Exists => Error::AlreadyExists { path: place.into(), source: "it is there".into() },
        Refusal::Absent => Error::NotFound { path: place.into(), source: "it is not there".into() },
        Refusal::Passing => Error::Generic { store: "simulated", source: "the connection was cut".into() },
    }
}

fn unsupported(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.into(), implementer: "the simulated store".into() }
}

fn meta(key: &str, object: &Object) -> ObjectMeta {
    ObjectMeta {
        location: Path::from(key),
        last_modified: object.modified.into(),
        size: object.bytes.len() as u64,
        e_tag: None,
        version: None,
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Front({})", self.client)
    }
}

impl fmt::Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated store")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Front {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return Err(unsupported("update")),
        };
        let key = location.as_ref().to_owned();
        let folder = folder_of(&key).to_owned();
        // Of its own: a body may hold on to its writer, and that to this store.
        let body = Bytes::copy_from_slice(&Bytes::from(payload));
        self.done(Request::Put { key, body, create }).await?;
        if self.world.medium == Medium::Folder {
            self.done(Request::Sync { folder }).await?;
        }
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(unsupported("multipart"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let object = self.object(location.as_ref()).await?;
        let size = object.bytes.len() as u64;
        let range = match &options.range {
            Some(range) => {
                range.as_range(size).map_err(|error| Error::Generic { store: "simulated", source: Box::new(error) })?
            }
            None => 0..size,
        };
        let bytes = part(&object, &range);
        let body = stream::once(async move { Ok(bytes) }).boxed();
        Ok(GetResult {
            payload: GetResultPayload::Stream(body),
            meta: meta(location.as_ref(), &object),
            range,
            attributes: Attributes::default(),
            extensions: Default::default(),
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        locations
            .then(move |location| {
                let this = this.clone();
                async move {
                    let location = location?;
                    this.done(Request::Delete { key: location.as_ref().to_owned() }).await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, folder) = (self.clone(), prefix.map(|path| path.as_ref().to_owned()).unwrap_or_default());
        // Page by page, as object stores do: others write between two of them.
        let pages = stream::try_unfold(Some(String::new()), move |after| {
            let (this, folder) = (this.clone(), folder.clone());
            async move {
                let Some(after) = after else { return Ok::<_, Error>(None) };
                let (names, all) = this.page(&folder, &after).await?;
                let next = names.last().filter(|_| !all).map(|(key, _)| key.clone());
                let metas: Vec<Result<ObjectMeta>> = names.iter().map(|(key, object)| Ok(meta(key, object))).collect();
                Ok(Some((stream::iter(metas), next)))
            }
        });
        pages.try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let folder = prefix.map(|path| path.as_ref().to_owned()).unwrap_or_default();
        let metas: Vec<ObjectMeta> = self.list(prefix).try_collect().await?;
        let start = if folder.is_empty() { 0 } else { folder.len() + 1 };
        let mut result =
            ListResult { common_prefixes: Vec::new(), objects: Vec::new(), extensions: Default::default() };
        for meta in metas {
            match meta.location.as_ref()[start..].split_once('/') {
                None => result.objects.push(meta),
                Some((name, _)) => {
                    let below = Path::from(format!("{folder}/{name}"));
                    if result.common_prefixes.last() != Some(&below) {
                        result.common_prefixes.push(below);
                    }
                }
            }
        }
        Ok(result)
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(unsupported("copy"))
    }
}

/// A body, for tests of the store itself.
pub fn payload(bytes: &'static [u8]) -> PutPayload {
    Bytes::from_static(bytes).into()
}
