//! The host's half of `interface log-archive`.
#![allow(unreachable_pub)] // the generated bindings name the handle types

use crate::{
    bindings::backstay::engine::{
        log_archive::{
            Host, HostLogReader, HostLogReaderWithStore, HostLogWriter, HostLogWriterWithStore, Segment as WitSegment,
        },
        types::{Error, Position as WitPosition},
    },
    convert,
    directory::Directory,
    error::{EngineError, EngineErrorKind},
    identified::Identified,
    ports::{Body, LogSink, LogSource},
    pump::{self, Companion},
    services::{answer, busy, incoming, resource},
    state::{HasState, State},
};
use backstay_core::{Segment, Timestamp};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use std::sync::Arc;
use wasmtime::{
    Result,
    component::{Access, Accessor, Resource, StreamReader},
};

type Answer<T> = Result<std::result::Result<T, Error>>;

/// Longest note; PostgreSQL's history files have a line per timeline.
const NOTE_BYTES_MAX: usize = 1 << 20;

/// The end of a target's log; clones share it.
#[derive(Clone)]
pub struct LogWriter {
    sink: Arc<dyn LogSink>,
    identified: Identified,
}

impl LogWriter {
    pub(crate) fn new(sink: Arc<dyn LogSink>) -> Self {
        Self { sink, identified: Identified::default() }
    }

    async fn append(&self, segment: WitSegment, mut body: Body) -> Result<(), EngineError> {
        self.identified.required()?;
        let segment = Segment::try_from(segment)?;
        let length = segment.length();
        // `validate` bounds the length; still, memory grows only with bytes that came.
        let mut bytes = BytesMut::new();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| pump::from_io(&error))?;
            if bytes.len() as u64 + chunk.len() as u64 > length {
                return Err(wrong_length(&segment, "more"));
            }
            bytes.extend_from_slice(&chunk);
        }
        if (bytes.len() as u64) < length {
            return Err(wrong_length(&segment, "fewer"));
        }
        self.sink.append(segment, bytes.freeze()).await
    }
}

fn wrong_length(segment: &Segment, how: &str) -> EngineError {
    EngineError::new(
        EngineErrorKind::Internal,
        format!("log piece {} carries {how} bytes than its positions say", segment.start),
    )
}

/// A stretch of log; clones share it.
#[derive(Clone)]
pub struct LogReader(pub(crate) Arc<dyn LogSource>);

impl Host for State {}

impl HostLogWriter for State {
    fn tail(&mut self, this: Resource<LogWriter>) -> Result<Option<WitPosition>> {
        Ok(self.table.get(&this)?.sink.tail().map(Into::into))
    }

    fn drop(&mut self, handle: Resource<LogWriter>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl<T: Send + 'static> HostLogWriterWithStore<T> for HasState {
    async fn identify(accessor: &Accessor<T, Self>, this: Resource<LogWriter>, identity: String) -> Answer<()> {
        let writer = resource(accessor, &this)?;
        answer(writer.identified.tell(&identity, async |identity| writer.sink.identify(identity).await).await)
    }

    async fn append(
        accessor: &Accessor<T, Self>,
        this: Resource<LogWriter>,
        segment: WitSegment,
        body: StreamReader<u8>,
    ) -> Answer<()> {
        let writer = resource(accessor, &this)?;
        let body = incoming(accessor, body)?;
        answer(writer.append(segment, body).await)
    }

    async fn confirm(
        accessor: &Accessor<T, Self>,
        this: Resource<LogWriter>,
        at: WitPosition,
        when: u64,
    ) -> Answer<()> {
        let writer = resource(accessor, &this)?;
        answer(match writer.identified.required() {
            Ok(()) => writer.sink.confirm(at.into(), Timestamp::from_micros(when)).await,
            Err(error) => Err(error),
        })
    }

    async fn put_note(
        accessor: &Accessor<T, Self>,
        this: Resource<LogWriter>,
        name: String,
        bytes: Vec<u8>,
    ) -> Answer<()> {
        let writer = resource(accessor, &this)?;
        let checked = writer.identified.required().and_then(|()| {
            if !Segment::is_file_name(&name) || bytes.len() > NOTE_BYTES_MAX {
                return Err(EngineError::new(
                    EngineErrorKind::Internal,
                    "the plugin's note has a bad name or is too long",
                ));
            }
            Ok(())
        });
        answer(match checked {
            Ok(()) => writer.sink.put_note(&name, Bytes::from(bytes)).await,
            Err(error) => Err(error),
        })
    }
}

impl HostLogReader for State {
    fn drop(&mut self, handle: Resource<LogReader>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl<T: Send + 'static> HostLogReaderWithStore<T> for HasState {
    fn segments(
        mut access: Access<'_, T, Self>,
        this: Resource<LogReader>,
    ) -> Result<(StreamReader<WitSegment>, Companion<()>)> {
        let source = access.get().table.get(&this)?.0.clone();
        pump::later(&mut access, async move { Ok(source.segments().into_iter().map(WitSegment::from).collect()) })
    }

    fn read(
        mut access: Access<'_, T, Self>,
        this: Resource<LogReader>,
        start: WitPosition,
    ) -> Result<(StreamReader<u8>, Companion<()>)> {
        let state = access.get();
        let body = state.table.get(&this)?.0.read(start.into());
        let body = state.activity.watch(body);
        pump::plain(&mut access, body)
    }

    async fn place(
        accessor: &Accessor<T, Self>,
        this: Resource<LogReader>,
        into: Resource<Directory>,
        path: String,
        file_size: u64,
    ) -> Answer<u64> {
        let reader = resource(accessor, &this)?;
        let into = resource(accessor, &into)?;
        let _busy = busy(accessor);
        let path = if path.is_empty() { Ok(None) } else { convert::path(path).map(Some) };
        answer(match path {
            Ok(path) => reader.0.place(into.dir(), path, file_size).await,
            Err(error) => Err(error),
        })
    }

    async fn notes(accessor: &Accessor<T, Self>, this: Resource<LogReader>) -> Answer<Vec<String>> {
        let reader = resource(accessor, &this)?;
        answer(reader.0.notes().await)
    }

    async fn read_note(accessor: &Accessor<T, Self>, this: Resource<LogReader>, name: String) -> Answer<Vec<u8>> {
        let reader = resource(accessor, &this)?;
        answer(reader.0.read_note(&name).await)
    }
}
