//! Of which holders the chunks are told: of as many as fit one answer, those first that take the fewest bytes.
//!
//! Complete nodes, and those that fetch in order, take next to nothing, so this cuts off none but a crowd in
//! the middle of a download; there a sample of a hundred says as much about a chunk as all of them.

use super::held::Held;
use anchorage_manifest::{NodeId, limits::HOLDERS_SIZE_MAX};
use std::collections::BTreeMap;

/// Where the holders whose chunks are told end. It depends on the holders alone, so every page finds the same.
pub(super) struct Budget {
    /// The first that does not fit.
    end: Option<(usize, NodeId)>,
}

impl Budget {
    /// What fits of these holders.
    pub(super) fn of(holders: &BTreeMap<NodeId, Held>) -> Self {
        let mut sizes: Vec<(usize, NodeId)> = holders
            .iter()
            .map(|(&node, held)| (held.packed_size(), node))
            .collect();
        sizes.sort_unstable();
        let mut left = HOLDERS_SIZE_MAX;
        let end = sizes.into_iter().find(|&(size, _)| {
            let fits = left.checked_sub(size);
            left = fits.unwrap_or_default();
            fits.is_none()
        });
        Self { end }
    }

    /// Whether a node's chunks are told.
    pub(super) fn covers(&self, node: NodeId, held: &Held) -> bool {
        self.end.is_none_or(|end| (held.packed_size(), node) < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anchorage_manifest::Bitmap;

    const CHUNKS: u32 = 100_000;

    #[test]
    fn the_short_are_told_and_as_many_of_the_long_as_fit() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut holders = BTreeMap::new();
        for number in 0..200u8 {
            let mut have = Bitmap::empty(CHUNKS);
            if number.is_multiple_of(10) {
                have.insert_range(0..CHUNKS / 2);
            } else {
                (0..CHUNKS).filter(|_| rng.bool()).for_each(|index| {
                    have.insert(index);
                });
            }
            let mut held = Held::empty(CHUNKS);
            for segment in have.segments() {
                held.merge(&segment).expect("as long as the content");
            }
            holders.insert(NodeId([number; 32]), held);
        }
        let budget = Budget::of(&holders);
        let told: Vec<_> = holders
            .iter()
            .filter(|&(&node, held)| budget.covers(node, held))
            .collect();
        let size: usize = told.iter().map(|(_, held)| held.packed_size()).sum();
        assert!(size <= HOLDERS_SIZE_MAX && size + 12_500 > HOLDERS_SIZE_MAX);
        let prefixes = told.iter().filter(|(node, _)| node.0[0] % 10 == 0).count();
        assert_eq!(prefixes, 20);
        holders.retain(|node, _| node.0[0] < 100);
        let budget = Budget::of(&holders);
        assert!(
            holders
                .iter()
                .all(|(&node, held)| budget.covers(node, held))
        );
    }
}
