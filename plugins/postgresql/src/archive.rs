//! `archive`: follows the log, and lets the server forget only what is durable.
//!
//! ```text
//!   archive ── follow ── connect ── course ── start ── stream::run ──┐
//!      ▲          │                             ▲                    │ timeline ended
//!      └ backoff ─┘                             └────────────────────┘
//! ```
//!
//! A connection that breaks is tried again for as long as it takes. What a retry cannot
//! help ends the job: a refusal, another cluster, another history, log that is gone.
//!
//! Log that the server no longer has leaves a gap. The host refuses to append behind a gap
//! unless the operator allowed it, so we tell it where the log goes on and let it decide.
//!
//! Follows the chapter "Streaming Replication Protocol".

mod course;
mod flow;
mod limits;
mod slot;
mod standby_names;
mod stream;

use std::pin::pin;

use backstay_postgresql_wire::history::{self, History};
use backstay_postgresql_wire::lsn::Lsn;
use backstay_postgresql_wire::protocol::{Backend, frontend};
use backstay_postgresql_wire::replication::{show, start_replication, timeline_history};
use backstay_postgresql_wire::wal_file::parse_segment_size;
use backstay_sdk::{Error, ErrorKind, Level, LogWriter, Result, host};
use futures::future::{Either, FutureExt, LocalBoxFuture, Shared, select};

use self::course::{Course, Server};
use self::flow::Plan;
use self::limits::{BACKOFF_US_MAX, BACKOFF_US_MIN, SLOT_TAKEN_AGAIN_US_MAX, SLOT_TAKEN_PAUSE_US, SLOT_TAKEN_US_MAX};
use self::stream::{Ended, Note};
use crate::connection::{Session, unexpected};
use crate::inspect::{System, timeline};
use crate::position::{parse_lsn, position};
use crate::refusal::{from_server, from_wire};
use crate::settings::Settings;

/// Answers once the host wants the job to wind down; as often as it is asked.
type Stop = Shared<LocalBoxFuture<'static, ()>>;

const OBJECT_IN_USE: &str = "55006";

/// How long to wait for the server's last word when we leave.
const FAREWELL_US: u64 = 3_000_000;

/// Follows the log until the host asks to stop, then hands over what came and answers ok.
pub async fn archive(settings: &Settings, into: &LogWriter) -> Result<()> {
    let stop = host::stop_requested().boxed_local().shared();
    let mut job = Job { settings, into, stop, identity: None, streamed: false, gap: None };
    let mut backoff_us = BACKOFF_US_MIN;
    loop {
        let started_at = host::now();
        let error = match job.follow().await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match (error.kind, job.gap.take()) {
            (ErrorKind::Unreachable, _) => {}
            (ErrorKind::Gap, None) if into.tail().is_some() => {
                host::log(Level::Warn, &format!("{error}; looking where the log goes on"));
                job.gap = Some(error);
                continue;
            }
            (ErrorKind::Gap, Some(first)) => return Err(gap(first, error)),
            _ => return Err(error),
        }
        if host::now().saturating_sub(started_at) > BACKOFF_US_MAX {
            backoff_us = BACKOFF_US_MIN;
        }
        let pause_us = jittered(backoff_us);
        backoff_us = (backoff_us * 2).min(BACKOFF_US_MAX);
        let seconds = pause_us as f64 / 1e6;
        host::log(Level::Warn, &format!("{error}; trying again in {seconds:.1} s"));
        if let Either::Right(_) = select(pin!(host::sleep(pause_us)), job.stop.clone()).await {
            return Ok(());
        }
    }
}

/// Half of it, and a random part of the other half: archivers of many servers shall not all
/// come back at the same moment.
fn jittered(pause_us: u64) -> u64 {
    let random = host::random(2).iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
    pause_us / 2 + pause_us / 2 * random / 0xffff
}

/// What the operator is told when the host does not want to go on behind a gap.
fn gap(first: Error, refused: Error) -> Error {
    let told = Error::new(ErrorKind::Gap, first.message);
    match refused.hint {
        Some(hint) => told.hint(hint),
        None => told.hint(format!("make a new backup, then let the log go on behind the gap: {}", refused.message)),
    }
}

/// One run of `archive`.
struct Job<'a> {
    settings: &'a Settings,
    into: &'a LogWriter,
    stop: Stop,
    /// Known once a server was reached.
    identity: Option<String>,
    /// Log came through this job before.
    streamed: bool,
    /// The server lacks log behind the tail: go on where it has some.
    gap: Option<Error>,
}

impl Job<'_> {
    /// Connects and follows the log, over as many timelines as there are. Ok: the host asked
    /// to stop.
    async fn follow(&mut self) -> Result<()> {
        let stop = self.stop.clone();
        let (mut session, mut plan, mut note) = {
            let starting = pin!(self.start());
            match select(starting, stop.clone()).await {
                Either::Left((started, _)) => started?,
                Either::Right(_) => return Ok(()),
            }
        };
        loop {
            self.streamed = true;
            let (streamed, segment_bytes) = (plan.timeline, plan.segment_bytes);
            let (synchronous, interval_us) = (plan.synchronous, plan.interval_us);
            match stream::run(&mut session, plan, note, self.into, &stop).await? {
                Ended::Stopped => {
                    leave(session).await;
                    return Ok(());
                }
                Ended::Failed(error) => return Err(error),
                Ended::CopyDone => {}
            }
            let (next, left) = timeline_end(&mut session).await?;
            if next <= streamed {
                return Err(unexpected("about the next timeline"));
            }
            host::log(Level::Info, &format!("timeline {streamed} ended at {}, timeline {next} begins", Lsn(left)));
            let (history, text) = fetch_history(&mut session, next).await?;
            if history.left(streamed) != Some(Lsn(left)) {
                return Err(unexpected("about the next timeline's history"));
            }
            let from = left - left % segment_bytes;
            plan = Plan {
                timeline: next,
                from,
                append_from: from,
                follows: Some(position(streamed, left)),
                segment_bytes,
                synchronous,
                interval_us,
            };
            note = Some((history::file_name(next), text));
            self.begin(&mut session, &plan).await?;
        }
    }

    /// Up to where log flows.
    async fn start(&mut self) -> Result<(Session, Plan, Option<Note>)> {
        let mut session = Session::open_replication(self.settings).await?;
        // Asked first: one that is promoted in between has told no more than a standby's log.
        let is_standby = is_standby(&mut session).await?;
        let system = System::identify(&mut session).await?;
        self.identify(&system.identity).await?;
        let segment_bytes = setting(&mut session, "wal_segment_size").await?;
        let segment_bytes = parse_segment_size(&segment_bytes).map_err(from_wire)?;
        let standby_names = setting(&mut session, "synchronous_standby_names").await?;
        let synchronous = standby_names::lists(&standby_names, &self.settings.application_name);
        let server_timeline = u32::try_from(system.tail.epoch).map_err(|_| unexpected("about its timeline"))?;
        let mut text = None;
        let mut history = None;
        if server_timeline > 1 {
            let (parsed, bytes) = fetch_history(&mut session, server_timeline).await?;
            (history, text) = (Some(parsed), Some(bytes));
        }
        let server = Server {
            is_standby,
            timeline: server_timeline,
            end: system.tail.offset,
            history,
            restart: slot::ensure(&mut session, self.settings).await?,
            segment_bytes,
        };
        let tail = self.into.tail();
        let course = match (&self.gap, &tail) {
            (Some(_), Some(tail)) => server.fresh(tail.epoch != u64::from(server.timeline)),
            _ => server.course(tail.as_ref())?,
        };
        let is_new = tail.is_none_or(|tail| tail.epoch != u64::from(course.timeline));
        let note = match text {
            Some(bytes) if is_new => note(&mut session, &server, &course, bytes).await?,
            _ => None,
        };
        let plan = Plan {
            timeline: course.timeline,
            // From the file's beginning, so that the scanner sees records whole.
            from: course.append_from - course.append_from % segment_bytes,
            append_from: course.append_from,
            follows: course.follows,
            segment_bytes,
            synchronous,
            interval_us: self.settings.flush_interval_ms.saturating_mul(1000),
        };
        self.begin(&mut session, &plan).await?;
        host::log(
            Level::Info,
            &format!(
                "following timeline {} from {}{}",
                plan.timeline,
                Lsn(plan.append_from),
                if synchronous { ", commits wait for us" } else { "" }
            ),
        );
        Ok((session, plan, note))
    }

    /// Makes sure that it is the cluster whose log this is.
    async fn identify(&mut self, identity: &str) -> Result<()> {
        match &self.identity {
            None => {
                self.into.identify(identity).await?;
                self.identity = Some(identity.to_owned());
                Ok(())
            }
            Some(known) if known == identity => Ok(()),
            Some(known) => Err(Error::new(
                ErrorKind::Conflict,
                format!("another cluster answers now: system identifier {identity}, expected {known}"),
            )
            .hint("point the target at the right server, or archive this one as a new target")),
        }
    }

    /// Starts the stream; waits a while where another session still holds the slot.
    async fn begin(&self, session: &mut Session, plan: &Plan) -> Result<()> {
        let slot = self.settings.slot_name();
        let command = start_replication(Some(&slot), plan.from, plan.timeline).map_err(from_wire)?;
        let patience_us = if self.streamed { SLOT_TAKEN_AGAIN_US_MAX } else { SLOT_TAKEN_US_MAX };
        let since = host::now();
        loop {
            session.command(&command).await?;
            let refused = match session.next().await? {
                Backend::CopyBoth => return Ok(()),
                Backend::ErrorResponse(error) => error,
                _ => return Err(unexpected("in place of the log")),
            };
            let is_patient = host::now().saturating_sub(since) < patience_us;
            if refused.code() != Some(OBJECT_IN_USE) || !is_patient {
                return Err(from_server(&refused));
            }
            if !matches!(session.next().await?, Backend::ReadyForQuery(_)) {
                return Err(unexpected("after its refusal"));
            }
            host::sleep(SLOT_TAKEN_PAUSE_US).await;
        }
    }
}

/// Whether the server is in recovery.
async fn is_standby(session: &mut Session) -> Result<bool> {
    // Version 13 does not report it; there every transaction of a standby is read-only.
    let told = match session.parameter("in_hot_standby") {
        Some(told) => told.to_owned(),
        None => setting(session, "transaction_read_only").await?,
    };
    Ok(told == "on")
}

async fn setting(session: &mut Session, name: &str) -> Result<String> {
    let rows = session.rows(&show(name).map_err(from_wire)?).await?;
    Ok(rows.need(name)?.to_owned())
}

/// The history of a timeline, read and as it is.
async fn fetch_history(session: &mut Session, timeline: u32) -> Result<(History, Vec<u8>)> {
    let rows = session.rows(&timeline_history(timeline)).await?;
    let text = rows.need("content")?.as_bytes().to_vec();
    let history = History::parse(timeline, &text).map_err(from_wire)?;
    Ok((history, text))
}

/// The note that must be there before the course's timeline has a piece. `text` is the
/// history of the server's own timeline.
async fn note(session: &mut Session, server: &Server, course: &Course, text: Vec<u8>) -> Result<Option<Note>> {
    if course.timeline == 1 {
        return Ok(None);
    }
    let text = if course.timeline == server.timeline { text } else { fetch_history(session, course.timeline).await?.1 };
    Ok(Some((history::file_name(course.timeline), text)))
}

/// Ends the copy on our side; answers the next timeline and where this one was left.
async fn timeline_end(session: &mut Session) -> Result<(u32, u64)> {
    session.sender().send(frontend::copy_done()).await?;
    let rows = session.result().await?;
    if rows.is_empty() {
        return Err(Error::new(ErrorKind::Unreachable, "the server ended the stream"));
    }
    let next = timeline(rows.need("next_tli")?)?;
    let left = parse_lsn(rows.need("next_tli_startpos")?)?;
    loop {
        match session.next().await? {
            Backend::CommandComplete(_) => {}
            Backend::ReadyForQuery(_) => return Ok((next, left)),
            Backend::ErrorResponse(error) => return Err(from_server(&error)),
            _ => return Err(unexpected("after a timeline's end")),
        }
    }
}

/// Ends the copy and the session so that the server reads our last status: a connection that
/// is closed over unread bytes may take them along.
async fn leave(mut session: Session) {
    if session.sender().send(frontend::copy_done()).await.is_err() {
        return;
    }
    {
        let reading = pin!(async {
            while let Ok(message) = session.next().await {
                if matches!(message, Backend::ReadyForQuery(_) | Backend::ErrorResponse(_)) {
                    break;
                }
            }
        });
        select(reading, pin!(host::sleep(FAREWELL_US))).await;
    }
    session.close().await;
}
