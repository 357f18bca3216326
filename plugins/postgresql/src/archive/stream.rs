//! One stream of log, from START_REPLICATION to its end: three activities on one thread.
//!
//! ```text
//!   receive ──▶ Flow ──▶ store ──▶ LogWriter
//!                 │         │
//!                 ▼         ▼ flushed
//!               report ──────────▶ the server
//! ```
//!
//! None waits for another's I/O, so keepalives are answered while an append is on its way,
//! and what comes meanwhile is appended together: the slower the store, the larger the pieces.

use std::cell::{Cell, RefCell};
use std::pin::pin;

use backstay_postgresql_wire::protocol::Backend;
use backstay_postgresql_wire::replication::{StandbyStatus, StreamMessage};
use backstay_sdk::{Error, ErrorKind, Level, LogWriter, Result, Timestamp, host};
use futures::StreamExt;
use futures::channel::mpsc;
use futures::future::{Either, select, try_join3};

use super::Stop;
use super::flow::{Due, Flow, Plan};
use super::limits::{
    FIRST_STATUS_US, SILENCE_US_MAX, STANDSTILL_US, STATUS_INTERVAL_US, TROUBLES_MAX, UNCONFIRMED_INTERVAL_US,
};
use crate::connection::{Outgoing, Session, unexpected};
use crate::refusal::{from_server, from_wire};

/// How a stream ended; what came is durable in any case.
pub(super) enum Ended {
    /// The host asked for it.
    Stopped,
    /// The server has no more log of this timeline.
    CopyDone,
    /// The connection broke, or the server refused to go on.
    Failed(Error),
}

/// A note that must be stored before the first piece of its timeline.
pub(super) type Note = (String, Vec<u8>);

/// Wakes one activity; a second call before it woke changes nothing.
struct Bell {
    ring: RefCell<mpsc::Sender<()>>,
    heard: RefCell<Option<mpsc::Receiver<()>>>,
}

impl Bell {
    fn new() -> Self {
        let (ring, heard) = mpsc::channel(0);
        Self { ring: RefCell::new(ring), heard: RefCell::new(Some(heard)) }
    }

    fn ring(&self) {
        // Full: it rings already.
        let _ = self.ring.borrow_mut().try_send(());
    }

    /// The one listener's end.
    fn listen(&self) -> mpsc::Receiver<()> {
        self.heard.borrow_mut().take().unwrap_or_else(|| mpsc::channel(0).1)
    }
}

/// What the activities share. No borrow is held across an await.
struct Shared {
    flow: RefCell<Flow>,
    /// For `store`.
    came: Bell,
    /// For `receive`.
    room: Bell,
    /// For `report`.
    news: Bell,
    /// For `receive`, when `report` gave up.
    broken: Bell,
    /// Why.
    failure: RefCell<Option<Error>>,
    /// `store` is through, so `report` may end.
    stored: Cell<bool>,
    heard_at: Cell<Timestamp>,
    /// Where the log stood, and since when by the server's clock.
    stands: Cell<Option<(u64, Timestamp)>>,
    /// To be confirmed: the end of the log at that time.
    confirm: Cell<Option<(u64, Timestamp)>>,
    confirmed: Cell<Option<u64>>,
}

/// Streams until the host asks to stop, the timeline ends or the connection breaks. What
/// came is durable when this answers; an error is the host's refusal to store.
pub(super) async fn run(
    session: &mut Session,
    plan: Plan,
    note: Option<Note>,
    into: &LogWriter,
    stop: &Stop,
) -> Result<Ended> {
    let outgoing = session.sender();
    let shared = Shared {
        flow: RefCell::new(Flow::new(plan)),
        came: Bell::new(),
        room: Bell::new(),
        news: Bell::new(),
        broken: Bell::new(),
        failure: RefCell::new(None),
        stored: Cell::new(false),
        heard_at: Cell::new(host::now()),
        stands: Cell::new(None),
        confirm: Cell::new(None),
        confirmed: Cell::new(None),
    };
    let receiving = async {
        let ended = receive(session, &shared, stop).await;
        shared.flow.borrow_mut().end();
        shared.came.ring();
        Ok(ended)
    };
    let reporting = async {
        // A message is never left half sent: this ends by itself, after the last status.
        if let Err(error) = report(&shared, &outgoing).await {
            *shared.failure.borrow_mut() = Some(error);
            shared.broken.ring();
        }
        Ok(())
    };
    let (ended, (), ()) = try_join3(receiving, store(&shared, into, note), reporting).await?;
    Ok(ended)
}

/// Takes in what the server sends.
async fn receive(session: &mut Session, shared: &Shared, stop: &Stop) -> Ended {
    let mut room = shared.room.listen();
    let mut broken = shared.broken.listen();
    let mut troubles = 0;
    loop {
        while shared.flow.borrow().is_full() {
            let _ = room.next().await;
        }
        let message = {
            let next = pin!(session.next());
            let halt = select(stop.clone(), broken.next());
            match select(next, halt).await {
                Either::Left((message, _)) => message,
                Either::Right((Either::Left(_), _)) => return Ended::Stopped,
                Either::Right((Either::Right(_), _)) => {
                    let failure = shared.failure.borrow_mut().take();
                    return Ended::Failed(failure.unwrap_or_else(|| unexpected("to the end")));
                }
            }
        };
        let message = match message {
            Ok(message) => message,
            Err(error) => return Ended::Failed(error),
        };
        let now = host::now();
        shared.heard_at.set(now);
        let done = match message {
            Backend::CopyData(copied) => match StreamMessage::parse(copied) {
                Ok(message) => take_in(shared, message, now),
                Err(error) => Err(from_wire(error)),
            },
            Backend::CopyDone => return Ended::CopyDone,
            Backend::ErrorResponse(error) => Err(from_server(&error)),
            // What a server that shuts down says, once all of its log is durable here.
            Backend::CommandComplete(_) => Err(Error::new(ErrorKind::Unreachable, "the server is shutting down")),
            _ => Err(unexpected("in the log")),
        };
        if let Err(error) = done {
            return Ended::Failed(error);
        }
        if let Some(trouble) = shared.flow.borrow_mut().take_trouble() {
            troubles += 1;
            if troubles <= TROUBLES_MAX {
                host::log(
                    Level::Warn,
                    &format!("log is stored but not understood, so commit times are missing: {trouble}"),
                );
            }
        }
    }
}

fn take_in(shared: &Shared, message: StreamMessage<'_>, now: Timestamp) -> Result<()> {
    match message {
        StreamMessage::XLogData { start, data, .. } => {
            shared.flow.borrow_mut().push(start, data, now)?;
            shared.came.ring();
        }
        StreamMessage::Keepalive { server_end, sent_at, reply_requested } => {
            if reply_requested {
                // A server that shuts down waits for all of its log to be durable here.
                shared.flow.borrow_mut().hurry();
                shared.came.ring();
                shared.news.ring();
            }
            settle(shared, server_end, sent_at);
        }
    }
    Ok(())
}

/// Looks whether the end of the log stood still for a while and is durable here.
fn settle(shared: &Shared, server_end: u64, sent_at: Timestamp) {
    let flow = shared.flow.borrow();
    let flushed = flow.flushed();
    if !flow.is_settled() || flushed < server_end {
        shared.stands.set(None);
        return;
    }
    match shared.stands.get() {
        Some((at, since)) if at == flushed => {
            if sent_at.saturating_sub(since) >= STANDSTILL_US {
                shared.confirm.set(Some((at, since)));
                shared.stands.set(Some((at, sent_at)));
                shared.came.ring();
            }
        }
        _ => shared.stands.set(Some((flushed, sent_at))),
    }
}

/// Appends what is due, until all that came is durable and no more comes.
async fn store(shared: &Shared, into: &LogWriter, mut note: Option<Note>) -> Result<()> {
    let mut came = shared.came.listen();
    loop {
        let due = shared.flow.borrow().due(host::now());
        match due {
            Due::Now => {}
            Due::Never => break,
            Due::Later => {
                if let Some((at, when)) = shared.confirm.take() {
                    let at = shared.flow.borrow().position(at);
                    shared.confirmed.set(Some(at.offset));
                    into.confirm(at, when).await?;
                } else {
                    let _ = came.next().await;
                }
                continue;
            }
            Due::In(pause_us) => {
                let _ = select(came.next(), pin!(host::sleep(pause_us))).await;
                continue;
            }
        }
        let piece = shared.flow.borrow_mut().cut(host::now())?;
        let Some(piece) = piece else { continue };
        shared.room.ring();
        if let Some((name, bytes)) = note.take() {
            into.put_note(&name, &bytes).await?;
        }
        let end = piece.segment.end.offset;
        into.append_bytes(piece.segment, &piece.bytes).await?;
        shared.flow.borrow_mut().appended(end);
        shared.news.ring();
    }
    shared.stored.set(true);
    shared.news.ring();
    Ok(())
}

/// Tells the server how far we are, whenever that changed and every few seconds, until all
/// that came is durable.
async fn report(shared: &Shared, outgoing: &Outgoing) -> Result<()> {
    let mut news = shared.news.listen();
    let mut ask = false;
    // A server that has lost the log says so first thing. Told sooner how far we are, it would move
    // the slot back to log that no longer exists.
    select(news.next(), pin!(host::sleep(FIRST_STATUS_US))).await;
    loop {
        let last = shared.stored.get();
        send_status(shared, outgoing, ask && !last).await?;
        if last {
            return Ok(());
        }
        let flushed = shared.flow.borrow().flushed();
        let interval_us =
            if shared.confirmed.get() == Some(flushed) { STATUS_INTERVAL_US } else { UNCONFIRMED_INTERVAL_US };
        let pause = pin!(host::sleep(interval_us));
        ask = matches!(select(news.next(), pause).await, Either::Right(_));
        let silence = host::now().saturating_sub(shared.heard_at.get());
        if silence > SILENCE_US_MAX && !shared.flow.borrow().is_full() {
            return Err(Error::new(
                ErrorKind::Unreachable,
                format!("the server has been silent for {} s", silence / 1_000_000),
            ));
        }
    }
}

/// `ask`: the server shall answer, which tells its clock and that it lives.
async fn send_status(shared: &Shared, outgoing: &Outgoing, ask: bool) -> Result<()> {
    let status = {
        let flow = shared.flow.borrow();
        let flushed = flow.flushed();
        StandbyStatus {
            written: flow.received().max(flushed),
            flushed,
            applied: flushed,
            now: host::now(),
            reply_requested: ask,
        }
    };
    outgoing.send(status.encode().map_err(from_wire)?).await
}
