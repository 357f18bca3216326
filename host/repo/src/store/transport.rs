//! HTTP to a store: paced, bounded, patient with slow lines and impatient with dead ones.
//!
//! ```text
//!   object_store ─► a free connection ─► what the store asked to wait ─► request, piece by piece ─► answer, piece by piece
//!                   (connections)        (Retry-After)                   (upload-limit)             (download-limit)
//! ```
//!
//! A request is given up once nothing has moved for a while, in either direction. The HTTP library's own read time-out
//! runs from the first byte that is sent, so a pack that takes a slow line longer than that would never arrive.

use super::pace::Pace;
use crate::limits::{
    PIECE_BYTES, STORE_CONNECT_TIMEOUT, STORE_CONNECTIONS_MAX, STORE_READ_TIMEOUT, STORE_SMALL_REQUESTS,
    STORE_THROTTLE_MAX,
};
use async_trait::async_trait;
use base64::Engine;
use bytes::Bytes;
use http::{
    StatusCode,
    header::{AUTHORIZATION, DATE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use http_body::{Body, Frame, SizeHint};
use md5::{Digest, Md5};
use object_store::{
    ClientConfigKey, ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
        HttpResponseBody, HttpService,
    },
};
use std::{
    num::NonZeroU64,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};

/// How much of the network a repository may take; nothing: all there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) upload: Option<NonZeroU64>,
    pub(super) download: Option<NonZeroU64>,
    pub(super) connections: Option<usize>,
    /// Another patience than [`STORE_READ_TIMEOUT`]; for tests.
    pub(super) stall: Option<Duration>,
}

/// Makes the clients of one store. All of them share its limits.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    shared: Arc<Shared>,
    authorities: Vec<reqwest::Certificate>,
    /// For stores that know names and passwords.
    authorization: Option<HeaderValue>,
    /// Whether uploads bear `Content-MD5`.
    content_md5: bool,
}

#[derive(Debug)]
struct Shared {
    upload: Option<Pace>,
    download: Option<Pace>,
    connections: Arc<Semaphore>,
    /// For small requests when all of those are taken.
    small: Arc<Semaphore>,
    /// How long nothing may move.
    stall: Duration,
    /// Until when the store asked to be left alone.
    asked_to_wait: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Service {
    client: reqwest::Client,
    shared: Arc<Shared>,
    authorization: Option<HeaderValue>,
    content_md5: bool,
}

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("nothing moved for {} s", .0.as_secs())]
    Stalled(Duration),
    #[error("{0}")]
    Client(String),
}

impl Transport {
    /// `authorities` are certificates in PEM that the store's may chain to, beside the machine's own.
    pub(super) fn new(limits: Limits, authorities: Option<&str>) -> Result<Self, reqwest::Error> {
        let authorities = authorities.map(|pem| reqwest::Certificate::from_pem_bundle(pem.as_bytes())).transpose()?;
        let connections = limits.connections.unwrap_or(STORE_CONNECTIONS_MAX).min(STORE_CONNECTIONS_MAX);
        let shared = Shared {
            upload: limits.upload.map(Pace::new),
            download: limits.download.map(Pace::new),
            connections: Arc::new(Semaphore::new(connections)),
            small: Arc::new(Semaphore::new(STORE_SMALL_REQUESTS)),
            stall: limits.stall.unwrap_or(STORE_READ_TIMEOUT),
            asked_to_wait: Mutex::default(),
        };
        let authorities = authorities.unwrap_or_default();
        Ok(Self { shared: Arc::new(shared), authorities, authorization: None, content_md5: false })
    }

    /// Every upload bears `Content-MD5`: S3 takes none into a bucket with Object Lock without it, or a word for other
    /// checksums that only Amazon's own libraries say. It is no secret's keeper; bodies have a SHA-256 beside it.
    pub(super) fn with_content_md5(mut self) -> Self {
        self.content_md5 = true;
        self
    }

    /// Every request says who asks.
    pub(super) fn with_basic_authorization(mut self, user: &str, password: &str) -> Self {
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        // The encoding's letters are all lawful in a header.
        self.authorization = HeaderValue::from_str(&format!("Basic {encoded}")).ok().map(|mut value| {
            value.set_sensitive(true);
            value
        });
        self
    }
}

impl HttpConnector for Transport {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let option = |key| options.get_config_value(&key);
        let allow_http = option(ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        // Asking a metadata service that is not there has a shorter one than stores have.
        let quick = option(ClientConfigKey::ConnectTimeout).is_some_and(|value| value == "1s");
        let unusable = |source| object_store::Error::Generic { store: "HTTP client", source: Box::new(source) };
        let mut client = reqwest::Client::builder();
        if let Some(proxy) = option(ClientConfigKey::ProxyUrl) {
            client = client.proxy(reqwest::Proxy::all(proxy).map_err(unusable)?);
        }
        let client = client
            .user_agent(concat!("backstay/", env!("CARGO_PKG_VERSION")))
            .https_only(!allow_http)
            .connect_timeout(if quick { Duration::from_secs(1) } else { STORE_CONNECT_TIMEOUT })
            .tls_certs_merge(self.authorities.iter().cloned())
            .build()
            .map_err(unusable)?;
        let (shared, authorization) = (Arc::clone(&self.shared), self.authorization.clone());
        let content_md5 = self.content_md5;
        Ok(HttpClient::new(Service { client, shared, authorization, content_md5 }))
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let permit = self.shared.connection(&request).await?;
        self.shared.wait_as_asked().await;

        let (parts, body) = request.into_parts();
        let url = parts.uri.to_string().parse().map_err(|error: url::ParseError| {
            HttpError::new(HttpErrorKind::Unknown, Broken::Client(format!("failed to read the URL: {error}")))
        })?;
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        if self.content_md5 && request.method() == http::Method::PUT {
            request.headers_mut().insert("content-md5", content_md5(body.clone()).await?);
        }
        let moved = Arc::new(Moved::default());
        *request.body_mut() = Some(match body.as_bytes() {
            // Counted, and not held back.
            Some(small) if small.len() <= PIECE_BYTES => {
                if let Some(pace) = &self.shared.upload {
                    pace.reserve(small.len());
                }
                small.clone().into()
            }
            _ => reqwest::Body::wrap(Outgoing {
                body,
                piece: Bytes::new(),
                wait: None,
                moved: Arc::clone(&moved),
                shared: Arc::clone(&self.shared),
            }),
        });
        let answer = tokio::select! {
            answer = self.client.execute(request) => answer.map_err(named)?,
            () = moved.stalls(self.shared.stall) => return Err(stalled(self.shared.stall)),
        };
        self.shared.note(answer.status(), answer.headers());
        let (parts, body) = http_parts(answer);
        let shared = Arc::clone(&self.shared);
        let incoming = Incoming { body, held: None, wait: None, idle: None, shared, _permit: permit };
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(incoming)))
    }
}

/// Taken apart by way of the standard type, whose head `object_store` takes.
fn http_parts(answer: reqwest::Response) -> (http::response::Parts, reqwest::Body) {
    http::Response::<reqwest::Body>::from(answer).into_parts()
}

/// RFC 1864.
async fn content_md5(mut body: HttpRequestBody) -> Result<HeaderValue, HttpError> {
    let mut sum = Md5::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        sum.update(frame?.into_data().unwrap_or_default());
    }
    let sum = base64::engine::general_purpose::STANDARD.encode(sum.finalize());
    HeaderValue::from_str(&sum).map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))
}

fn stalled(stall: Duration) -> HttpError {
    HttpError::new(HttpErrorKind::Timeout, Broken::Stalled(stall))
}

/// The library's error without the URL, which may hold a signature.
fn named(error: reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else {
        HttpErrorKind::Unknown
    };
    // Its own text stops at "error sending request"; the causes say why.
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(one) = cause {
        let next = one.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = one.source();
    }
    HttpError::new(kind, Broken::Client(text))
}

impl Shared {
    /// Waits for a free connection.
    async fn connection(&self, request: &HttpRequest) -> Result<OwnedSemaphorePermit, HttpError> {
        // What an answer to a GET holds is not known.
        let is_small = request.method() != http::Method::GET && request.body().content_length() <= PIECE_BYTES;
        let usual = Arc::clone(&self.connections).acquire_owned();
        let permit = match is_small {
            false => usual.await,
            true => tokio::select! {
                biased;
                permit = usual => permit,
                permit = Arc::clone(&self.small).acquire_owned() => permit,
            },
        };
        permit.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))
    }

    async fn wait_as_asked(&self) {
        let until = *self.asked_to_wait.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    /// Remembers a request to wait, for all who use this store.
    fn note(&self, status: StatusCode, headers: &HeaderMap) {
        if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            return;
        }
        let Some(wait) = retry_after(headers) else { return };
        tracing::debug!(seconds = wait.as_secs(), "the store asked to wait");
        let until = Instant::now() + wait.min(STORE_THROTTLE_MAX);
        let mut asked = self.asked_to_wait.lock().unwrap_or_else(PoisonError::into_inner);
        *asked = Some(asked.map_or(until, |before| before.max(until)));
    }
}

/// Seconds, or a date that is compared with the store's own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|date| date.timestamp());
    let (then, now) = (date(value)?, date(headers.get(DATE)?.to_str().ok()?)?);
    Duration::try_from(then.duration_since(now)).ok()
}

/// When the last byte of a request moved.
#[derive(Debug)]
struct Moved(Mutex<Instant>);

impl Default for Moved {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Moved {
    /// A byte moves now, or is held back until then.
    fn at(&self, moment: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = moment;
    }

    /// Ends when nothing has moved for too long.
    async fn stalls(&self, stall: Duration) {
        loop {
            let over = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + stall;
            if over <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(over).await;
        }
    }
}

type Wait = Option<Pin<Box<Sleep>>>;

/// Ready once the wait is over, which it then is for good.
fn over(wait: &mut Wait, context: &mut Context<'_>) -> Poll<()> {
    if let Some(sleep) = wait {
        ready!(sleep.as_mut().poll(context));
        *wait = None;
    }
    Poll::Ready(())
}

/// A request's body, piece by piece.
struct Outgoing {
    body: HttpRequestBody,
    /// What is left of the part in hand.
    piece: Bytes,
    /// Until the next piece may go.
    wait: Wait,
    moved: Arc<Moved>,
    shared: Arc<Shared>,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let me = &mut *self;
        if me.piece.is_empty() {
            match ready!(Pin::new(&mut me.body).poll_frame(context)) {
                Some(Ok(frame)) => me.piece = frame.into_data().unwrap_or_default(),
                other => return Poll::Ready(other),
            }
            me.hold();
        }
        ready!(over(&mut me.wait, context));
        let piece = me.piece.split_to(me.piece.len().min(PIECE_BYTES));
        me.moved.at(Instant::now());
        if !me.piece.is_empty() {
            me.hold();
        } else if me.body.is_end_stream() {
            // What the kernel still holds has to pass, too.
            me.moved.at(Instant::now() + me.shared.stall);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.piece.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.piece.len() as u64 + self.body.size_hint().exact().unwrap_or(0))
    }
}

impl Outgoing {
    /// Holds the next piece until its turn.
    fn hold(&mut self) {
        if let Some(pace) = &self.shared.upload {
            let turn = pace.reserve(self.piece.len().min(PIECE_BYTES));
            self.moved.at(turn);
            self.wait = Some(Box::pin(tokio::time::sleep_until(turn)));
        }
    }
}

/// An answer's body, as fast as it may come. What is not taken from the connection makes the store wait.
struct Incoming {
    body: reqwest::Body,
    /// A frame that came too early, and until when.
    held: Option<Frame<Bytes>>,
    wait: Wait,
    /// Since the store owes us a byte.
    idle: Wait,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let me = &mut *self;
        if me.held.is_none() {
            match Pin::new(&mut me.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    me.idle = None;
                    if let (Some(pace), Some(data)) = (&me.shared.download, frame.data_ref()) {
                        me.wait = Some(Box::pin(tokio::time::sleep_until(pace.reserve(data.len()))));
                    }
                    me.held = Some(frame);
                }
                Poll::Ready(other) => return Poll::Ready(other.map(|frame| frame.map_err(named))),
                Poll::Pending => {
                    let stall = me.shared.stall;
                    let idle = me.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
                    ready!(idle.as_mut().poll(context));
                    return Poll::Ready(Some(Err(stalled(me.shared.stall))));
                }
            }
        }
        ready!(over(&mut me.wait, context));
        Poll::Ready(me.held.take().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
        self.body.size_hint().exact().map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest + held))
    }
}

#[cfg(test)]
mod tests;
