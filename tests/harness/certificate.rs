//! Certificates for a day, made by `openssl`.

use crate::{account, scratch::Scratch, scratch::run};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Who signs certificates.
pub struct Authority {
    scratch: Scratch,
}

/// A certificate and its key, PEM files of the ordinary user.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The hash in a certificate's signature, which decides that of SCRAM's channel binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
}

impl Authority {
    /// A new one.
    pub fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        // Nothing of the machine's own configuration.
        account::write(&scratch.join("openssl.cnf"), "[req]\ndistinguished_name = name\n[name]\n")?;
        let new = Self { scratch };
        let own = new.named("authority");
        let extensions = ["basicConstraints = critical, CA:TRUE", "keyUsage = critical, keyCertSign"];
        new.make(&own, "Authority", Hash::Sha256, &extensions, &[])?;
        Ok(new)
    }

    /// The authority's own certificate.
    pub fn file(&self) -> PathBuf {
        self.named("authority").certificate
    }

    /// Signs a certificate for `subject` with these other names, such as `DNS:db.example.org` or `IP:127.0.0.1`.
    pub fn issue(&self, subject: &str, names: &str, hash: Hash) -> Result<Certificate> {
        let issued = self.named(&format!("{subject}-{hash:?}"));
        let authority = self.named("authority");
        let names = format!("subjectAltName = {names}");
        let signer = [Path::new("-CA"), &authority.certificate, Path::new("-CAkey"), &authority.key];
        self.make(&issued, subject, hash, &["basicConstraints = critical, CA:FALSE", &names], &signer)?;
        Ok(issued)
    }

    fn named(&self, name: &str) -> Certificate {
        let path = |extension: &str| self.scratch.join(format!("{name}.{extension}"));
        Certificate { certificate: path("crt"), key: path("key") }
    }

    fn make(
        &self,
        files: &Certificate,
        subject: &str,
        hash: Hash,
        extensions: &[&str],
        signer: &[&Path],
    ) -> Result<()> {
        let mut command = account::command("openssl");
        command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-config"]);
        command.arg(self.scratch.join("openssl.cnf"));
        command.arg(match hash {
            Hash::Sha256 => "-sha256",
            Hash::Sha384 => "-sha384",
        });
        command.arg("-subj").arg(format!("/CN={subject}"));
        for extension in extensions {
            command.arg("-addext").arg(extension);
        }
        command.args(signer).arg("-keyout").arg(&files.key).arg("-out").arg(&files.certificate);
        // PostgreSQL insists on a key that nobody else can read; openssl makes it so.
        run(&mut command).map(drop)
    }
}
