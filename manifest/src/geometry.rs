//! How a file is cut: chunks of equal size, the last one shorter.

use crate::{
    limits::{CHUNK_SIZE_DEFAULT_MIN, CHUNK_SIZE_MAX, CHUNK_SIZE_MIN, CHUNKS_MAX},
    link::BLOCK_SIZE,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Size of a file and of its chunks, in bytes; known to be within the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
pub struct Geometry {
    size: u64,
    chunk_size: u32,
}

/// Why a file cannot be cut like that.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum GeometryError {
    /// The chunk size is outside the limits, or a chunk would end within a block of SHA-256.
    #[error(
        "a chunk has {CHUNK_SIZE_MIN} to {CHUNK_SIZE_MAX} bytes, a multiple of {BLOCK_SIZE}, not {0}"
    )]
    ChunkSize(u32),
    /// There would be more than [`CHUNKS_MAX`] chunks.
    #[error("{size} bytes in chunks of {chunk_size} make more than {CHUNKS_MAX} chunks")]
    TooMany {
        /// Size of the file in bytes.
        size: u64,
        /// Size of a chunk in bytes.
        chunk_size: u32,
    },
}

/// Where a chunk lies in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Number of bytes, at least one.
    pub size: u32,
}

#[derive(Serialize, Deserialize)]
struct Unchecked {
    size: u64,
    chunk_size: u32,
}

impl Geometry {
    /// Cuts `size` bytes into chunks of `chunk_size`.
    pub fn new(size: u64, chunk_size: u32) -> Result<Self, GeometryError> {
        let is_whole_blocks = (chunk_size as usize).is_multiple_of(BLOCK_SIZE);
        if !is_whole_blocks || !(CHUNK_SIZE_MIN..=CHUNK_SIZE_MAX).contains(&chunk_size) {
            return Err(GeometryError::ChunkSize(chunk_size));
        }
        if size.div_ceil(u64::from(chunk_size)) > u64::from(CHUNKS_MAX) {
            return Err(GeometryError::TooMany { size, chunk_size });
        }
        Ok(Self { size, chunk_size })
    }

    /// The chunk size for a file of `size` bytes when nobody chose one: 16·√size, but at most one of 2,048 parts of the file,
    /// rounded up to a power of two.
    ///
    /// It grows with √size as libtorrent's does, so that both the list and a chunk stay small. Two thousand chunks keep the
    /// time to fill a swarm near its minimum (Mundinger, Weber and Weiss, 2008): each node is behind by as many chunks as it
    /// has sources. Where that makes small ones, a node that has all of a line for itself is not much slower.
    pub fn default_chunk_size(size: u64) -> u32 {
        let wanted = size
            .isqrt()
            .saturating_mul(16)
            .min(size / 2048)
            .checked_next_power_of_two()
            .unwrap_or(u64::MAX);
        let bounded = wanted.clamp(u64::from(CHUNK_SIZE_DEFAULT_MIN), u64::from(CHUNK_SIZE_MAX));
        u32::try_from(bounded).expect("clamped to a u32")
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of every chunk but the last.
    pub fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    /// Number of chunks; none for an empty file.
    pub fn chunks(&self) -> u32 {
        u32::try_from(self.size.div_ceil(u64::from(self.chunk_size))).expect("checked by new")
    }

    /// Where chunk `index` lies; `None` past the last.
    pub fn extent(&self, index: u32) -> Option<Extent> {
        let offset = u64::from(index) * u64::from(self.chunk_size);
        let rest = self.size.checked_sub(offset).filter(|&rest| rest > 0)?;
        let size = u32::try_from(rest.min(u64::from(self.chunk_size))).expect("at most a chunk");
        Some(Extent { offset, size })
    }
}

impl TryFrom<Unchecked> for Geometry {
    type Error = GeometryError;

    fn try_from(unchecked: Unchecked) -> Result<Self, GeometryError> {
        Self::new(unchecked.size, unchecked.chunk_size)
    }
}

impl From<Geometry> for Unchecked {
    fn from(geometry: Geometry) -> Self {
        Self {
            size: geometry.size,
            chunk_size: geometry.chunk_size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_grows_with_the_root_of_the_size() {
        for (size, chunk_size) in [
            (0, 16 << 10),
            (320_000, 16 << 10),
            (64 << 20, 32 << 10),
            (1 << 30, 512 << 10),
            (1 << 44, 16 << 20),
        ] {
            assert_eq!(Geometry::default_chunk_size(size), chunk_size, "{size}");
            assert!(Geometry::new(size, chunk_size).is_ok());
        }
        assert_eq!(Geometry::default_chunk_size(u64::MAX), CHUNK_SIZE_MAX);
    }

    #[test]
    fn limits_hold() {
        assert_eq!(Geometry::new(1, 0), Err(GeometryError::ChunkSize(0)));
        for wrong in [1023, 1025, 960] {
            assert_eq!(
                Geometry::new(1, wrong),
                Err(GeometryError::ChunkSize(wrong))
            );
        }
        assert!(Geometry::new(1 << 30, 1024).is_ok());
        assert!(Geometry::new((1 << 30) + 1, 1024).is_err());
    }

    proptest! {
        #[test]
        fn extents_tile_the_file(size in 0u64..1 << 20, blocks in 16u32..1 << 10) {
            let chunk_size = blocks * 64;
            let geometry = Geometry::new(size, chunk_size).expect("within limits");
            let mut next = 0;
            for index in 0..geometry.chunks() {
                let extent = geometry.extent(index).expect("a chunk");
                prop_assert_eq!(extent.offset, next);
                prop_assert!(extent.size > 0 && extent.size <= chunk_size);
                next += u64::from(extent.size);
            }
            prop_assert_eq!(next, size);
            prop_assert_eq!(geometry.extent(geometry.chunks()), None);
        }
    }
}
