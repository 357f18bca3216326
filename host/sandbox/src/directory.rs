//! A granted folder, through `cap-std`: nothing leaves it.
#![allow(unreachable_pub)] // the generated bindings name the handle types

use crate::{
    error::{EngineError, EngineErrorKind},
    limits::STREAM_BYTES_MAX,
    ports::{Attributes, Body, Node, NodeKind},
};
use backstay_core::{RelativePath, Timestamp};
use bytes::Bytes;
use cap_std::fs::{
    Dir, DirBuilder, DirBuilderExt, File, Metadata, MetadataExt, OpenOptions, OpenOptionsExt, Permissions,
    PermissionsExt,
};
use futures::{StreamExt, stream};
use std::{
    collections::BTreeMap,
    io::{self, Read, Seek, SeekFrom, Write},
    path::PathBuf,
    sync::Arc,
};
use tokio::task::{JoinHandle, spawn_blocking};

/// A folder that was opened for a job.
pub struct DirectoryInner {
    /// The folder.
    pub dir: Arc<Dir>,
    /// Whether it may be changed.
    pub writable: bool,
    /// For messages.
    pub location: PathBuf,
    /// Where [`Directory::link`] may point, by name: a restore job's volumes.
    pub volumes: BTreeMap<String, PathBuf>,
}

/// A granted folder; clones share it.
#[derive(Clone)]
pub struct Directory(pub(crate) Arc<DirectoryInner>);

impl Directory {
    pub(crate) fn dir(&self) -> Arc<Dir> {
        self.0.dir.clone()
    }

    pub(crate) async fn entries(&self, path: &str) -> Result<Vec<Node>, EngineError> {
        let root = if path.is_empty() { None } else { Some(checked(path)?) };
        self.blocking(move |dir| {
            let mut nodes = Vec::new();
            walk(dir, root.as_ref(), &mut nodes)?;
            Ok(nodes)
        })
        .await
    }

    pub(crate) async fn stat(&self, path: &str) -> Result<Option<Node>, EngineError> {
        let path = checked(path)?;
        self.blocking(move |dir| match dir.symlink_metadata(path.as_str()) {
            Ok(metadata) => node(dir, &path, &metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    /// The file at `path`; nothing when there is none any more.
    pub(crate) async fn open(&self, path: &RelativePath) -> Result<Option<std::fs::File>, EngineError> {
        let (directory, path) = (self.clone(), path.clone());
        let opened = spawn_blocking(move || match directory.0.dir.open(path.as_str()) {
            Ok(file) => Ok(Some(file.into_std())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(directory.failed("read", &path, &error)),
        });
        opened.await.map_err(lost_thread)?
    }

    /// The bytes of one file, read ahead by one chunk once somebody takes them.
    ///
    /// A plugin may hold hundreds of these and read none: then they cost no thread and no
    /// memory, and the host's own reads go on.
    pub(crate) fn read(&self, path: &str, offset: u64, length: Option<u64>) -> Body {
        let path = match checked(path) {
            Ok(path) => path,
            Err(error) => return crate::pump::failed(error),
        };
        let begin = Reading { directory: self.clone(), path, file: None, offset, left: length.unwrap_or(u64::MAX) };
        stream::unfold(Some(Ahead::Not(begin)), |ahead| async move {
            let next = match ahead? {
                Ahead::Not(reading) => spawn_blocking(|| reading.next()),
                Ahead::Under(way) => way,
            };
            match next.await {
                Ok(Ok((_, bytes))) if bytes.is_empty() => None,
                Ok(Ok((reading, bytes))) => Some((Ok(bytes), Some(Ahead::Under(spawn_blocking(|| reading.next()))))),
                Ok(Err(error)) => Some((Err(io::Error::other(error)), None)),
                Err(lost) => Some((Err(io::Error::other(lost_thread(lost))), None)),
            }
        })
        .boxed()
    }

    /// Beside its place first, durable, then renamed: a reader never sees half a file.
    pub(crate) async fn write(&self, path: &str, attributes: Attributes, mut body: Body) -> Result<u64, EngineError> {
        let path = self.changeable(path)?;
        let beside = RelativePath::new(format!("{path}.backstay-new"))
            .map_err(|error| EngineError::new(EngineErrorKind::Internal, error.to_string()))?;
        let directory = self.clone();
        let place = beside.clone();
        let mut file = self
            .blocking(move |dir| {
                let mut options = OpenOptions::new();
                options.write(true).create(true).truncate(true).mode(0o600);
                let file = dir.open_with(place.as_str(), &options)?;
                file.set_permissions(Permissions::from_mode(attributes.mode))?;
                Ok(file)
            })
            .await?;
        let mut bytes_written = 0;
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|error| crate::pump::from_io(&error))?;
            bytes_written += bytes.len() as u64;
            file = spawn_blocking(move || file.write_all(&bytes).map(|()| file))
                .await
                .map_err(lost_thread)?
                .map_err(|error| directory.failed("write", &path, &error))?;
        }
        self.blocking(move |dir| {
            file.sync_all()?;
            dir.rename(beside.as_str(), dir, path.as_str())?;
            sync_parent(dir, &path)
        })
        .await?;
        Ok(bytes_written)
    }

    pub(crate) async fn create(&self, path: &str, attributes: Attributes) -> Result<(), EngineError> {
        let path = self.changeable(path)?;
        self.blocking(move |dir| {
            let mut builder = DirBuilder::new();
            builder.mode(attributes.mode);
            match dir.create_dir_with(path.as_str(), &builder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if !dir.symlink_metadata(path.as_str())?.is_dir() {
                        return Err(error);
                    }
                }
                other => other?,
            }
            dir.set_permissions(path.as_str(), Permissions::from_mode(attributes.mode))?;
            sync_parent(dir, &path)
        })
        .await
    }

    pub(crate) async fn link(&self, path: &str, volume: &str) -> Result<(), EngineError> {
        let path = self.changeable(path)?;
        let Some(target) = self.0.volumes.get(volume).cloned() else {
            return Err(crate::state::not_granted("volume", "--map", volume));
        };
        self.blocking(move |dir| {
            match dir.symlink_metadata(path.as_str()) {
                Ok(metadata) if metadata.is_symlink() => dir.remove_file(path.as_str())?,
                Ok(metadata) if metadata.is_dir() => dir.remove_dir(path.as_str())?,
                _ => {}
            }
            // The operator chose the target; the plugin could not name one.
            dir.symlink_contents(&target, path.as_str())?;
            sync_parent(dir, &path)
        })
        .await
    }

    pub(crate) async fn remove(&self, path: &str) -> Result<(), EngineError> {
        let path = self.changeable(path)?;
        self.blocking(move |dir| {
            let metadata = match dir.symlink_metadata(path.as_str()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => other?,
            };
            if metadata.is_dir() {
                dir.remove_dir(path.as_str())?;
            } else {
                dir.remove_file(path.as_str())?;
            }
            sync_parent(dir, &path)
        })
        .await
    }

    pub(crate) async fn rename(&self, from: &str, to: &str) -> Result<(), EngineError> {
        let (from, to) = (self.changeable(from)?, self.changeable(to)?);
        self.blocking(move |dir| {
            dir.rename(from.as_str(), dir, to.as_str())?;
            sync_parent(dir, &from)?;
            sync_parent(dir, &to)
        })
        .await
    }

    fn changeable(&self, path: &str) -> Result<RelativePath, EngineError> {
        if !self.0.writable {
            return Err(EngineError::new(
                EngineErrorKind::BadConfig,
                format!("{} is granted for reading only", self.0.location.display()),
            ));
        }
        checked(path)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Dir) -> io::Result<T> + Send + 'static,
    ) -> Result<T, EngineError> {
        let dir = self.0.dir.clone();
        let location = self.0.location.clone();
        spawn_blocking(move || work(&dir)).await.map_err(lost_thread)?.map_err(|error| {
            EngineError::new(
                EngineErrorKind::Internal,
                format!("failed to work in {}: {}", location.display(), crate::connection::plain_words(&error)),
            )
        })
    }

    fn failed(&self, verb: &str, path: &RelativePath, error: &io::Error) -> EngineError {
        EngineError::new(
            EngineErrorKind::Internal,
            format!(
                "failed to {verb} {}: {}",
                self.0.location.join(path.as_str()).display(),
                crate::connection::plain_words(error)
            ),
        )
    }
}

/// One file being read.
struct Reading {
    directory: Directory,
    path: RelativePath,
    file: Option<File>,
    offset: u64,
    left: u64,
}

/// Whether the next chunk is being read already.
enum Ahead {
    Not(Reading),
    Under(JoinHandle<Result<(Reading, Bytes), EngineError>>),
}

impl Reading {
    /// The next chunk; an empty one at the end.
    fn next(mut self) -> Result<(Self, Bytes), EngineError> {
        match self.chunk() {
            Ok(bytes) => Ok((self, bytes)),
            Err(error) => Err(self.directory.failed("read", &self.path, &error)),
        }
    }

    fn chunk(&mut self) -> io::Result<Bytes> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let mut file = self.directory.0.dir.open(self.path.as_str())?;
                file.seek(SeekFrom::Start(self.offset))?;
                self.file.insert(file)
            }
        };
        let mut chunk = vec![0; STREAM_BYTES_MAX.min(usize::try_from(self.left).unwrap_or(usize::MAX))];
        let count = file.read(&mut chunk)?;
        chunk.truncate(count);
        self.left -= count as u64;
        Ok(Bytes::from(chunk))
    }
}

fn lost_thread(_: tokio::task::JoinError) -> EngineError {
    EngineError::new(EngineErrorKind::Internal, "a thread of the host ended early")
}

fn checked(path: &str) -> Result<RelativePath, EngineError> {
    RelativePath::new(path).map_err(|error| EngineError::new(EngineErrorKind::Internal, error.to_string()))
}

/// Makes a change in a folder durable.
fn sync_parent(dir: &Dir, path: &RelativePath) -> io::Result<()> {
    match path.parent() {
        Some(parent) => dir.open(parent.as_str())?.sync_all(),
        None => dir.open(".")?.sync_all(),
    }
}

fn walk(dir: &Dir, below: Option<&RelativePath>, nodes: &mut Vec<Node>) -> io::Result<()> {
    // Gone since it was listed: databases delete files and folders all the time.
    let is_gone = |error: &io::Error| below.is_some() && error.kind() == io::ErrorKind::NotFound;
    let listing = match below {
        Some(below) => match dir.read_dir(below.as_str()) {
            Err(error) if is_gone(&error) => return Ok(()),
            listing => listing?,
        },
        None => dir.entries()?,
    };
    let mut names = Vec::new();
    for entry in listing {
        let name = match entry {
            Err(error) if is_gone(&error) => break,
            entry => entry?.file_name(),
        };
        // A name that is not text cannot be told to a plugin, and no database makes one.
        let Ok(name) = name.into_string() else { continue };
        names.push(name);
    }
    names.sort_unstable();
    for name in names {
        let path = match below {
            Some(below) => RelativePath::new(format!("{below}/{name}")),
            None => RelativePath::new(name),
        };
        let path = path.map_err(io::Error::other)?;
        let metadata = match dir.symlink_metadata(path.as_str()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let found = match node(dir, &path, &metadata) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found?,
        };
        let Some(found) = found else { continue };
        let is_dir = found.kind == NodeKind::Directory;
        nodes.push(found);
        if is_dir {
            walk(dir, Some(&path), nodes)?;
        }
    }
    Ok(())
}

/// Sockets, pipes and devices are nothing to back up.
fn node(dir: &Dir, path: &RelativePath, metadata: &Metadata) -> io::Result<Option<Node>> {
    let kind = if metadata.is_dir() {
        NodeKind::Directory
    } else if metadata.is_symlink() {
        NodeKind::Symlink(dir.read_link_contents(path.as_str())?.to_string_lossy().into_owned())
    } else if metadata.is_file() {
        NodeKind::File(metadata.len())
    } else {
        return Ok(None);
    };
    let seconds = u64::try_from(metadata.mtime()).unwrap_or(0);
    let micros = u64::try_from(metadata.mtime_nsec()).unwrap_or(0) / 1000;
    Ok(Some(Node {
        path: path.clone(),
        kind,
        attributes: Attributes {
            mode: metadata.mode() & 0o7777,
            modified: Timestamp::from_micros(seconds.saturating_mul(1_000_000).saturating_add(micros)),
        },
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use cap_std::ambient_authority;

    #[test]
    fn a_folder_that_went_since_it_was_listed_is_empty() {
        let place = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(place.path(), ambient_authority()).unwrap();
        std::fs::create_dir_all(place.path().join("base/1")).unwrap();
        std::fs::write(place.path().join("base/1/file"), "rows").unwrap();
        let below = |path: &str| {
            let mut nodes = Vec::new();
            walk(&dir, Some(&RelativePath::new(path).unwrap()), &mut nodes).map(|()| nodes.len())
        };
        assert_eq!(below("base").unwrap(), 2);
        assert_eq!(below("base/pgsql_tmp").unwrap(), 0);
        // Nothing but absence is taken for it.
        assert!(below("base/1/file").is_err());
    }
}
