//! Which part of a content a server gives out first, where several servers have all of it.
//!
//! Servers that do not know of each other's gifts would each give out everything once. Each begins with a part
//! of its own, so that together they give out everything once.

use anchorage_manifest::limits::CHUNKS_MAX;
use serde::{Deserialize, Serialize};

/// A part of every content, of equal size for every server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    index: u32,
    of: u32,
}

impl Share {
    /// Everything.
    pub fn whole() -> Self {
        Self { index: 0, of: 1 }
    }

    /// Part `index` of `of` parts of this share. More parts than a content has chunks make no sense; then it is
    /// the whole share.
    #[must_use]
    pub fn part(self, index: usize, of: usize) -> Self {
        let parts = u32::try_from(of)
            .ok()
            .and_then(|of| self.of.checked_mul(of));
        match (parts, u32::try_from(of), u32::try_from(index)) {
            (Some(parts @ 1..=CHUNKS_MAX), Ok(of), Ok(index)) if index < of => Self {
                index: self.index * of + index,
                of: parts,
            },
            _ => self,
        }
    }

    /// The chunks of the share, of so many in all.
    pub fn range(self, chunks: u32) -> std::ops::Range<u32> {
        let bound = |index: u32| {
            let at = u64::from(chunks) * u64::from(index) / u64::from(self.of);
            u32::try_from(at).expect("a part of a u32")
        };
        bound(self.index)..bound(self.index + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_parts_tile_the_whole() {
        for chunks in [0, 1, 7, 512, CHUNKS_MAX] {
            let mut next = 0;
            for anchor in 0..2 {
                for process in 0..3 {
                    let range = Share::whole()
                        .part(anchor, 2)
                        .part(process, 3)
                        .range(chunks);
                    assert_eq!(range.start, next);
                    next = range.end;
                }
            }
            assert_eq!(next, chunks);
        }
        assert_eq!(Share::whole().part(3, 2), Share::whole());
    }
}
