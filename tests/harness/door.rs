//! A listener whose every connection is served by a function; closed on drop.

use crate::{
    fault_proxy::{content_length, read_head, read_up_to},
    limits,
};
use anyhow::{Result, bail};
use std::{
    io::Write,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

/// An open one.
pub struct Door {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

/// One request, whole.
pub(crate) struct Request {
    /// The head with its empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Door {
    /// Opens it behind this listener, which has one request per connection.
    pub(crate) fn open(
        listener: TcpListener,
        serve: impl Fn(&TcpStream, Request) -> Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let address = listener.local_addr()?;
        let (stop, serve) = (Arc::new(AtomicBool::new(false)), Arc::new(serve));
        let stopped = Arc::clone(&stop);
        let acceptor = std::thread::spawn(move || {
            for client in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(client) = client else { continue };
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || {
                    let served =
                        Request::read(&client).and_then(|request| request.map_or(Ok(()), |it| serve(&client, it)));
                    if let Err(error) = served {
                        eprintln!("door at {address}: {error:#}");
                    }
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        Ok(Self { address, stop, acceptor: Some(acceptor) })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the acceptor, which then sees the flag.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Request {
    /// Nothing when the client only knocked.
    fn read(client: &TcpStream) -> Result<Option<Self>> {
        client.set_read_timeout(Some(limits::COMMAND))?;
        let Some((head, mut body)) = read_head(client)? else { return Ok(None) };
        let length = content_length(&head)?;
        if length > limits::PROXY_BODY {
            bail!("a request body of {length} bytes");
        }
        read_up_to(client, &mut body, length)?;
        Ok(Some(Self { head, body }))
    }

    /// `GET` and the like.
    pub(crate) fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// With its query.
    pub(crate) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }
}

/// Answers a request; `headers` are whole lines.
pub(crate) fn answer(mut client: &TcpStream, status: &str, headers: &[String], body: &[u8]) -> Result<()> {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    client.write_all(head.as_bytes())?;
    client.write_all(b"\r\n")?;
    Ok(client.write_all(body)?)
}
