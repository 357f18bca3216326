//! A replication session over a server's socket, with this crate's own words.
#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use backstay_postgresql_wire::protocol::frontend::{Purpose, Startup, query};
use backstay_postgresql_wire::protocol::{Backend, Decoder};

/// A session whose server trusts us.
pub(crate) struct Session {
    stream: UnixStream,
    decoder: Decoder,
    buffer: Vec<u8>,
}

impl Session {
    pub(crate) fn open(folder: &str) -> Self {
        let stream = UnixStream::connect(format!("{folder}/.s.PGSQL.5432")).unwrap();
        let mut session = Self { stream, decoder: Decoder::new(), buffer: Vec::new() };
        let startup = Startup {
            user: "postgres",
            database: "",
            application_name: "test",
            purpose: Purpose::Replication,
            settings: &[],
        };
        session.send(&startup.encode().unwrap());
        session.decoder.authenticated();
        session.until(|message| matches!(message, Backend::ReadyForQuery(_)));
        session
    }

    pub(crate) fn send(&mut self, message: &[u8]) {
        self.stream.write_all(message).unwrap();
    }

    pub(crate) fn query(&mut self, command: &str) {
        self.send(&query(command).unwrap());
    }

    /// Reads until `enough` says so of a message. Those in between must be no errors, unless it
    /// takes errors.
    pub(crate) fn until(&mut self, mut enough: impl FnMut(&Backend<'_>) -> bool) {
        loop {
            let mut input = self.buffer.as_slice();
            let mut done = false;
            while let Some(frame) = self.decoder.next(&mut input).unwrap() {
                let message = Backend::parse(frame).unwrap();
                if enough(&message) {
                    done = true;
                    break;
                }
                assert!(!matches!(message, Backend::ErrorResponse(_)), "{message:?}");
            }
            self.buffer = input.to_vec();
            if done {
                return;
            }
            let mut piece = vec![0; 1 << 18];
            let length = self.stream.read(&mut piece).unwrap();
            assert!(length > 0, "the server hung up");
            self.buffer.extend_from_slice(&piece[..length]);
        }
    }
}
