//! Chunks as a message names them: a list of indices, or a piece of a bitmap.

use anchorage_manifest::{
    bitmap::Segment,
    limits::{CHUNKS_PER_MESSAGE_MAX, SEGMENT_SIZE_MAX},
    wire::Refusal,
};

/// Chunks that somebody says to have.
pub(super) enum Chunks<'a> {
    /// By index.
    List(&'a [u32]),
    /// By bit.
    Segment(&'a Segment),
}

impl Chunks<'_> {
    /// Whether a content of `count` chunks has all of them, and the message keeps its limits.
    pub(super) fn check(&self, count: u32) -> Result<(), Refusal> {
        let past_end = match self {
            Self::List(list) if list.len() > CHUNKS_PER_MESSAGE_MAX => {
                return Err(Refusal::Malformed(format!(
                    "{} chunks in one message are over the limit of {CHUNKS_PER_MESSAGE_MAX}",
                    list.len()
                )));
            }
            Self::List(list) => list
                .iter()
                .copied()
                .map(u64::from)
                .find(|&index| index >= count.into()),
            Self::Segment(segment) if segment.bits.len() > SEGMENT_SIZE_MAX => {
                return Err(Refusal::Malformed(format!(
                    "{} bytes in one segment are over the limit of {SEGMENT_SIZE_MAX}",
                    segment.bits.len()
                )));
            }
            Self::Segment(segment) => segment.last().filter(|&index| index >= count.into()),
        };
        match past_end {
            Some(index) => Err(Refusal::Malformed(format!(
                "chunk {index} of a content of {count} chunks"
            ))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anchorage_manifest::Bitmap;
    use proptest::prelude::*;

    proptest! {
        /// What is found good here, a bitmap takes too, and the other way around.
        #[test]
        fn agrees_with_the_bitmap(count in 0u32..100, first in 0u32..100, bits in proptest::collection::vec(any::<u8>(), 0..8)) {
            let segment = Segment { first, bits };
            let merged = Bitmap::empty(count).merge(&segment).is_ok();
            prop_assert_eq!(Chunks::Segment(&segment).check(count).is_ok(), merged);
        }
    }
}
