//! The same calls, served natively: for a plugin's own tests and for benches.
//!
//! A test implements the traits here (or takes ready ones), calls [`install`] on its
//! thread, and runs the engine's functions on a current-thread runtime.

use crate::*;
use futures::channel::mpsc;
use futures::future::LocalBoxFuture;
use futures::stream::LocalBoxStream;
use futures::{SinkExt, StreamExt};
use std::{cell::RefCell, rc::Rc};

/// A future of the host's answer.
pub type Answer<T> = LocalBoxFuture<'static, Result<T>>;
/// Items from the host; an `Err` ends them.
pub type Items<T> = LocalBoxStream<'static, Result<T>>;
/// Bytes from the plugin; the end of the channel is the end of the bytes.
pub type Incoming = mpsc::Receiver<Vec<u8>>;

/// The host's side of [`crate::host`].
pub trait HostBackend {
    /// See [`crate::host::config`].
    fn config(&self) -> String;
    /// See [`crate::host::login`].
    fn login(&self, name: &str) -> Result<Credential>;
    /// See [`crate::host::connect`].
    fn connect(&self, endpoint: &str) -> Answer<Rc<dyn ConnectionBackend>>;
    /// See [`crate::host::open_directory`].
    fn open_directory(&self, name: &str) -> Result<Rc<dyn DirectoryBackend>>;
    /// See [`crate::host::run`].
    fn run(&self, tool: &str, arguments: &[String]) -> Answer<Rc<dyn ProcessBackend>>;
    /// See [`crate::host::log`].
    fn log(&self, level: Level, message: &str);
    /// See [`crate::host::progress`].
    fn progress(&self, phase: &str, done: u64, total: Option<u64>);
    /// See [`crate::host::now`].
    fn now(&self) -> Timestamp;
    /// See [`crate::host::sleep`].
    fn sleep(&self, microseconds: u64) -> LocalBoxFuture<'static, ()>;
    /// See [`crate::host::random`].
    fn random(&self, length: u32) -> Vec<u8>;
    /// See [`crate::host::stop_requested`].
    fn stop_requested(&self) -> LocalBoxFuture<'static, ()>;
}

/// The host's side of [`crate::Connection`].
pub trait ConnectionBackend {
    /// See [`crate::Connection::read`].
    fn read(&self, max: u32) -> Answer<Vec<u8>>;
    /// See [`crate::Connection::write`].
    fn write(&self, bytes: Vec<u8>) -> Answer<()>;
    /// See [`crate::Connection::start_tls`].
    fn start_tls(&self, verification: TlsVerification) -> Answer<Option<Vec<u8>>>;
    /// See [`crate::Connection::receive`].
    fn receive(&self) -> Items<Vec<u8>>;
}

/// The host's side of [`crate::Directory`].
pub trait DirectoryBackend {
    /// See [`crate::Directory::entries`].
    fn entries(&self, path: &str) -> Items<Node>;
    /// See [`crate::Directory::stat`].
    fn stat(&self, path: &str) -> Answer<Option<Node>>;
    /// See [`crate::Directory::read`].
    fn read(&self, path: &str, offset: u64, length: Option<u64>) -> Items<Vec<u8>>;
    /// See [`crate::Directory::write_all`].
    fn write(&self, path: &str, attributes: FileAttributes, body: Incoming) -> Answer<u64>;
    /// See [`crate::Directory::create`].
    fn create(&self, path: &str, attributes: FileAttributes) -> Answer<()>;
    /// See [`crate::Directory::link`].
    fn link(&self, path: &str, volume: &str) -> Answer<()>;
    /// See [`crate::Directory::remove`].
    fn remove(&self, path: &str) -> Answer<()>;
    /// See [`crate::Directory::rename`].
    fn rename(&self, from: &str, to: &str) -> Answer<()>;
    /// The folder on this machine, for backends that hand it to [`BackupSource::place`].
    fn location(&self) -> std::path::PathBuf;
}

/// The host's side of [`crate::Process`].
pub trait ProcessBackend {
    /// See [`crate::Process::stdin`].
    fn stdin(&self, body: Incoming) -> Answer<u64>;
    /// See [`crate::Process::stdout`].
    fn stdout(&self) -> Items<Vec<u8>>;
    /// See [`crate::Process::stderr_tail`].
    fn stderr_tail(&self, max: u32) -> String;
    /// See [`crate::Process::wait`].
    fn wait(&self) -> Answer<i32>;
    /// See [`crate::Process::terminate`].
    fn terminate(&self);
}

/// The host's side of [`crate::BackupWriter`].
pub trait BackupSink {
    /// See [`crate::BackupWriter::identify`].
    fn identify(&self, identity: &str) -> Answer<()>;
    /// See [`crate::BackupWriter::put_file`].
    fn put_file(&self, path: &str, attributes: FileAttributes, body: Incoming) -> Answer<StoredFile>;
    /// See [`crate::BackupWriter::put_node`].
    fn put_node(&self, node: Node) -> Answer<()>;
    /// See [`crate::BackupWriter::put_tree`].
    fn put_tree(
        &self,
        path: &str,
        source: Rc<dyn DirectoryBackend>,
        rules: &[Rule],
        context: &str,
    ) -> Answer<TreeSummary>;
    /// See [`crate::BackupWriter::put_patched`].
    fn put_patched(&self, path: &str, attributes: FileAttributes, patch: Patch, body: Incoming) -> Answer<StoredFile>;
    /// See [`crate::BackupWriter::parent_notes`].
    fn parent_notes(&self) -> Option<String>;
    /// See [`crate::BackupWriter::parent_read`].
    fn parent_read(&self, path: &str) -> Items<Vec<u8>>;
}

/// The host's side of [`crate::LogWriter`].
pub trait LogSink {
    /// See [`crate::LogWriter::identify`].
    fn identify(&self, identity: &str) -> Answer<()>;
    /// See [`crate::LogWriter::tail`].
    fn tail(&self) -> Option<Position>;
    /// See [`crate::LogWriter::append`].
    fn append(&self, segment: Segment, body: Incoming) -> Answer<()>;
    /// See [`crate::LogWriter::confirm`].
    fn confirm(&self, at: Position, when: Timestamp) -> Answer<()>;
    /// See [`crate::LogWriter::put_note`].
    fn put_note(&self, name: &str, bytes: &[u8]) -> Answer<()>;
}

/// The host's side of [`crate::LogReader`].
pub trait LogSource {
    /// See [`crate::LogReader::segments`].
    fn segments(&self) -> Items<Segment>;
    /// See [`crate::LogReader::read`].
    fn read(&self, start: Position) -> Items<Vec<u8>>;
    /// See [`crate::LogReader::place`].
    fn place(&self, into: Rc<dyn DirectoryBackend>, path: &str, file_size: u64) -> Answer<u64>;
    /// See [`crate::LogReader::notes`].
    fn notes(&self) -> Answer<Vec<String>>;
    /// See [`crate::LogReader::read_note`].
    fn read_note(&self, name: &str) -> Answer<Vec<u8>>;
}

/// The host's side of [`crate::BackupReader`].
pub trait BackupSource {
    /// See [`crate::BackupReader::notes`].
    fn notes(&self) -> String;
    /// See [`crate::BackupReader::nodes`].
    fn nodes(&self) -> Items<Node>;
    /// See [`crate::BackupReader::read`].
    fn read(&self, path: &str) -> Items<Vec<u8>>;
    /// See [`crate::BackupReader::place`].
    fn place(&self, subtree: &str, into: Rc<dyn DirectoryBackend>, except: &[String]) -> Answer<PlaceSummary>;
}

thread_local! {
    static HOST: RefCell<Option<Rc<dyn HostBackend>>> = const { RefCell::new(None) };
}

/// Makes `backend` the host of everything that runs on this thread from now on.
pub fn install(backend: Rc<dyn HostBackend>) {
    HOST.with(|host| *host.borrow_mut() = Some(backend));
}

/// # Panics
/// When [`install`] was not called on this thread: a mistake in a test's set-up.
fn host() -> Rc<dyn HostBackend> {
    match HOST.with(|host| host.borrow().clone()) {
        Some(host) => host,
        None => panic!("call backstay_sdk::native::install before using the host"),
    }
}

impl From<Rc<dyn BackupSink>> for crate::BackupWriter {
    fn from(sink: Rc<dyn BackupSink>) -> Self {
        Self(BackupWriter(sink))
    }
}

impl From<Rc<dyn LogSink>> for crate::LogWriter {
    fn from(sink: Rc<dyn LogSink>) -> Self {
        Self(LogWriter(sink))
    }
}

impl From<Rc<dyn LogSource>> for crate::LogReader {
    fn from(source: Rc<dyn LogSource>) -> Self {
        Self(LogReader(source))
    }
}

impl From<Rc<dyn BackupSource>> for crate::BackupReader {
    fn from(source: Rc<dyn BackupSource>) -> Self {
        Self(BackupReader(source))
    }
}

impl From<Rc<dyn DirectoryBackend>> for crate::Directory {
    fn from(directory: Rc<dyn DirectoryBackend>) -> Self {
        Self(Directory(directory))
    }
}

pub(crate) fn config() -> String {
    host().config()
}

pub(crate) fn login(name: &str) -> Result<Credential> {
    host().login(name)
}

pub(crate) async fn connect(endpoint: &str) -> Result<Connection> {
    host().connect(endpoint).await.map(Connection)
}

pub(crate) fn open_directory(name: &str) -> Result<Directory> {
    host().open_directory(name).map(Directory)
}

pub(crate) async fn run(tool: &str, arguments: &[String]) -> Result<Process> {
    host().run(tool, arguments).await.map(Process)
}

pub(crate) fn log(level: Level, message: &str) {
    host().log(level, message);
}

pub(crate) fn progress(phase: &str, done: u64, total: Option<u64>) {
    host().progress(phase, done, total);
}

pub(crate) fn now() -> Timestamp {
    host().now()
}

pub(crate) async fn sleep(microseconds: u64) {
    host().sleep(microseconds).await;
}

pub(crate) fn random(length: u32) -> Vec<u8> {
    host().random(length)
}

pub(crate) async fn stop_requested() {
    host().stop_requested().await;
}

pub(crate) struct ByteStream {
    items: Items<Vec<u8>>,
    held: Vec<u8>,
}

impl ByteStream {
    fn new(items: Items<Vec<u8>>) -> Self {
        Self { items, held: Vec::new() }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<&[u8]>> {
        loop {
            match self.items.next().await {
                None => return Ok(None),
                Some(bytes) => self.held = bytes?,
            }
            if !self.held.is_empty() {
                return Ok(Some(&self.held));
            }
        }
    }
}

pub(crate) struct SegmentStream(Items<Segment>);

impl SegmentStream {
    pub(crate) async fn next(&mut self) -> Result<Option<Segment>> {
        self.0.next().await.transpose()
    }
}

pub(crate) struct NodeStream(Items<Node>);

impl NodeStream {
    pub(crate) async fn next(&mut self) -> Result<Option<Node>> {
        self.0.next().await.transpose()
    }
}

/// A call that takes bytes: the call first, so that an abandoned one ends before its bytes seem to.
pub(crate) struct Sending<A = u64> {
    pub(crate) call: Answer<A>,
    pub(crate) body: Body,
}

pub(crate) struct Body(mpsc::Sender<Vec<u8>>);

impl Body {
    pub(crate) async fn send(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        // A host that no longer listens answers through the call.
        let _ = self.0.send(bytes).await;
        Vec::new()
    }
}

fn sending<A>(start: impl FnOnce(Incoming) -> Answer<A>) -> Sending<A> {
    let (sender, receiver) = mpsc::channel(1);
    Sending { call: start(receiver), body: Body(sender) }
}

pub(crate) struct Connection(Rc<dyn ConnectionBackend>);

impl Connection {
    pub(crate) async fn read(&self, max: u32) -> Result<Vec<u8>> {
        self.0.read(max).await
    }

    pub(crate) async fn write(&self, bytes: Vec<u8>) -> Result<()> {
        self.0.write(bytes).await
    }

    pub(crate) async fn start_tls(&self, verification: TlsVerification) -> Result<Option<Vec<u8>>> {
        self.0.start_tls(verification).await
    }

    pub(crate) fn receive(&self) -> ByteStream {
        ByteStream::new(self.0.receive())
    }
}

pub(crate) struct Directory(Rc<dyn DirectoryBackend>);

impl Directory {
    pub(crate) fn entries(&self, path: &str) -> NodeStream {
        NodeStream(self.0.entries(path))
    }

    pub(crate) async fn stat(&self, path: &str) -> Result<Option<Node>> {
        self.0.stat(path).await
    }

    pub(crate) fn read(&self, path: &str, offset: u64, length: Option<u64>) -> ByteStream {
        ByteStream::new(self.0.read(path, offset, length))
    }

    pub(crate) fn write(&self, path: &str, attributes: FileAttributes) -> Sending {
        sending(|body| self.0.write(path, attributes, body))
    }

    pub(crate) async fn create(&self, path: &str, attributes: FileAttributes) -> Result<()> {
        self.0.create(path, attributes).await
    }

    pub(crate) async fn link(&self, path: &str, volume: &str) -> Result<()> {
        self.0.link(path, volume).await
    }

    pub(crate) async fn remove(&self, path: &str) -> Result<()> {
        self.0.remove(path).await
    }

    pub(crate) async fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.0.rename(from, to).await
    }
}

pub(crate) struct Process(Rc<dyn ProcessBackend>);

impl Process {
    pub(crate) fn stdin(&self) -> Sending {
        sending(|body| self.0.stdin(body))
    }

    pub(crate) fn stdout(&self) -> ByteStream {
        ByteStream::new(self.0.stdout())
    }

    pub(crate) fn stderr_tail(&self, max: u32) -> String {
        self.0.stderr_tail(max)
    }

    pub(crate) async fn wait(&self) -> Result<i32> {
        self.0.wait().await
    }

    pub(crate) fn terminate(&self) {
        self.0.terminate();
    }
}

pub(crate) struct BackupWriter(Rc<dyn BackupSink>);

impl BackupWriter {
    pub(crate) async fn identify(&self, identity: &str) -> Result<()> {
        self.0.identify(identity).await
    }

    pub(crate) fn put_file(&self, path: &str, attributes: FileAttributes) -> Sending<StoredFile> {
        sending(|body| self.0.put_file(path, attributes, body))
    }

    pub(crate) async fn put_node(&self, node: Node) -> Result<()> {
        self.0.put_node(node).await
    }

    pub(crate) async fn put_tree(
        &self,
        path: &str,
        source: &Directory,
        rules: &[Rule],
        context: &str,
    ) -> Result<TreeSummary> {
        self.0.put_tree(path, source.0.clone(), rules, context).await
    }

    pub(crate) fn put_patched(&self, path: &str, attributes: FileAttributes, patch: Patch) -> Sending<StoredFile> {
        sending(|body| self.0.put_patched(path, attributes, patch, body))
    }

    pub(crate) fn parent_read(&self, path: &str) -> ByteStream {
        ByteStream::new(self.0.parent_read(path))
    }

    pub(crate) fn parent_notes(&self) -> Option<String> {
        self.0.parent_notes()
    }
}

pub(crate) struct LogWriter(Rc<dyn LogSink>);

impl LogWriter {
    pub(crate) async fn identify(&self, identity: &str) -> Result<()> {
        self.0.identify(identity).await
    }

    pub(crate) fn tail(&self) -> Option<Position> {
        self.0.tail()
    }

    pub(crate) fn append(&self, segment: Segment) -> Sending {
        let length = segment.end.offset.saturating_sub(segment.start.offset);
        let sink = self.0.clone();
        sending(move |body| {
            let done = sink.append(segment, body);
            Box::pin(async move { done.await.map(|()| length) })
        })
    }

    pub(crate) async fn confirm(&self, at: Position, when: Timestamp) -> Result<()> {
        self.0.confirm(at, when).await
    }

    pub(crate) async fn put_note(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.0.put_note(name, bytes).await
    }
}

pub(crate) struct LogReader(Rc<dyn LogSource>);

impl LogReader {
    pub(crate) fn segments(&self) -> SegmentStream {
        SegmentStream(self.0.segments())
    }

    pub(crate) fn read(&self, start: Position) -> ByteStream {
        ByteStream::new(self.0.read(start))
    }

    pub(crate) async fn place(&self, into: &Directory, path: &str, file_size: u64) -> Result<u64> {
        self.0.place(into.0.clone(), path, file_size).await
    }

    pub(crate) async fn notes(&self) -> Result<Vec<String>> {
        self.0.notes().await
    }

    pub(crate) async fn read_note(&self, name: &str) -> Result<Vec<u8>> {
        self.0.read_note(name).await
    }
}

pub(crate) struct BackupReader(Rc<dyn BackupSource>);

impl BackupReader {
    pub(crate) fn notes(&self) -> String {
        self.0.notes()
    }

    pub(crate) fn nodes(&self) -> NodeStream {
        NodeStream(self.0.nodes())
    }

    pub(crate) fn read(&self, path: &str) -> ByteStream {
        ByteStream::new(self.0.read(path))
    }

    pub(crate) async fn place(&self, subtree: &str, into: &Directory, except: &[String]) -> Result<PlaceSummary> {
        self.0.place(subtree, into.0.clone(), except).await
    }
}
