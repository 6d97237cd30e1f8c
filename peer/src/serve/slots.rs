//! The few chunks that a process sends at the same time, and who may send the next.
//!
//! TCP does not share a line evenly among many connections, and a chunk that has arrived whole can be passed on
//! while half a chunk cannot: so the source decides whose chunk goes next, and sends few at a time, whole. Who
//! has the least rank is next; among equals, who waits longest.

/// Chunks that are sent at the same time.
const SLOTS: usize = 4;

/// Slots, and those who wait for one.
#[derive(Debug)]
pub struct Slots<W> {
    free: usize,
    /// In the order in which they came.
    waiting: Vec<W>,
}

impl<W> Default for Slots<W> {
    fn default() -> Self {
        Self {
            free: SLOTS,
            waiting: Vec::new(),
        }
    }
}

impl<W> Slots<W> {
    /// Takes a slot, if one is free; whoever gets none waits.
    pub fn take(&mut self) -> bool {
        let is_free = self.free > 0;
        self.free -= usize::from(is_free);
        is_free
    }

    /// Somebody waits for a slot.
    pub fn wait(&mut self, who: W) {
        self.waiting.push(who);
    }

    /// A slot is given back: who of those who are still there gets it. If nobody does, it is free.
    pub fn give_back(
        &mut self,
        is_there: impl FnMut(&W) -> bool,
        rank: impl FnMut(&W) -> usize,
    ) -> Option<W> {
        self.waiting.retain(is_there);
        let ranks = self.waiting.iter().map(rank).enumerate();
        match ranks.min_by_key(|&(_, rank)| rank) {
            Some((place, _)) => Some(self.waiting.remove(place)),
            None => {
                self.free += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_rank_is_next_and_among_equals_who_waits_longest() {
        let mut subject = Slots::default();
        assert_eq!((0..10).filter(|_| subject.take()).count(), SLOTS);
        for (name, rank) in [("a", 2), ("b", 1), ("gone", 0), ("c", 1)] {
            subject.wait((name, rank));
        }
        let mut next = || subject.give_back(|&(name, _)| name != "gone", |&(_, rank)| rank);
        let order: Vec<_> = (0..4).map(|_| next().map(|(name, _)| name)).collect();
        assert_eq!(order, [Some("b"), Some("c"), Some("a"), None]);
        assert!(subject.take(), "what nobody waits for is free");
        assert!(!subject.take());
    }
}
