//! Whom a node asks, of all who have something: who stands next to it in each of some rings.
//!
//! In every ring all nodes stand in another order, which looks random and which everybody can work out. So each is asked
//! by as many as it asks, though nobody tells anybody: of sources chosen at random some are asked by twice as many as
//! others, and all wait for those. A newcomer becomes somebody else's neighbour once a ring. Such graphs are expanders:
//! a chunk is everywhere within a few hops (C. Law, K.-Y. Siu, "Distributed construction of random expander networks",
//! INFOCOM 2003).
//!
//! Whoever makes keys until some of them stand next to a certain node can be all its neighbours. What they send is verified
//! as everything is, anchors are asked beside them, and whoever fails, lies or says nothing is stood in for by the next.

use anchorage_manifest::NodeId;
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeSet, ops::Bound};

/// Rings, and most neighbours of a node. Fewer than that many nodes are all neighbours of one another.
pub const RINGS: usize = 16;

/// Nodes, in the order of every ring.
#[derive(Debug, Default)]
pub struct Rings([BTreeSet<(u64, NodeId)>; RINGS]);

impl Rings {
    /// A node takes its places.
    pub fn insert(&mut self, node: NodeId) {
        for (ring, place) in self.0.iter_mut().zip(places(&node)) {
            ring.insert((place, node));
        }
    }

    /// A node gives its places up.
    pub fn remove(&mut self, node: NodeId) {
        for (ring, place) in self.0.iter_mut().zip(places(&node)) {
            ring.remove(&(place, node));
        }
    }

    /// The neighbours of `node`, which need not be in the rings: in each ring the next one that suits and is no
    /// neighbour by another ring. With no more than [`RINGS`] others that suit it is all of them.
    pub fn neighbours(&self, node: NodeId, mut suits: impl FnMut(NodeId) -> bool) -> Vec<NodeId> {
        let mut neighbours = Vec::with_capacity(RINGS);
        for (ring, place) in self.0.iter().zip(places(&node)) {
            let own = (place, node);
            let behind = ring.range((Bound::Excluded(own), Bound::Unbounded));
            let mut others = behind.chain(ring.range(..own)).map(|&(_, other)| other);
            neighbours.extend(others.find(|&other| !neighbours.contains(&other) && suits(other)));
        }
        neighbours
    }
}

/// Where a node stands in each ring.
fn places(node: &NodeId) -> [u64; RINGS] {
    let mut places = [0; RINGS];
    for (part, places) in (0_u8..).zip(places.chunks_mut(4)) {
        let digest = Sha256::new().chain_update([part]).chain_update(node.0);
        let digest = digest.finalize();
        let (words, _) = digest.as_chunks::<8>();
        for (place, &word) in places.iter_mut().zip(words) {
            *place = u64::from_be_bytes(word);
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn node(number: usize) -> NodeId {
        let mut id = NodeId([0; 32]);
        id.0[..8].copy_from_slice(&number.to_le_bytes());
        id
    }

    fn rings(nodes: impl IntoIterator<Item = usize>) -> Rings {
        let mut rings = Rings::default();
        nodes
            .into_iter()
            .for_each(|number| rings.insert(node(number)));
        rings
    }

    #[test]
    fn all_are_asked_by_about_as_many_as_they_ask() {
        for nodes in [17, 24, 32, 128, 1000] {
            let rings = rings(0..nodes);
            let mut askers = BTreeMap::<NodeId, usize>::new();
            for asker in 0..nodes {
                for source in rings.neighbours(node(asker), |_| true) {
                    *askers.entry(source).or_default() += 1;
                }
            }
            assert_eq!(askers.values().sum::<usize>(), nodes * RINGS);
            let (least, most) = (askers.values().min(), askers.values().max());
            // Chosen at random it would be 4 to 28 of a thousand.
            assert!(
                least >= Some(&12) && most <= Some(&20),
                "{nodes}: {least:?} to {most:?}"
            );
        }
    }

    #[test]
    fn everybody_is_within_a_few_hops() {
        let rings = rings(0..1000);
        let mut reached = BTreeSet::from([node(0)]);
        // 16³ are 4,096.
        for _ in 0..4 {
            let next = reached
                .iter()
                .flat_map(|&node| rings.neighbours(node, |_| true));
            let next: Vec<NodeId> = next.collect();
            reached.extend(next);
        }
        assert_eq!(reached.len(), 1000);
    }

    #[test]
    fn who_comes_changes_little() {
        let (before, after) = (rings(0..200), rings(0..201));
        let changed = (0..200).filter(|&number| {
            before.neighbours(node(number), |_| true) != after.neighbours(node(number), |_| true)
        });
        assert!((RINGS / 2..=2 * RINGS).contains(&changed.count()));
    }

    proptest! {
        #[test]
        fn neighbours_are_others_that_suit_and_as_many_as_there_are(
            all in prop::collection::btree_set(0..500_usize, 0..60),
            gone in prop::collection::btree_set(0..500_usize, 0..60),
            asker in 0..500_usize,
        ) {
            let mut subject = rings(all.iter().copied());
            gone.iter().for_each(|&number| subject.remove(node(number)));
            let suits = |other: NodeId| !other.0[0].is_multiple_of(3);
            let neighbours = subject.neighbours(node(asker), suits);
            let distinct: BTreeSet<NodeId> = neighbours.iter().copied().collect();
            prop_assert_eq!(distinct.len(), neighbours.len());
            let others = all.difference(&gone).map(|&number| node(number));
            let others = others.filter(|&other| other != node(asker) && suits(other));
            let others: BTreeSet<NodeId> = others.collect();
            prop_assert!(distinct.is_subset(&others));
            prop_assert_eq!(distinct.len(), others.len().min(RINGS));
        }
    }
}
