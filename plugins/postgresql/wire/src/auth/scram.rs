//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the client's side.
//!
//! Follows RFC 5802 and RFC 7677, and PostgreSQL's habits: the user name in the exchange is
//! left empty (the start-up message named it), and a password that SASLprep refuses is used
//! as it is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::limits::{SCRAM_ITERATIONS_MAX, SCRAM_ITERATIONS_MIN, SCRAM_SALT_BYTES_MAX};
use crate::{Error, ErrorKind, Result};

/// The mechanism without channel binding.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
/// The mechanism with it.
pub const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Random bytes of the client's nonce: 144 bits, as libpq has, a whole number of base64 digits.
pub const NONCE_BYTES: usize = 18;

type Key = [u8; 32];

/// What the exchange says about channel binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Binding {
    /// `n`: the client cannot, or will not.
    Unsupported,
    /// `y`: the client could, but the server did not offer it.
    NotOffered,
    /// `p`: bound to this hash of the server's certificate.
    ServerEndPoint(Vec<u8>),
}

impl Binding {
    fn header(&self) -> &'static str {
        match self {
            Self::Unsupported => "n,,",
            Self::NotOffered => "y,,",
            Self::ServerEndPoint(_) => "p=tls-server-end-point,,",
        }
    }

    /// The header and the binding's data, as the proof repeats them.
    fn encoded(&self) -> String {
        let mut input = self.header().as_bytes().to_vec();
        if let Self::ServerEndPoint(hash) = self {
            input.extend_from_slice(hash);
        }
        BASE64.encode(input)
    }
}

/// The first message, sent; waits for the server's challenge.
pub(super) struct ClientFirst {
    binding: Binding,
    nonce: String,
    /// The message without the gs2 header.
    bare: String,
}

impl ClientFirst {
    pub(super) fn new(user: &str, nonce: [u8; NONCE_BYTES], binding: Binding) -> Self {
        Self::with_nonce(user, BASE64.encode(nonce), binding)
    }

    fn with_nonce(user: &str, nonce: String, binding: Binding) -> Self {
        let bare = format!("n={user},r={nonce}");
        Self { binding, nonce, bare }
    }

    pub(super) fn mechanism(&self) -> &'static str {
        match self.binding {
            Binding::ServerEndPoint(_) => SCRAM_SHA_256_PLUS,
            Binding::Unsupported | Binding::NotOffered => SCRAM_SHA_256,
        }
    }

    pub(super) fn message(&self) -> String {
        format!("{}{}", self.binding.header(), self.bare)
    }

    /// The proof that answers the server's challenge, and what checks the server's own.
    pub(super) fn answer(self, password: &str, challenge: &[u8]) -> Result<(Vec<u8>, ServerFinal)> {
        let challenge = std::str::from_utf8(challenge)
            .map_err(|_| Error::malformed("the server's SCRAM challenge is not UTF-8"))?;
        let Challenge { nonce, salt, iterations } = Challenge::parse(challenge, &self.nonce)?;
        let salted = salted_password(&prepared(password), &salt, iterations);
        let client_key = hmac(&salted, b"Client Key");
        let stored_key: Key = Sha256::digest(client_key).into();
        let without_proof = format!("c={},r={nonce}", self.binding.encoded());
        let signed = format!("{},{challenge},{without_proof}", self.bare);
        let mut proof = hmac(&stored_key, signed.as_bytes());
        for (proof, key) in proof.iter_mut().zip(client_key) {
            *proof ^= key;
        }
        let message = format!("{without_proof},p={}", BASE64.encode(proof));
        let server = ServerFinal {
            server_key: hmac(&salted, b"Server Key"),
            signed,
            bound: matches!(self.binding, Binding::ServerEndPoint(_)),
        };
        Ok((message.into_bytes(), server))
    }
}

/// The server's first message, taken apart.
struct Challenge<'a> {
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: u32,
}

impl<'a> Challenge<'a> {
    fn parse(text: &'a str, our_nonce: &str) -> Result<Self> {
        let malformed = |what: &str| Error::malformed(format_args!("the server's SCRAM challenge has {what}"));
        let mut parts = text.split(',');
        let mut attribute =
            |name: &str| parts.next().and_then(|part| part.strip_prefix(name)).and_then(|part| part.strip_prefix('='));
        // An `m=` here would be an extension that must be understood; there is none.
        let nonce = attribute("r").ok_or_else(|| malformed("no nonce"))?;
        let salt = attribute("s").ok_or_else(|| malformed("no salt"))?;
        let iterations = attribute("i").ok_or_else(|| malformed("no iteration count"))?;
        if nonce.len() <= our_nonce.len() || !nonce.starts_with(our_nonce) {
            return Err(Error::new(ErrorKind::Denied, "the server's SCRAM challenge answers another login's nonce"));
        }
        let salt = BASE64
            .decode(salt)
            .ok()
            .filter(|salt| !salt.is_empty() && salt.len() <= SCRAM_SALT_BYTES_MAX)
            .ok_or_else(|| malformed("an unusable salt"))?;
        let iterations: u32 = iterations.parse().map_err(|_| malformed("an unreadable iteration count"))?;
        if !(SCRAM_ITERATIONS_MIN..=SCRAM_ITERATIONS_MAX).contains(&iterations) {
            return Err(Error::new(
                ErrorKind::Denied,
                format_args!(
                    "the server asks for {iterations} SCRAM iterations; \
                     {SCRAM_ITERATIONS_MIN} to {SCRAM_ITERATIONS_MAX} are accepted"
                ),
            )
            .with_hint("lower the server's scram_iterations and set the role's password again"));
        }
        Ok(Self { nonce, salt, iterations })
    }
}

/// Checks the server's last message.
pub(super) struct ServerFinal {
    server_key: Key,
    signed: String,
    bound: bool,
}

impl ServerFinal {
    /// Answers whether the exchange was bound to the channel.
    pub(super) fn verify(self, last: &[u8]) -> Result<bool> {
        let denied = |message: String| Error::new(ErrorKind::Denied, message);
        let text =
            std::str::from_utf8(last).map_err(|_| Error::malformed("the server's last SCRAM message is not UTF-8"))?;
        if let Some(error) = text.strip_prefix("e=") {
            let error: String = error.chars().take(200).collect();
            return Err(denied(format!(
                "the server refused the SCRAM proof: {}",
                error.replace(char::is_control, " ")
            )));
        }
        let signature = text
            .strip_prefix("v=")
            .and_then(|rest| rest.split(',').next())
            .and_then(|signature| BASE64.decode(signature).ok())
            .ok_or_else(|| Error::malformed("the server's last SCRAM message has no signature"))?;
        mac(&self.server_key, self.signed.as_bytes()).verify_slice(&signature).map_err(|_| {
            denied("the server could not prove that it knows the password".to_owned())
                .with_hint("somebody may sit between this host and the server; use sslmode verify-full")
        })?;
        Ok(self.bound)
    }
}

/// SASLprep (RFC 4013); as PostgreSQL does, what it refuses is used unchanged.
fn prepared(password: &str) -> std::borrow::Cow<'_, str> {
    match stringprep::saslprep(password) {
        Ok(prepared) if !prepared.is_empty() => prepared,
        _ => password.into(),
    }
}

/// PBKDF2 with one block, RFC 5802's `Hi`.
fn salted_password(password: &str, salt: &[u8], iterations: u32) -> Key {
    let keyed = keyed(password.as_bytes());
    let round = |input: &[&[u8]]| -> Key {
        let mut mac = keyed.clone();
        for part in input {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    };
    let mut block = round(&[salt, &1u32.to_be_bytes()]);
    let mut sum = block;
    for _ in 1..iterations {
        block = round(&[&block]);
        for (sum, byte) in sum.iter_mut().zip(block) {
            *sum ^= byte;
        }
    }
    sum
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    #[allow(clippy::expect_used, reason = "HMAC takes a key of any length")]
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn mac(key: &[u8], message: &[u8]) -> Hmac<Sha256> {
    let mut mac = keyed(key);
    mac.update(message);
    mac
}

fn hmac(key: &[u8], message: &[u8]) -> Key {
    mac(key, message).finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::prelude::*;

    use super::*;

    /// RFC 7677, section 3.
    const CHALLENGE: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                             s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn rfc_7677(binding: Binding) -> ClientFirst {
        ClientFirst::with_nonce("user", "rOprNGfwEbeRWgbNEkqO".to_owned(), binding)
    }

    #[test]
    fn the_vectors_of_rfc_7677_hold() {
        let first = rfc_7677(Binding::Unsupported);
        assert_eq!(first.message(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let (proof, server) = first.answer("pencil", CHALLENGE.as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8(proof).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let last = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert!(!server.verify(last).unwrap());
    }

    #[test]
    fn a_wrong_signature_is_refused() {
        let first = rfc_7677(Binding::Unsupported);
        let (_, server) = first.answer("pencil", CHALLENGE.as_bytes()).unwrap();
        let last = b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(server.verify(last).unwrap_err().kind(), ErrorKind::Denied);
        for last in ["e=invalid-proof", "v=", "v=6rri", "x", ""] {
            let first = rfc_7677(Binding::Unsupported);
            let (_, server) = first.answer("pencil", CHALLENGE.as_bytes()).unwrap();
            assert!(server.verify(last.as_bytes()).is_err(), "{last}");
        }
    }

    #[test]
    fn the_proof_repeats_the_binding() {
        let first = rfc_7677(Binding::ServerEndPoint(b"\x01\x02".to_vec()));
        let (proof, server) = first.answer("pencil", CHALLENGE.as_bytes()).unwrap();
        let proof = String::from_utf8(proof).unwrap();
        let header = proof[2..].split(',').next().unwrap();
        assert_eq!(BASE64.decode(header).unwrap(), b"p=tls-server-end-point,,\x01\x02");
        assert!(server.bound);
    }

    #[test]
    fn iteration_counts_out_of_bounds_are_refused_before_any_work() {
        for iterations in ["0", "2000001", "4294967295", "99999999999", "-1", ""] {
            let challenge = CHALLENGE.replace("4096", iterations);
            let answer = rfc_7677(Binding::Unsupported).answer("pencil", challenge.as_bytes());
            assert!(answer.is_err(), "{iterations}");
        }
    }

    #[test]
    fn a_nonce_that_is_not_ours_is_refused() {
        for nonce in ["rOprNGfwEbeRWgbNEkqO", "other", ""] {
            let challenge = format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
            let answer = rfc_7677(Binding::Unsupported).answer("pencil", challenge.as_bytes());
            assert!(answer.is_err(), "{nonce}");
        }
    }

    #[test]
    fn an_extension_that_must_be_understood_is_refused() {
        let challenge = format!("m=ext,{CHALLENGE}");
        let answer = rfc_7677(Binding::Unsupported).answer("pencil", challenge.as_bytes());
        assert!(answer.is_err());
    }

    #[test]
    fn passwords_are_prepared_as_postgresql_prepares_them() {
        // RFC 4013, section 3: a soft hyphen vanishes, a compatibility form is resolved.
        assert_eq!(prepared("I\u{ad}X"), "IX");
        assert_eq!(prepared("\u{2168}"), "IX");
        // What it prohibits is used as it is.
        assert_eq!(prepared("a\u{7}"), "a\u{7}");
        assert_eq!(prepared("\u{ad}"), "\u{ad}");
    }

    proptest! {
        #[test]
        fn any_challenge_and_any_last_word_are_answers_or_errors(
            challenge in prop::collection::vec(any::<u8>(), 0..100),
            tail in "[ -~]{0,60}",
            last in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let _ = rfc_7677(Binding::Unsupported).answer("pencil", &challenge);
            let near = format!("r=rOprNGfwEbeRWgbNEkqO{tail}");
            let _ = rfc_7677(Binding::Unsupported).answer("pencil", near.as_bytes());
            let (_, server) = rfc_7677(Binding::Unsupported)
                .answer("pencil", CHALLENGE.as_bytes()).unwrap();
            prop_assert!(server.verify(&last).is_err());
        }
    }
}
