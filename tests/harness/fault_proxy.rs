//! What lies between us and a store on a bad day.
//!
//! An HTTP proxy in front of an S3 server, one request per connection. For every request the seed decides
//! whether it passes, comes late, is refused before or after it took effect, or is cut. Faults are dealt like cards:
//! each kind comes once before any comes again, so that few requests are enough to see all.

use crate::{limits, seed::Seed};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// 500 InternalError; the store never saw the request.
    InternalError,
    /// 503 SlowDown; the store never saw the request.
    SlowDown,
    /// Passes, half a second late.
    Delay,
    /// The connection ends after half of the request.
    CutRequest,
    /// The connection ends after half of the answer; the request took effect.
    CutAnswer,
    /// 500, although the request took effect: the hard case for create-if-absent.
    AppliedThenError,
}

const FAULTS: [Fault; 6] =
    [Fault::InternalError, Fault::SlowDown, Fault::Delay, Fault::CutRequest, Fault::CutAnswer, Fault::AppliedThenError];

struct Shared {
    seed: Mutex<Seed>,
    deck: Mutex<Vec<Fault>>,
    injected: Mutex<BTreeMap<Fault, u64>>,
    requests: AtomicU64,
    one_in: AtomicU64,
    /// Requests that are still to be told to come back in a second.
    throttled: AtomicU64,
    /// Whether nothing may be removed but locks.
    keeps: AtomicBool,
    stop: AtomicBool,
    away: AtomicBool,
    upstream: SocketAddr,
}

/// A running proxy.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Starts it in front of `upstream`, with a fault once in `one_in` requests; 0 for never.
    pub fn start(upstream: SocketAddr, one_in: u64, seed: &mut Seed) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            seed: Mutex::new(seed.fork()),
            deck: Mutex::default(),
            injected: Mutex::default(),
            requests: AtomicU64::new(0),
            one_in: AtomicU64::new(one_in),
            throttled: AtomicU64::new(0),
            keeps: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            away: AtomicBool::new(false),
            upstream,
        });
        let mine = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || {
            for client in listener.incoming() {
                if mine.stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(client) = client else { continue };
                if mine.away.load(Ordering::Relaxed) {
                    continue;
                }
                let shared = Arc::clone(&mine);
                std::thread::spawn(move || {
                    if let Err(error) = serve(&client, &shared) {
                        eprintln!("fault proxy: {error:#}");
                    }
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on a fault once in `one_in` requests; 0 for never.
    pub fn set_rate(&self, one_in: u64) {
        self.shared.one_in.store(one_in, Ordering::Relaxed);
    }

    /// Whether the store is away: every connection ends before it is heard.
    pub fn set_away(&self, away: bool) {
        self.shared.away.store(away, Ordering::Relaxed);
    }

    /// The next so many requests are told to slow down and to come back in a second.
    pub fn throttle(&self, requests: u64) {
        self.shared.throttled.store(requests, Ordering::Relaxed);
    }

    /// From now on nothing may be removed but locks: 403, as stores say it that keep things.
    pub fn keep_everything(&self) {
        self.shared.keeps.store(true, Ordering::Relaxed);
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// How often each fault was injected.
    pub fn injected(&self) -> BTreeMap<Fault, u64> {
        lock(&self.shared.injected).clone()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the acceptor, which then sees the flag.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn draw(shared: &Shared) -> Option<Fault> {
    let one_in = shared.one_in.load(Ordering::Relaxed);
    let mut seed = lock(&shared.seed);
    if one_in == 0 || !seed.one_in(one_in) {
        return None;
    }
    let mut deck = lock(&shared.deck);
    if deck.is_empty() {
        deck.extend(FAULTS);
    }
    let card = seed.within(0..deck.len() as u64) as usize;
    let fault = deck.swap_remove(card);
    *lock(&shared.injected).entry(fault).or_default() += 1;
    Some(fault)
}

fn serve(mut client: &TcpStream, shared: &Shared) -> Result<()> {
    client.set_read_timeout(Some(limits::COMMAND))?;
    let Some((head, mut body)) = read_head(client)? else { return Ok(()) };
    let request = shared.requests.fetch_add(1, Ordering::Relaxed);
    let fault = draw(shared);
    let length = content_length(&head)?;
    if length > limits::PROXY_BODY {
        bail!("a request body of {length} bytes");
    }
    if fault == Some(Fault::CutRequest) {
        // Half of it is taken from the wire, so that the client is in the middle of writing.
        read_up_to(client, &mut body, length / 2)?;
        return Ok(());
    }
    read_up_to(client, &mut body, length)?;
    let less_one = |left: u64| left.checked_sub(1);
    if shared.throttled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less_one).is_ok() {
        return refuse_with(client, (503, "SlowDown", "injected"), "Retry-After: 1\r\n", request);
    }
    if shared.keeps.load(Ordering::Relaxed)
        && head.starts_with("DELETE ")
        && !head.lines().next().is_some_and(|line| line.contains("/locks/"))
    {
        let message = "Access Denied because object protected by object lock.";
        return refuse_with(client, (403, "AccessDenied", message), "", request);
    }
    match fault {
        Some(Fault::InternalError) => return refuse(client, 500, "InternalError", request),
        Some(Fault::SlowDown) => return refuse(client, 503, "SlowDown", request),
        Some(Fault::Delay) => std::thread::sleep(Duration::from_millis(500)),
        _ => {}
    }
    let mut upstream = TcpStream::connect(shared.upstream).context("failed to reach the store")?;
    upstream.set_read_timeout(Some(limits::COMMAND))?;
    upstream.write_all(close_after(&head).as_bytes())?;
    upstream.write_all(&body)?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    match fault {
        Some(Fault::AppliedThenError) => refuse(client, 500, "InternalError", request),
        Some(Fault::CutAnswer) => Ok(client.write_all(&answer[..answer.len() / 2])?),
        _ => Ok(client.write_all(&answer)?),
    }
}

/// The head with its empty line, and what of the body came along; nothing when the client only knocked.
pub(crate) fn read_head(mut client: &TcpStream) -> Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Ok(Some((String::from_utf8(bytes)?, body)));
        }
        if bytes.len() > limits::PROXY_HEAD {
            bail!("a head of more than {} bytes", limits::PROXY_HEAD);
        }
        match client.read(&mut piece) {
            Ok(0) | Err(_) => return Ok(None),
            Ok(n) => bytes.extend_from_slice(&piece[..n]),
        }
    }
}

pub(crate) fn read_up_to(mut client: &TcpStream, body: &mut Vec<u8>, length: usize) -> Result<()> {
    let have = body.len().min(length);
    let missing = (length - have) as u64;
    let got = std::io::Read::by_ref(&mut client).take(missing).read_to_end(body)?;
    if got as u64 != missing {
        bail!("the client left in the middle of its request");
    }
    Ok(())
}

pub(crate) fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

pub(crate) fn content_length(head: &str) -> Result<usize> {
    if header(head, "transfer-encoding").is_some() {
        bail!("the proxy knows no chunked requests: {head}");
    }
    header(head, "content-length").map_or(Ok(0), |length| length.parse().context("content-length"))
}

/// The head with `Connection: close`, which is no signed header.
pub(crate) fn close_after(head: &str) -> String {
    let kept = head.trim_end().lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    kept.chain(["Connection: close", "", ""]).collect::<Vec<_>>().join("\r\n")
}

fn refuse(client: &TcpStream, status: u16, code: &str, request: u64) -> Result<()> {
    refuse_with(client, (status, code, "injected"), "", request)
}

/// `headers` are whole lines with their ends.
fn refuse_with(
    mut client: &TcpStream,
    (status, code, message): (u16, &str, &str),
    headers: &str,
    request: u64,
) -> Result<()> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
         <RequestId>{request}</RequestId></Error>"
    );
    let head = format!(
        "HTTP/1.1 {status} {code}\r\n{headers}Content-Type: application/xml\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes())?;
    client.write_all(body.as_bytes())?;
    Ok(())
}
