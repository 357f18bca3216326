//! The host's side of the contract, natively: sockets by tokio, the backup into a folder.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)] // each user takes a part

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backstay_sdk::native::{
    Answer, BackupSink, ConnectionBackend, DirectoryBackend, HostBackend, Incoming, Items, ProcessBackend, install,
};
use backstay_sdk::{
    Credential, Error, ErrorKind, FileAttributes, Level, Node, NodeKind, Patch, Result, Rule, StoredFile, Timestamp,
    TlsVerification, TreeSummary,
};
use futures::StreamExt as _;
use futures::future::LocalBoxFuture;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::rustls;

/// What the test grants.
#[derive(Clone, Default)]
pub struct Grants {
    pub config: String,
    pub endpoint: String,
    pub user: String,
    pub password: String,
}

/// The host that a test installs.
pub struct NativeHost {
    pub grants: Grants,
    pub logged: RefCell<Vec<String>>,
    pub stop: tokio::sync::watch::Sender<bool>,
    nonce: Cell<u64>,
}

impl NativeHost {
    /// Becomes the host of this thread.
    pub fn install(grants: Grants) -> Rc<Self> {
        let host = Rc::new(Self {
            grants,
            logged: RefCell::default(),
            stop: tokio::sync::watch::Sender::new(false),
            nonce: Cell::new(0),
        });
        install(host.clone());
        host
    }
}

/// Runs a future on this thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { tokio::time::timeout(Duration::from_secs(120), future).await.expect("within two minutes") })
}

fn unreachable(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unreachable, error.to_string())
}

impl HostBackend for NativeHost {
    fn config(&self) -> String {
        self.grants.config.clone()
    }

    fn login(&self, name: &str) -> Result<Credential> {
        assert_eq!(name, "primary");
        Ok(Credential { user: self.grants.user.clone(), password: self.grants.password.clone() })
    }

    fn connect(&self, endpoint: &str) -> Answer<Rc<dyn ConnectionBackend>> {
        assert_eq!(endpoint, "primary");
        let address = self.grants.endpoint.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await.map_err(unreachable)?;
            let connection = TestConnection(Rc::new(Mutex::new(None)), Rc::new(Mutex::new(None)));
            let (reader, writer) = tokio::io::split(Box::new(stream) as Box<dyn Both>);
            *connection.0.lock().await = Some(reader);
            *connection.1.lock().await = Some(writer);
            Ok(Rc::new(connection) as Rc<dyn ConnectionBackend>)
        })
    }

    fn open_directory(&self, name: &str) -> Result<Rc<dyn DirectoryBackend>> {
        Err(Error::new(ErrorKind::Denied, format!("no directory {name}")))
    }

    fn run(&self, tool: &str, _: &[String]) -> Answer<Rc<dyn ProcessBackend>> {
        let error = Error::new(ErrorKind::Denied, format!("no tool {tool}"));
        Box::pin(async move { Err(error) })
    }

    fn log(&self, level: Level, message: &str) {
        self.logged.borrow_mut().push(format!("{level:?} {message}"));
    }

    fn progress(&self, _: &str, _: u64, _: Option<u64>) {}

    fn now(&self) -> Timestamp {
        SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64
    }

    fn sleep(&self, microseconds: u64) -> LocalBoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(Duration::from_micros(microseconds)))
    }

    fn random(&self, length: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < length as usize {
            self.nonce.set(self.nonce.get() + 1);
            bytes.extend(Sha256::digest(format!("{}/{}", self.now(), self.nonce.get())));
        }
        bytes.truncate(length as usize);
        bytes
    }

    fn stop_requested(&self) -> LocalBoxFuture<'static, ()> {
        let mut stop = self.stop.subscribe();
        Box::pin(async move {
            let _ = stop.wait_for(|stop| *stop).await;
        })
    }
}

trait Both: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Both for T {}

type Half<T> = Rc<Mutex<Option<T>>>;

struct TestConnection(Half<tokio::io::ReadHalf<Box<dyn Both>>>, Half<tokio::io::WriteHalf<Box<dyn Both>>>);

impl ConnectionBackend for TestConnection {
    fn read(&self, max: u32) -> Answer<Vec<u8>> {
        let reader = self.0.clone();
        Box::pin(async move {
            let mut bytes = vec![0; max as usize];
            let mut reader = reader.lock().await;
            let count = reader.as_mut().unwrap().read(&mut bytes).await.map_err(unreachable)?;
            bytes.truncate(count);
            Ok(bytes)
        })
    }

    fn write(&self, bytes: Vec<u8>) -> Answer<()> {
        let writer = self.1.clone();
        Box::pin(async move {
            let mut writer = writer.lock().await;
            let writer = writer.as_mut().unwrap();
            writer.write_all(&bytes).await.map_err(unreachable)?;
            writer.flush().await.map_err(unreachable)
        })
    }

    fn start_tls(&self, verification: TlsVerification) -> Answer<Option<Vec<u8>>> {
        assert_eq!(verification, TlsVerification::None, "the tests verify nothing");
        let (reader, writer) = (self.0.clone(), self.1.clone());
        Box::pin(async move {
            let (mut reader, mut writer) = (reader.lock().await, writer.lock().await);
            let plain = reader.take().unwrap().unsplit(writer.take().unwrap());
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = rustls::ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Believer(provider)))
                .with_no_client_auth();
            let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
            let tls =
                tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, plain).await.map_err(unreachable)?;
            let certificate = &tls.get_ref().1.peer_certificates().unwrap()[0];
            let hash = Sha256::digest(certificate.as_ref()).to_vec();
            let (read, write) = tokio::io::split(Box::new(tls) as Box<dyn Both>);
            (*reader, *writer) = (Some(read), Some(write));
            Ok(Some(hash))
        })
    }

    fn receive(&self) -> Items<Vec<u8>> {
        let reader = self.0.clone();
        futures::stream::unfold(reader, |reader| async move {
            let mut bytes = vec![0; 64 << 10];
            let read = reader.lock().await.as_mut().unwrap().read(&mut bytes).await;
            match read {
                Ok(0) => None,
                Ok(count) => {
                    bytes.truncate(count);
                    Some((Ok(bytes), reader))
                }
                Err(error) => Some((Err(unreachable(error)), reader)),
            }
        })
        .boxed_local()
    }
}

/// Believes every certificate; the signatures of the handshake are checked.
#[derive(Debug)]
struct Believer(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A backup that lands in a folder as the files it is made of.
pub struct FolderSink {
    pub folder: PathBuf,
    pub identity: RefCell<Option<String>>,
    pub begun: Cell<u64>,
    pub finished: Rc<Cell<u64>>,
}

impl FolderSink {
    pub fn new(folder: PathBuf) -> Rc<Self> {
        Rc::new(Self { folder, identity: RefCell::default(), begun: Cell::default(), finished: Rc::default() })
    }
}

impl BackupSink for FolderSink {
    fn identify(&self, identity: &str) -> Answer<()> {
        *self.identity.borrow_mut() = Some(identity.to_owned());
        Box::pin(async { Ok(()) })
    }

    fn put_file(&self, path: &str, attributes: FileAttributes, mut body: Incoming) -> Answer<StoredFile> {
        assert!(self.identity.borrow().is_some(), "identify comes first");
        assert_eq!(attributes.mode & !0o777, 0, "permission bits only");
        self.begun.set(self.begun.get() + 1);
        let (target, name, finished) = (self.folder.join(path), path.to_owned(), self.finished.clone());
        Box::pin(async move {
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            let mut file = std::fs::File::create_new(&target)
                .map_err(|error| Error::new(ErrorKind::Internal, format!("{name}: {error}")))?;
            let mut stored = StoredFile { bytes: 0, crc32c: 0 };
            while let Some(bytes) = body.next().await {
                std::io::Write::write_all(&mut file, &bytes).unwrap();
                stored.bytes += bytes.len() as u64;
                stored.crc32c = crc32c::crc32c_append(stored.crc32c, &bytes);
            }
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(attributes.mode);
            file.set_permissions(permissions).unwrap();
            finished.set(finished.get() + 1);
            Ok(stored)
        })
    }

    fn put_node(&self, node: Node) -> Answer<()> {
        let target = self.folder.join(&node.path);
        match &node.kind {
            NodeKind::Directory => {
                std::fs::create_dir_all(&target).unwrap();
                let mode = std::os::unix::fs::PermissionsExt::from_mode(node.attributes.mode);
                std::fs::set_permissions(&target, mode).unwrap();
            }
            NodeKind::Symlink(to) => std::os::unix::fs::symlink(to, &target).unwrap(),
            NodeKind::File(_) => panic!("files are put with their bytes"),
        }
        Box::pin(async { Ok(()) })
    }

    fn put_tree(&self, _: &str, _: Rc<dyn DirectoryBackend>, _: &[Rule], _: &str) -> Answer<TreeSummary> {
        panic!("not used by this method")
    }

    fn put_patched(&self, _: &str, _: FileAttributes, _: Patch, _: Incoming) -> Answer<StoredFile> {
        panic!("not used by this method")
    }

    fn parent_notes(&self) -> Option<String> {
        None
    }

    fn parent_read(&self, _: &str) -> Items<Vec<u8>> {
        panic!("not used by this method")
    }
}
