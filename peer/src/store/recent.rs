//! Which chunks were written a short time ago, so that the kernel still has them in memory.

use std::sync::atomic::{AtomicU32, Ordering};

/// Chunks that are remembered, a power of two. What many ask for is asked for within a second of its coming.
const PLACES: usize = 1024;

/// The last chunks that a process wrote: a chunk's place is its index modulo [`PLACES`], and the last one has it.
#[derive(Debug)]
pub(super) struct Recent(Box<[AtomicU32]>);

impl Default for Recent {
    fn default() -> Self {
        Self((0..PLACES).map(|_| AtomicU32::new(u32::MAX)).collect())
    }
}

impl Recent {
    /// A chunk was written.
    pub(super) fn insert(&self, index: u32) {
        self.place(index).store(index, Ordering::Relaxed);
    }

    /// Whether a chunk was written not long ago.
    pub(super) fn contains(&self, index: u32) -> bool {
        self.place(index).load(Ordering::Relaxed) == index
    }

    fn place(&self, index: u32) -> &AtomicU32 {
        &self.0[index as usize % PLACES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_each_place_are_remembered() {
        let subject = Recent::default();
        assert!(!subject.contains(0));
        (0..2000).for_each(|index| subject.insert(index));
        let remembered: Vec<u32> = (0..4000).filter(|&index| subject.contains(index)).collect();
        assert_eq!(remembered.len(), PLACES);
        assert_eq!(remembered.last(), Some(&1999));
    }
}
