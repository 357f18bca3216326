//! Cuts the server's byte stream into frames.
//!
//! A frame is a tag byte, a 32-bit length in network order that counts itself and the body
//! but not the tag, and the body. A frame that lies whole in the caller's buffer is borrowed
//! from it; only one that straddles two buffers is joined in the decoder's own.

use crate::limits::{COPY_DATA_BYTES_MAX, ORDINARY_BODY_BYTES_MAX, STARTUP_BODY_BYTES_MAX};
use crate::{Error, Result};

/// Tag and length.
const HEADER_BYTES: usize = 5;

/// A joined frame's buffer above this is given back once the frame was used.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// One message as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The message's kind.
    pub tag: u8,
    /// What follows the length.
    pub body: &'a [u8],
}

/// Cuts a byte stream into [`Frame`]s. Starts with the small bounds for a server that has not
/// accepted us yet; see [`Self::authenticated`].
///
/// ```
/// use backstay_postgresql_wire::protocol::{Backend, Decoder};
///
/// let mut decoder = Decoder::new();
/// let mut input: &[u8] = b"Z\0\0\0\x05IZ\0";
/// let frame = decoder.next(&mut input)?.expect("a whole frame");
/// assert!(matches!(Backend::parse(frame)?, Backend::ReadyForQuery(_)));
/// assert!(decoder.next(&mut input)?.is_none());
/// let mut more: &[u8] = b"\0\0\x05I";
/// assert_eq!(decoder.next(&mut more)?.expect("joined").tag, b'Z');
/// # Ok::<(), backstay_postgresql_wire::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    /// The start of a frame whose end has not come yet, header included.
    partial: Vec<u8>,
    current: Current,
    authenticated: bool,
    /// Once the stream made no sense, it never does again.
    failed: Option<Error>,
}

/// Where the frame is that was moved to last.
#[derive(Debug, Default)]
enum Current {
    #[default]
    None,
    /// The last `frame_bytes` of the input taken.
    Borrowed { frame_bytes: usize },
    /// All of `partial`, which is emptied by the next move.
    Joined,
}

impl Decoder {
    /// A decoder at the start of a session.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From here on the bounds for a server that accepted us hold.
    pub fn authenticated(&mut self) {
        self.authenticated = true;
    }

    /// Whether a frame has begun whose end has not come: an end of the stream here is a cut.
    #[must_use]
    pub fn is_inside_frame(&self) -> bool {
        !matches!(self.current, Current::Joined) && !self.partial.is_empty()
    }

    /// The next whole frame; nothing when `input` is used up. Advances `input` past what was taken.
    ///
    /// After an error every further call answers the same error.
    pub fn next<'i: 'f, 'f>(&'f mut self, input: &mut &'i [u8]) -> Result<Option<Frame<'f>>> {
        let before = *input;
        if !self.advance(input)? {
            return Ok(None);
        }
        let taken = before.len() - input.len();
        Ok(self.current(&before[..taken]))
    }

    /// Moves on to the next whole frame, and answers whether there is one; [`Self::current`] shows it.
    ///
    /// For owners of a buffer who cannot keep a borrow of it across calls.
    pub fn advance(&mut self, input: &mut &[u8]) -> Result<bool> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if matches!(self.current, Current::Joined) {
            self.partial.clear();
            self.partial.shrink_to(KEPT_BYTES_MAX);
        }
        self.current = Current::None;
        if self.partial.is_empty()
            && let Some(header) = input.first_chunk::<HEADER_BYTES>()
        {
            let frame_bytes = HEADER_BYTES + self.body_length(*header)?;
            if let Some((_, rest)) = input.split_at_checked(frame_bytes) {
                *input = rest;
                self.current = Current::Borrowed { frame_bytes };
                return Ok(true);
            }
        }
        self.take(input, HEADER_BYTES);
        let Some(header) = self.partial.first_chunk::<HEADER_BYTES>().copied() else {
            return Ok(false);
        };
        let frame_bytes = HEADER_BYTES + self.body_length(header)?;
        self.take(input, frame_bytes);
        if self.partial.len() < frame_bytes {
            return Ok(false);
        }
        self.current = Current::Joined;
        Ok(true)
    }

    /// The frame that [`Self::advance`] moved to. `taken` is the input up to where it stopped.
    #[must_use]
    pub fn current<'f>(&'f self, taken: &'f [u8]) -> Option<Frame<'f>> {
        let frame = match self.current {
            Current::None => return None,
            Current::Joined => &self.partial,
            Current::Borrowed { frame_bytes } => taken.get(taken.len().checked_sub(frame_bytes)?..)?,
        };
        let (header, body) = frame.split_at_checked(HEADER_BYTES)?;
        Some(Frame { tag: header[0], body })
    }

    /// Fills `partial` up to `length` from `input`. Grows only by bytes that came.
    fn take(&mut self, input: &mut &[u8], length: usize) {
        let missing = length.saturating_sub(self.partial.len()).min(input.len());
        let (head, rest) = input.split_at(missing);
        self.partial.extend_from_slice(head);
        *input = rest;
    }

    fn body_length(&mut self, header: [u8; HEADER_BYTES]) -> Result<usize> {
        let checked = check(header, self.authenticated);
        if let Err(error) = &checked {
            self.failed = Some(error.clone());
        }
        checked
    }
}

fn check(header: [u8; HEADER_BYTES], authenticated: bool) -> Result<usize> {
    let [tag, length @ ..] = header;
    let bound = match (authenticated, tag) {
        (_, tag) if !is_backend_tag(tag) => {
            return Err(Error::malformed(format_args!(
                "the server sent a message of the unknown kind {:?}",
                char::from(tag)
            ))
            .with_hint("check that the endpoint is a PostgreSQL server"));
        }
        (false, _) => STARTUP_BODY_BYTES_MAX,
        (true, b'd') => COPY_DATA_BYTES_MAX,
        (true, _) => ORDINARY_BODY_BYTES_MAX,
    };
    let length = u32::from_be_bytes(length);
    let body = (length as usize)
        .checked_sub(4)
        .ok_or_else(|| Error::malformed(format_args!("the server sent a message of the impossible length {length}")))?;
    if body > bound {
        return Err(Error::too_large(format_args!(
            "the server sent a message {:?} of {body} bytes; at most {bound} are accepted",
            char::from(tag)
        )));
    }
    Ok(body)
}

/// The tags that a server may send in protocol 3.0.
fn is_backend_tag(tag: u8) -> bool {
    matches!(
        tag,
        b'1' | b'2'
            | b'3'
            | b'A'
            | b'C'
            | b'D'
            | b'E'
            | b'G'
            | b'H'
            | b'I'
            | b'K'
            | b'N'
            | b'R'
            | b'S'
            | b'T'
            | b'V'
            | b'W'
            | b'Z'
            | b'c'
            | b'd'
            | b'n'
            | b's'
            | b't'
            | b'v'
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::ErrorKind;

    fn encoded(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn a_whole_frame_is_borrowed_from_the_input() {
        let bytes = encoded(b'd', b"payload");
        let mut input = bytes.as_slice();
        let mut decoder = Decoder::new();
        let frame = decoder.next(&mut input).unwrap().unwrap();
        assert!(bytes.as_ptr_range().contains(&frame.body.as_ptr()));
        assert_eq!(frame.body, b"payload");
        assert!(input.is_empty());
    }

    #[test]
    fn a_length_below_four_is_refused_for_good() {
        let mut decoder = Decoder::new();
        let mut input: &[u8] = b"Z\0\0\0\x03";
        let error = decoder.next(&mut input).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        let mut good: &[u8] = b"Z\0\0\0\x05I";
        assert_eq!(decoder.next(&mut good).unwrap_err(), error);
    }

    #[test]
    fn a_huge_length_is_refused_before_a_byte_of_it_is_kept() {
        for tag in [b'd', b'D', b'E'] {
            let mut decoder = Decoder::new();
            decoder.authenticated();
            let mut input: &[u8] = &[tag, 0x7f, 0xff, 0xff, 0xff];
            let error = decoder.next(&mut input).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooLarge);
            assert!(decoder.partial.capacity() < 64);
        }
    }

    #[test]
    fn an_unauthenticated_server_gets_the_small_bound() {
        let header = encoded(b'd', &vec![0; STARTUP_BODY_BYTES_MAX + 1]);
        let mut decoder = Decoder::new();
        assert!(decoder.next(&mut header.as_slice()).is_err());
        let mut decoder = Decoder::new();
        decoder.authenticated();
        assert!(decoder.next(&mut header.as_slice()).unwrap().is_some());
    }

    #[test]
    fn another_protocol_is_named_as_such() {
        let mut input: &[u8] = b"HTTP/1.1 400 Bad Request";
        // `H` is a tag, but the length spelled by `TTP/` is not plausible.
        assert!(Decoder::new().next(&mut input).is_err());
        let mut input: &[u8] = b"\x15\x03\x01\x00\x02";
        let error = Decoder::new().next(&mut input).unwrap_err();
        assert!(error.hint().unwrap().contains("PostgreSQL"));
    }

    proptest! {
        #[test]
        fn frames_come_out_the_same_however_the_stream_is_cut(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20),
            cuts in prop::collection::vec(1usize..97, 1..50),
        ) {
            let stream: Vec<u8> = bodies.iter().flat_map(|body| encoded(b'd', body)).collect();
            let mut decoder = Decoder::new();
            let mut seen = Vec::new();
            let mut rest = stream.as_slice();
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (mut piece, tail) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                rest = tail;
                while let Some(frame) = decoder.next(&mut piece).unwrap() {
                    seen.push(frame.body.to_vec());
                }
                prop_assert!(piece.is_empty());
            }
            prop_assert!(!decoder.is_inside_frame());
            prop_assert_eq!(seen, bodies);
        }

        #[test]
        fn noise_never_panics_and_never_makes_the_decoder_keep_more_than_came(
            noise in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            let mut decoder = Decoder::new();
            decoder.authenticated();
            let mut input = noise.as_slice();
            while let Ok(Some(frame)) = decoder.next(&mut input) {
                let _ = crate::protocol::Backend::parse(frame);
            }
            prop_assert!(decoder.partial.capacity() <= 2 * noise.len() + 64);
        }
    }
}
