//! The list of a content's chunks: who is asked for it, and what is asked with it.
//!
//! When many come at once, the list is the first thing that all of them want of the same line. The first few get it from
//! an anchor; the others ask one of those who came before, who pass it on as soon as they have it.

use super::part_of;
use crate::{
    dial::Ahead,
    failure::{Exit, Failure},
    lookup::{self, FoundList},
    node::Node,
    scheduler::REQUESTS_MIN,
    session::Session,
};
use anchorage_manifest::{Bitmap, NodeId, Release, Source, content::list_size, limits::PEERS_MAX};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc::UnboundedSender;

/// What anchors may spend on the lists of a content in any case, in bytes.
const BUDGET_MIN: u64 = 128 << 10;

/// What they may spend of a file's size, one part in so many.
const BUDGET_PART: u64 = 512;

/// What they may spend of a small file's size at most, one part in so many.
const BUDGET_PART_MAX: u64 = 32;

/// What a source will be asked when the list is there; nothing where it is not certain, for something of the file may be
/// here.
pub(super) fn ahead(node: &Node, release: &Release, path: &Path) -> Ahead {
    let is_new = node.store.slot(release.content).is_none();
    if !is_new || path.exists() || part_of(path).is_ok_and(|part| part.exists()) {
        return Ahead::default();
    }
    Ahead {
        interested: Some(Bitmap::empty(release.geometry.chunks())),
        // As many as the scheduler will want.
        any: REQUESTS_MIN.min(release.geometry.chunks()),
    }
}

/// The list of chunks; who has it is asked again and again until somebody does. Who might be asked for chunks is sent to
/// `found`: at once, but for the one who is asked for the list, whose connection is in use until then.
pub(super) async fn list(
    node: &Arc<Node>,
    anchors: &[&Session],
    release: &Release,
    timeout_s: u64,
    found: UnboundedSender<Vec<Source>>,
    ahead: &Ahead,
) -> Result<FoundList, Failure> {
    let deadline = Instant::now() + Duration::from_secs(timeout_s);
    loop {
        let mut sources = lookup::sources_and_connection(node, anchors, release.content).await;
        let lists = (sources.len() as u64 + 1) * list_size(release.geometry.chunks());
        if sources.len() < PEERS_MAX && lists <= budget(release.geometry.size()) {
            sources.sort_by_key(|&source| !node.idle.has(source));
        } else {
            pass_on(&mut sources, node.identity.id(), |id| node.is_anchor(id));
        }
        let (asked, others) = sources.split_at(sources.len().min(1));
        // Nobody may want to know.
        drop(found.send(others.to_vec()));
        let asked = asked.to_vec();
        let is_anchor = asked.iter().any(|source| node.is_anchor(source.node));
        let ahead = Ahead {
            // Others have not everything, and choose nothing.
            any: ahead.any * u32::from(is_anchor),
            ..ahead.clone()
        };
        let listed = lookup::list(node, release, sources, ahead).await;
        drop(found.send(asked));
        match listed {
            Err(failure) if failure.exit == Exit::Incomplete && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            Err(failure) if failure.exit == Exit::Incomplete => {
                return Err(failure.hint("the publisher may have to serve it: `peer serve`"));
            }
            result => return result,
        }
    }
}

/// Bytes that the anchors may spend on lists for all who fetch a file of this size.
fn budget(size: u64) -> u64 {
    let budget = (size / BUDGET_PART).max(BUDGET_MIN);
    budget.min(size / BUDGET_PART_MAX)
}

/// The order in which sources are asked if others than the anchors are to pass the list on: one of them, then the anchors,
/// should it not come soon. Whoever is asked may be waiting for the list itself: it is one whose id is less than `own`, so
/// that no two wait for each other, and any of those, so that all lines are used.
fn pass_on(sources: &mut [Source], own: NodeId, is_anchor: impl Fn(NodeId) -> bool) {
    fastrand::shuffle(sources);
    sources.sort_by_key(|source| !is_anchor(source.node));
    let passes_on = |source: &Source| source.node < own && !is_anchor(source.node);
    if let Some(place) = sources.iter().position(passes_on) {
        sources[..=place].rotate_right(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::btree_set, prelude::*};

    fn source(id: u8) -> Source {
        Source {
            node: NodeId([id; 32]),
            address: ([127, 0, 0, 1], u16::from(id)).into(),
        }
    }

    #[test]
    fn anchors_spend_little_on_lists() {
        let mib = 1 << 20;
        for (size, bytes) in [
            (mib, mib / 32),
            (64 * mib, mib / 8),
            (10_240 * mib, 20 * mib),
        ] {
            assert_eq!(budget(size), bytes, "{size}");
        }
    }

    proptest! {
        #[test]
        fn one_of_a_lesser_id_is_asked_then_the_anchors(ids in btree_set(any::<u8>(), 1..20)) {
            let is_anchor = |NodeId([id, ..]): NodeId| id % 4 == 3;
            let (anchors, peers): (Vec<u8>, Vec<u8>) =
                ids.iter().partition(|&&id| is_anchor(NodeId([id; 32])));
            for &own in &peers {
                let mut order: Vec<Source> = ids.iter().filter(|&&id| id != own).map(|&id| source(id)).collect();
                pass_on(&mut order, NodeId([own; 32]), is_anchor);
                let order: Vec<u8> = order.iter().map(|source| source.node.0[0]).collect();
                let mut sorted = order.clone();
                sorted.sort_unstable();
                prop_assert_eq!(sorted.len() + 1, ids.len());
                prop_assert!(sorted.iter().all(|id| ids.contains(id)));
                let passing = usize::from(own != peers[0]);
                if passing == 1 {
                    prop_assert!(order[0] < own && peers.contains(&order[0]));
                }
                for id in &order[passing..][..anchors.len()] {
                    prop_assert!(anchors.contains(id));
                }
            }
        }
    }
}
