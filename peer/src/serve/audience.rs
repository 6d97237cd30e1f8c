//! Who asks for a content, and which of its chunks are out already: the memory behind `Any`.
//!
//! While an origin gives every chunk out once before it gives one out twice, the first copy leaves it once and
//! the askers trade the rest among themselves; super-seeding (BEP 16) has the same aim. A chunk is
//! fresh if the source has it and no asker that is connected now has it, as far as they told, or is being sent it.

use anchorage_manifest::Bitmap;
use std::{
    collections::{BTreeMap, VecDeque},
    iter::StepBy,
    ops::Range,
};

/// Chunks that are looked at to see how busy an asker is.
const BACKLOG_MAX: usize = 64;

/// A connection.
pub type AskerId = u64;

/// The askers of one content.
#[derive(Debug)]
pub struct Audience {
    askers: BTreeMap<AskerId, Asker>,
    /// How many askers have each chunk.
    out: Vec<u32>,
    /// What this source gives out.
    share: StepBy<Range<u32>>,
    fresh: Bitmap,
    /// Chunks of the source when `fresh` was last made.
    known: u32,
    /// Chunks that were chosen so far, for anybody.
    choices: usize,
}

#[derive(Debug)]
struct Asker {
    have: Bitmap,
    /// Chunks that were chosen for it.
    chosen: Vec<u32>,
    /// Those of them that it has not told it has, each with how many had been chosen before.
    coming: VecDeque<(u32, usize)>,
}

impl Audience {
    /// Nobody yet, of a content with so many chunks, of which those in `share` are given out.
    pub fn new(chunks: u32, share: StepBy<Range<u32>>) -> Self {
        let fresh = Bitmap::empty(chunks);
        Self {
            askers: BTreeMap::new(),
            out: vec![0; chunks as usize],
            share,
            fresh,
            known: 0,
            choices: 0,
        }
    }

    /// Somebody asks who has these chunks already.
    pub fn join(&mut self, asker: AskerId, have: &Bitmap) {
        let chunks = u32::try_from(self.out.len()).expect("as many as a bitmap has");
        self.askers.entry(asker).or_insert_with(|| Asker {
            have: Bitmap::empty(chunks),
            chosen: Vec::new(),
            coming: VecDeque::new(),
        });
        have.iter().for_each(|index| self.has(asker, index));
    }

    /// An asker has a chunk, or is being sent it because it asked for it.
    pub fn has(&mut self, asker: AskerId, index: u32) {
        let Some(theirs) = self.askers.get_mut(&asker) else {
            return;
        };
        theirs.coming.retain(|&(coming, _)| coming != index);
        if theirs.have.insert(index) {
            self.out[index as usize] += 1;
            self.fresh.remove(index);
        }
    }

    /// A fresh chunk for an asker, of those that the source has.
    pub fn take(&mut self, asker: AskerId, have: &Bitmap) -> Option<u32> {
        if self.known != have.count() {
            self.known = have.count();
            for index in self.share.clone() {
                let is_fresh = have.contains(index) && self.out[index as usize] == 0;
                _ = if is_fresh {
                    self.fresh.insert(index)
                } else {
                    self.fresh.remove(index)
                };
            }
        }
        let index = self.fresh.next_from(0)?;
        self.has(asker, index);
        if let Some(theirs) = self.askers.get_mut(&asker) {
            theirs.chosen.push(index);
            theirs.coming.push_back((index, self.choices));
        }
        self.choices += 1;
        Some(index)
    }

    /// How many of the chunks chosen for an asker it still has to pass on: those that less than half of all
    /// askers have. Who passes on quickly can be given more.
    pub fn backlog(&self, asker: AskerId) -> usize {
        let half = u32::try_from(self.askers.len().div_ceil(2)).unwrap_or(u32::MAX);
        self.askers.get(&asker).map_or(0, |theirs| {
            // The latest are enough: what came before them has long been passed on, or never will be.
            let latest = theirs.chosen.iter().rev().take(BACKLOG_MAX);
            latest
                .filter(|&&index| self.out[index as usize] < half)
                .count()
        })
    }

    /// How many chunks were chosen for each asker, on average, since the first one that has not arrived at this one: many
    /// where its line is slow, and what it is given is long in nobody's hands.
    fn delay(&self, asker: AskerId) -> usize {
        let theirs = self.askers.get(&asker);
        let first = theirs.and_then(|theirs| theirs.coming.front());
        first.map_or(0, |&(_, before)| {
            (self.choices - before) / self.askers.len()
        })
    }

    /// Who of those who wait is next: the least. Those who let the source choose wait for those with less to pass on, and
    /// for those at whom it arrives sooner.
    pub fn rank(&self, asker: AskerId, asked: Option<u32>) -> usize {
        match asked {
            Some(_) => 0,
            None => self.backlog(asker) + self.delay(asker),
        }
    }

    /// An asker has gone; what only it had is fresh again.
    pub fn leave(&mut self, asker: AskerId) {
        for index in self
            .askers
            .remove(&asker)
            .iter()
            .flat_map(|theirs| theirs.have.iter())
        {
            self.out[index as usize] -= 1;
        }
        // Makes the next `take` look again.
        self.known = 0;
    }

    /// Whether nobody asks.
    pub fn is_empty(&self) -> bool {
        self.askers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_goes_out_once_before_any_goes_out_twice() {
        let have = Bitmap::full(10);
        let mut subject = Audience::new(10, (5..10).step_by(1));
        for asker in 0..3 {
            subject.join(asker, &Bitmap::empty(10));
        }
        let given: Vec<u32> = (0..10)
            .filter_map(|turn| subject.take(turn % 3, &have))
            .collect();
        assert_eq!(
            given,
            [5, 6, 7, 8, 9],
            "the others are for another source to give out"
        );
        assert_eq!(subject.take(0, &have), None);
    }

    #[test]
    fn who_passes_on_has_less_to_pass_on() {
        let have = Bitmap::full(10);
        let mut subject = Audience::new(10, (0..10).step_by(1));
        (0..4).for_each(|asker| subject.join(asker, &Bitmap::empty(10)));
        assert_eq!(
            [subject.take(0, &have), subject.take(0, &have)],
            [Some(0), Some(1)]
        );
        assert_eq!(
            [subject.backlog(0), subject.backlog(1), subject.backlog(9)],
            [2, 0, 0]
        );
        subject.has(1, 0);
        assert_eq!(subject.backlog(0), 1, "half of the four have chunk 0");
    }

    #[test]
    fn what_askers_have_is_not_fresh_until_they_leave() {
        let have = Bitmap::full(4);
        let mut subject = Audience::new(4, (0..4).step_by(1));
        let mut theirs = Bitmap::empty(4);
        theirs.insert(0);
        subject.join(1, &theirs);
        subject.join(2, &Bitmap::empty(4));
        subject.has(1, 1);
        assert_eq!(subject.take(2, &have), Some(2));
        subject.leave(1);
        assert_eq!(
            [subject.take(2, &have), subject.take(2, &have)],
            [Some(0), Some(1)]
        );
        assert_eq!(
            [subject.take(2, &have), subject.take(2, &have)],
            [Some(3), None]
        );
        subject.leave(2);
        assert!(subject.is_empty());
    }

    #[test]
    fn what_the_source_gets_later_is_fresh_then() {
        let mut have = Bitmap::empty(3);
        let mut subject = Audience::new(3, (0..3).step_by(1));
        subject.join(1, &Bitmap::empty(3));
        assert_eq!(subject.take(1, &have), None);
        have.insert(2);
        assert_eq!(
            [subject.take(1, &have), subject.take(1, &have)],
            [Some(2), None]
        );
    }

    #[test]
    fn a_slow_asker_is_given_nothing_more_until_it_has_what_it_was_given() {
        let have = Bitmap::full(100);
        let mut subject = Audience::new(100, (0..100).step_by(1));
        (0..2).for_each(|asker| subject.join(asker, &Bitmap::empty(100)));
        let slow = subject.take(0, &have).expect("all are fresh");
        for _ in 0..20 {
            let quick = subject.take(1, &have).expect("enough are fresh");
            subject.has(1, quick);
            subject.has(0, quick);
        }
        let waiting = |subject: &Audience| [0, 1].map(|asker| subject.rank(asker, None));
        assert_eq!(waiting(&subject), [21 / 2, 0]);
        subject.has(0, slow);
        subject.has(1, slow);
        assert_eq!(waiting(&subject), [0, 0]);
    }
}
