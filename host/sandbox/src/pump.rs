//! Bytes and items between the host and a plugin's streams.
//!
//! Three hazards of the stream API are kept here and nowhere else: a reader that is
//! neither piped nor closed leaks; `Err` from a producer or consumer poisons the
//! instance, so what can be recovered goes to the companion future; and a producer can
//! be recovered from a stream only while nothing sits in a buffer of the runtime, so
//! bytes are written straight into the plugin's memory.

use crate::{
    bindings::backstay::engine::types,
    error::{EngineError, EngineErrorKind},
    limits::{STREAM_BYTES_MAX, STREAM_CHUNKS_MAX, STREAM_ITEMS_MAX},
    ports::Body,
    tls,
};
use bytes::{Buf, Bytes};
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream};
use std::{
    any::{Any, TypeId},
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{io::AsyncRead, sync::mpsc, sync::oneshot};
use tokio_util::sync::PollSender;
use wasmtime::{
    AsContextMut, StoreContextMut,
    component::{
        Destination, FutureReader, Lift, Lower, Source, StreamConsumer, StreamProducer, StreamReader, StreamResult,
        VecBuffer,
    },
};

/// What a companion future answers.
pub(crate) type Companion<T> = FutureReader<Result<T, types::Error>>;
type Settled = Result<u64, EngineError>;

/// Bytes for a plugin, from a stream of the host.
struct BodyProducer {
    body: Body,
    pending: Bytes,
    sent_bytes: u64,
    settle: Option<oneshot::Sender<Settled>>,
}

impl BodyProducer {
    fn settle(&mut self, result: Settled) -> Poll<wasmtime::Result<StreamResult>> {
        if let Some(settle) = self.settle.take() {
            // The plugin may have dropped the companion.
            let _ = settle.send(result);
        }
        Poll::Ready(Ok(StreamResult::Dropped))
    }
}

impl<D> StreamProducer<D> for BodyProducer {
    type Item = u8;
    type Buffer = VecBuffer<u8>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'a, D>,
        destination: Destination<'a, u8, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        while self.pending.is_empty() {
            match self.body.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(bytes))) => self.pending = bytes,
                Poll::Ready(Some(Err(error))) => {
                    let error = from_io(&error);
                    return self.settle(Err(error));
                }
                Poll::Ready(None) => {
                    let sent = self.sent_bytes;
                    return self.settle(Ok(sent));
                }
                Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
                Poll::Pending => return Poll::Pending,
            }
        }
        let mut direct = destination.as_direct(store, STREAM_BYTES_MAX);
        let room = direct.remaining();
        let count = room.len().min(self.pending.len()).min(STREAM_BYTES_MAX);
        room[..count].copy_from_slice(&self.pending[..count]);
        direct.mark_written(count);
        self.pending.advance(count);
        self.sent_bytes += count as u64;
        Poll::Ready(Ok(StreamResult::Completed))
    }

    fn try_into(me: Pin<Box<Self>>, ty: TypeId) -> Result<Box<dyn Any>, Pin<Box<Self>>> {
        if ty != TypeId::of::<BodyProducer>() {
            return Err(me);
        }
        let me: Box<Self> = Pin::into_inner(me);
        Ok(me)
    }
}

/// Bytes for a plugin, straight from a socket or a pipe into its memory.
struct ReadProducer<R> {
    reader: R,
    settle: Option<oneshot::Sender<Settled>>,
    sent_bytes: u64,
}

impl<D, R: AsyncRead + Unpin + Send + 'static> StreamProducer<D> for ReadProducer<R> {
    type Item = u8;
    type Buffer = VecBuffer<u8>;

    fn poll_produce<'a>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'a, D>,
        destination: Destination<'a, u8, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let me = self.get_mut();
        let mut direct = destination.as_direct(store, STREAM_BYTES_MAX);
        let room = direct.remaining();
        if room.is_empty() {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let count = room.len().min(STREAM_BYTES_MAX);
        let mut buffer = tokio::io::ReadBuf::new(&mut room[..count]);
        let result = match Pin::new(&mut me.reader).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                let count = buffer.filled().len();
                direct.mark_written(count);
                me.sent_bytes += count as u64;
                return Poll::Ready(Ok(StreamResult::Completed));
            }
            Poll::Ready(Ok(())) => Ok(me.sent_bytes),
            Poll::Ready(Err(error)) => Err(from_io(&error)),
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => return Poll::Pending,
        };
        if let Some(settle) = me.settle.take() {
            let _ = settle.send(result);
        }
        Poll::Ready(Ok(StreamResult::Dropped))
    }
}

/// Items for a plugin, from a list that the host makes first.
struct ItemProducer<T> {
    work: Option<BoxFuture<'static, Result<Vec<T>, EngineError>>>,
    items: std::vec::IntoIter<T>,
    settle: Option<oneshot::Sender<Settled>>,
}

impl<D, T: Lower + Lift + Send + Sync + Unpin + 'static> StreamProducer<D> for ItemProducer<T> {
    type Item = T;
    type Buffer = VecBuffer<T>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, T, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        if let Some(work) = &mut self.work {
            let found = match work.poll_unpin(cx) {
                Poll::Ready(found) => found,
                Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
                Poll::Pending => return Poll::Pending,
            };
            self.work = None;
            let settled = match found {
                Ok(items) => {
                    self.items = items.into_iter();
                    Ok(0)
                }
                Err(error) => Err(error),
            };
            if let Some(settle) = self.settle.take() {
                let _ = settle.send(settled);
            }
        }
        let room = destination.remaining(store).unwrap_or(STREAM_ITEMS_MAX);
        let batch: Vec<T> = self.items.by_ref().take(room.min(STREAM_ITEMS_MAX)).collect();
        let over = self.items.as_slice().is_empty();
        destination.set_buffer(VecBuffer::from(batch));
        Poll::Ready(Ok(if over { StreamResult::Dropped } else { StreamResult::Completed }))
    }
}

fn companion<T, S>(
    store: S,
    settled: oneshot::Receiver<Settled>,
    convert: impl FnOnce(u64) -> T + Send + 'static,
) -> wasmtime::Result<Companion<T>>
where
    S: AsContextMut,
    T: Lower + Lift + Send + Sync + 'static,
{
    FutureReader::new(store, async move {
        let settled = settled.await.unwrap_or_else(|_| {
            Err(EngineError::new(EngineErrorKind::Cancelled, "the stream was given up before its end"))
        });
        Ok::<_, wasmtime::Error>(settled.map(convert).map_err(types::Error::from))
    })
}

/// A stream of `body` with a companion that answers the number of bytes.
pub(crate) fn counted<S: AsContextMut>(
    mut store: S,
    body: Body,
) -> wasmtime::Result<(StreamReader<u8>, Companion<u64>)> {
    let (settle, settled) = oneshot::channel();
    let producer = BodyProducer { body, pending: Bytes::new(), sent_bytes: 0, settle: Some(settle) };
    Ok((StreamReader::new(&mut store, producer)?, companion(&mut store, settled, |bytes| bytes)?))
}

/// The same with a companion that only says that it is whole.
pub(crate) fn plain<S: AsContextMut>(mut store: S, body: Body) -> wasmtime::Result<(StreamReader<u8>, Companion<()>)> {
    let (settle, settled) = oneshot::channel();
    let producer = BodyProducer { body, pending: Bytes::new(), sent_bytes: 0, settle: Some(settle) };
    Ok((StreamReader::new(&mut store, producer)?, companion(&mut store, settled, |_| ())?))
}

/// A stream of everything that `reader` still gives.
pub(crate) fn reading<S: AsContextMut>(
    mut store: S,
    reader: impl AsyncRead + Unpin + Send + 'static,
) -> wasmtime::Result<(StreamReader<u8>, Companion<()>)> {
    let (settle, settled) = oneshot::channel();
    let producer = ReadProducer { reader, settle: Some(settle), sent_bytes: 0 };
    Ok((StreamReader::new(&mut store, producer)?, companion(&mut store, settled, |_| ())?))
}

/// A stream of items that `work` finds, or of none and its error.
pub(crate) fn later<S, T>(
    mut store: S,
    work: impl Future<Output = Result<Vec<T>, EngineError>> + Send + 'static,
) -> wasmtime::Result<(StreamReader<T>, Companion<()>)>
where
    S: AsContextMut,
    T: Lower + Lift + Send + Sync + Unpin + 'static,
{
    let (settle, settled) = oneshot::channel();
    let producer = ItemProducer { items: Vec::new().into_iter(), work: Some(work.boxed()), settle: Some(settle) };
    let reader = StreamReader::new(&mut store, producer)?;
    Ok((reader, companion(&mut store, settled, |_| ())?))
}

/// Bytes from a plugin, copied out of its memory as fast as the host takes them.
struct BodyConsumer {
    sender: PollSender<io::Result<Bytes>>,
}

impl<D> StreamConsumer<D> for BodyConsumer {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'_, D>,
        source: Source<'_, u8>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        match self.sender.poll_reserve(cx) {
            Poll::Ready(Ok(())) => {}
            // The host stopped listening: it says why as the answer of the call.
            Poll::Ready(Err(_)) => return Poll::Ready(Ok(StreamResult::Dropped)),
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => return Poll::Pending,
        }
        let mut direct = source.as_direct(store.as_context_mut());
        let count = direct.remaining().len().min(STREAM_BYTES_MAX);
        if count > 0 {
            let bytes = Bytes::copy_from_slice(&direct.remaining()[..count]);
            direct.mark_read(count);
            if self.sender.send_item(Ok(bytes)).is_err() {
                return Poll::Ready(Ok(StreamResult::Dropped));
            }
        }
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// The bytes that a plugin's stream carries. A stream of the host that comes straight
/// back is spliced: its bytes never enter the plugin.
pub(crate) fn incoming<S: AsContextMut>(mut store: S, reader: StreamReader<u8>) -> wasmtime::Result<Body> {
    match reader.try_into::<BodyProducer>(&mut store) {
        Ok(producer) => Ok(spliced(producer)),
        Err(reader) => {
            let (sender, receiver) = mpsc::channel(STREAM_CHUNKS_MAX);
            reader.pipe(&mut store, BodyConsumer { sender: PollSender::new(sender) })?;
            Ok(tokio_stream(receiver).boxed())
        }
    }
}

fn spliced(mut producer: BodyProducer) -> Body {
    let settle = producer.settle.take();
    let rest = std::mem::take(&mut producer.pending);
    let head = stream::iter((!rest.is_empty()).then_some(Ok(rest)));
    let whole = head.chain(producer.body);
    let counted = Counted { body: whole.boxed(), seen_bytes: producer.sent_bytes, settle };
    counted.boxed()
}

/// Passes a body on and settles its companion at the end.
struct Counted {
    body: Body,
    seen_bytes: u64,
    settle: Option<oneshot::Sender<Settled>>,
}

impl Stream for Counted {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.body.poll_next_unpin(cx));
        let settled = match &next {
            Some(Ok(bytes)) => {
                self.seen_bytes += bytes.len() as u64;
                None
            }
            Some(Err(error)) => Some(Err(from_io(error))),
            None => Some(Ok(self.seen_bytes)),
        };
        if let Some(settled) = settled
            && let Some(settle) = self.settle.take()
        {
            let _ = settle.send(settled);
        }
        Poll::Ready(next)
    }
}

fn tokio_stream<T: Send + 'static>(mut receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send + 'static {
    stream::poll_fn(move |cx| receiver.poll_recv(cx))
}

/// What an I/O error means to a plugin.
pub(crate) fn from_io(error: &io::Error) -> EngineError {
    if let Some(refused) = tls::refused(error) {
        return refused;
    }
    let kind = match error.kind() {
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::TimedOut => EngineErrorKind::Unreachable,
        _ => EngineErrorKind::Internal,
    };
    match error.get_ref().and_then(|inner| inner.downcast_ref::<EngineError>()) {
        Some(inner) => inner.clone(),
        None => EngineError::new(kind, error.to_string()),
    }
}

/// A body that fails at once.
pub(crate) fn failed(error: EngineError) -> Body {
    stream::iter([Err(io::Error::other(error))]).boxed()
}
