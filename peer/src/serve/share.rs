//! Which part of a content a server gives out first, where several servers have all of it.
//!
//! Servers that do not know of each other's gifts would each give out everything once. Each gives out a part
//! of its own, so that together they give out everything once. The parts are interleaved: whoever gets a part
//! from each gets the file more or less from its beginning to its end, and can use it as it comes. What is left of the
//! others' parts when a server is done with its own, it gives out as well: see `audience`.
//!
//! Servers with one store do know of each other's gifts (see `given`). They have one part together, and whoever of
//! them is asked next gives out the next chunk: none of them lags behind.

use anchorage_manifest::limits::CHUNKS_MAX;
use serde::{Deserialize, Serialize};

/// A part of every content, of equal size for every store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    index: u32,
    of: u32,
    /// Which of the servers with the same store this is; none if it is the only one.
    sibling: Option<u32>,
}

impl Share {
    /// Everything.
    pub fn whole() -> Self {
        Self {
            index: 0,
            of: 1,
            sibling: None,
        }
    }

    /// Part `index` of `of` parts. More parts than a content has chunks make no sense; then it is everything.
    pub fn part(index: usize, of: usize) -> Self {
        match (u32::try_from(index), u32::try_from(of)) {
            (Ok(index), Ok(of @ 1..=CHUNKS_MAX)) if index < of => Self {
                index,
                of,
                sibling: None,
            },
            _ => Self::whole(),
        }
    }

    /// The same share for server `index` of `of`, which have a store in common.
    #[must_use]
    pub fn of_sibling(self, index: u32, of: u32) -> Self {
        Self {
            sibling: (of > 1).then_some(index),
            ..self
        }
    }

    /// Which of the servers with the same store this is; none if it is the only one.
    pub fn sibling(self) -> Option<u32> {
        self.sibling
    }

    /// Whether a chunk is of the share.
    pub fn contains(self, index: u32) -> bool {
        index % self.of == self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks_of(share: Share, chunks: u32) -> impl Iterator<Item = u32> {
        (0..chunks).filter(move |&index| share.contains(index))
    }

    #[test]
    fn parts_tile_the_whole() {
        for chunks in [0, 1, 7, 512] {
            let mut all: Vec<u32> = (0..3)
                .flat_map(|anchor| chunks_of(Share::part(anchor, 3), chunks))
                .collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..chunks));
        }
        let one = Share::part(1, 2).of_sibling(2, 3);
        assert_eq!(one.sibling(), Some(2));
        assert!(chunks_of(one, 9).eq([1, 3, 5, 7]));
        assert_eq!(Share::whole().of_sibling(0, 1), Share::whole());
        assert_eq!(Share::part(3, 2), Share::whole());
    }
}
