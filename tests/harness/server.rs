//! A server of a test: started, waited for, stopped.

use crate::{
    kill, limits,
    scratch::{Scratch, tail, wait_for},
};
use anyhow::{Result, bail};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A running server and its folder. Killed on drop.
pub struct Server {
    child: Child,
    scratch: Scratch,
    address: SocketAddr,
}

/// An answer to a plain request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 200 and the like.
    pub status: u16,
    /// The head, status line included.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Server {
    /// Runs `command` until it listens at `address`; what it says goes into a log file in `scratch`.
    pub fn start(what: &str, mut command: Command, scratch: Scratch, address: SocketAddr) -> Result<Self> {
        let log = std::fs::File::create(scratch.join("log"))?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut server = Self { child, scratch, address };
        wait_for(&format!("{what} to listen"), limits::STORE_START, || {
            if let Some(status) = server.child.try_wait()? {
                bail!("{what} ended with {status}:\n{}", tail(&server.scratch.join("log"), limits::LOG_LINES));
            }
            Ok(TcpStream::connect(server.address).ok())
        })?;
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its folder.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The end of what it said.
    pub fn log(&self) -> String {
        tail(&self.scratch.join("log"), limits::LOG_LINES)
    }

    /// One plain request; `headers` are whole lines.
    pub fn request(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Result<Answer> {
        request(self.address, method, path, headers, body)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        kill::family(&mut self.child);
    }
}

/// One plain request over a connection of its own; HTTP 1.0, so that nothing comes in chunks.
pub fn request(address: SocketAddr, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut head = format!("{method} /{path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Answer::read(answer)
}

impl Answer {
    /// From the bytes of the wire.
    pub fn read(mut bytes: Vec<u8>) -> Result<Self> {
        let Some(split) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            bail!("an answer without a head: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)]));
        };
        let body = bytes.split_off(split + 4);
        let head = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        let Some(status) = head.split(' ').nth(1).and_then(|status| status.parse().ok()) else {
            bail!("an answer without a status: {head}");
        };
        Ok(Self { status, head, body })
    }

    /// An error unless it is a 2xx.
    pub fn ok(self, what: &str) -> Result<Self> {
        if !(200..300).contains(&self.status) {
            bail!("{what}: {}\n{}", self.head, String::from_utf8_lossy(&self.body));
        }
        Ok(self)
    }
}
