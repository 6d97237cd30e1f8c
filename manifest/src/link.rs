//! Links: how a chunk is verified, and the whole file with it.
//!
//! SHA-256 hashes a file block after block, and all that it knows between two blocks is a state of 32 bytes (FIPS 180-4,
//! section 6.2.2). A list has that state after every chunk. So a chunk is verified by hashing it from the state before
//! it: it must lead to the state after it, and the last chunk to the SHA-256 of the whole file. Chunks may come in any
//! order and be hashed by any processor, several at a time, and when all of them are good, the whole file's SHA-256 has
//! been computed, without another pass over it.
//!
//! ```text
//!             chunk 0        chunk 1                last chunk, padding
//! H(0) ──────────────► s0 ──────────► s1  …  s(n−2) ───────────────────► SHA-256 of the file
//! ```
//! To make other bytes lead from one state to the next is to find a second preimage of SHA-256's compression function.

use crate::{Geometry, Hash, geometry::Extent};
use sha2::block_api::compress256;

/// Bytes of a block. A chunk ends between two blocks, so its size is a multiple of this.
pub const BLOCK_SIZE: usize = 64;

/// The state before the first block (FIPS 180-4, section 5.3.3).
pub const INITIAL_STATE: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// What a chunk is verified by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where it lies.
    pub extent: Extent,
    /// The state before it; none at the beginning of the file.
    pub before: Option<Hash>,
    /// The state after it; of the last chunk, the SHA-256 of the file.
    pub after: Hash,
    /// Whether the file ends with it.
    pub is_last: bool,
}

impl Link {
    /// What chunk `index` is verified by, if the state after it is among these, the first of a file.
    pub fn of(index: u32, states: &[Hash], geometry: Geometry) -> Option<Self> {
        let before = index.checked_sub(1);
        Some(Self {
            extent: geometry.extent(index)?,
            before: before.and_then(|before| states.get(before as usize).copied()),
            after: *states.get(index as usize)?,
            is_last: index + 1 == geometry.chunks(),
        })
    }
}

/// The states after the chunks of a file that is in memory: their definition, and the oracle for whoever makes them as
/// bytes come.
pub fn states(bytes: &[u8], geometry: Geometry) -> Vec<Hash> {
    let mut state = INITIAL_STATE;
    let chunks = bytes.chunks(geometry.chunk_size() as usize);
    let mut states: Vec<Hash> = chunks
        .map(|chunk| {
            compress256(&mut state, chunk.as_chunks().0);
            Hash::of_state(state)
        })
        .collect();
    if let Some(last) = states.last_mut() {
        *last = Hash::of(bytes);
    }
    states
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: the padding of one chunk, hashed on from the state after it, makes the chunk's own hash.
    #[test]
    fn the_state_after_a_chunk_and_its_padding_are_its_hash() {
        let geometry = Geometry::new(2_048, 1_024).expect("within limits");
        let states = states(&[7; 2_048], geometry);
        let mut state = states[0].to_state();
        let mut padding = [0; BLOCK_SIZE];
        padding[0] = 0x80;
        padding[56..].copy_from_slice(&(1_024u64 * 8).to_be_bytes());
        compress256(&mut state, &[padding]);
        assert_eq!(Hash::of_state(state), Hash::of(&[7; 1_024]));
    }

    #[test]
    fn links_follow_one_another_from_the_beginning_to_the_hash_of_the_file() {
        for size in [0, 1, 1_023, 1_024, 1_025, 4_096, 5_000u32] {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251).to_le_bytes()[0]).collect();
            let geometry = Geometry::new(bytes.len() as u64, 1_024).expect("within limits");
            let states = states(&bytes, geometry);
            let mut before = None;
            for index in 0..geometry.chunks() {
                let link = Link::of(index, &states, geometry).expect("a chunk");
                assert_eq!(link.before, before);
                assert_eq!(link.is_last, index + 1 == geometry.chunks());
                assert_eq!(Some(link.extent), geometry.extent(index));
                before = Some(link.after);
            }
            assert_eq!(before.unwrap_or(Hash::of(b"")), Hash::of(&bytes));
            assert_eq!(Link::of(geometry.chunks(), &states, geometry), None);
            if let Some((_, known)) = states.split_last() {
                let last = geometry.chunks() - 1;
                assert_eq!(Link::of(last, known, geometry), None, "not known yet");
            }
        }
    }
}
