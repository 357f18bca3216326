//! A real Azure Blob server on loopback: Microsoft's Azurite, from npm.

use crate::{
    certificate::Certificate,
    door::{Door, Request, answer},
    install::workspace,
    scratch::{Scratch, free_port, run},
    server::Server,
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
};

/// The account that Azurite knows.
pub const ACCOUNT: &str = "devstoreaccount1";
/// Its key, which is in Azurite's documentation.
pub const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// The container's name.
pub const CONTAINER: &str = "backups";

/// The version of the protocol that our own requests speak.
const VERSION: &str = "2021-08-06";

/// A running server with one container.
pub struct Azure {
    server: Server,
    tls: bool,
}

impl Azure {
    /// Starts it and makes the container.
    pub fn start() -> Result<Self> {
        Self::start_with(None)
    }

    /// Starts it with this certificate and its signer, makes the container, and takes bearer tokens too.
    pub fn start_with(tls: Option<(&Certificate, &Path)>) -> Result<Self> {
        let program = workspace().join("target/azurite/node_modules/azurite/dist/src/blob/main.js");
        ensure!(program.is_file(), "no Azurite in {}: run `tools/install-deps test`", program.display());
        let scratch = Scratch::new()?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let mut command = Command::new("node");
        command.arg(program).args(["--blobHost", "127.0.0.1", "--blobPort", &address.port().to_string()]);
        command.args(["--silent", "--skipApiVersionCheck", "--disableProductStyleUrl", "--disableTelemetry"]);
        command.arg("--location").arg(scratch.path());
        if let Some((certificate, _)) = tls {
            command.arg("--cert").arg(&certificate.certificate).arg("--key").arg(&certificate.key);
            command.args(["--oauth", "basic"]);
        }
        let server = Server::start("the Azure server", command, scratch, address)?;
        let azure = Self { server, tls: tls.is_some() };
        azure.make_container(tls.map(|(_, authority)| authority))?;
        Ok(azure)
    }

    /// Where the account is.
    pub fn endpoint(&self) -> String {
        format!("{}://{}/{ACCOUNT}", if self.tls { "https" } else { "http" }, self.server.address())
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        self.server.log()
    }

    fn make_container(&self, authority: Option<&Path>) -> Result<()> {
        let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let to_sign = format!(
            "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{VERSION}\n\
             /{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container"
        );
        let headers = [
            format!("x-ms-date: {date}"),
            format!("x-ms-version: {VERSION}"),
            format!("Authorization: SharedKey {ACCOUNT}:{}", sign(&to_sign)?),
        ];
        let path = format!("{ACCOUNT}/{CONTAINER}?restype=container");
        if let Some(authority) = authority {
            let script = "import http.client as c, ssl, sys; a = sys.argv; \
                h = c.HTTPSConnection(a[1], context=ssl.create_default_context(cafile=a[2])); \
                h.request('PUT', a[3], headers=dict(l.split(': ', 1) for l in a[4:])); r = h.getresponse(); \
                sys.exit(None if r.status == 201 else r.read().decode())";
            let mut command = Command::new("python3");
            command.args(["-c", script, &self.server.address().to_string()]).arg(authority);
            run(command.arg(format!("/{path}")).args(headers))?;
            return Ok(());
        }
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        self.server.request("PUT", &path, &headers, b"")?.ok("making a container")?;
        Ok(())
    }

    /// A shared access signature for the account's blobs, good for an hour.
    pub fn sas_token(&self) -> Result<String> {
        let expiry = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
        let expiry = expiry.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let (permissions, services, kinds, protocols) = ("rwdlac", "b", "sco", "https,http");
        let to_sign =
            format!("{ACCOUNT}\n{permissions}\n{services}\n{kinds}\n\n{expiry}\n\n{protocols}\n{VERSION}\n\n");
        let signature = sign(&to_sign)?.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        let (expiry, protocols) = (expiry.replace(':', "%3A"), protocols.replace(',', "%2C"));
        Ok(format!(
            "sv={VERSION}&ss={services}&srt={kinds}&sp={permissions}&se={expiry}&spr={protocols}&sig={signature}"
        ))
    }
}

/// Who gives tokens to workloads: a stand-in for Microsoft's login, which nobody can run at home.
///
/// It asks for what the protocol asks for (a form with the client and its assertion) and gives tokens as Azurite wants
/// them, which looks at who they are for and not at their signature.
pub struct Login {
    door: Door,
}

/// The tenant that [`Login`] knows.
pub const TENANT: &str = "the-tenant";
/// The client it knows.
pub const CLIENT: &str = "the-client";
/// The token that a cluster gives its workload.
pub const ASSERTION: &str = "header.assertion.signature";

impl Login {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let now = jiff::Timestamp::now().as_second();
        let claims = serde_json::json!({
            "aud": "https://storage.azure.com", "iss": "https://sts.windows.net/the-tenant/",
            "nbf": now - 60, "iat": now - 60, "exp": now + 3600, "tid": TENANT, "oid": CLIENT,
        });
        let encode = |json: &str| -> Result<String> {
            let encoded = String::from_utf8(openssl(&["base64", "-A"], json.as_bytes())?)?;
            Ok(encoded.trim_end_matches('=').replace('+', "-").replace('/', "_"))
        };
        let token = format!("{}.{}.c2lnbmVk", encode(r#"{"alg":"RS256","typ":"JWT"}"#)?, encode(&claims.to_string())?);
        let body = serde_json::json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600}).to_string();
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let door = Door::open(listener, move |client, request| login(client, &request, &body))?;
        Ok(Self { door })
    }

    /// As `AZURE_AUTHORITY_HOST` wants it.
    pub fn url(&self) -> String {
        format!("http://{}", self.door.address())
    }
}

fn login(client: &TcpStream, request: &Request, token: &str) -> Result<()> {
    let form = String::from_utf8_lossy(&request.body);
    let has = |field: &str| form.split('&').any(|one| one == field);
    let right = request.path() == format!("/{TENANT}/oauth2/v2.0/token")
        && has(&format!("client_id={CLIENT}"))
        && has(&format!("client_assertion={ASSERTION}"))
        && has("grant_type=client_credentials");
    if !right {
        eprintln!("refused: {} {form}", request.path());
        return answer(client, "400 Bad Request", &[], b"{\"error\":\"invalid_request\"}");
    }
    answer(client, "200 OK", &["Content-Type: application/json".to_owned()], token.as_bytes())
}

/// HMAC-SHA-256 with the account's key, in base64; by `openssl`, which the tests have anyway.
fn sign(text: &str) -> Result<String> {
    let key: String = openssl(&["base64", "-d", "-A"], KEY.as_bytes())?.iter().map(|b| format!("{b:02x}")).collect();
    let hash = ["dgst", "-sha256", "-mac", "HMAC", "-macopt", &format!("hexkey:{key}"), "-binary"];
    let signature = openssl(&["base64", "-A"], &openssl(&hash, text.as_bytes())?)?;
    Ok(String::from_utf8(signature)?)
}

fn openssl(arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to start openssl")?;
    child.stdin.take().context("it has an input")?.write_all(input)?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("openssl {arguments:?} ended with {}", output.status);
    }
    Ok(output.stdout)
}
