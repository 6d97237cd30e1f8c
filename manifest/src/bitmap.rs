//! Which chunks of a content a node has: one bit a chunk.
//!
//! On the wire a bitmap that is empty or full takes a few bytes, any other one bit a chunk, lowest bit first.

use crate::limits::{CHUNKS_MAX, SEGMENT_SIZE_MAX};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A set of chunk indices below a fixed length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Packed", into = "Packed")]
pub struct Bitmap {
    len: u32,
    ones: u32,
    words: Vec<u64>,
}

/// A part of a bitmap that fits one request: the bits from `first` on, a multiple of 8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Index of the first bit.
    pub first: u32,
    /// Eight bits a byte, lowest first; at most [`SEGMENT_SIZE_MAX`] bytes.
    pub bits: Vec<u8>,
}

/// Why something is not a bitmap, or not part of this one.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BitmapError {
    /// More chunks than a content may have.
    #[error("a bitmap has at most {CHUNKS_MAX} bits, not {0}")]
    TooLong(u32),
    /// Not as many bytes as its length needs.
    #[error("{len} bits do not take {bytes} bytes")]
    Size {
        /// Bits announced.
        len: u32,
        /// Bytes that came.
        bytes: usize,
    },
    /// A bit past the end is set.
    #[error("chunk {0} is past the end")]
    PastEnd(u64),
}

/// The wire form.
#[derive(Clone, Serialize, Deserialize)]
enum Packed {
    Empty(u32),
    Full(u32),
    Bits(u32, Vec<u8>),
}

impl Bitmap {
    /// No chunk of `len`.
    pub fn empty(len: u32) -> Self {
        Self {
            len,
            ones: 0,
            words: vec![0; len.div_ceil(64) as usize],
        }
    }

    /// Every chunk of `len`.
    pub fn full(len: u32) -> Self {
        let mut words = vec![u64::MAX; len.div_ceil(64) as usize];
        if let Some(last) = words.last_mut()
            && !len.is_multiple_of(64)
        {
            *last = (1 << (len % 64)) - 1;
        }
        Self {
            len,
            ones: len,
            words,
        }
    }

    /// Number of chunks of the content.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Number of chunks in the set.
    pub fn count(&self) -> u32 {
        self.ones
    }

    /// Whether no chunk is in the set.
    pub fn is_empty(&self) -> bool {
        self.ones == 0
    }

    /// Whether every chunk is in the set; true for a content without chunks.
    pub fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// Whether chunk `index` is in the set; never for one past the end.
    pub fn contains(&self, index: u32) -> bool {
        index < self.len && self.words[index as usize / 64] >> (index % 64) & 1 == 1
    }

    /// Adds chunk `index`; false if it was there or is past the end.
    pub fn insert(&mut self, index: u32) -> bool {
        let new = index < self.len && !self.contains(index);
        if new {
            self.words[index as usize / 64] |= 1 << (index % 64);
            self.ones += 1;
        }
        new
    }

    /// Takes chunk `index` out; false if it was not there.
    pub fn remove(&mut self, index: u32) -> bool {
        let old = self.contains(index);
        if old {
            self.words[index as usize / 64] &= !(1 << (index % 64));
            self.ones -= 1;
        }
        old
    }

    /// The chunks in the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        Self::ones_of(self.words.iter().copied())
    }

    /// The chunks not in the set, in order.
    pub fn missing(&self) -> impl Iterator<Item = u32> + '_ {
        Self::ones_of(self.words.iter().map(|word| !word)).take_while(|&index| index < self.len)
    }

    /// The chunks in both sets, in order.
    pub fn intersection<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = u32> + 'a {
        self.intersection_from(other, 0)
    }

    /// The chunks in both sets, in order, from the word of `start` on; what is before `start` in it may come, too.
    pub fn intersection_from<'a>(
        &'a self,
        other: &'a Self,
        start: u32,
    ) -> impl Iterator<Item = u32> + 'a {
        let skipped = (start / 64) as usize;
        let words = self.words.iter().zip(&other.words).skip(skipped);
        Self::ones_of(words.map(|(one, two)| one & two)).map(move |index| index + 64 * (start / 64))
    }

    /// The first chunk in the set from `start` on.
    pub fn next_from(&self, start: u32) -> Option<u32> {
        let first = start as usize / 64;
        let words = self.words.iter().enumerate().skip(first);
        let mut words = words.map(|(at, &word)| {
            let below = if at == first {
                (1u64 << (start % 64)) - 1
            } else {
                0
            };
            (at, word & !below)
        });
        let (at, word) = words.find(|&(_, word)| word != 0)?;
        u32::try_from(at * 64)
            .ok()
            .map(|base| base + word.trailing_zeros())
    }

    /// The first chunk not in the set; the length if there is none.
    pub fn first_missing(&self) -> u32 {
        self.missing().next().unwrap_or(self.len)
    }

    /// The bitmap in parts that fit a request; at least one, so that even an empty set can be told.
    pub fn segments(&self) -> Vec<Segment> {
        let bytes = self.to_bytes();
        let mut first = 0;
        let mut segments = Vec::new();
        for bits in bytes.chunks(SEGMENT_SIZE_MAX) {
            segments.push(Segment {
                first,
                bits: bits.to_vec(),
            });
            first += u32::try_from(8 * bits.len()).expect("a segment is small");
        }
        if segments.is_empty() {
            segments.push(Segment {
                first: 0,
                bits: Vec::new(),
            });
        }
        segments
    }

    /// Adds what a segment holds.
    pub fn merge(&mut self, segment: &Segment) -> Result<(), BitmapError> {
        let mut new = Vec::new();
        for (position, byte) in segment.bits.iter().enumerate() {
            for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                let index = u64::from(segment.first) + 8 * position as u64 + bit;
                match u32::try_from(index) {
                    Ok(index) if index < self.len => new.push(index),
                    _ => return Err(BitmapError::PastEnd(index)),
                }
            }
        }
        for index in new {
            self.insert(index);
        }
        Ok(())
    }

    fn ones_of(words: impl Iterator<Item = u64>) -> impl Iterator<Item = u32> {
        (0u32..).zip(words).flat_map(|(position, word)| {
            std::iter::successors(Some(word), |rest| Some(rest & rest.wrapping_sub(1)))
                .take_while(|&rest| rest != 0)
                .map(move |rest| 64 * position + rest.trailing_zeros())
        })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self
            .words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        bytes.truncate(self.len.div_ceil(8) as usize);
        bytes
    }
}

impl From<Bitmap> for Packed {
    fn from(bitmap: Bitmap) -> Self {
        match bitmap.ones {
            0 => Self::Empty(bitmap.len),
            _ if bitmap.is_full() => Self::Full(bitmap.len),
            _ => Self::Bits(bitmap.len, bitmap.to_bytes()),
        }
    }
}

impl TryFrom<Packed> for Bitmap {
    type Error = BitmapError;

    fn try_from(packed: Packed) -> Result<Self, BitmapError> {
        let (Packed::Empty(len) | Packed::Full(len) | Packed::Bits(len, _)) = packed;
        if len > CHUNKS_MAX {
            return Err(BitmapError::TooLong(len));
        }
        match packed {
            Packed::Empty(_) => Ok(Self::empty(len)),
            Packed::Full(_) => Ok(Self::full(len)),
            Packed::Bits(_, bits) if bits.len() != len.div_ceil(8) as usize => {
                Err(BitmapError::Size {
                    len,
                    bytes: bits.len(),
                })
            }
            Packed::Bits(_, bits) => {
                let mut bitmap = Self::empty(len);
                bitmap.merge(&Segment { first: 0, bits })?;
                Ok(bitmap)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::btree_set, prelude::*};
    use std::collections::BTreeSet;

    fn bitmap(len: u32, set: &BTreeSet<u32>) -> Bitmap {
        let mut bitmap = Bitmap::empty(len);
        for &index in set {
            bitmap.insert(index);
        }
        bitmap
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(len in 0u32..300, insert in btree_set(0u32..300, 0..200), remove in btree_set(0u32..300, 0..50)) {
            let mut model: BTreeSet<u32> = insert.iter().copied().filter(|&index| index < len).collect();
            let mut subject = bitmap(len, &insert);
            for index in remove {
                prop_assert_eq!(subject.remove(index), model.remove(&index));
            }
            prop_assert_eq!(subject.count() as usize, model.len());
            prop_assert_eq!(subject.iter().collect::<BTreeSet<_>>(), model.clone());
            let missing: Vec<u32> = (0..len).filter(|index| !model.contains(index)).collect();
            prop_assert_eq!(subject.first_missing(), missing.first().copied().unwrap_or(len));
            prop_assert_eq!(subject.missing().collect::<Vec<_>>(), missing);
            for start in [0, 1, 63, 64, 200, 299, 300, 1000] {
                prop_assert_eq!(subject.next_from(start), model.range(start..).next().copied());
            }
        }

        #[test]
        fn intersections_are_those_of_sets(one in btree_set(0u32..200, 0..100), two in btree_set(0u32..200, 0..100)) {
            let both: Vec<u32> = one.intersection(&two).copied().collect();
            prop_assert_eq!(bitmap(200, &one).intersection(&bitmap(200, &two)).collect::<Vec<_>>(), both);
        }

        #[test]
        fn segments_put_it_together_again(len in 0u32..40_000, set in btree_set(0u32..40_000, 0..50)) {
            let whole = bitmap(len, &set);
            let mut copy = Bitmap::empty(len);
            for segment in whole.segments() {
                prop_assert!(segment.bits.len() <= SEGMENT_SIZE_MAX);
                prop_assert_eq!(copy.merge(&segment), Ok(()));
            }
            prop_assert_eq!(copy, whole);
        }
    }

    #[test]
    fn full_is_every_chunk_and_no_more() {
        for len in [0, 1, 63, 64, 65, 128, 1000] {
            let full = Bitmap::full(len);
            assert!(full.is_full());
            assert_eq!(full.iter().count(), len as usize);
            assert_eq!(full, bitmap(len, &(0..len).collect()));
        }
    }

    #[test]
    fn a_segment_past_the_end_changes_nothing() {
        let mut bitmap = Bitmap::empty(10);
        let segment = Segment {
            first: 0,
            bits: vec![0b11, 0b100],
        };
        assert_eq!(bitmap.merge(&segment), Err(BitmapError::PastEnd(10)));
        assert!(bitmap.is_empty());
        let far = Segment {
            first: u32::MAX,
            bits: vec![0xff],
        };
        assert!(matches!(bitmap.merge(&far), Err(BitmapError::PastEnd(_))));
    }
}
