//! Doors for fuzzing to the objects of a log: see [`crate::fuzz`].

use super::append::Claim;
use super::document::{ConfirmedDocument, Identity};
use super::index::Index;
use super::name::ObjectName;
use super::object::{Header, PREFIX_BYTES, Sealer};
use crate::RepoError;
use crate::frame::yield_bytes_max;
use crate::fuzz::{Seen, fixed_key};
use backstay_core::{Chain, SEGMENT_BYTES_MAX, Segment};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;

/// Of the log that sealed seeds belong to.
pub(crate) const REPOSITORY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
/// The target of that log.
pub(crate) const TARGET: &str = "shop";

pub(crate) fn sealer() -> Option<Sealer> {
    Some(Sealer { key: Arc::new(fixed_key()), repository: REPOSITORY.into(), target: TARGET.parse().ok()? })
}

/// The start of an object whose header has this plaintext.
fn front(sealer: &Sealer, header: &[u8]) -> Vec<u8> {
    let sealed = sealer.key.seal(header);
    [&b"BKSTLOG\x01"[..], &(sealed.len() as u32).to_le_bytes()[..], &sealed].concat()
}

/// The name that a header says it has, so that it gets past the comparison with it.
fn own_name(header: &[u8]) -> Option<ObjectName> {
    ObjectName::parse(&serde_json::from_slice::<Header>(header).ok()?.object)
}

/// The input as a whole object, as the front of one, and as the plaintext of a header.
pub(crate) fn header(bytes: &[u8]) -> Seen {
    let mut seen = Seen { bytes: bytes.len(), taken: false };
    let Some(sealer) = sealer() else { return seen };
    let stored = plaintext_of(&sealer, bytes);
    for name in [stored.as_deref().and_then(own_name), Some(ObjectName::Identity)].into_iter().flatten() {
        if let Ok(end) = sealer.header_end(&name, bytes) {
            assert!(end >= PREFIX_BYTES);
            let body = bytes.get(end..).and_then(|sealed| sealer.key.open(sealed).ok()).unwrap_or_default();
            seen.bytes += yield_bytes_max(&body).unwrap_or(0).min(SEGMENT_BYTES_MAX) as usize;
        }
        seen.note(sealer.open_here(&name, bytes));
    }
    let Some(name) = own_name(bytes) else { return seen };
    let object = front(&sealer, bytes);
    let body = serde_json::from_slice::<Header>(bytes).map_or(0, |header| header.body);
    let Some(size) = body.checked_add(object.len() as u64) else { return seen };
    if let Some(header) = seen.note(sealer.open_header(&name, &object, size)) {
        assert!(header.length <= SEGMENT_BYTES_MAX);
        if let (Some(piece), Some(_)) = (header.segment(), name.place()) {
            assert!(piece.validate().is_ok() && piece.length() == header.length && name.fits(&piece));
        }
    }
    seen
}

fn plaintext_of(sealer: &Sealer, object: &[u8]) -> Option<Vec<u8>> {
    let end = sealer.header_end(&ObjectName::Identity, object).ok()?;
    sealer.key.open(object.get(PREFIX_BYTES..end)?).ok()
}

/// The input as the content of a document, after it went through an object of its own; what it says then.
fn content<T: Serialize + DeserializeOwned>(name: &ObjectName, bytes: &[u8], seen: &mut Seen) -> Option<T> {
    let sealer = sealer()?;
    if let Ok((_, body)) = sealer.open_here(name, bytes) {
        seen.bytes += body.len();
        seen.taken |= serde_json::from_slice::<T>(&body).is_ok();
    }
    let object = sealer.seal_here(name, None, bytes).ok()?.0;
    let body = sealer.open_here(name, &object).map(|(_, body)| body).unwrap_or_default();
    assert!(body == bytes, "an object opens as it was sealed");
    let read = serde_json::from_slice::<T>(&body)
        .map_err(|error| RepoError::damaged(sealer.key_of(name), format!("its content makes no sense: {error}")));
    let read = seen.note(read)?;
    let again = serde_json::to_vec(&read).ok().map(|json| (serde_json::from_slice::<T>(&json), json));
    if let Some((again, json)) = again {
        assert_eq!(again.ok().and_then(|again| serde_json::to_vec(&again).ok()), Some(json));
    }
    Some(read)
}

pub(crate) fn document(bytes: &[u8]) -> Seen {
    let mut seen = Seen { bytes: bytes.len(), taken: false };
    let _ = content::<Identity>(&ObjectName::Identity, bytes, &mut seen);
    let _ = content::<ConfirmedDocument>(&ObjectName::Confirmed, bytes, &mut seen);
    seen
}

pub(crate) fn claim(bytes: &[u8]) -> Seen {
    let mut seen = Seen { bytes: bytes.len(), taken: false };
    for epoch in [1, 2] {
        let _ = content::<Claim>(&ObjectName::Claim { epoch }, bytes, &mut seen);
    }
    seen
}

/// The index, and the chain of the pieces that it names.
pub(crate) fn index(bytes: &[u8]) -> Seen {
    let mut seen = Seen { bytes: bytes.len(), taken: false };
    let Some(index) = content::<Index>(&ObjectName::Index, bytes, &mut seen) else { return seen };
    let (mut appended, mut merged) = (Vec::new(), Vec::new());
    for (_, name, piece) in index.lawful() {
        assert!(name.is_merged() && name.fits(&piece));
        merged.push(piece.clone());
        // The same as archivers would have written it.
        appended.push(piece);
    }
    for (appended, merged) in [(appended.clone(), Vec::new()), (Vec::new(), merged.clone()), (appended, merged)] {
        let chain = Chain::new(appended, merged);
        let whole = |pieces: &[Segment]| pieces.windows(2).all(|pair| pair[0].start.offset <= pair[1].start.offset);
        assert!(chain.epochs().all(|epoch| whole(chain.pieces(epoch))));
        let _ = (chain.gaps(), chain.tail());
    }
    seen
}

#[cfg(test)]
pub(crate) fn object_name(name: &str) -> ObjectName {
    ObjectName::parse(name).unwrap_or(ObjectName::Identity)
}

pub(crate) fn name(text: &str) {
    if let Some(name) = ObjectName::parse(text) {
        assert_eq!(name.to_string(), text);
    }
}
