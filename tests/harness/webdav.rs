//! A real WebDAV server on loopback: Apache's, from Debian.

use crate::{
    account,
    scratch::{Scratch, free_port, run},
    server::Server,
};
use anyhow::{Result, ensure};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

/// Who may use it.
pub const USER: &str = "backup";
/// Their password.
pub const PASSWORD: &str = "not so secret";

const PROGRAM: &str = "/usr/sbin/apache2";
const MODULES: [&str; 10] = [
    "mpm_event",
    "authn_core",
    "authn_file",
    "authz_core",
    "authz_user",
    "auth_basic",
    "dav",
    "dav_fs",
    "reqtimeout",
    "rewrite",
];

/// Whether a server knows WebDAV's locks (class 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locks {
    /// It does.
    Known,
    /// It does not (class 1).
    Unknown,
}

/// A running server.
pub struct WebDav {
    server: Server,
}

impl WebDav {
    /// Starts it.
    pub fn start(locks: Locks) -> Result<Self> {
        ensure!(Path::new(PROGRAM).exists(), "no {PROGRAM}: install Debian's apache2-bin");
        let scratch = Scratch::new()?;
        let (files, locks_of_files) = (scratch.folder("files")?, scratch.folder("locks")?);
        let hash = run(account::command("openssl").args(["passwd", "-apr1", PASSWORD]))?;
        account::write(&scratch.join("users"), &format!("{USER}:{}", String::from_utf8(hash.stdout)?))?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let modules: String =
            MODULES.map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")).concat();
        // Without a database for them Apache stumbles over every PROPFIND, so it has one and is told not to use it.
        let refuse = match locks {
            Locks::Known => "",
            Locks::Unknown => "RewriteEngine on\nRewriteCond %{REQUEST_METHOD} =LOCK\nRewriteRule ^ - [R=405]\n",
        };
        // One request at a time: Debian's Apache keeps the locks in a Berkeley DB, which two at once damage.
        let config = format!(
            "ServerRoot {root}\nServerName {address}\nListen {address}\nPidFile {root}/pid\nErrorLog {root}/error.log\n\
             {modules}\
             StartServers 1\nServerLimit 1\nThreadsPerChild 1\nMaxRequestWorkers 1\nMinSpareThreads 1\n\
             MaxSpareThreads 1\nKeepAlive Off\n\
             DocumentRoot {files}\nDavLockDB {locks}/db\n{refuse}\
             <Directory />\nRequire all denied\n</Directory>\n\
             <Directory {files}>\nDav on\nAuthType Basic\nAuthName backups\nAuthUserFile {root}/users\n\
             Require valid-user\n</Directory>\n",
            root = scratch.path().display(),
            files = files.display(),
            locks = locks_of_files.display(),
        );
        account::write(&scratch.join("apache.conf"), &config)?;
        let mut command: Command = account::command(PROGRAM);
        command.arg("-f").arg(scratch.join("apache.conf")).arg("-DFOREGROUND");
        Ok(Self { server: Server::start("the WebDAV server", command, scratch, address)? })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// The folder it serves.
    pub fn folder(&self) -> PathBuf {
        self.server.scratch().join("files")
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        crate::scratch::tail(&self.server.scratch().join("error.log"), crate::limits::LOG_LINES)
    }
}
