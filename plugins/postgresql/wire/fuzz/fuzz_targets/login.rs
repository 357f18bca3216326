//! Whatever a server says while we log in is answered or refused; a login never ends well
//! where a proof was demanded and none was given.
#![no_main]

use backstay_postgresql_wire::auth::{Authenticator, ChannelBinding, NONCE_BYTES, Policy, Step};
use backstay_postgresql_wire::protocol::{Backend, Frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, bool, Vec<Vec<u8>>)| {
    let (encrypted, require, messages) = input;
    let policy = Policy {
        encrypted,
        server_end_point: encrypted.then(|| vec![7; 32]),
        channel_binding: if require { ChannelBinding::Require } else { ChannelBinding::Prefer },
    };
    let mut login = Authenticator::new("user", "secret", [5; NONCE_BYTES], policy);
    for body in messages.iter().take(8) {
        let Ok(Backend::Authentication(message)) = Backend::parse(Frame { tag: b'R', body }) else { continue };
        match login.answer(&message) {
            Ok(Step::Done) => {
                assert!(!require, "no server knows the password");
                return;
            }
            Ok(Step::Send(_) | Step::Wait) => {}
            Err(_) => return,
        }
    }
});
