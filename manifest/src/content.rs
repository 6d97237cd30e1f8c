//! Content: the immutable list of a file's chunks. Its id is the SHA-256 of its canonical encoding.
//!
//! ```text
//! offset  bytes     field
//!      0      8     "anchcnt2"
//!      8      8     size of the file, big-endian
//!     16      4     size of a chunk, big-endian
//!     20      4     number of chunks, big-endian
//!     24     32·n   the state of the file's SHA-256 after each chunk, in order; after the last one, the file's SHA-256
//! ```
//! What the states are for stands in [`crate::link`].
//!
//! The list of a million chunks has 32 MB: it is itself a blob that travels like a chunk, named by the
//! content id. It carries no name, so the same bytes under two names are one content.

use crate::{Geometry, Hash, Link, geometry::GeometryError, limits::CHUNKS_MAX, link};
use std::{fmt, str::FromStr};
use thiserror::Error;

const MAGIC: &[u8; 8] = b"anchcnt2";
const HEADER_SIZE: usize = 24;

/// The largest canonical encoding in bytes.
pub const LIST_SIZE_MAX: usize = HEADER_SIZE + 32 * CHUNKS_MAX as usize;

/// Bytes of the list of a file of so many chunks.
pub fn list_size(chunks: u32) -> u64 {
    HEADER_SIZE as u64 + 32 * u64::from(chunks)
}

/// SHA-256 of a content's canonical encoding.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct ContentId(pub Hash);

/// The chunks of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    geometry: Geometry,
    states: Vec<Hash>,
}

/// Why bytes are not a content.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ContentError {
    /// Shorter than the header, or not begun by the magic.
    #[error("not a chunk list")]
    NotAList,
    /// The list of another version of the program.
    #[error("a chunk list of another version: the file has to be published again")]
    OtherVersion,
    /// The sizes are outside the limits.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The number of chunks does not follow from the sizes.
    #[error("a file of this size has {expected} chunks, the list has {found}")]
    Count {
        /// What the sizes make.
        expected: u32,
        /// What the list says or holds.
        found: usize,
    },
    /// The bytes are those of another content.
    #[error("the list hashes to {found}, not to {expected}")]
    Id {
        /// The id asked for.
        expected: ContentId,
        /// The id of these bytes.
        found: ContentId,
    },
}

impl Content {
    /// A content from its parts; fails if the number of states is not what the geometry makes.
    pub fn new(geometry: Geometry, states: Vec<Hash>) -> Result<Self, ContentError> {
        if states.len() != geometry.chunks() as usize {
            return Err(ContentError::Count {
                expected: geometry.chunks(),
                found: states.len(),
            });
        }
        Ok(Self { geometry, states })
    }

    /// The content of a file that is in memory.
    pub fn of(bytes: &[u8], chunk_size: u32) -> Result<Self, ContentError> {
        let geometry = Geometry::new(bytes.len() as u64, chunk_size)?;
        Self::new(geometry, link::states(bytes, geometry))
    }

    /// Sizes of the file and its chunks.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// SHA-256 of the whole file.
    pub fn sha256(&self) -> Hash {
        let last = self.states.last();
        last.copied().unwrap_or_else(|| Hash::of(b""))
    }

    /// The state of the file's SHA-256 after every chunk, in order; after the last one, the hash.
    pub fn states(&self) -> &[Hash] {
        &self.states
    }

    /// What chunk `index` is verified by; `None` past the last.
    pub fn link(&self, index: u32) -> Option<Link> {
        Link::of(index, &self.states, self.geometry)
    }

    /// The canonical encoding, drawn at the head of this module.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_SIZE + 32 * self.states.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.geometry.size().to_be_bytes());
        bytes.extend_from_slice(&self.geometry.chunk_size().to_be_bytes());
        bytes.extend_from_slice(&self.geometry.chunks().to_be_bytes());
        bytes.extend(self.states.iter().flat_map(|state| state.0));
        bytes
    }

    /// Reads a canonical encoding. Total: any bytes give a content or an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, ContentError> {
        let (header, list) = bytes
            .split_first_chunk::<HEADER_SIZE>()
            .ok_or(ContentError::NotAList)?;
        if &header[..8] != MAGIC {
            let is_list = header[..7] == MAGIC[..7];
            return Err(if is_list {
                ContentError::OtherVersion
            } else {
                ContentError::NotAList
            });
        }
        let size = u64::from_be_bytes(header[8..16].try_into().expect("8 bytes"));
        let chunk_size = u32::from_be_bytes(header[16..20].try_into().expect("4 bytes"));
        let count = u32::from_be_bytes(header[20..24].try_into().expect("4 bytes"));
        let geometry = Geometry::new(size, chunk_size)?;
        if count != geometry.chunks() {
            return Err(ContentError::Count {
                expected: geometry.chunks(),
                found: count as usize,
            });
        }
        let (states, rest) = list.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(ContentError::NotAList);
        }
        Self::new(geometry, states.iter().copied().map(Hash).collect())
    }

    /// Reads a canonical encoding that must have the id `expected`.
    pub fn decode_as(bytes: &[u8], expected: ContentId) -> Result<Self, ContentError> {
        let found = ContentId(Hash::of(bytes));
        if found != expected {
            return Err(ContentError::Id { expected, found });
        }
        Self::decode(bytes)
    }

    /// The content's id.
    pub fn id(&self) -> ContentId {
        ContentId(Hash::of(&self.encode()))
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for ContentId {
    type Err = crate::hash::NotHex;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content(size: u64) -> Content {
        let bytes: Vec<u8> = (0..size).map(|at| (at % 251).to_le_bytes()[0]).collect();
        Content::of(&bytes, 1024).expect("within limits")
    }

    #[test]
    fn the_encoding_never_changes() {
        assert_eq!(
            content(2500).id().to_string(),
            include_str!("../../data/golden/content-id.txt").trim_end(),
            "the id of every published content would change"
        );
    }

    #[test]
    fn lies_are_found() {
        let good = content(2500).encode();
        assert_eq!(
            Content::decode(&good[..good.len() - 32]).map(drop),
            Err(ContentError::Count {
                expected: 3,
                found: 2
            })
        );
        assert_eq!(
            Content::decode(&good[..good.len() - 1]).map(drop),
            Err(ContentError::NotAList)
        );
        assert_eq!(
            Content::decode(b"plain text").map(drop),
            Err(ContentError::NotAList)
        );
        let mut old = good.clone();
        old[7] = b'1';
        assert_eq!(
            Content::decode(&old).map(drop),
            Err(ContentError::OtherVersion)
        );
        let mut count = good.clone();
        count[23] = 4;
        assert_eq!(
            Content::decode(&count).map(drop),
            Err(ContentError::Count {
                expected: 3,
                found: 4
            })
        );
        let mut other = good;
        other[60] ^= 1;
        assert!(matches!(
            Content::decode_as(&other, content(2500).id()),
            Err(ContentError::Id { .. })
        ));
    }

    proptest! {
        #[test]
        fn encoding_round_trips(size in 0u64..100_000) {
            let content = content(size);
            prop_assert_eq!(Content::decode_as(&content.encode(), content.id()), Ok(content));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200), magic: bool) {
            if magic && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(MAGIC);
            }
            if let Ok(content) = Content::decode(&bytes) {
                prop_assert_eq!(content.encode(), bytes);
            }
        }
    }
}
