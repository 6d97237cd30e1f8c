//! The chunks that are still to be asked for, and how rare each chunk is among the sources.

use anchorage_manifest::Bitmap;

/// Wanted chunks near the front of the file among which the rarest is looked for.
const FRONT_CHUNKS: usize = 256;

/// One in so many picks is the first chunk, however common: else chunks that came early and are everywhere by now would be
/// left for the end. Where half of the uplinks are slow, sixteen getters are done two hundredths sooner (simulated).
const FIRST_EVERY: u32 = 4;

/// Neither stored nor requested.
#[derive(Debug)]
pub(super) struct Wanted {
    chunks: Bitmap,
    /// No wanted chunk is before this one.
    front: u32,
    /// How many sources have each chunk, wanted or not.
    copies: Vec<u16>,
    /// How many of them are no origins.
    peers: Vec<u16>,
    /// How many wanted chunks somebody has who is no origin.
    offered: usize,
    /// The rarest found so far; empty between picks, kept for its memory.
    rarest: Vec<u32>,
}

impl Wanted {
    /// All that is not stored, and no source of it.
    pub(super) fn new(stored: &Bitmap) -> Self {
        let mut chunks = Bitmap::empty(stored.len());
        for index in stored.missing() {
            chunks.insert(index);
        }
        Self {
            chunks,
            front: stored.first_missing(),
            copies: vec![0; stored.len() as usize],
            peers: vec![0; stored.len() as usize],
            offered: 0,
            rarest: Vec::new(),
        }
    }

    /// How many chunks are wanted.
    pub(super) fn count(&self) -> u32 {
        self.chunks.count()
    }

    /// The first wanted chunk.
    pub(super) fn first(&self) -> Option<u32> {
        self.chunks.next_from(self.front)
    }

    /// How many sources have a chunk.
    pub(super) fn copies(&self, index: u32) -> u16 {
        self.copies[index as usize]
    }

    /// How many wanted chunks somebody has who is no origin.
    pub(super) fn offered(&self) -> usize {
        self.offered
    }

    /// One more source has a chunk.
    pub(super) fn gain(&mut self, index: u32, is_origin: bool) {
        self.copies[index as usize] += 1;
        if !is_origin {
            let peers = &mut self.peers[index as usize];
            *peers += 1;
            self.offered += usize::from(*peers == 1 && self.chunks.contains(index));
        }
    }

    /// One source less has a chunk.
    pub(super) fn lose(&mut self, index: u32, is_origin: bool) {
        self.copies[index as usize] -= 1;
        if !is_origin {
            let peers = &mut self.peers[index as usize];
            *peers -= 1;
            self.offered -= usize::from(*peers == 0 && self.chunks.contains(index));
        }
    }

    fn is_offered(&self, index: u32) -> bool {
        self.peers[index as usize] > 0
    }

    /// A chunk is wanted again.
    pub(super) fn insert(&mut self, index: u32) {
        if self.chunks.insert(index) {
            self.offered += usize::from(self.is_offered(index));
        }
        self.front = self.front.min(index);
    }

    /// A chunk is wanted no longer.
    pub(super) fn remove(&mut self, index: u32) {
        if self.chunks.remove(index) {
            self.offered -= usize::from(self.is_offered(index));
        }
        if index == self.front {
            self.front = self.chunks.next_from(index).unwrap_or(self.chunks.len());
        }
    }

    /// The rarest of the first wanted chunks in `have`, of which there are at most so many copies; among equals any. Now
    /// and then, if any number of copies is right, simply the first.
    pub(super) fn rarest(
        &mut self,
        have: &Bitmap,
        copies_max: usize,
        rng: &mut fastrand::Rng,
    ) -> Option<u32> {
        let mut least = u16::try_from(copies_max).unwrap_or(u16::MAX);
        self.rarest.clear();
        let mut wanted = self.chunks.intersection_from(have, self.front);
        if copies_max == usize::MAX && rng.u32(..FIRST_EVERY) == 0 {
            return wanted.next();
        }
        for index in wanted.take(FRONT_CHUNKS) {
            let copies = self.copies[index as usize];
            if copies > least {
                continue;
            }
            if copies < least {
                least = copies;
                self.rarest.clear();
            }
            self.rarest.push(index);
        }
        rng.choice(&self.rarest).copied()
    }
}
