//! Which chunks of a content a node has: one bit a chunk.
//!
//! What travels is the shortest of three forms. Nodes that are complete, that fetch in order or that came late hold
//! a few runs, which take some bytes each. Who fetches rarest first holds any half, which no form can say in
//! fewer bits than there are chunks; then it is one bit a chunk, lowest bit first. In between the two are
//! within a factor of two or so of the entropy, as are the containers of Roaring bitmaps.

use crate::limits::{CHUNKS_MAX, SEGMENT_SIZE_MAX};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::ops::Range;
use thiserror::Error;

/// A set of chunk indices below a fixed length.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    #[serde(with = "serde_bytes")]
    pub bits: Vec<u8>,
}

impl Segment {
    /// The last chunk that it holds.
    pub fn last(&self) -> Option<u64> {
        last_of(self.first, &self.bits)
    }
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
    /// Two runs touch, or one has no chunk, or its length is no number.
    #[error("runs of chunks that are none")]
    Runs,
}

/// A bitmap as it travels, which is how it is kept where there are many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Packed(Form);

/// The wire form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Form {
    Empty(u32),
    Full(u32),
    Bits(u32, #[serde(with = "serde_bytes")] Vec<u8>),
    /// How many chunks are not there, then how many are, and so on, each number in LEB128 (DWARF 5, section 7.6);
    /// those that are not there at the end are left out.
    Runs(u32, #[serde(with = "serde_bytes")] Vec<u8>),
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

    /// Adds the chunks of a range, as far as they are not past the end.
    pub fn insert_range(&mut self, range: Range<u32>) {
        let end = range.end.min(self.len);
        let mut at = range.start;
        while at < end {
            let (word, bit) = (at as usize / 64, at % 64);
            let count = (64 - bit).min(end - at);
            self.add(word, u64::MAX >> (64 - count) << bit);
            at += count;
        }
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

    /// The last chunk in the set.
    pub fn last(&self) -> Option<u32> {
        let (at, word) = self
            .words
            .iter()
            .enumerate()
            .rfind(|&(_, &word)| word != 0)?;
        u32::try_from(at * 64).ok().map(|base| base + word.ilog2())
    }

    /// The chunks in the set as ranges that do not touch, in order.
    pub fn runs(&self) -> impl Iterator<Item = Range<u32>> + '_ {
        let mut end = 0;
        std::iter::from_fn(move || {
            let start = self.next_from(end)?;
            end = self.next_missing(start);
            Some(start..end)
        })
    }

    /// Bytes that the bitmap takes on the wire, behind the few that say how long it is.
    pub fn packed_size(&self) -> usize {
        match self.ones {
            0 => 0,
            _ if self.is_full() => 0,
            _ => {
                let bits = self.len.div_ceil(8) as usize;
                self.runs_size(bits).unwrap_or(bits)
            }
        }
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
        self.merge_bytes(segment.first, &segment.bits)
    }

    fn merge_bytes(&mut self, first: u32, bytes: &[u8]) -> Result<(), BitmapError> {
        if let Some(last) = last_of(first, bytes).filter(|&last| last >= self.len.into()) {
            return Err(BitmapError::PastEnd(last));
        }
        let set = bytes.iter().enumerate();
        for (position, &byte) in set.filter(|&(_, &byte)| byte != 0) {
            let index = first as usize + 8 * position;
            let (word, bit) = (index / 64, index % 64);
            self.add(word, u64::from(byte) << bit);
            if bit > 56 {
                self.add(word + 1, u64::from(byte) >> (64 - bit));
            }
        }
        Ok(())
    }

    /// Sets bits of a word; none of them is past the end.
    fn add(&mut self, word: usize, bits: u64) {
        if bits != 0 {
            let old = &mut self.words[word];
            self.ones += (bits & !*old).count_ones();
            *old |= bits;
        }
    }

    /// The first chunk not in the set from `start` on, which is not past the end; the length if there is none.
    fn next_missing(&self, start: u32) -> u32 {
        let first = start as usize / 64;
        let mut words = self.words.iter().enumerate().skip(first);
        let found = words.find_map(|(at, &word)| {
            let below = if at == first {
                (1u64 << (start % 64)) - 1
            } else {
                0
            };
            let missing = !(word | below);
            let base = u32::try_from(at * 64).expect("below the length");
            (missing != 0).then(|| base + missing.trailing_zeros())
        });
        found.map_or(self.len, |index| index.min(self.len))
    }

    /// Bytes of the runs, if those are fewer than `most`.
    fn runs_size(&self, most: usize) -> Option<usize> {
        // Two bytes a run at the least: many are not worth counting.
        let starts = self.words.iter().scan(0, |carry, &word| {
            let before = word << 1 | *carry;
            *carry = word >> 63;
            Some((word & !before).count_ones() as usize)
        });
        if 2 * starts.sum::<usize>() >= most {
            return None;
        }
        let size = self.gaps_and_runs().map(leb128_size).sum();
        (size < most).then_some(size)
    }

    /// Numbers of chunks that are not there and there, in turn.
    fn gaps_and_runs(&self) -> impl Iterator<Item = u32> + '_ {
        let mut end = 0;
        self.runs().flat_map(move |run| {
            let gap = run.start - end;
            end = run.end;
            [gap, run.end - run.start]
        })
    }

    fn ones_of(words: impl Iterator<Item = u64>) -> impl Iterator<Item = u32> {
        let words = (0u32..).zip(words).filter(|&(_, word)| word != 0);
        words.flat_map(|(position, word)| {
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

impl Packed {
    /// Packs a bitmap.
    pub fn of(bitmap: &Bitmap) -> Self {
        Self(Form::from(bitmap))
    }

    /// Packs a bitmap of `len` chunks that is given as runs, in order and apart.
    pub fn of_runs<'a>(len: u32, runs: impl Iterator<Item = &'a Range<u32>>) -> Self {
        let mut bytes = Vec::new();
        let (mut end, mut ones) = (0, 0);
        for run in runs {
            write_leb128(run.start - end, &mut bytes);
            write_leb128(run.end - run.start, &mut bytes);
            ones += run.end - run.start;
            end = run.end;
        }
        Self(match ones {
            0 => Form::Empty(len),
            _ if ones == len => Form::Full(len),
            _ => Form::Runs(len, bytes),
        })
    }

    /// The bitmap.
    pub fn unpack(&self) -> Bitmap {
        Bitmap::try_from(&self.0).expect("it was packed here, or looked at when it was decoded")
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = Form::deserialize(deserializer)?;
        Bitmap::try_from(&form).map_err(D::Error::custom)?;
        Ok(Self(form))
    }
}

impl From<&Bitmap> for Form {
    fn from(bitmap: &Bitmap) -> Self {
        match bitmap.ones {
            0 => Self::Empty(bitmap.len),
            _ if bitmap.is_full() => Self::Full(bitmap.len),
            _ => match bitmap.runs_size(bitmap.len.div_ceil(8) as usize) {
                Some(size) => {
                    let mut bytes = Vec::with_capacity(size);
                    for number in bitmap.gaps_and_runs() {
                        write_leb128(number, &mut bytes);
                    }
                    Self::Runs(bitmap.len, bytes)
                }
                None => Self::Bits(bitmap.len, bitmap.to_bytes()),
            },
        }
    }
}

impl TryFrom<&Form> for Bitmap {
    type Error = BitmapError;

    fn try_from(packed: &Form) -> Result<Self, BitmapError> {
        let (Form::Empty(len) | Form::Full(len) | Form::Bits(len, _) | Form::Runs(len, _)) = packed;
        let len = *len;
        if len > CHUNKS_MAX {
            return Err(BitmapError::TooLong(len));
        }
        let mut bitmap = Self::empty(len);
        match packed {
            Form::Empty(_) => {}
            Form::Full(_) => bitmap.insert_range(0..len),
            Form::Bits(_, bits) if bits.len() != len.div_ceil(8) as usize => {
                return Err(BitmapError::Size {
                    len,
                    bytes: bits.len(),
                });
            }
            Form::Bits(_, bits) => bitmap.merge_bytes(0, bits)?,
            Form::Runs(_, bytes) => {
                let mut rest = &bytes[..];
                let mut end = 0u32;
                while !rest.is_empty() {
                    let gap = read_leb128(&mut rest).ok_or(BitmapError::Runs)?;
                    let run = read_leb128(&mut rest).ok_or(BitmapError::Runs)?;
                    if run == 0 || (gap == 0 && end > 0) {
                        return Err(BitmapError::Runs);
                    }
                    let last = u64::from(end) + u64::from(gap) + u64::from(run) - 1;
                    end = match u32::try_from(last) {
                        Ok(last) if last < len => last + 1,
                        _ => return Err(BitmapError::PastEnd(last)),
                    };
                    bitmap.insert_range(end - run..end);
                }
            }
        }
        Ok(bitmap)
    }
}

impl Serialize for Bitmap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Form::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Bitmap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(&Form::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The last bit that is set in bytes of which the first bit has this index.
fn last_of(first: u32, bytes: &[u8]) -> Option<u64> {
    let position = bytes.iter().rposition(|&byte| byte != 0)?;
    let bit = bytes[position].ilog2();
    Some(u64::from(first) + 8 * position as u64 + u64::from(bit))
}

/// Seven bits a byte, the lowest first; the highest bit says whether there are more.
fn write_leb128(mut number: u32, bytes: &mut Vec<u8>) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

/// Takes a number off the front; none if there is none that fits.
fn read_leb128(bytes: &mut &[u8]) -> Option<u32> {
    let mut number = 0u32;
    for shift in (0..32).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let low = u32::from(byte & 0x7f);
        number |= low.checked_mul(1 << shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Bytes of a number.
fn leb128_size(number: u32) -> usize {
    (number | 1).ilog2() as usize / 7 + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
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
                prop_assert_eq!(subject.last(), model.last().copied());
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

    proptest! {
        #[test]
        fn ranges_are_sets(len in 0u32..300, ranges in proptest::collection::vec((0u32..350, 0u32..100), 0..6)) {
            let mut model = BTreeSet::new();
            let mut subject = Bitmap::empty(len);
            for (start, size) in ranges {
                model.extend((start..start + size).filter(|&index| index < len));
                subject.insert_range(start..start + size);
            }
            prop_assert_eq!(&subject, &bitmap(len, &model));
            let mut last_end = None;
            for run in subject.runs() {
                prop_assert!(run.start < run.end && last_end < Some(run.start), "{:?}", run);
                last_end = Some(run.end);
            }
            prop_assert_eq!(subject.runs().flatten().collect::<BTreeSet<_>>(), model);
        }

        /// Any bitmap comes back from the wire, in the size that was said.
        #[test]
        fn the_wire_form_is_the_same_set(len in 0u32..3_000, runs in proptest::collection::vec((0u32..3_000, 1u32..300), 0..4), set in btree_set(0u32..3_000, 0..600)) {
            let mut whole = bitmap(len, &set);
            for (start, size) in runs {
                whole.insert_range(start..start + size);
            }
            let bytes = codec::encode(&whole);
            prop_assert!(whole.packed_size() <= len.div_ceil(8) as usize);
            prop_assert!((whole.packed_size()..whole.packed_size() + 8).contains(&bytes.len()));
            prop_assert_eq!(codec::decode::<Bitmap>(&bytes), Ok(whole.clone()));
            let runs: Vec<Range<u32>> = whole.runs().collect();
            for packed in [Packed::of(&whole), Packed::of_runs(len, runs.iter())] {
                prop_assert_eq!(packed.unpack(), whole.clone());
                let again = codec::decode::<Packed>(&codec::encode(&packed));
                prop_assert_eq!(again, Ok(packed));
            }
        }

        #[test]
        fn numbers_come_back(number in any::<u32>(), bits in 0u32..32, tail in proptest::collection::vec(any::<u8>(), 0..3)) {
            let number = number >> bits;
            let mut bytes = Vec::new();
            write_leb128(number, &mut bytes);
            prop_assert_eq!(bytes.len(), leb128_size(number));
            bytes.extend(&tail);
            let mut rest = &bytes[..];
            prop_assert_eq!(read_leb128(&mut rest), Some(number));
            prop_assert_eq!(rest, tail);
        }

        /// Whatever bytes are sent, a bitmap or an error comes of it.
        #[test]
        fn strange_bytes_are_refused_or_a_bitmap(len in 0u32..100, bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Ok(bitmap) = Bitmap::try_from(&Form::Runs(len, bytes)) {
                prop_assert!(bitmap.iter().all(|index| index < len));
            }
        }

        /// Whatever runs are sent, a bitmap or an error comes of it.
        #[test]
        fn strange_runs_are_refused(len in 0u32..100, lengths in proptest::collection::vec(prop_oneof![0u32..20, Just(u32::MAX)], 0..8)) {
            let mut numbers = Vec::new();
            lengths.iter().for_each(|&length| write_leb128(length, &mut numbers));
            let bytes = codec::encode(&Form::Runs(len, numbers));
            let is_good = lengths.len().is_multiple_of(2)
                && lengths.iter().skip(1).all(|&length| length > 0)
                && lengths.iter().copied().map(u64::from).sum::<u64>() <= len.into();
            let decoded = codec::decode::<Bitmap>(&bytes);
            prop_assert_eq!(decoded.is_ok(), is_good);
            if let Ok(bitmap) = decoded {
                let ones: u32 = lengths.chunks(2).map(|pair| pair[1]).sum();
                prop_assert_eq!(bitmap.count(), ones);
            }
        }
    }

    #[test]
    fn runs_are_short_and_random_halves_are_bits() {
        let mut prefix = Bitmap::empty(100_000);
        prefix.insert_range(0..50_000);
        assert_eq!(prefix.packed_size(), 4);
        let mut rng = fastrand::Rng::with_seed(1);
        let any = |part: u32, rng: &mut fastrand::Rng| {
            let mut some = Bitmap::empty(100_000);
            (0..100_000)
                .filter(|_| rng.u32(..100) < part)
                .for_each(|index| {
                    some.insert(index);
                });
            some.packed_size()
        };
        assert_eq!(any(50, &mut rng), 12_500);
        // The entropies are 1,010 and 3,580 bytes.
        assert!(any(1, &mut rng) < 2_300);
        assert!(any(95, &mut rng) < 11_000);
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
