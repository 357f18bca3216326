//! A real S3 server on loopback: moto, from PyPI.

use crate::{
    limits,
    scratch::{Scratch, free_port, tail, wait_for},
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// An access key.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The public half.
    pub access_key_id: String,
    /// The secret half.
    pub secret_access_key: String,
}

impl Credentials {
    /// As the usual environment variables.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", self.access_key_id.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_access_key.clone()),
            ("AWS_DEFAULT_REGION", "us-east-1".to_owned()),
        ]
    }
}

/// A running S3 server with one bucket.
pub struct S3 {
    child: Child,
    scratch: Scratch,
    address: SocketAddr,
}

/// A header for plain requests. moto wants to see a key, and believes every signature.
pub const AUTHORIZATION: &str = "Authorization: AWS4-HMAC-SHA256 \
     Credential=backstay/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// The bucket's name.
pub const BUCKET: &str = "backups";

impl S3 {
    /// Starts it and makes the bucket.
    pub fn start() -> Result<Self> {
        let scratch = Scratch::new()?;
        let python = ["python3", "python", "/usr/bin/python3"]
            .into_iter()
            .find(|python| {
                let found = Command::new(python)
                    .args(["-c", "import importlib.util as u, sys; sys.exit(u.find_spec('moto.server') is None)"])
                    .stderr(Stdio::null())
                    .status();
                found.is_ok_and(|status| status.success())
            })
            .context("no S3 server: `pip install 'moto[server]'`")?;
        let port = free_port()?;
        let log = std::fs::File::create(scratch.join("log"))?;
        let child = Command::new(python)
            .args(["-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .env_remove("AWS_ENDPOINT_URL")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut server = Self { child, scratch, address: SocketAddr::from(([127, 0, 0, 1], port)) };
        wait_for("the S3 server to listen", limits::S3_START, || {
            if let Some(status) = server.child.try_wait()? {
                bail!("the S3 server ended with {status}:\n{}", tail(&server.scratch.join("log"), limits::LOG_LINES));
            }
            Ok(TcpStream::connect(server.address).ok())
        })?;
        server.request("PUT", BUCKET, b"")?;
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// An access key that it takes.
    pub fn credentials(&self) -> Credentials {
        Credentials { access_key_id: "backstay".into(), secret_access_key: "not so secret".into() }
    }

    /// One plain request; answers the body of a successful one.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let host = self.address;
        let head = format!(
            "{method} /{path} HTTP/1.1\r\nHost: {host}\r\n{AUTHORIZATION}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let split = answer.windows(4).position(|four| four == b"\r\n\r\n").context("an answer without a head")?;
        let head = String::from_utf8_lossy(&answer[..split]).into_owned();
        ensure!(head.split(' ').nth(1).is_some_and(|code| code.starts_with('2')), "{method} {path}: {head}");
        Ok(answer.split_off(split + 4))
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
