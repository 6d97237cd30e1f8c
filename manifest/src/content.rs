//! Content: the immutable list of a file's chunk hashes. Its id is the SHA-256 of its canonical encoding.
//!
//! ```text
//! offset  bytes     field
//!      0      8     "anchcnt1"
//!      8      8     size of the file, big-endian
//!     16      4     size of a chunk, big-endian
//!     20      4     number of chunks, big-endian
//!     24     32     SHA-256 of the whole file
//!     56     32·n   SHA-256 of each chunk, in order
//! ```
//! The list of a million chunks has 32 MB: it is itself a blob that travels like a chunk, named by the
//! content id. It carries no name, so the same bytes under two names are one content.

use crate::{Geometry, Hash, geometry::GeometryError, limits::CHUNKS_MAX};
use std::{fmt, str::FromStr};
use thiserror::Error;

const MAGIC: &[u8; 8] = b"anchcnt1";
const HEADER_SIZE: usize = 56;

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

/// The chunk hashes of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    geometry: Geometry,
    sha256: Hash,
    chunks: Vec<Hash>,
}

/// Why bytes are not a content.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ContentError {
    /// Shorter than the header, or not begun by the magic.
    #[error("not a chunk list")]
    NotAList,
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
    /// A content from its parts; fails if the number of hashes is not what the geometry makes.
    pub fn new(geometry: Geometry, sha256: Hash, chunks: Vec<Hash>) -> Result<Self, ContentError> {
        if chunks.len() != geometry.chunks() as usize {
            return Err(ContentError::Count {
                expected: geometry.chunks(),
                found: chunks.len(),
            });
        }
        Ok(Self {
            geometry,
            sha256,
            chunks,
        })
    }

    /// Sizes of the file and its chunks.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// SHA-256 of the whole file.
    pub fn sha256(&self) -> Hash {
        self.sha256
    }

    /// SHA-256 of every chunk, in order.
    pub fn chunks(&self) -> &[Hash] {
        &self.chunks
    }

    /// The canonical encoding, drawn at the head of this module.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_SIZE + 32 * self.chunks.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.geometry.size().to_be_bytes());
        bytes.extend_from_slice(&self.geometry.chunk_size().to_be_bytes());
        bytes.extend_from_slice(&self.geometry.chunks().to_be_bytes());
        bytes.extend_from_slice(&self.sha256.0);
        self.chunks
            .iter()
            .for_each(|chunk| bytes.extend_from_slice(&chunk.0));
        bytes
    }

    /// Reads a canonical encoding. Total: any bytes give a content or an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, ContentError> {
        let (header, list) = bytes
            .split_first_chunk::<HEADER_SIZE>()
            .ok_or(ContentError::NotAList)?;
        if &header[..8] != MAGIC {
            return Err(ContentError::NotAList);
        }
        let size = u64::from_be_bytes(header[8..16].try_into().expect("8 bytes"));
        let chunk_size = u32::from_be_bytes(header[16..20].try_into().expect("4 bytes"));
        let count = u32::from_be_bytes(header[20..24].try_into().expect("4 bytes"));
        let sha256 = Hash(header[24..56].try_into().expect("32 bytes"));
        let geometry = Geometry::new(size, chunk_size)?;
        if count != geometry.chunks() {
            return Err(ContentError::Count {
                expected: geometry.chunks(),
                found: count as usize,
            });
        }
        let (hashes, rest) = list.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(ContentError::NotAList);
        }
        Self::new(geometry, sha256, hashes.iter().copied().map(Hash).collect())
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
        let geometry = Geometry::new(size, 1024).expect("within limits");
        let chunks = (0..geometry.chunks())
            .map(|index| Hash::of(&index.to_be_bytes()))
            .collect();
        Content::new(geometry, Hash::of(b"whole"), chunks).expect("as many hashes as chunks")
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
