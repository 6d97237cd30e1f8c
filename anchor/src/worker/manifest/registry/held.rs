//! What one node holds of a content: runs of chunks while they are few, a bit a chunk when they are many.
//!
//! A swarm of 10,000 nodes and a content of a million chunks would take 1.25 GB as bitmaps. Most nodes are complete,
//! or have a prefix or little yet, and take some bytes here. It turns to bits where runs would take a quarter of
//! them, so that a chunk is put in its place quickly, and back to a run when all is there.

use anchorage_manifest::{
    Bitmap,
    bitmap::{BitmapError, Packed, Segment},
};
use std::ops::Range;

/// Chunks for each run that is allowed: eight bytes a run, against 32 of bits.
const CHUNKS_PER_RUN: u32 = 256;

/// Runs that are allowed however few the chunks are.
const RUNS_MIN: usize = 8;

/// A set of chunks of one content.
#[derive(Debug)]
pub(super) struct Held {
    len: u32,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// In order, and not touching; and how many chunks are in them.
    Runs(Vec<Range<u32>>, u32),
    Bits(Bitmap),
}

impl Held {
    /// Nothing of `len` chunks.
    pub(super) fn empty(len: u32) -> Self {
        Self {
            len,
            form: Form::Runs(Vec::new(), 0),
        }
    }

    /// How many chunks it has.
    pub(super) fn count(&self) -> u32 {
        match &self.form {
            Form::Runs(_, count) => *count,
            Form::Bits(bits) => bits.count(),
        }
    }

    /// Adds a chunk, which is not past the end.
    pub(super) fn insert(&mut self, index: u32) {
        match &mut self.form {
            Form::Runs(runs, count) => {
                *count += u32::from(insert(runs, index));
                if runs.len() > runs_max(self.len) {
                    self.form = Form::Bits(self.to_bitmap());
                }
            }
            Form::Bits(bits) => {
                bits.insert(index);
                self.collapse();
            }
        }
    }

    /// Adds what a segment holds.
    pub(super) fn merge(&mut self, segment: &Segment) -> Result<(), BitmapError> {
        match &mut self.form {
            Form::Runs(..) => {
                let mut bits = self.to_bitmap();
                bits.merge(segment)?;
                let most = runs_max(self.len);
                let runs: Vec<Range<u32>> = bits.runs().take(most + 1).collect();
                self.form = if runs.len() > most {
                    Form::Bits(bits)
                } else {
                    Form::Runs(runs, bits.count())
                };
            }
            Form::Bits(bits) => {
                bits.merge(segment)?;
                self.collapse();
            }
        }
        Ok(())
    }

    /// Bytes that it takes on the wire.
    pub(super) fn packed_size(&self) -> usize {
        match &self.form {
            // Two numbers a run, of three bytes at the most; so few that their exact size does not matter.
            Form::Runs(runs, _) => 6 * runs.len(),
            Form::Bits(bits) => bits.packed_size(),
        }
    }

    /// The same set, as it travels.
    pub(super) fn pack(&self) -> Packed {
        match &self.form {
            Form::Runs(runs, _) => Packed::of_runs(self.len, runs.iter()),
            Form::Bits(bits) => Packed::of(bits),
        }
    }

    fn to_bitmap(&self) -> Bitmap {
        match &self.form {
            Form::Runs(runs, _) => {
                let mut bits = Bitmap::empty(self.len);
                for run in runs {
                    bits.insert_range(run.clone());
                }
                bits
            }
            Form::Bits(bits) => bits.clone(),
        }
    }

    fn collapse(&mut self) {
        if self.count() == self.len {
            self.form = Form::Runs(std::iter::once(0..self.len).collect(), self.len);
        }
    }
}

fn runs_max(len: u32) -> usize {
    RUNS_MIN.max((len / CHUNKS_PER_RUN) as usize)
}

/// Adds a chunk to runs; false if it was there.
fn insert(runs: &mut Vec<Range<u32>>, index: u32) -> bool {
    let at = runs.partition_point(|run| run.end < index);
    match runs.get_mut(at) {
        Some(run) if run.contains(&index) => return false,
        Some(run) if run.end == index => {
            run.end += 1;
            let end = run.end;
            if runs.get(at + 1).is_some_and(|next| next.start == end) {
                runs[at].end = runs.remove(at + 1).end;
            }
        }
        Some(run) if run.start == index + 1 => run.start = index,
        _ => runs.insert(at, index..index + 1),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        /// Whatever is added in whatever order, it is the set that a bitmap is.
        #[test]
        fn is_a_bitmap(len in 1u32..600, steps in vec((0u32..600, 1u32..40, any::<bool>()), 0..200)) {
            let mut subject = Held::empty(len);
            let mut model = Bitmap::empty(len);
            for (first, size, at_once) in steps {
                let first = first % len;
                let range = first..len.min(first + size);
                if at_once {
                    let mut piece = Bitmap::empty(len);
                    piece.insert_range(range.clone());
                    for segment in piece.segments() {
                        prop_assert_eq!(subject.merge(&segment), Ok(()));
                    }
                } else {
                    range.clone().for_each(|index| subject.insert(index));
                }
                model.insert_range(range);
                prop_assert_eq!(subject.count(), model.count());
            }
            prop_assert!(subject.packed_size() + 80 >= model.packed_size());
            prop_assert_eq!(subject.pack().unpack(), model);
        }
    }

    #[test]
    fn a_complete_node_takes_one_run() {
        let mut subject = Held::empty(10_000);
        (0..10_000)
            .step_by(2)
            .for_each(|index| subject.insert(index));
        assert!(matches!(subject.form, Form::Bits(_)));
        (1..10_000)
            .step_by(2)
            .for_each(|index| subject.insert(index));
        assert!(matches!(&subject.form, Form::Runs(runs, 10_000) if runs.len() == 1));
    }

    #[test]
    fn a_segment_past_the_end_changes_nothing() {
        let mut subject = Held::empty(10);
        let segment = Segment {
            first: 8,
            bits: vec![0xff],
        };
        assert_eq!(subject.merge(&segment), Err(BitmapError::PastEnd(15)));
        assert_eq!(subject.count(), 0);
    }
}
