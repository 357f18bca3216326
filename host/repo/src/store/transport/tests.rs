#![allow(clippy::unwrap_used)]
use super::*;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    thread::JoinHandle,
};

/// Serves this many connections, each in a thread of its own.
fn server(
    connections: usize,
    serve: impl Fn(usize, TcpStream) + Send + Sync + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // The kernel takes little on its own account, so that a client feels how fast we read.
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 256 << 10).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    let acceptor = std::thread::spawn(move || {
        let workers: Vec<_> = (0..connections)
            .map(|number| {
                let (stream, serve) = (listener.accept().unwrap().0, Arc::clone(&serve));
                std::thread::spawn(move || serve(number, stream))
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
    (address, acceptor)
}

/// Reads a request's head, and answers how many bytes of its body came along.
fn head(stream: &mut TcpStream) -> usize {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            return bytes.len() - end - 4;
        }
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "the client left");
        bytes.extend_from_slice(&piece[..read]);
    }
}

fn client(limits: Limits) -> HttpClient {
    Transport::new(limits, None).unwrap().connect(&ClientOptions::new().with_allow_http(true)).unwrap()
}

async fn send(client: &HttpClient, to: SocketAddr, body: Vec<u8>) -> Result<(StatusCode, Bytes), HttpError> {
    let method = if body.is_empty() { "GET" } else { "PUT" };
    let request = http::Request::builder().method(method).uri(format!("http://{to}/x"));
    let answer = client.execute(request.body(HttpRequestBody::from(body)).unwrap()).await?;
    let (parts, body) = answer.into_parts();
    Ok((parts.status, body.bytes().await?))
}

fn rate(bytes: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(bytes)
}

const BODY: usize = 1 << 20;

#[tokio::test]
async fn a_line_that_is_slow_but_moves_is_waited_for() {
    let (address, done) = server(1, |_, mut stream| {
        let mut read = head(&mut stream);
        // Slower than the kernels' buffers are large, so that the client feels it.
        let mut piece = vec![0; 256 << 10];
        while read < 32 * BODY {
            std::thread::sleep(Duration::from_millis(10));
            read += stream.read(&mut piece).unwrap();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    });
    let client = client(Limits { stall: Some(Duration::from_millis(400)), ..Limits::default() });
    let started = Instant::now();
    let (status, _) = send(&client, address, vec![7; 32 * BODY]).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    assert!(started.elapsed() > Duration::from_millis(800), "the server was not slow: {:?}", started.elapsed());
    done.join().unwrap();
}

#[tokio::test]
async fn a_line_on_which_nothing_moves_is_given_up() {
    let (address, done) = server(2, |number, mut stream| {
        if number == 1 {
            head(&mut stream);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").unwrap();
        }
        // Until the client goes away.
        std::thread::sleep(Duration::from_millis(800));
    });
    let client = client(Limits { stall: Some(Duration::from_millis(200)), ..Limits::default() });
    for what in ["the request", "the answer"] {
        let started = Instant::now();
        let body = if what == "the request" { vec![7; 32 * BODY] } else { Vec::new() };
        let error = send(&client, address, body).await.unwrap_err();
        assert!(error.to_string().contains("nothing moved"), "{what}: {error}");
        assert_eq!(error.kind(), HttpErrorKind::Timeout, "{what}");
        assert!(started.elapsed() < Duration::from_millis(700), "{what} took {:?}", started.elapsed());
    }
    done.join().unwrap();
}

#[tokio::test]
async fn bodies_keep_the_pace_in_both_directions() {
    let (address, done) = server(2, |number, mut stream| {
        let mut read = head(&mut stream);
        let mut piece = vec![0; 64 << 10];
        while number == 0 && read < BODY {
            read += stream.read(&mut piece).unwrap();
        }
        let body = if number == 0 { 0 } else { BODY };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&vec![7; body]).unwrap();
    });
    let (upload, download) = (rate(1 << 20), rate(2 << 20));
    let client = client(Limits { upload, download, ..Limits::default() });
    let started = Instant::now();
    send(&client, address, vec![7; BODY]).await.unwrap();
    let took = started.elapsed().as_millis();
    assert!((850..3000).contains(&took), "1 MiB at 1 MiB/s took {took} ms");
    let started = Instant::now();
    let (_, body) = send(&client, address, Vec::new()).await.unwrap();
    let took = started.elapsed().as_millis();
    assert_eq!(body.len(), BODY);
    // The last frame is not waited for, and has up to 400 KiB: what hyper reads at once.
    assert!((250..3000).contains(&took), "1 MiB at 2 MiB/s took {took} ms");
    done.join().unwrap();
}

#[tokio::test]
async fn a_store_that_asks_to_wait_is_left_alone_by_all() {
    let (address, done) = server(3, |number, mut stream| {
        head(&mut stream);
        let answer = match number {
            0 => "503 Slow Down\r\nRetry-After: 1",
            1 => {
                "429 Too Many Requests\r\nDate: Wed, 25 Nov 2026 12:00:00 GMT\r\n\
                  Retry-After: Wed, 25 Nov 2026 12:00:01 GMT"
            }
            _ => "200 OK",
        };
        let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let client = client(Limits::default());
    let started = Instant::now();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(send(&client, address, Vec::new()).await.unwrap().0.as_u16());
    }
    assert_eq!(seen, [503, 429, 200]);
    assert!(started.elapsed() >= Duration::from_secs(2), "it waited only {:?}", started.elapsed());
    done.join().unwrap();
}

#[test]
fn what_a_store_asks_for_is_understood_or_passed_over() {
    let asked = |pairs: &[(&'static str, &'static str)]| {
        let pairs =
            pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
        retry_after(&pairs.collect())
    };
    assert_eq!(asked(&[("retry-after", " 7 ")]), Some(Duration::from_secs(7)));
    let then = ("retry-after", "Wed, 25 Nov 2026 12:00:07 GMT");
    assert_eq!(asked(&[then, ("date", "Wed, 25 Nov 2026 12:00:00 GMT")]), Some(Duration::from_secs(7)));
    for nothing in [&[then][..], &[], &[("retry-after", "soon")], &[("retry-after", "-1")]] {
        assert_eq!(asked(nothing), None, "{nothing:?}");
    }
    assert_eq!(asked(&[then, ("date", "Wed, 25 Nov 2026 12:00:09 GMT")]), None, "a time that is over");
}

#[tokio::test]
async fn no_more_requests_at_once_than_are_allowed() {
    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let (address, done) = server(8, |_, mut stream| {
        head(&mut stream);
        MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(50));
        NOW.fetch_sub(1, Ordering::SeqCst);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").unwrap();
    });
    let client = client(Limits { connections: Some(2), ..Limits::default() });
    let all = (0..8).map(|_| send(&client, address, Vec::new()));
    for answer in futures::future::join_all(all).await {
        assert_eq!(answer.unwrap().1, "ok");
    }
    done.join().unwrap();
    assert_eq!(MOST.load(Ordering::SeqCst), 2);
}
