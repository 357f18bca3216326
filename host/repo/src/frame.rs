//! How much a zstd frame can yield, told by the headers of its blocks: before memory is set aside for it.
//!
//! A frame may claim any length, and so may whoever stored it. Its blocks cannot: each yields what its header says, or
//! at most 128 KiB where it is compressed. RFC 8878, section 3.1.

/// First bytes of a frame.
const MAGIC: u32 = 0xfd2f_b528;
/// First bytes of a frame to be passed over; the last four bits are free.
const SKIPPABLE: u32 = 0x184d_2a50;
/// No block yields more.
const BLOCK_BYTES_MAX: u64 = 128 << 10;

/// At most so many bytes come out of `frames`, and just so many where they say it; nothing when these are no frames, or
/// claim more than they can yield.
pub(crate) fn yield_bytes_max(frames: &[u8]) -> Option<u64> {
    let mut rest = frames;
    let mut sum = 0u64;
    loop {
        let magic = u32::from_le_bytes(take(&mut rest)?);
        if magic & !15 == SKIPPABLE {
            let length = u32::from_le_bytes(take(&mut rest)?);
            rest = rest.get(usize::try_from(length).ok()?..)?;
        } else if magic == MAGIC {
            sum = sum.checked_add(one(&mut rest)?)?;
        } else {
            return None;
        }
        if rest.is_empty() {
            return Some(sum);
        }
    }
}

/// What one frame yields, from behind its magic number on; `rest` is what follows it then.
fn one(rest: &mut &[u8]) -> Option<u64> {
    let [descriptor] = take(rest)?;
    let single_segment = descriptor & 0x20 != 0;
    let mut block_max = BLOCK_BYTES_MAX;
    if !single_segment {
        let [window] = take(rest)?;
        let base = 1u64 << (10 + (window >> 3));
        block_max = block_max.min(base + base / 8 * u64::from(window & 7));
    }
    let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
    *rest = rest.get(dictionary_bytes..)?;
    let claimed = match descriptor >> 6 {
        0 if single_segment => Some(u64::from(take::<1>(rest)?[0])),
        0 => None,
        1 => Some(u64::from(u16::from_le_bytes(take(rest)?)) + 256),
        2 => Some(u64::from(u32::from_le_bytes(take(rest)?))),
        _ => Some(u64::from_le_bytes(take(rest)?)),
    };
    let mut possible = 0u64;
    loop {
        let [low, middle, high] = take(rest)?;
        let header = u32::from_le_bytes([low, middle, high, 0]);
        let size = u64::from(header >> 3);
        let (stored, yielded) = match header >> 1 & 3 {
            0 => (size, size),
            1 => (1, size),
            2 => (size, block_max),
            _ => return None,
        };
        *rest = rest.get(usize::try_from(stored).ok()?..)?;
        possible = possible.checked_add(yielded)?;
        if header & 1 == 1 {
            break;
        }
    }
    if descriptor & 4 != 0 {
        take::<4>(rest)?;
    }
    match claimed {
        Some(claimed) => (claimed <= possible).then_some(claimed),
        None => Some(possible),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    /// A frame that does not say how long it is, as a writer makes it that does not know.
    fn streamed(plain: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_frame_cannot_claim_what_it_does_not_hold() {
        let mut frame = zstd::bulk::compress(&[7; 100_000], 1).unwrap();
        assert_eq!(yield_bytes_max(&frame), Some(100_000));
        // Magic, descriptor, then four bytes of length.
        assert_eq!(frame[4] >> 6, 2);
        frame[5..9].copy_from_slice(&(1_u32 << 30).to_le_bytes());
        assert_eq!(yield_bytes_max(&frame), None);
        for nothing in [&b""[..], b"x", b"\x28\xb5\x2f\xfd", &frame[..frame.len() - 1]] {
            assert_eq!(yield_bytes_max(nothing), None);
        }
    }

    #[test]
    fn frames_one_after_another_and_frames_to_be_passed_over_are_counted() {
        let frame = zstd::bulk::compress(&[7; 1000], 1).unwrap();
        let skippable = b"\x5f\x2a\x4d\x18\x03\0\0\0any";
        let frames = [&skippable[..], &frame, skippable, &frame].concat();
        assert_eq!(yield_bytes_max(&frames), Some(2000));
        assert_eq!(zstd::bulk::decompress(&frames, 2000).unwrap(), [7; 2000]);
    }

    proptest! {
        #[test]
        fn no_frame_yields_more(runs in proptest::collection::vec((any::<u8>(), 0usize..40_000), 0..6), level in -5i32..6) {
            let plain: Vec<u8> = runs
                .iter()
                .flat_map(|(byte, length)| (0..*length).map(move |at| if byte % 2 == 0 { *byte } else { (at * at) as u8 ^ byte }))
                .collect();
            let frame = zstd::bulk::compress(&plain, level).unwrap();
            prop_assert_eq!(yield_bytes_max(&frame), Some(plain.len() as u64));
            let frame = streamed(&plain);
            prop_assert!(yield_bytes_max(&frame).unwrap() >= plain.len() as u64);
        }

        #[test]
        fn any_bytes_are_frames_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let frame = [&b"\x28\xb5\x2f\xfd"[..], &bytes].concat();
            for bytes in [&bytes, &frame] {
                let most = yield_bytes_max(bytes);
                if let Ok(plain) = zstd::bulk::decompress(bytes, 1 << 20) {
                    prop_assert!(bytes.is_empty() || most.is_some_and(|most| plain.len() as u64 <= most));
                }
            }
        }
    }
}
