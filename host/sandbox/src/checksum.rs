//! The checksum of bytes as they pass on to the repository.

use crate::ports::Body;
use futures::StreamExt;
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// CRC-32C (Castagnoli) of what a body has given so far.
#[derive(Clone, Default)]
pub(crate) struct Checksum(Arc<AtomicU32>);

impl Checksum {
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }
}

/// The same body, and the checksum that grows as it is read.
pub(crate) fn summed(body: Body) -> (Body, Checksum) {
    let sum = Checksum::default();
    let seen = sum.clone();
    let body = body.inspect(move |chunk| {
        if let Ok(bytes) = chunk {
            // Nobody else writes: a body has one reader.
            seen.0.store(crc32c::crc32c_append(seen.get(), bytes), Ordering::Release);
        }
    });
    (body.boxed(), sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[tokio::test]
    async fn the_sum_is_that_of_all_chunks_in_order() {
        let chunks = [b"1234".as_slice(), b"", b"56789"].map(|chunk| Ok(Bytes::from_static(chunk)));
        let (body, sum) = summed(futures::stream::iter(chunks).boxed());
        assert_eq!(sum.get(), 0, "nothing was read");
        assert_eq!(body.count().await, 3);
        // The check value of CRC-32C in the catalogue of parametrised CRC algorithms.
        assert_eq!(sum.get(), 0xe306_9283);
    }
}
