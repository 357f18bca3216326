//! One byte connection to one granted endpoint.
#![allow(unreachable_pub)] // the generated bindings name the handle types

use crate::{
    error::{EngineError, EngineErrorKind},
    grants::EndpointGrant,
    limits, tls,
};
use std::{io, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::{TcpStream, UnixStream},
    sync::Mutex,
    time::timeout,
};

/// What a connection runs over.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

type BoxedWire = Box<dyn Wire>;

/// One byte connection; clones share it.
#[derive(Clone)]
pub struct Connection {
    grant: Arc<EndpointGrant>,
    reader: Arc<Mutex<Option<ReadHalf<BoxedWire>>>>,
    writer: Arc<Mutex<Option<WriteHalf<BoxedWire>>>>,
    /// Counts as open while it lives.
    _open: Arc<()>,
}

impl Connection {
    /// Resolves and dials. Small pieces go out at once: a replication feedback must not wait.
    pub(crate) async fn dial(grant: EndpointGrant, open: Arc<()>) -> Result<Self, EngineError> {
        let address = grant.address.clone();
        let unreachable = |reason: String| {
            EngineError::new(EngineErrorKind::Unreachable, format!("failed to connect to {address}: {reason}"))
                .hint("is the server up, and does it listen there?")
        };
        let dialled = timeout(limits::DIAL, dial_wire(&address)).await;
        let wire = match dialled {
            Ok(Ok(wire)) => wire,
            Ok(Err(error)) => return Err(unreachable(plain_words(&error))),
            Err(_) => return Err(unreachable(format!("no answer within {} seconds", limits::DIAL.as_secs()))),
        };
        let (reader, writer) = tokio::io::split(wire);
        Ok(Self {
            grant: Arc::new(grant),
            reader: Arc::new(Mutex::new(Some(reader))),
            writer: Arc::new(Mutex::new(Some(writer))),
            _open: open,
        })
    }

    pub(crate) async fn read(&self, max: u32) -> Result<Vec<u8>, EngineError> {
        let mut reader = self.reader.lock().await;
        let reader = reader.as_mut().ok_or_else(reading_elsewhere)?;
        let mut bytes = vec![0; max.clamp(1, limits::READ_BYTES_MAX) as usize];
        let count = reader.read(&mut bytes).await.map_err(|error| self.broken(&error))?;
        bytes.truncate(count);
        Ok(bytes)
    }

    pub(crate) async fn write(&self, bytes: &[u8]) -> Result<(), EngineError> {
        let mut writer = self.writer.lock().await;
        let writer = writer.as_mut().ok_or_else(reading_elsewhere)?;
        writer.write_all(bytes).await.map_err(|error| self.broken(&error))?;
        writer.flush().await.map_err(|error| self.broken(&error))
    }

    pub(crate) async fn start_tls(&self, verification: tls::Verification) -> Result<Option<Vec<u8>>, EngineError> {
        let (mut reader, mut writer) = (self.reader.lock().await, self.writer.lock().await);
        let (Some(read_half), Some(write_half)) = (reader.take(), writer.take()) else {
            return Err(reading_elsewhere());
        };
        let wire = read_half.unsplit(write_half);
        let handshake = timeout(limits::HANDSHAKE, tls::upgrade(wire, &self.grant, verification)).await;
        let (wire, binding) = handshake.map_err(|_| {
            EngineError::new(
                EngineErrorKind::Unreachable,
                format!("no TLS handshake with {} within {} seconds", self.grant.address, limits::HANDSHAKE.as_secs()),
            )
        })??;
        let (read_half, write_half) = tokio::io::split::<BoxedWire>(wire);
        *reader = Some(read_half);
        *writer = Some(write_half);
        Ok(binding)
    }

    /// Takes the reading side out; nothing when it is out already or a read is under way.
    pub(crate) fn take_reader(&self) -> Option<ReadHalf<BoxedWire>> {
        self.reader.try_lock().ok()?.take()
    }

    fn broken(&self, error: &io::Error) -> EngineError {
        tls::refused(error).unwrap_or_else(|| {
            EngineError::new(
                EngineErrorKind::Unreachable,
                format!("connection to {} broke: {}", self.grant.address, plain_words(error)),
            )
        })
    }
}

async fn dial_wire(address: &str) -> io::Result<BoxedWire> {
    if address.starts_with('/') {
        return Ok(Box::new(UnixStream::connect(address).await?));
    }
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

fn reading_elsewhere() -> EngineError {
    EngineError::new(EngineErrorKind::Internal, "the connection's incoming bytes were already taken")
}

/// An I/O error without `(os error 111)`.
pub(crate) fn plain_words(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}
