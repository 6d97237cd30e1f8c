//! A page of an answer: as many items as fit one frame.

use anchorage_manifest::{codec, limits::FRAME_SIZE_MAX};
use serde::Serialize;

/// Most bytes of a page; the rest of a frame is for what is around it.
const SIZE_MAX: usize = FRAME_SIZE_MAX - 64;

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
        assert_eq!(pages, [10, 10, 5]);
        assert_eq!(page(std::iter::empty::<u8>()), (vec![], false));
    }
}
