//! Logging in: trust, cleartext under TLS, md5, SCRAM-SHA-256 and SCRAM-SHA-256-PLUS.
//!
//! ```text
//!   Authentication (server) ──▶ Authenticator::answer ──▶ Step::Send(bytes) | Step::Wait | Step::Done
//! ```
//!
//! What is refused, since the server may not be who it claims to be:
//! - a cleartext password without TLS;
//! - a SCRAM server that skips its own proof, or proves wrongly;
//! - anything but SCRAM-SHA-256-PLUS when channel binding is required.

mod md5;
mod scram;

pub use scram::{NONCE_BYTES, SCRAM_SHA_256, SCRAM_SHA_256_PLUS};

use scram::{Binding, ServerFinal};

use crate::protocol::{Authentication, frontend};
use crate::{Error, ErrorKind, Result};

/// Whether the login is tied to the TLS session under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where the server offers it.
    #[default]
    Prefer,
    /// Or the login is refused.
    Require,
}

/// What is known about the connection, and what the operator demands of it.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Whether TLS is up.
    pub encrypted: bool,
    /// The hash for `tls-server-end-point` (RFC 5929), where the certificate's signature has one.
    pub server_end_point: Option<Vec<u8>>,
    /// What the operator demands.
    pub channel_binding: ChannelBinding,
}

/// What to do after a message of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send these bytes, then read on.
    Send(Vec<u8>),
    /// Read on.
    Wait,
    /// We are in, and the server proved itself as far as the method allows.
    Done,
}

/// One login. Fed with every `Authentication` message in order.
pub struct Authenticator {
    user: String,
    password: String,
    nonce: [u8; NONCE_BYTES],
    policy: Policy,
    state: State,
}

enum State {
    /// Nothing was asked yet.
    Begun,
    /// A password was sent, and only an answer may follow.
    Answered,
    /// The first SCRAM message was sent.
    ScramFirst(scram::ClientFirst),
    /// The SCRAM proof was sent.
    ScramProof(ServerFinal),
    /// The server proved that it knows the password.
    Proven { bound: bool },
    /// Over, well or badly.
    Over,
}

impl Authenticator {
    /// A login that has not begun. `nonce` must be fresh and unpredictable.
    pub fn new(user: impl Into<String>, password: impl Into<String>, nonce: [u8; NONCE_BYTES], policy: Policy) -> Self {
        Self { user: user.into(), password: password.into(), nonce, policy, state: State::Begun }
    }

    /// The answer to one message of the server. After an error the login is over.
    pub fn answer(&mut self, message: &Authentication<'_>) -> Result<Step> {
        let state = std::mem::replace(&mut self.state, State::Over);
        let (state, step) = match (state, message) {
            (State::Begun, Authentication::CleartextPassword) => self.cleartext()?,
            (State::Begun, Authentication::Md5Password { salt }) => self.md5(*salt)?,
            (State::Begun, Authentication::Sasl { mechanisms }) => self.sasl(mechanisms)?,
            (State::Begun, Authentication::Unsupported { code }) => return Err(unsupported(*code)),
            (State::ScramFirst(first), Authentication::SaslContinue(challenge)) => {
                let (proof, server) = first.answer(&self.password, challenge)?;
                let message = frontend::sasl_response(&proof)?;
                (State::ScramProof(server), Step::Send(message))
            }
            (State::ScramProof(server), Authentication::SaslFinal(last)) => {
                let bound = server.verify(last)?;
                (State::Proven { bound }, Step::Wait)
            }
            (State::Proven { bound }, Authentication::Ok) => {
                self.demand_binding(bound)?;
                (State::Over, Step::Done)
            }
            (State::Begun | State::Answered, Authentication::Ok) => {
                self.demand_binding(false)?;
                (State::Over, Step::Done)
            }
            (State::ScramFirst(_) | State::ScramProof(_), Authentication::Ok) => {
                return Err(Error::new(ErrorKind::Denied, "the server skipped its part of the SCRAM exchange")
                    .with_hint("somebody may sit between this host and the server; use sslmode verify-full"));
            }
            _ => {
                return Err(Error::malformed("the server sent an authentication message out of order"));
            }
        };
        self.state = state;
        Ok(step)
    }

    fn need_password(&self) -> Result<()> {
        if self.password.is_empty() {
            return Err(Error::new(
                ErrorKind::Denied,
                format_args!("the server asks for a password for user \"{}\" and none is configured", self.user),
            )
            .with_hint("set the credential's password-file"));
        }
        Ok(())
    }

    fn demand_binding(&self, bound: bool) -> Result<()> {
        if self.policy.channel_binding == ChannelBinding::Require && !bound {
            return Err(Error::new(
                ErrorKind::Denied,
                "channel binding is required, but the server let us in without it",
            )
            .with_hint("give the role a SCRAM password over TLS, or set channel-binding to \"prefer\""));
        }
        Ok(())
    }

    fn cleartext(&self) -> Result<(State, Step)> {
        self.demand_binding(false)?;
        self.need_password()?;
        if !self.policy.encrypted {
            return Err(Error::new(
                ErrorKind::Denied,
                "the server asks for a cleartext password over a connection without TLS",
            )
            .with_hint("use scram-sha-256 in the server's pg_hba.conf, or set sslmode to \"require\" or stricter"));
        }
        let message = frontend::password(self.password.as_bytes())?;
        Ok((State::Answered, Step::Send(message)))
    }

    fn md5(&self, salt: [u8; 4]) -> Result<(State, Step)> {
        self.demand_binding(false)?;
        self.need_password()?;
        let hashed = md5::hashed(&self.user, &self.password, salt);
        let message = frontend::password(hashed.as_bytes())?;
        Ok((State::Answered, Step::Send(message)))
    }

    fn sasl(&self, mechanisms: &[&str]) -> Result<(State, Step)> {
        self.need_password()?;
        let binding = self.choose_binding(mechanisms)?;
        let first = scram::ClientFirst::new("", self.nonce, binding);
        let message = frontend::sasl_initial_response(first.mechanism(), first.message().as_bytes())?;
        Ok((State::ScramFirst(first), Step::Send(message)))
    }

    /// RFC 5802, section 6: what is claimed about channel binding is signed, so that stripping
    /// the PLUS mechanism from the server's list is noticed.
    fn choose_binding(&self, mechanisms: &[&str]) -> Result<Binding> {
        let plus = mechanisms.contains(&SCRAM_SHA_256_PLUS);
        let plain = mechanisms.contains(&SCRAM_SHA_256);
        let required = self.policy.channel_binding == ChannelBinding::Require;
        let hash = match self.policy.channel_binding {
            ChannelBinding::Disable => None,
            ChannelBinding::Prefer | ChannelBinding::Require => {
                self.policy.server_end_point.as_ref().filter(|_| self.policy.encrypted)
            }
        };
        match hash {
            Some(hash) if plus => Ok(Binding::ServerEndPoint(hash.clone())),
            _ if required => Err(Error::new(
                ErrorKind::Denied,
                "channel binding is required, but it is not possible here",
            )
            .with_hint(if !self.policy.encrypted {
                "set sslmode to \"require\" or stricter"
            } else if hash.is_none() {
                "the server's certificate has a signature without a channel binding; use an RSA or ECDSA certificate"
            } else {
                "the server offers no SCRAM-SHA-256-PLUS"
            })),
            _ if !plain => Err(Error::new(
                ErrorKind::Unsupported,
                format_args!(
                    "the server offers no SASL mechanism that is supported here: {}",
                    mechanisms.join(", ").replace(char::is_control, " ")
                ),
            )
            .with_hint("use scram-sha-256 in the server's pg_hba.conf")),
            Some(_) => Ok(Binding::NotOffered),
            None => Ok(Binding::Unsupported),
        }
    }
}

fn unsupported(code: u32) -> Error {
    let name = match code {
        2 => "Kerberos V5",
        6 => "SCM",
        7 | 8 => "GSSAPI",
        9 => "SSPI",
        _ => "unknown",
    };
    Error::new(
        ErrorKind::Unsupported,
        format_args!("the server asks for {name} authentication (code {code}), which is not supported"),
    )
    .with_hint("add a line with scram-sha-256 for this role to the server's pg_hba.conf")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const NONCE: [u8; NONCE_BYTES] = [7; NONCE_BYTES];

    fn login(policy: Policy) -> Authenticator {
        Authenticator::new("backup", "secret", NONCE, policy)
    }

    fn tls(channel_binding: ChannelBinding, hash: Option<&[u8]>) -> Policy {
        Policy { encrypted: true, server_end_point: hash.map(<[u8]>::to_vec), channel_binding }
    }

    fn sasl<'a>(mechanisms: &[&'a str]) -> Authentication<'a> {
        Authentication::Sasl { mechanisms: mechanisms.to_vec() }
    }

    /// The mechanism and gs2 header that go out.
    fn sent(policy: Policy, mechanisms: &[&str]) -> String {
        let Step::Send(bytes) = login(policy).answer(&sasl(mechanisms)).unwrap() else {
            panic!("nothing sent");
        };
        String::from_utf8_lossy(&bytes[5..]).into_owned()
    }

    #[test]
    fn trust_needs_no_password() {
        let mut login = Authenticator::new("backup", "", NONCE, Policy::default());
        assert_eq!(login.answer(&Authentication::Ok).unwrap(), Step::Done);
    }

    #[test]
    fn a_cleartext_password_goes_out_under_tls_only() {
        let error = login(Policy::default()).answer(&Authentication::CleartextPassword).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.hint().unwrap().contains("sslmode"));
        let step = login(tls(ChannelBinding::Prefer, None)).answer(&Authentication::CleartextPassword).unwrap();
        assert_eq!(step, Step::Send(b"p\0\0\0\x0bsecret\0".to_vec()));
    }

    #[test]
    fn a_missing_password_is_said_before_anything_is_sent() {
        let mut login = Authenticator::new("backup", "", NONCE, Policy::default());
        let error = login.answer(&sasl(&[SCRAM_SHA_256])).unwrap_err();
        assert!(error.hint().unwrap().contains("password-file"));
    }

    #[test]
    fn the_header_tells_what_was_possible() {
        let both = [SCRAM_SHA_256_PLUS, SCRAM_SHA_256];
        let hash = Some(b"hash".as_slice());
        let plus = sent(tls(ChannelBinding::Prefer, hash), &both);
        assert!(plus.starts_with("SCRAM-SHA-256-PLUS\0"));
        assert!(plus.contains("p=tls-server-end-point,,n=,r="));
        // The server did not offer it although we could: signed, so that a downgrade shows.
        assert!(sent(tls(ChannelBinding::Prefer, hash), &both[1..]).contains("y,,n=,r="));
        // We could not, or did not want to.
        assert!(sent(tls(ChannelBinding::Prefer, None), &both).contains("n,,n=,r="));
        assert!(sent(tls(ChannelBinding::Disable, hash), &both).contains("n,,n=,r="));
        assert!(sent(Policy::default(), &both[1..]).contains("n,,n=,r="));
    }

    #[test]
    fn required_binding_refuses_every_way_round_it() {
        let policy = || tls(ChannelBinding::Require, Some(b"hash"));
        for message in [
            Authentication::Ok,
            Authentication::CleartextPassword,
            Authentication::Md5Password { salt: [0; 4] },
            sasl(&[SCRAM_SHA_256]),
        ] {
            let error = login(policy()).answer(&message).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{message:?}");
        }
        let no_hash = tls(ChannelBinding::Require, None);
        assert!(login(no_hash).answer(&sasl(&[SCRAM_SHA_256_PLUS])).is_err());
    }

    #[test]
    fn a_server_that_skips_its_proof_is_refused() {
        let mut login = login(Policy::default());
        login.answer(&sasl(&[SCRAM_SHA_256])).unwrap();
        let error = login.answer(&Authentication::Ok).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        // And it stays refused.
        assert!(login.answer(&Authentication::Ok).is_err());
    }

    #[test]
    fn messages_out_of_order_are_refused() {
        let mut md5 = login(Policy::default());
        md5.answer(&Authentication::Md5Password { salt: [1; 4] }).unwrap();
        assert!(md5.answer(&Authentication::CleartextPassword).is_err());
        assert!(login(Policy::default()).answer(&Authentication::SaslFinal(b"v=x")).is_err());
    }

    #[test]
    fn unknown_methods_are_named() {
        let error = login(Policy::default()).answer(&Authentication::Unsupported { code: 7 }).unwrap_err();
        assert!(error.to_string().contains("GSSAPI"));
    }
}
