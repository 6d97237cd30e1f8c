//! Is what came the chunk that the list says?

use crate::sha256::{Running, update_both, update_both_with};
use anchorage_manifest::{Hash, Link};

/// Whether bytes are a chunk: whether they lead from the state before it to the one after it.
pub fn check(link: &Link, bytes: &[u8]) -> bool {
    let mut running = before(link);
    running.update(bytes);
    leads_there(link, bytes, running)
}

/// [`check`] of two chunks side by side, in little more time than of one.
pub fn check_both(links: [&Link; 2], chunks: [&[u8]; 2]) -> [bool; 2] {
    let [mut one, mut other] = links.map(before);
    update_both(&mut one, chunks[0], &mut other, chunks[1]);
    [
        leads_there(links[0], chunks[0], one),
        leads_there(links[1], chunks[1], other),
    ]
}

/// [`check`], and the SHA-256 of the chunk alone if it is one, made side by side.
pub fn check_and_hash(link: &Link, bytes: &[u8]) -> Option<Hash> {
    let (mut running, mut own) = (before(link), Running::default());
    update_both_with(bytes, &mut running, &mut own);
    leads_there(link, bytes, running).then(|| own.finish())
}

fn before(link: &Link) -> Running {
    let start = |state| Running::at(state, link.extent.offset);
    link.before.map_or_else(Running::default, start)
}

fn leads_there(link: &Link, bytes: &[u8], running: Running) -> bool {
    let after = if link.is_last {
        Some(running.finish())
    } else {
        running.state()
    };
    bytes.len() == link.extent.size as usize && after == Some(link.after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anchorage_manifest::Content;
    use proptest::prelude::*;

    const CHUNK: usize = 1_024;

    fn chunk(bytes: &[u8], index: u32) -> &[u8] {
        bytes.chunks(CHUNK).nth(index as usize).unwrap_or_default()
    }

    /// What all ways of asking must have in common.
    fn all_agree(link: &Link, bytes: &[u8], beside: (&Link, &[u8])) -> bool {
        let is_good = check(link, bytes);
        let (other, other_bytes) = beside;
        let other_is_good = check(other, other_bytes);
        let both = check_both([link, other], [bytes, other_bytes]);
        assert_eq!(both, [is_good, other_is_good]);
        let both = check_both([other, link], [other_bytes, bytes]);
        assert_eq!(both, [other_is_good, is_good]);
        let hash = check_and_hash(link, bytes);
        assert_eq!(hash, is_good.then(|| Hash::of(bytes)));
        is_good
    }

    proptest! {
        /// A file's chunks in any order, with one byte of one of them wrong, and in the place of another one.
        #[test]
        fn every_chunk_is_good_until_a_byte_of_it_is_wrong(
            bytes in prop::collection::vec(any::<u8>(), 1..6 * CHUNK),
            places in prop::array::uniform3(any::<prop::sample::Index>()),
            flip in 1u8..,
        ) {
            let content = Content::of(&bytes, 1_024).expect("within limits");
            prop_assert_eq!(content.sha256(), Hash::of(&bytes));
            let count = content.geometry().chunks() as usize;
            let [index, other, byte] = places;
            let [index, other] = [index, other].map(|place| u32::try_from(place.index(count)).expect("few"));
            let (link, beside) = (content.link(index).expect("a chunk"), content.link(other).expect("a chunk"));
            let good = chunk(&bytes, index);
            let beside = (&beside, chunk(&bytes, other));
            prop_assert!(all_agree(&link, good, beside));
            prop_assert_eq!(all_agree(&link, beside.1, beside), index == other);
            let mut corrupt = good.to_vec();
            corrupt[byte.index(good.len())] ^= flip;
            prop_assert!(!all_agree(&link, &corrupt, beside));
            for size in [0, good.len() - 1] {
                prop_assert!(!all_agree(&link, &good[..size], beside));
            }
            corrupt.push(0);
            prop_assert!(!all_agree(&link, &corrupt, beside));
        }
    }

    #[test]
    fn a_chunk_is_good_at_its_place_alone() {
        // All chunks but the last are the same bytes.
        let bytes = [7; 4 * CHUNK - 5];
        let content = Content::of(&bytes, 1_024).expect("within limits");
        let links: Vec<Link> = (0..4).filter_map(|index| content.link(index)).collect();
        for (index, link) in links.iter().enumerate() {
            assert!(check(link, &bytes[..link.extent.size as usize]));
            let wrong = Link {
                before: links[(index + 1) % 4].before,
                ..*link
            };
            assert!(!check(&wrong, &bytes[..link.extent.size as usize]));
        }
    }
}
