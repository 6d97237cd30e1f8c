//! A SHA-256 (FIPS 180-4): the name of a chunk, of a content and of a whole file.

use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// A SHA-256 in 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

crate::hex::name_in_hex!(Hash);

/// The text is not 64 hexadecimal digits.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("not 64 hexadecimal digits")]
pub struct NotHex;

impl Hash {
    /// Hashes `bytes` in one go.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// What a running hash has come to.
    pub fn finish(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// A state of SHA-256 in 32 bytes: eight words, big-endian. After the padding it is the hash.
    pub fn of_state(state: [u32; 8]) -> Self {
        let mut hash = [0; 32];
        for (word, bytes) in state.iter().zip(hash.as_chunks_mut::<4>().0) {
            *bytes = word.to_be_bytes();
        }
        Self(hash)
    }

    /// The state that [`Hash::of_state`] was made of.
    pub fn to_state(self) -> [u32; 8] {
        let mut state = [0; 8];
        for (word, bytes) in state.iter_mut().zip(self.0.as_chunks::<4>().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        state
    }

    /// The first twelve digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_nothing_is_the_standards() {
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Hash::of(b"").to_string(), text);
        assert_eq!(text.parse(), Ok(Hash::of(b"")));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "e3", &"g".repeat(64), &"é".repeat(32), &"0".repeat(65)] {
            assert_eq!(text.parse::<Hash>(), Err(NotHex), "{text:?}");
        }
    }
}
