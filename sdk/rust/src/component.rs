//! The same calls as a component: thin conversions around the generated bindings.

#![allow(missing_docs, unreachable_pub)] // generated code follows

use crate::types as plain;
use crate::{CHUNK_BYTES, Engine, Result};
use futures::future::LocalBoxFuture;
use std::rc::Rc;

wit_bindgen::generate!({
    path: "../../wit/v0.1",
    world: "plugin",
    pub_export_macro: true,
    default_bindings_module: "backstay_sdk::component",
    generate_all,
});

use backstay::engine::{backup_set, grants, log_archive, restore_set, types};
use exports::backstay::engine::engine as exported;
use wit_bindgen::{FutureReader, StreamReader, StreamResult, StreamWriter};

mod convert;

impl<E: Engine> exported::Guest for E {
    async fn describe() -> exported::Description {
        E::describe().into()
    }

    async fn inspect() -> Result<exported::Facts, types::Error> {
        Ok(E::inspect().await?.into())
    }

    async fn backup(
        job: exported::BackupJob,
        into: backup_set::BackupWriter,
    ) -> Result<exported::BackupReport, types::Error> {
        let job = plain::BackupJob { method: job.method, label: job.label };
        Ok(E::backup(job, crate::BackupWriter(BackupWriter(Rc::new(into)))).await?.into())
    }

    fn inspect_part(part: exported::FilePart, bytes: Vec<u8>) -> Result<Vec<exported::Finding>, types::Error> {
        let part = plain::FilePart { path: part.path, offset: part.offset, context: part.context };
        let found = E::inspect_part(&part, &bytes)?;
        Ok(found.into_iter().map(|f| exported::Finding { offset: f.offset, what: f.what }).collect())
    }

    async fn archive(into: log_archive::LogWriter) -> Result<(), types::Error> {
        Ok(E::archive(crate::LogWriter(LogWriter(Rc::new(into)))).await?)
    }

    async fn locate(
        target: exported::RecoveryTarget,
        logs: Option<log_archive::LogReader>,
    ) -> Result<Option<exported::Place>, types::Error> {
        let logs = logs.map(|logs| crate::LogReader(LogReader(logs)));
        let place = E::locate(target.into(), logs).await?;
        Ok(place.map(|place| exported::Place { epoch: place.epoch, offset: place.offset }))
    }

    async fn restore(
        job: exported::RestoreJob,
        from: restore_set::BackupReader,
        logs: Option<log_archive::LogReader>,
        into: grants::Directory,
    ) -> Result<exported::RestoreReport, types::Error> {
        let logs = logs.map(|logs| crate::LogReader(LogReader(logs)));
        let from = crate::BackupReader(BackupReader(from));
        let report = E::restore(job.into(), from, logs, crate::Directory(Directory(Rc::new(into)))).await?;
        Ok(exported::RestoreReport { next_steps: report.next_steps })
    }
}

pub(crate) fn config() -> String {
    grants::config()
}

pub(crate) fn login(name: &str) -> Result<plain::Credential> {
    let login = grants::login(name)?;
    Ok(plain::Credential { user: login.user, password: login.password })
}

pub(crate) async fn connect(endpoint: &str) -> Result<Connection> {
    Ok(Connection(grants::connect(endpoint.to_owned()).await?))
}

pub(crate) fn open_directory(name: &str) -> Result<Directory> {
    Ok(Directory(Rc::new(grants::open_directory(name)?)))
}

pub(crate) async fn run(tool: &str, arguments: &[String]) -> Result<Process> {
    Ok(Process(Rc::new(grants::run(tool.to_owned(), arguments.to_vec()).await?)))
}

pub(crate) fn log(level: plain::Level, message: &str) {
    grants::log(level.into(), message);
}

pub(crate) fn progress(phase: &str, done: u64, total: Option<u64>) {
    grants::progress(phase, done, total);
}

pub(crate) fn now() -> plain::Timestamp {
    grants::now()
}

pub(crate) async fn sleep(microseconds: u64) {
    grants::sleep(microseconds).await;
}

pub(crate) fn random(length: u32) -> Vec<u8> {
    grants::random(length)
}

pub(crate) async fn stop_requested() {
    grants::stop_requested().await;
}

/// What a companion future answers, with a byte count that the stream has seen itself.
enum Companion {
    Plain(FutureReader<Result<(), types::Error>>),
    Counted(FutureReader<Result<u64, types::Error>>),
}

impl Companion {
    async fn settle(self) -> Result<Option<u64>> {
        match self {
            Companion::Plain(future) => Ok(future.await.map(|()| None)?),
            Companion::Counted(future) => Ok(future.await.map(Some)?),
        }
    }
}

pub(crate) struct ByteStream {
    body: StreamReader<u8>,
    companion: Option<Companion>,
    held: Vec<u8>,
    seen_bytes: u64,
}

impl ByteStream {
    fn new(body: StreamReader<u8>, companion: Companion) -> Self {
        Self { body, companion: Some(companion), held: Vec::new(), seen_bytes: 0 }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<&[u8]>> {
        while self.companion.is_some() {
            let mut buffer = std::mem::take(&mut self.held);
            buffer.clear();
            buffer.reserve_exact(CHUNK_BYTES);
            let (status, bytes) = self.body.read(buffer).await;
            self.held = bytes;
            self.seen_bytes += self.held.len() as u64;
            if !self.held.is_empty() {
                return Ok(Some(&self.held));
            }
            if !matches!(status, StreamResult::Complete(_)) {
                break;
            }
        }
        if let Some(companion) = self.companion.take() {
            match companion.settle().await? {
                Some(promised) if promised != self.seen_bytes => {
                    return Err(plain::Error::new(
                        plain::ErrorKind::Corrupt,
                        format!("a stream of {promised} bytes ended after {}", self.seen_bytes),
                    ));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

/// Items that the host streams one after another.
struct Items<T: 'static> {
    items: StreamReader<T>,
    companion: Option<FutureReader<Result<(), types::Error>>>,
}

impl<T: 'static> Items<T> {
    async fn next(&mut self) -> Result<Option<T>> {
        if let Some(item) = self.items.next().await {
            return Ok(Some(item));
        }
        if let Some(companion) = self.companion.take() {
            companion.await?;
        }
        Ok(None)
    }
}

pub(crate) struct SegmentStream(Items<log_archive::Segment>);

impl SegmentStream {
    pub(crate) async fn next(&mut self) -> Result<Option<plain::Segment>> {
        Ok(self.0.next().await?.map(Into::into))
    }
}

pub(crate) struct NodeStream(Items<types::Node>);

impl NodeStream {
    pub(crate) async fn next(&mut self) -> Result<Option<plain::Node>> {
        Ok(self.0.next().await?.map(Into::into))
    }
}

/// A call that takes bytes: the call first, so that an abandoned one ends before its bytes seem to.
pub(crate) struct Sending<A = u64> {
    pub(crate) call: LocalBoxFuture<'static, Result<A>>,
    pub(crate) body: Body,
}

pub(crate) struct Body(StreamWriter<u8>);

impl Body {
    /// Answers the buffer, for the next bytes.
    pub(crate) async fn send(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        self.0.write_all(bytes).await
    }
}

fn sending<A, F>(start: impl FnOnce(StreamReader<u8>) -> F) -> Sending<A>
where
    F: Future<Output = Result<A>> + 'static,
{
    let (writer, reader) = wit_stream::new::<u8>();
    Sending { call: Box::pin(start(reader)), body: Body(writer) }
}

pub(crate) struct Connection(grants::Connection);

impl Connection {
    pub(crate) async fn read(&self, max: u32) -> Result<Vec<u8>> {
        Ok(self.0.read(max).await?)
    }

    pub(crate) async fn write(&self, bytes: Vec<u8>) -> Result<()> {
        Ok(self.0.write(bytes).await?)
    }

    pub(crate) async fn start_tls(&self, verification: plain::TlsVerification) -> Result<Option<Vec<u8>>> {
        Ok(self.0.start_tls(verification.into()).await?)
    }

    pub(crate) fn receive(&self) -> ByteStream {
        let (body, companion) = self.0.receive();
        ByteStream::new(body, Companion::Plain(companion))
    }
}

pub(crate) struct Directory(Rc<grants::Directory>);

impl Directory {
    pub(crate) fn entries(&self, path: &str) -> NodeStream {
        let (items, companion) = self.0.entries(path);
        NodeStream(Items { items, companion: Some(companion) })
    }

    pub(crate) async fn stat(&self, path: &str) -> Result<Option<plain::Node>> {
        Ok(self.0.stat(path.to_owned()).await?.map(Into::into))
    }

    pub(crate) fn read(&self, path: &str, offset: u64, length: Option<u64>) -> ByteStream {
        let (body, companion) = self.0.read(path, offset, length);
        ByteStream::new(body, Companion::Counted(companion))
    }

    pub(crate) fn write(&self, path: &str, attributes: plain::FileAttributes) -> Sending {
        let (directory, path) = (self.0.clone(), path.to_owned());
        sending(|body| async move { Ok(directory.write(path, attributes.into(), body).await?) })
    }

    pub(crate) async fn create(&self, path: &str, attributes: plain::FileAttributes) -> Result<()> {
        Ok(self.0.create(path.to_owned(), attributes.into()).await?)
    }

    pub(crate) async fn link(&self, path: &str, volume: &str) -> Result<()> {
        Ok(self.0.link(path.to_owned(), volume.to_owned()).await?)
    }

    pub(crate) async fn remove(&self, path: &str) -> Result<()> {
        Ok(self.0.remove(path.to_owned()).await?)
    }

    pub(crate) async fn rename(&self, from: &str, to: &str) -> Result<()> {
        Ok(self.0.rename(from.to_owned(), to.to_owned()).await?)
    }
}

pub(crate) struct Process(Rc<grants::Process>);

impl Process {
    pub(crate) fn stdin(&self) -> Sending {
        let process = self.0.clone();
        sending(|body| async move { Ok(process.stdin(body).await?) })
    }

    pub(crate) fn stdout(&self) -> ByteStream {
        let (body, companion) = self.0.stdout();
        ByteStream::new(body, Companion::Plain(companion))
    }

    pub(crate) fn stderr_tail(&self, max: u32) -> String {
        self.0.stderr_tail(max)
    }

    pub(crate) async fn wait(&self) -> Result<i32> {
        Ok(self.0.wait().await?)
    }

    pub(crate) fn terminate(&self) {
        self.0.terminate();
    }
}

pub(crate) struct BackupWriter(Rc<backup_set::BackupWriter>);

impl BackupWriter {
    pub(crate) async fn identify(&self, identity: &str) -> Result<()> {
        Ok(self.0.identify(identity.to_owned()).await?)
    }

    pub(crate) fn put_file(&self, path: &str, attributes: plain::FileAttributes) -> Sending<plain::StoredFile> {
        let (writer, path) = (self.0.clone(), path.to_owned());
        sending(|body| async move {
            let backup_set::StoredFile { bytes, crc32c } = writer.put_file(path, attributes.into(), body).await?;
            Ok(plain::StoredFile { bytes, crc32c })
        })
    }

    pub(crate) async fn put_node(&self, node: plain::Node) -> Result<()> {
        Ok(self.0.put_node(node.into()).await?)
    }

    pub(crate) async fn put_tree(
        &self,
        path: &str,
        source: &Directory,
        rules: &[plain::Rule],
        context: &str,
    ) -> Result<plain::TreeSummary> {
        let rules = rules.iter().map(Into::into).collect();
        let summary = self.0.put_tree(path.to_owned(), &source.0, rules, context.to_owned()).await?;
        Ok(plain::TreeSummary { files: summary.files, bytes: summary.bytes })
    }

    pub(crate) fn put_patched(
        &self,
        path: &str,
        attributes: plain::FileAttributes,
        patch: plain::Patch,
    ) -> Sending<plain::StoredFile> {
        let (writer, path) = (self.0.clone(), path.to_owned());
        sending(|body| async move {
            let stored = writer.put_patched(path, attributes.into(), patch.into(), body).await?;
            Ok(plain::StoredFile { bytes: stored.bytes, crc32c: stored.crc32c })
        })
    }

    pub(crate) fn parent_notes(&self) -> Option<String> {
        self.0.parent_notes()
    }

    pub(crate) fn parent_read(&self, path: &str) -> ByteStream {
        let (body, companion) = self.0.parent_read(path);
        ByteStream::new(body, Companion::Counted(companion))
    }
}

pub(crate) struct LogWriter(Rc<log_archive::LogWriter>);

impl LogWriter {
    pub(crate) async fn identify(&self, identity: &str) -> Result<()> {
        Ok(self.0.identify(identity.to_owned()).await?)
    }

    pub(crate) fn tail(&self) -> Option<plain::Position> {
        self.0.tail().map(Into::into)
    }

    pub(crate) fn append(&self, segment: plain::Segment) -> Sending {
        let length = segment.end.offset.saturating_sub(segment.start.offset);
        let writer = self.0.clone();
        sending(move |body| async move {
            writer.append(segment.into(), body).await?;
            Ok(length)
        })
    }

    pub(crate) async fn confirm(&self, at: plain::Position, when: plain::Timestamp) -> Result<()> {
        Ok(self.0.confirm(at.into(), when).await?)
    }

    pub(crate) async fn put_note(&self, name: &str, bytes: &[u8]) -> Result<()> {
        Ok(self.0.put_note(name.to_owned(), bytes.to_vec()).await?)
    }
}

pub(crate) struct LogReader(log_archive::LogReader);

impl LogReader {
    pub(crate) fn segments(&self) -> SegmentStream {
        let (items, companion) = self.0.segments();
        SegmentStream(Items { items, companion: Some(companion) })
    }

    pub(crate) fn read(&self, start: plain::Position) -> ByteStream {
        let (body, companion) = self.0.read(&start.into());
        ByteStream::new(body, Companion::Plain(companion))
    }

    pub(crate) async fn place(&self, into: &Directory, path: &str, file_size: u64) -> Result<u64> {
        Ok(self.0.place(&into.0, path.to_owned(), file_size).await?)
    }

    pub(crate) async fn notes(&self) -> Result<Vec<String>> {
        Ok(self.0.notes().await?)
    }

    pub(crate) async fn read_note(&self, name: &str) -> Result<Vec<u8>> {
        Ok(self.0.read_note(name.to_owned()).await?)
    }
}

pub(crate) struct BackupReader(restore_set::BackupReader);

impl BackupReader {
    pub(crate) fn notes(&self) -> String {
        self.0.notes()
    }

    pub(crate) fn nodes(&self) -> NodeStream {
        let (items, companion) = self.0.nodes();
        NodeStream(Items { items, companion: Some(companion) })
    }

    pub(crate) fn read(&self, path: &str) -> ByteStream {
        let (body, companion) = self.0.read(path);
        ByteStream::new(body, Companion::Counted(companion))
    }

    pub(crate) async fn place(
        &self,
        subtree: &str,
        into: &Directory,
        except: &[String],
    ) -> Result<plain::PlaceSummary> {
        let summary = self.0.place(subtree.to_owned(), &into.0, except.to_vec()).await?;
        Ok(plain::PlaceSummary { files: summary.files, bytes: summary.bytes, kept_bytes: summary.kept_bytes })
    }
}
