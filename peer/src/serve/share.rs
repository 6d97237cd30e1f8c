//! Which part of a content a server gives out first, where several servers have all of it.
//!
//! Servers that do not know of each other's gifts would each give out everything once. Each begins with a part
//! of its own, so that together they give out everything once. The parts are interleaved: whoever gets a part
//! from each gets the file more or less from its beginning to its end, and can use and hash it as it comes.
//!
//! Servers with one store do know of each other's gifts (see `given`). One that is done with its part helps the others
//! with theirs, so that all of them are done at the same time.

use anchorage_manifest::limits::CHUNKS_MAX;
use serde::{Deserialize, Serialize};
use std::{iter::StepBy, ops::Range};

/// A part of every content, of equal size for every server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    index: u32,
    of: u32,
    /// How many parts, this one included, belong to servers with the same store: those whose index
    /// divided by it is the same.
    siblings: u32,
}

impl Share {
    /// Everything.
    pub fn whole() -> Self {
        Self {
            index: 0,
            of: 1,
            siblings: 1,
        }
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
                siblings: 1,
            },
            _ => self,
        }
    }

    /// [`Share::part`] of a server that has its store in common with those of the other parts.
    #[must_use]
    pub fn part_of_store(self, index: usize, of: usize) -> Self {
        let part = self.part(index, of);
        Self {
            siblings: part.of / self.of,
            ..part
        }
    }

    /// Which of the servers with the same store this is; none if it is the only one.
    pub fn sibling(self) -> Option<u32> {
        (self.siblings > 1).then_some(self.index % self.siblings)
    }

    /// The chunks of the share, of so many in all.
    pub fn chunks(self, chunks: u32) -> StepBy<Range<u32>> {
        (self.index..chunks).step_by(self.of as usize)
    }

    /// The chunks of the shares of all other servers with the same store.
    pub fn others(self, chunks: u32) -> impl Iterator<Item = u32> {
        let first = self.index - self.index % self.siblings;
        let others = (first..first + self.siblings).filter(move |&index| index != self.index);
        others.flat_map(move |index| Self { index, ..self }.chunks(chunks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_parts_tile_the_whole() {
        for chunks in [0, 1, 7, 512] {
            let mut all: Vec<u32> = (0..2)
                .flat_map(|anchor| (0..3).map(move |process| (anchor, process)))
                .flat_map(|(anchor, process)| {
                    let share = Share::whole().part(anchor, 2).part(process, 3);
                    share.chunks(chunks)
                })
                .collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..chunks));
            let one = Share::whole().part(1, 2).part_of_store(2, 3);
            assert_eq!(one.sibling(), Some(2));
            let mut family: Vec<u32> = one.chunks(chunks).chain(one.others(chunks)).collect();
            family.sort_unstable();
            assert!(
                family
                    .into_iter()
                    .eq((0..chunks).filter(|index| index % 6 >= 3))
            );
        }
        let alone = Share::whole().part(1, 2).part_of_store(0, 1);
        assert_eq!((alone.sibling(), alone.others(9).count()), (None, 0));
        assert_eq!(Share::whole().part(3, 2), Share::whole());
    }
}
