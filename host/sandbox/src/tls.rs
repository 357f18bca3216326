//! TLS on a granted endpoint's terms.

use crate::{
    connection::Wire,
    error::{EngineError, EngineErrorKind},
    grants::EndpointGrant,
};
use aws_lc_rs::digest;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs as provider},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use std::{io, path::Path, sync::Arc};
use tokio_rustls::TlsConnector;

/// How much of the server's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verification {
    None,
    Authority,
    Full,
}

/// Does the handshake. Answers the new wire and the certificate's hash for
/// `tls-server-end-point` channel binding (RFC 5929, section 4.1).
pub(crate) async fn upgrade(
    wire: Box<dyn Wire>,
    grant: &EndpointGrant,
    verification: Verification,
) -> Result<(Box<dyn Wire>, Option<Vec<u8>>), EngineError> {
    let config = client_config(grant, verification)?;
    let name = server_name(grant, verification)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, wire).await.map_err(|error| {
        if let Some(refused) = refused(&error) {
            return refused;
        }
        let unverified = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .is_some_and(|inner| matches!(inner, rustls::Error::InvalidCertificate(_)));
        let failed = |kind| EngineError::new(kind, format!("failed to do TLS with {}: {error}", grant.address));
        if unverified {
            failed(EngineErrorKind::Denied)
                .hint("give the authority that signed the server's certificate as `ca-file` of the endpoint, and its name as `server-name`")
        } else {
            failed(EngineErrorKind::Unreachable)
        }
    })?;
    let binding = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).and_then(|c| end_point(c));
    Ok((Box::new(stream), binding))
}

/// A server that does not take our certificate, or wants one: as of TLS 1.3 it says so after the handshake, in place
/// of its first answer.
pub(crate) fn refused(error: &io::Error) -> Option<EngineError> {
    let alert = match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => *alert,
        _ => return None,
    };
    use AlertDescription as Alert;
    let about_us = matches!(
        alert,
        Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired
    );
    about_us.then(|| {
        EngineError::new(EngineErrorKind::Denied, format!("the server refused our certificate: {alert:?}"))
            .hint("give a certificate that the server's authority signed as `client-cert-file` and `client-key-file` of the endpoint")
    })
}

fn server_name(grant: &EndpointGrant, verification: Verification) -> Result<ServerName<'static>, EngineError> {
    let host = match &grant.server_name {
        Some(name) => name.clone(),
        None => host_of(&grant.address).to_owned(),
    };
    match ServerName::try_from(host.clone()) {
        Ok(name) => Ok(name),
        // A socket's path is no name; unless the name is checked, any will do.
        Err(_) if verification != Verification::Full => ServerName::try_from("localhost").map_err(|_| no_name(&host)),
        Err(_) => Err(no_name(&host)),
    }
}

fn no_name(host: &str) -> EngineError {
    EngineError::new(EngineErrorKind::BadConfig, format!("`{host}` is not a name a certificate can carry"))
        .hint("set `server-name` of the endpoint")
}

fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _port)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

fn client_config(grant: &EndpointGrant, verification: Verification) -> Result<ClientConfig, EngineError> {
    let provider = Arc::new(provider::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(format!("failed to set up TLS: {error}")))?;
    let authorities = match verification {
        Verification::None => None,
        Verification::Authority | Verification::Full => {
            let roots = Arc::new(roots(grant)?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
                .build()
                .map_err(|error| bad(format!("failed to use the trusted authorities: {error}")))?;
            Some(verifier)
        }
    };
    let verifier = Verifier { provider, authorities, name_counts: verification == Verification::Full };
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let (Some(cert), Some(key)) = (&grant.client_cert_file, &grant.client_key_file) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(cert)?;
    let key =
        PrivateKeyDer::from_pem_file(key).map_err(|error| bad(format!("failed to read {}: {error}", key.display())))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| bad(format!("failed to use the client certificate: {error}")))
}

fn roots(grant: &EndpointGrant) -> Result<RootCertStore, EngineError> {
    let mut roots = RootCertStore::empty();
    match &grant.ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| bad(format!("failed to use {}: {error}", path.display())))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(bad("there is no trusted authority to check the server's certificate with".to_owned())
            .hint("set `ca-file` of the endpoint"));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, EngineError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| bad(format!("failed to read {}: {error}", path.display())))
}

fn bad(message: String) -> EngineError {
    EngineError::new(EngineErrorKind::BadConfig, message)
}

/// The hash that `tls-server-end-point` binds to: of the certificate, by the hash of its
/// signature, but SHA-256 where that is MD5 or SHA-1. Nothing where the signature has no
/// single hash (Ed25519).
fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let algorithm = match parsed.signature_algorithm.algorithm.to_id_string().as_str() {
        // md5, sha1 and sha256, with RSA; sha1 and sha256 with ECDSA
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => &digest::SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

/// PostgreSQL's three grades of trust: any certificate, a known authority, and the name too.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    authorities: Option<Arc<WebPkiServerVerifier>>,
    name_counts: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(authorities) = &self.authorities else {
            return Ok(ServerCertVerified::assertion());
        };
        match authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The chain is checked before the name, so only the name is wrong here.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name_counts => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_about_our_certificate_is_a_refusal_and_others_are_not() {
        let alert = |alert| io::Error::other(rustls::Error::AlertReceived(alert));
        let refused_by = refused(&alert(AlertDescription::UnknownCA)).unwrap();
        assert_eq!(refused_by.kind, EngineErrorKind::Denied);
        assert!(refused_by.message.contains("certificate"));
        assert!(refused(&alert(AlertDescription::InternalError)).is_none());
        assert!(refused(&io::ErrorKind::ConnectionReset.into()).is_none());
    }

    #[test]
    fn the_host_of_an_address_is_what_a_certificate_names() {
        assert_eq!(host_of("db.example.com:5432"), "db.example.com");
        assert_eq!(host_of("[::1]:5432"), "::1");
        assert_eq!(host_of("10.0.0.1:5432"), "10.0.0.1");
    }
}
