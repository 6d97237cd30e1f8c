//! A page of an answer: as many items as fit one frame.

use anchorage_manifest::{codec, limits::FRAME_SIZE_MAX};
use serde::Serialize;

/// Most bytes of a page. A decoder counts numbers as long as they are in memory, up to twice as long as in the frame.
const SIZE_MAX: usize = FRAME_SIZE_MAX / 2;

/// The first items whose encodings fit a page, at least one, and whether there are more.
pub(super) fn page<T: Serialize>(items: impl Iterator<Item = T>) -> (Vec<T>, bool) {
    let mut size = 0;
    let mut fitting = Vec::new();
    for item in items {
        size += codec::encode(&item).len();
        if size > SIZE_MAX && !fitting.is_empty() {
            return (fitting, true);
        }
        fitting.push(item);
    }
    (fitting, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anchorage_manifest::{Bitmap, Have, Holder, NodeId, Source, bitmap::Packed, wire::Reply};

    #[test]
    fn a_page_of_the_smallest_holders_can_be_decoded() {
        let source = Source {
            node: NodeId([1; 32]),
            address: ([127, 0, 0, 1], 1).into(),
        };
        let have = Have::Chunks(Packed::of(&Bitmap::full(1)));
        let (holders, more) = page(std::iter::repeat_n(Holder { source, have }, 100_000));
        assert!(more && holders.len() > 10_000);
        let reply = Reply::Holding { holders, more };
        let decoded = codec::decode(&codec::encode(&reply));
        assert_eq!(decoded, Ok(reply));
    }

    #[test]
    fn a_page_fits_a_frame_and_nothing_is_lost() {
        let items = vec![vec![7u8; 100_000]; 25];
        let (mut rest, mut pages) = (&items[..], Vec::new());
        loop {
            let (fitting, more) = page(rest.iter());
            assert!(codec::encode(&fitting).len() <= FRAME_SIZE_MAX);
            rest = &rest[fitting.len()..];
            pages.push(fitting.len());
            if !more {
                break;
            }
        }
        assert_eq!(pages, [5, 5, 5, 5, 5]);
        assert_eq!(page(std::iter::empty::<u8>()), (vec![], false));
    }
}
