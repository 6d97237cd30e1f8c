//! SHA-256 (FIPS 180-4) of two things side by side.
//!
//! A processor's SHA instructions wait for one another: one core hashes two independent streams in little more
//! time than one. Two chunks that have arrived are two such streams, and so are a chunk by itself and as a part of its
//! file. Where a processor lacks the instructions, `sha2` does one after the other.

#[cfg(target_arch = "x86_64")]
mod pair;

/// No such instructions.
#[cfg(not(target_arch = "x86_64"))]
mod pair {
    pub(super) fn compress<const STREAMS: usize>(
        _: [&mut [u32; 8]; 2],
        _: [&[[u8; 64]]; STREAMS],
    ) -> bool {
        false
    }
}

use anchorage_manifest::{
    Hash,
    link::{BLOCK_SIZE, INITIAL_STATE},
};
use sha2::block_api::compress256;

/// A hash on its way through a stream; between two blocks it is a state from which it can go on elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    state: [u32; 8],
    /// Bytes so far.
    size: u64,
    /// The bytes after the last whole block; the rest of the array means nothing.
    rest: [u8; BLOCK_SIZE],
}

impl Default for Running {
    fn default() -> Self {
        Self {
            state: INITIAL_STATE,
            size: 0,
            rest: [0; BLOCK_SIZE],
        }
    }
}

impl Running {
    /// Goes on with `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        let bytes = self.complete_block(bytes);
        let (blocks, rest) = bytes.as_chunks();
        compress256(&mut self.state, blocks);
        self.size += (bytes.len() - rest.len()) as u64;
        self.keep_rest(rest);
    }

    /// The hash of everything.
    pub fn finish(mut self) -> Hash {
        let bits = self.size.wrapping_mul(8);
        let filled = self.filled();
        // A one, zeros up to the end of a block but eight bytes, and there the number of bits.
        let mut padding = [0; 2 * BLOCK_SIZE];
        padding[0] = 0x80;
        let zeros_end = if filled < BLOCK_SIZE - 8 {
            BLOCK_SIZE - 8
        } else {
            2 * BLOCK_SIZE - 8
        } - filled;
        padding[zeros_end..zeros_end + 8].copy_from_slice(&bits.to_be_bytes());
        self.update(&padding[..zeros_end + 8]);
        Hash::of_state(self.state)
    }

    /// A hash that goes on from the state after `size` bytes, which are whole blocks.
    pub fn at(state: Hash, size: u64) -> Self {
        Self {
            state: state.to_state(),
            size: size - size % BLOCK_SIZE as u64,
            ..Self::default()
        }
    }

    /// The state, if it is between two blocks.
    pub fn state(&self) -> Option<Hash> {
        (self.filled() == 0).then(|| Hash::of_state(self.state))
    }

    /// Bytes after the last whole block.
    fn filled(&self) -> usize {
        usize::try_from(self.size % BLOCK_SIZE as u64).expect("below 64")
    }

    /// Fills a block that has begun; what of `bytes` it does not need.
    fn complete_block<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let filled = self.filled();
        if filled == 0 {
            return bytes;
        }
        let (now, later) = bytes.split_at(bytes.len().min(BLOCK_SIZE - filled));
        self.rest[filled..filled + now.len()].copy_from_slice(now);
        self.size += now.len() as u64;
        if self.filled() == 0 {
            compress256(&mut self.state, &[self.rest]);
        }
        later
    }

    /// Begins a block that is not whole yet.
    fn keep_rest(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            self.rest[..rest.len()].copy_from_slice(rest);
            self.size += rest.len() as u64;
        }
    }
}

/// Goes on with two hashes, each with bytes of its own.
///
/// Side by side as far as both stand between two blocks and have blocks left; the rest one after the other.
pub fn update_both(
    one: &mut Running,
    mut bytes_of_one: &[u8],
    other: &mut Running,
    mut bytes_of_other: &[u8],
) {
    let size = bytes_of_one.len().min(bytes_of_other.len()) / BLOCK_SIZE * BLOCK_SIZE;
    let (now, later) = bytes_of_one.split_at(size);
    let (now_of_other, later_of_other) = bytes_of_other.split_at(size);
    if compress_both(one, other, [now.as_chunks().0, now_of_other.as_chunks().0]) {
        (bytes_of_one, bytes_of_other) = (later, later_of_other);
    }
    one.update(bytes_of_one);
    other.update(bytes_of_other);
}

/// Goes on with two hashes, both with the same bytes: [`update_both`], and quicker.
pub fn update_both_with(mut bytes: &[u8], one: &mut Running, other: &mut Running) {
    let (blocks, rest) = bytes.as_chunks();
    if compress_both(one, other, [blocks]) {
        bytes = rest;
    }
    one.update(bytes);
    other.update(bytes);
}

/// Goes on with two hashes side by side, each with blocks of its own, as many as the other, or both with the same; false,
/// and nothing done, unless both stand between two blocks and the processor can.
fn compress_both<const STREAMS: usize>(
    one: &mut Running,
    other: &mut Running,
    blocks: [&[[u8; BLOCK_SIZE]]; STREAMS],
) -> bool {
    let is_done = one.filled() == 0
        && other.filled() == 0
        && pair::compress([&mut one.state, &mut other.state], blocks);
    if is_done {
        let size = blocks[0].as_flattened().len() as u64;
        one.size += size;
        other.size += size;
    }
    is_done
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// `sha2` is the oracle.
        #[test]
        fn any_two_streams_in_any_pieces_hash_to_what_they_are(
            one in proptest::collection::vec(any::<u8>(), 0..700),
            other in proptest::collection::vec(any::<u8>(), 0..700),
            cuts in proptest::collection::vec((0usize..200, 0usize..200), 0..8),
        ) {
            let (mut first, mut second) = (Running::default(), Running::default());
            let (mut rest, mut rest_of_other) = (&one[..], &other[..]);
            for (cut, cut_of_other) in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                let (now_of_other, later_of_other) =
                    rest_of_other.split_at(cut_of_other.min(rest_of_other.len()));
                update_both(&mut first, now, &mut second, now_of_other);
                (rest, rest_of_other) = (later, later_of_other);
            }
            update_both(&mut first, rest, &mut second, rest_of_other);
            prop_assert_eq!(first.finish(), Hash::of(&one));
            prop_assert_eq!(second.finish(), Hash::of(&other));
        }

        #[test]
        fn the_same_bytes_make_of_any_two_states_what_they_make_of_each(
            heads in proptest::array::uniform2(proptest::collection::vec(any::<u8>(), 0..200)),
            blocks in proptest::array::uniform2(0usize..3),
            bytes in proptest::collection::vec(any::<u8>(), 0..700),
        ) {
            // Whole blocks before, and anything before that is not whole.
            for heads in [heads, blocks.map(|count| vec![7; count * BLOCK_SIZE])] {
                let mut states = [Running::default(), Running::default()];
                for (state, head) in states.iter_mut().zip(&heads) {
                    state.update(head);
                }
                let [mut one, mut other] = states;
                update_both_with(&bytes, &mut one, &mut other);
                for (state, head) in [one, other].into_iter().zip(heads) {
                    prop_assert_eq!(state.finish(), Hash::of(&[head, bytes.clone()].concat()));
                }
            }
        }

        #[test]
        fn a_state_goes_on_elsewhere(blocks in 0usize..5, rest in 0usize..200) {
            let bytes: Vec<u8> = (0..=255).cycle().take(blocks * 64 + rest).collect();
            let mut running = Running::default();
            running.update(&bytes[..blocks * 64]);
            let state = running.state().expect("between two blocks");
            prop_assert_eq!(&Running::at(state, blocks as u64 * 64), &running);
            running.update(&bytes[blocks * 64..]);
            prop_assert_eq!(running.state().is_some(), rest % 64 == 0);
            prop_assert_eq!(running.finish(), Hash::of(&bytes));
        }
    }
}
