//! Sessions with the granted server: dialling, TLS, logging in, asking.
//!
//! ```text
//!   Session::open ──▶ attempt (plain or TLS) ──▶ log in ──▶ Session
//!                                                            │ query, command
//!                                        Outgoing ◀── sender ┤
//!                                                            └ next ──▶ Backend messages
//! ```

use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;

use backstay_postgresql_wire::auth::{Authenticator, NONCE_BYTES, Policy, Step};
use backstay_postgresql_wire::error_fields::{ServerError, Severity};
use backstay_postgresql_wire::protocol::frontend::{self, Purpose, Startup};
use backstay_postgresql_wire::protocol::{Backend, DataRow, Decoder, Frame, RowDescription};
use backstay_postgresql_wire::replication::ServerVersion;
use backstay_sdk::{ByteStream, Connection, Credential, Error, ErrorKind, Result, TlsVerification, host};
use futures::future::{Either, select};

use crate::limits::{ANSWER_US_MAX, LOGIN_MESSAGES_MAX, NOTICES_MAX, PARAMETERS_MAX, ROWS_MAX};
use crate::refusal::{from_server, from_wire, wal_level_minimal};
use crate::settings::{Settings, SslMode};

/// The name of the granted endpoint and of the granted credential.
pub const PRIMARY: &str = "primary";

/// One result of a query, values as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
}

impl Rows {
    fn with_columns(description: &RowDescription<'_>) -> Self {
        let names = description.columns.iter().map(|column| column.name.to_owned());
        Self { columns: names.collect(), rows: Vec::new() }
    }

    fn push(&mut self, row: DataRow<'_>) -> Result<()> {
        if self.rows.len() == ROWS_MAX {
            return Err(Error::new(ErrorKind::Corrupt, format!("the server's answer has more than {ROWS_MAX} rows")));
        }
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        self.rows.push(row.values.into_iter().map(|value| value.map(text)).collect());
        Ok(())
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The value in `column` of row number `row`; nothing for SQL's null or where there is none.
    pub fn get(&self, row: usize, column: &str) -> Option<&str> {
        let column = self.columns.iter().position(|name| name == column)?;
        self.rows.get(row)?.get(column)?.as_deref()
    }

    /// Like [`Self::get`] in the first row; nothing there is the server's fault.
    pub fn need(&self, column: &str) -> Result<&str> {
        self.get(0, column)
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, format!("the server's answer has no value for {column}")))
    }
}

/// Frames that arrive.
struct Incoming {
    stream: ByteStream,
    decoder: Decoder,
    /// The last chunk; bytes before `at` are used up.
    chunk: Vec<u8>,
    at: usize,
}

impl Incoming {
    /// Waits for the next whole frame; [`Self::current`] shows it.
    async fn advance(&mut self) -> Result<()> {
        loop {
            let mut input = &self.chunk[self.at..];
            let there = self.decoder.advance(&mut input).map_err(from_wire)?;
            self.at = self.chunk.len() - input.len();
            if there {
                return Ok(());
            }
            let Some(bytes) = self.stream.next().await? else {
                return Err(Error::new(ErrorKind::Unreachable, "the server closed the connection")
                    .hint("the server's log tells why"));
            };
            self.chunk.clear();
            self.chunk.extend_from_slice(bytes);
            self.at = 0;
        }
    }

    fn current(&self) -> Frame<'_> {
        self.decoder.current(&self.chunk[..self.at]).unwrap_or(Frame { tag: 0, body: &[] })
    }
}

/// Sends beside a [`Session`] that is being read.
#[derive(Clone)]
pub struct Outgoing(Rc<Connection>);

impl Outgoing {
    /// Sends whole messages.
    pub async fn send(&self, message: Vec<u8>) -> Result<()> {
        self.0.write(message).await
    }
}

/// A session with the server, logged in.
pub struct Session {
    outgoing: Outgoing,
    incoming: Incoming,
    parameters: BTreeMap<String, String>,
    version: ServerVersion,
    encrypted: bool,
    notices: u32,
}

/// How one attempt to connect failed.
struct Failed {
    error: Error,
    /// The other kind of connection (plain or TLS) may fare better.
    other_may_work: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, other_may_work: false }
    }
}

/// What a session is for, and the settings it starts with.
#[derive(Clone, Copy)]
struct Role<'a> {
    purpose: Purpose,
    settings: &'a [(&'a str, &'a str)],
}

/// What an attempt does about TLS.
#[derive(Clone, Copy)]
enum Encryption {
    Plain,
    /// Goes on without where the server has none.
    Wanted,
    Demanded(TlsVerification),
}

impl Session {
    /// Dials the granted endpoint and logs in with the granted credential.
    pub async fn open(settings: &Settings, purpose: Purpose) -> Result<Self> {
        Self::open_as(settings, Role { purpose, settings: &[] }).await
    }

    async fn open_as(settings: &Settings, role: Role<'_>) -> Result<Self> {
        let credential = host::login(PRIMARY)?;
        let (first, second) = match settings.sslmode {
            SslMode::Disable => (Encryption::Plain, None),
            SslMode::Allow => {
                let tls = Encryption::Demanded(TlsVerification::None);
                (Encryption::Plain, Some(tls))
            }
            SslMode::Prefer => (Encryption::Wanted, Some(Encryption::Plain)),
            SslMode::Require => (Encryption::Demanded(TlsVerification::None), None),
            SslMode::VerifyCa => (Encryption::Demanded(TlsVerification::Authority), None),
            SslMode::VerifyFull => (Encryption::Demanded(TlsVerification::Full), None),
        };
        let failed = match Self::attempt(settings, role, &credential, first).await {
            Ok(session) => return Ok(session),
            Err(failed) => failed,
        };
        let Some(second) = second.filter(|_| failed.other_may_work) else {
            return Err(failed.error);
        };
        // The first error is told when both fail: it is that of the kind that was wanted.
        match Self::attempt(settings, role, &credential, second).await {
            Ok(session) => Ok(session),
            Err(_) => Err(failed.error),
        }
    }

    /// Opens a replication session; where that fails for want of senders, tells whether it is
    /// `wal_level` that allows none.
    pub async fn open_replication(settings: &Settings) -> Result<Self> {
        Self::open_replication_with(settings, &[]).await
    }

    /// The same with settings that the server is known to have.
    pub async fn open_replication_with(settings: &Settings, its: &[(&str, &str)]) -> Result<Self> {
        let role = Role { purpose: Purpose::Replication, settings: its };
        let error = match Self::open_as(settings, role).await {
            Err(error) if error.message.contains("max_wal_senders") => error,
            opened => return opened,
        };
        let Ok(mut sql) = Self::open(settings, Purpose::Sql).await else {
            return Err(error);
        };
        let wal_level = sql.rows("SHOW wal_level").await;
        sql.close().await;
        match wal_level {
            Ok(rows) if rows.get(0, "wal_level") == Some("minimal") => Err(wal_level_minimal()),
            _ => Err(error),
        }
    }

    async fn attempt(
        settings: &Settings,
        role: Role<'_>,
        credential: &Credential,
        encryption: Encryption,
    ) -> Result<Self, Failed> {
        let opening = pin!(Self::dial_and_log_in(settings, role, credential, encryption));
        let patience = pin!(host::sleep(settings.connect_timeout_s.saturating_mul(1_000_000)));
        match select(opening, patience).await {
            Either::Left((session, _)) => session,
            Either::Right(((), _)) => Err(Error::new(
                ErrorKind::Unreachable,
                format!("no session came up within {} s", settings.connect_timeout_s),
            )
            .hint("check that the endpoint is a PostgreSQL server, or raise connect-timeout-s")
            .into()),
        }
    }

    async fn dial_and_log_in(
        settings: &Settings,
        role: Role<'_>,
        credential: &Credential,
        encryption: Encryption,
    ) -> Result<Self, Failed> {
        let connection = host::connect(PRIMARY).await?;
        let tls = negotiate_tls(&connection, encryption).await?;
        let policy = Policy {
            encrypted: tls.is_some(),
            server_end_point: tls.flatten(),
            channel_binding: settings.channel_binding,
        };
        let mut session = Self {
            incoming: Incoming { stream: connection.receive(), decoder: Decoder::new(), chunk: Vec::new(), at: 0 },
            outgoing: Outgoing(Rc::new(connection)),
            parameters: BTreeMap::new(),
            version: ServerVersion { major: 0, minor: 0 },
            encrypted: policy.encrypted,
            notices: 0,
        };
        let startup = Startup {
            user: &credential.user,
            database: &settings.dbname,
            application_name: &settings.application_name,
            purpose: role.purpose,
            settings: role.settings,
        };
        let startup = startup.encode().map_err(from_wire)?;
        session.outgoing.send(startup).await?;
        session.log_in(credential, policy).await?;
        session.incoming.decoder.authenticated();
        session.settle().await?;
        let version = session.parameter("server_version").unwrap_or_default();
        session.version = ServerVersion::parse(version).and_then(ServerVersion::supported).map_err(from_wire)?;
        Ok(session)
    }

    async fn log_in(&mut self, credential: &Credential, policy: Policy) -> Result<(), Failed> {
        let mut nonce = [0; NONCE_BYTES];
        let random = host::random(NONCE_BYTES as u32);
        if random.len() != NONCE_BYTES {
            return Err(Error::new(ErrorKind::Internal, "the host gave too little randomness").into());
        }
        nonce.copy_from_slice(&random);
        let (user, password) = (credential.user.as_str(), credential.password.as_str());
        let mut login = Authenticator::new(user, password, nonce, policy);
        for _ in 0..LOGIN_MESSAGES_MAX {
            let step = match self.next().await? {
                Backend::Authentication(message) => login.answer(&message).map_err(from_wire)?,
                Backend::ErrorResponse(error) => {
                    return Err(Failed {
                        error: from_server(&error),
                        // The rule that matched may be for the other kind of connection only.
                        other_may_work: error.code() == Some("28000"),
                    });
                }
                Backend::NegotiateProtocolVersion { .. } => Step::Wait,
                _ => return Err(unexpected("while logging in").into()),
            };
            match step {
                Step::Send(message) => self.outgoing.send(message).await?,
                Step::Wait => {}
                Step::Done => return Ok(()),
            }
        }
        Err(unexpected("while logging in").into())
    }

    /// Reads up to where the server waits for a command.
    async fn settle(&mut self) -> Result<()> {
        loop {
            match self.next().await? {
                Backend::ReadyForQuery(_) => return Ok(()),
                Backend::BackendKeyData { .. } | Backend::NegotiateProtocolVersion { .. } => {}
                Backend::ErrorResponse(error) => return Err(from_server(&error)),
                _ => return Err(unexpected("after the login")),
            }
        }
    }

    /// The next message, an error response included; notices and settings are dealt with here.
    pub async fn next(&mut self) -> Result<Backend<'_>> {
        loop {
            self.incoming.advance().await?;
            match Backend::parse(self.incoming.current()).map_err(from_wire)? {
                Backend::NoticeResponse(notice) => {
                    self.notices += 1;
                    if self.notices <= NOTICES_MAX {
                        host::log(backstay_sdk::Level::Info, &notice.one_line());
                    }
                }
                Backend::ParameterStatus { name, value } => {
                    if self.parameters.len() < PARAMETERS_MAX {
                        self.parameters.insert(name.to_owned(), value.to_owned());
                    }
                }
                // Notifications were never asked for.
                Backend::Other(b'A') => {}
                _ => break,
            }
        }
        Backend::parse(self.incoming.current()).map_err(from_wire)
    }

    /// Reads one result of a command that answers several things in turn.
    pub async fn result(&mut self) -> Result<Rows> {
        let mut open: Option<Rows> = None;
        loop {
            match self.next().await? {
                Backend::RowDescription(description) if open.is_none() => {
                    open = Some(Rows::with_columns(&description));
                }
                Backend::DataRow(row) => match &mut open {
                    Some(rows) => rows.push(row)?,
                    None => return Err(unexpected("before its columns")),
                },
                Backend::CommandComplete(_) => return Ok(open.unwrap_or_default()),
                Backend::ErrorResponse(error) => return Err(from_server(&error)),
                _ => return Err(unexpected("in place of a result")),
            }
        }
    }

    /// Runs one or more statements; the server's refusal is its own value.
    pub async fn try_query(&mut self, sql: &str) -> Result<Result<Vec<Rows>, ServerError>> {
        let answer = pin!(self.ask(sql));
        match select(answer, pin!(host::sleep(ANSWER_US_MAX))).await {
            Either::Left((answer, _)) => answer,
            Either::Right(((), _)) => Err(Error::new(
                ErrorKind::Unreachable,
                format!("the server did not answer within {} s", ANSWER_US_MAX / 1_000_000),
            )),
        }
    }

    async fn ask(&mut self, sql: &str) -> Result<Result<Vec<Rows>, ServerError>> {
        self.command(sql).await?;
        let mut results = Vec::new();
        let mut open: Option<Rows> = None;
        let mut refused = None;
        loop {
            match self.next().await? {
                Backend::RowDescription(description) => {
                    open = Some(Rows::with_columns(&description));
                }
                Backend::DataRow(row) => match &mut open {
                    Some(rows) => rows.push(row)?,
                    None => return Err(unexpected("before its columns")),
                },
                Backend::CommandComplete(_) => results.extend(open.take()),
                Backend::EmptyQueryResponse => {}
                Backend::ErrorResponse(error) => {
                    // Nothing follows the end of a session.
                    if error.severity() != Severity::Error {
                        return Ok(Err(error));
                    }
                    refused = Some(error);
                }
                Backend::ReadyForQuery(_) => break,
                _ => return Err(unexpected("in answer to a query")),
            }
        }
        Ok(match refused {
            Some(error) => Err(error),
            None => Ok(results),
        })
    }

    /// Runs one or more statements.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Rows>> {
        self.try_query(sql).await?.map_err(|error| from_server(&error))
    }

    /// Runs one statement and answers its first result.
    pub async fn rows(&mut self, sql: &str) -> Result<Rows> {
        Ok(self.query(sql).await?.into_iter().next().unwrap_or_default())
    }

    /// Sends a command and reads nothing yet.
    pub async fn command(&mut self, sql: &str) -> Result<()> {
        let message = frontend::query(sql).map_err(from_wire)?;
        self.outgoing.send(message).await
    }

    /// A sender that works while this session is being read.
    pub fn sender(&self) -> Outgoing {
        self.outgoing.clone()
    }

    /// A setting that the server reported by itself.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The server's version.
    pub fn version(&self) -> ServerVersion {
        self.version
    }

    /// Whether TLS is up.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Says goodbye; the server would log a lost connection otherwise.
    pub async fn close(self) {
        // The session is over either way.
        let _ = self.outgoing.send(frontend::terminate()).await;
    }
}

/// Answers nothing for a plain connection, else the channel binding's hash where there is one.
async fn negotiate_tls(connection: &Connection, encryption: Encryption) -> Result<Option<Option<Vec<u8>>>, Failed> {
    let (verification, demanded) = match encryption {
        Encryption::Plain => return Ok(None),
        Encryption::Wanted => (TlsVerification::None, false),
        Encryption::Demanded(verification) => (verification, true),
    };
    connection.write(frontend::ssl_request()).await?;
    // One byte only: whatever follows it unencrypted would otherwise pass for encrypted.
    match connection.read(1).await?.as_slice() {
        b"S" => match connection.start_tls(verification).await {
            Ok(hash) => Ok(Some(hash)),
            Err(error) => Err(Failed { error, other_may_work: !demanded }),
        },
        b"N" if !demanded => Ok(None),
        b"N" => Err(Error::new(ErrorKind::Denied, "the server does not speak TLS, but sslmode demands it")
            .hint("turn on ssl in the server's configuration, or set sslmode to \"prefer\"")
            .into()),
        b"" => Err(Failed {
            error: Error::new(ErrorKind::Unreachable, "the server closed the connection when asked for TLS"),
            other_may_work: !demanded,
        }),
        // An error frame: the server could not start a process, or is no PostgreSQL server. Its
        // text is not shown, since anybody on the way could have written it.
        _ => Err(Failed {
            error: Error::new(ErrorKind::Unreachable, "the server answered a request for TLS with something else")
                .hint("check that the endpoint is a PostgreSQL server"),
            other_may_work: !demanded,
        }),
    }
}

/// The server broke the protocol's order.
pub fn unexpected(place: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the server sent an unexpected message {place}"))
}
