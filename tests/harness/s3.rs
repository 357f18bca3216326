//! A real S3 server on loopback: moto, from PyPI.

use crate::{
    certificate::Certificate,
    scratch::{Scratch, free_port, run},
    server::{Answer, Server},
};
use anyhow::{Context, Result};
use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
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
    server: Server,
    tls: bool,
}

/// How a server is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'o> {
    /// TLS with this certificate, and who signed it.
    pub tls: Option<(&'o Certificate, &'o Path)>,
    /// The bucket keeps every version of every object so many days.
    pub object_lock_days: Option<u32>,
}

/// A header for plain requests. moto wants to see a key, and believes every signature.
pub const AUTHORIZATION: &str = "Authorization: AWS4-HMAC-SHA256 \
     Credential=backstay/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// moto is many services on one port and guesses which is meant. Amazon's STS takes its parameters from the URL as well
/// as from the body; moto looks for them in the body alone.
const LAUNCH: &str = "
import sys, moto.server
from moto.moto_server.werkzeug_app import DomainDispatcherApplication as Dispatcher
guess = Dispatcher.infer_service_region_host
def infer(self, environ, path):
    is_sts = 'Action=AssumeRole' in environ.get('QUERY_STRING', '')
    return 'sts.us-east-1.amazonaws.com' if is_sts else guess(self, environ, path)
Dispatcher.infer_service_region_host = infer
moto.server.main(sys.argv[1:])
";

/// The bucket's name.
pub const BUCKET: &str = "backups";

impl S3 {
    /// Starts it and makes the bucket.
    pub fn start() -> Result<Self> {
        Self::start_with(Options::default())
    }

    /// Starts it with these options and makes the bucket.
    pub fn start_with(options: Options<'_>) -> Result<Self> {
        let scratch = Scratch::new()?;
        let python = python()?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let mut command = Command::new(python);
        command.args(["-W", "ignore", "-c", LAUNCH, "-H", "127.0.0.1", "-p", &address.port().to_string()]);
        command.env_remove("AWS_ENDPOINT_URL");
        if let Some((certificate, _)) = options.tls {
            command.arg("-c").arg(&certificate.certificate).arg("-k").arg(&certificate.key);
        }
        let tls = options.tls.is_some();
        let s3 = Self { server: Server::start("the S3 server", command, scratch, address)?, tls };
        if let Some((_, authority)) = options.tls {
            // The way of Amazon's own library, which comes with the server and knows TLS.
            let script = format!(
                "import boto3; boto3.client('s3', endpoint_url='{}', verify='{}', aws_access_key_id='backstay', \
                 aws_secret_access_key='x', region_name='us-east-1').create_bucket(Bucket='{BUCKET}')",
                s3.endpoint(),
                authority.display()
            );
            run(Command::new(python).args(["-W", "ignore", "-c", &script]))?;
            return Ok(s3);
        }
        let locked = ["x-amz-bucket-object-lock-enabled: true"];
        s3.send("PUT", BUCKET, if options.object_lock_days.is_some() { &locked } else { &[] }, b"")?;
        if let Some(days) = options.object_lock_days {
            let rule = format!(
                "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
                 <Mode>COMPLIANCE</Mode><Days>{days}</Days></DefaultRetention></Rule></ObjectLockConfiguration>"
            );
            s3.send("PUT", &format!("{BUCKET}?object-lock"), &[], rule.as_bytes())?;
        }
        Ok(s3)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The same as a URL.
    pub fn endpoint(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.address())
    }

    /// An access key that it takes.
    pub fn credentials(&self) -> Credentials {
        Credentials { access_key_id: "backstay".into(), secret_access_key: "not so secret".into() }
    }

    /// The end of its log, where every request has a line.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.server.scratch().join("log"))?)
    }

    /// One plain request; answers the body of a successful one. Not for TLS.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
        Ok(self.send(method, path, &[], body)?.body)
    }

    /// One plain request with more headers; answers a successful one. Not for TLS.
    pub fn send(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Result<Answer> {
        let headers: Vec<&str> = headers.iter().copied().chain([AUTHORIZATION]).collect();
        self.server.request(method, path, &headers, body)?.ok(&format!("{method} {path}"))
    }
}

/// A Python that has the server.
fn python() -> Result<&'static str> {
    ["python3", "python", "/usr/bin/python3"]
        .into_iter()
        .find(|python| {
            let found = Command::new(python)
                .args(["-c", "import importlib.util as u, sys; sys.exit(u.find_spec('moto.server') is None)"])
                .stderr(Stdio::null())
                .status();
            found.is_ok_and(|status| status.success())
        })
        .context("no S3 server: `pip install 'moto[server]'`")
}
