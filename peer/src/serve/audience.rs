//! Who asks for a content, and which of its chunks are out already: the memory behind `Any`.
//!
//! While an origin gives every chunk out once before it gives one out twice, the first copy leaves it once and
//! the askers trade the rest among themselves; super-seeding (BEP 16) has the same aim. A chunk is
//! fresh if the source has it and no asker that is connected now has it, as far as they told, or is being sent it.
//!
//! A source that shares the work with others begins with a part of its own. What is fresh of theirs comes after that, from
//! the end, while they come from the beginning.

use super::Share;
use anchorage_manifest::Bitmap;
use std::collections::{BTreeMap, VecDeque};

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
    share: Share,
    /// What is fresh of the source's own share, and of those of the others.
    fresh: Bitmap,
    fresh_of_others: Bitmap,
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
    /// Nobody yet, of a content with so many chunks, of which the source gives out its share.
    pub fn new(chunks: u32, share: Share) -> Self {
        let fresh = Bitmap::empty(chunks);
        Self {
            askers: BTreeMap::new(),
            out: vec![0; chunks as usize],
            share,
            fresh_of_others: fresh.clone(),
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
            self.fresh_of_others.remove(index);
        }
    }

    /// A fresh chunk for an asker, of those that the source has. `claim` says of one whether nobody else with the same store
    /// has given it out.
    pub fn take(
        &mut self,
        asker: AskerId,
        have: &Bitmap,
        mut claim: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        if self.known != have.count() {
            self.known = have.count();
            let chunks = have.len();
            let is_fresh = |&index: &u32| have.contains(index) && self.out[index as usize] == 0;
            self.fresh = Bitmap::empty(chunks);
            let own = self.share.chunks(chunks).filter(is_fresh);
            own.for_each(|index| _ = self.fresh.insert(index));
            self.fresh_of_others = Bitmap::empty(chunks);
            let others = self.share.others(chunks).filter(is_fresh);
            others.for_each(|index| _ = self.fresh_of_others.insert(index));
        }
        let index = loop {
            let own = self.fresh.next_from(0);
            let index = own.or_else(|| self.fresh_of_others.last())?;
            if claim(index) {
                break index;
            }
            self.fresh.remove(index);
            self.fresh_of_others.remove(index);
        };
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
        let mut subject = Audience::new(10, Share::whole().part(1, 2));
        for asker in 0..3 {
            subject.join(asker, &Bitmap::empty(10));
        }
        let given: Vec<u32> = (0..10)
            .filter_map(|turn| subject.take(turn % 3, &have, |_| true))
            .collect();
        assert_eq!(
            given,
            [1, 3, 5, 7, 9],
            "the others are for another source to give out"
        );
        assert_eq!(subject.take(0, &have, |_| true), None);
    }

    #[test]
    fn sources_with_one_store_give_everything_out_once_whoever_of_them_is_asked() {
        let have = Bitmap::full(20);
        let mut given = [None; 20];
        let mut sources =
            [0, 1].map(|index| Audience::new(20, Share::whole().part_of_store(index, 2)));
        sources
            .iter_mut()
            .for_each(|source| source.join(0, &Bitmap::empty(20)));
        // The first is asked three times as often.
        let mut order = Vec::new();
        for turn in 0..40 {
            let source = usize::from(turn % 4 == 3);
            let claim = |index: u32| *given[index as usize].get_or_insert(source) == source;
            order.extend(sources[source].take(0, &have, claim));
        }
        assert_eq!(order[..4], [0, 2, 4, 1]);
        assert_eq!(order[13..], [19, 17, 7, 15, 13, 11, 9]);
        order.sort_unstable();
        assert!(order.into_iter().eq(0..20));
    }

    #[test]
    fn who_passes_on_has_less_to_pass_on() {
        let have = Bitmap::full(10);
        let mut subject = Audience::new(10, Share::whole());
        (0..4).for_each(|asker| subject.join(asker, &Bitmap::empty(10)));
        assert_eq!(
            [
                subject.take(0, &have, |_| true),
                subject.take(0, &have, |_| true)
            ],
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
        let mut subject = Audience::new(4, Share::whole());
        let mut theirs = Bitmap::empty(4);
        theirs.insert(0);
        subject.join(1, &theirs);
        subject.join(2, &Bitmap::empty(4));
        subject.has(1, 1);
        assert_eq!(subject.take(2, &have, |_| true), Some(2));
        subject.leave(1);
        assert_eq!(
            [
                subject.take(2, &have, |_| true),
                subject.take(2, &have, |_| true)
            ],
            [Some(0), Some(1)]
        );
        assert_eq!(
            [
                subject.take(2, &have, |_| true),
                subject.take(2, &have, |_| true)
            ],
            [Some(3), None]
        );
        subject.leave(2);
        assert!(subject.is_empty());
    }

    #[test]
    fn what_the_source_gets_later_is_fresh_then() {
        let mut have = Bitmap::empty(3);
        let mut subject = Audience::new(3, Share::whole());
        subject.join(1, &Bitmap::empty(3));
        assert_eq!(subject.take(1, &have, |_| true), None);
        have.insert(2);
        assert_eq!(
            [
                subject.take(1, &have, |_| true),
                subject.take(1, &have, |_| true)
            ],
            [Some(2), None]
        );
    }

    #[test]
    fn a_slow_asker_is_given_nothing_more_until_it_has_what_it_was_given() {
        let have = Bitmap::full(100);
        let mut subject = Audience::new(100, Share::whole());
        (0..2).for_each(|asker| subject.join(asker, &Bitmap::empty(100)));
        let slow = subject.take(0, &have, |_| true).expect("all are fresh");
        for _ in 0..20 {
            let quick = subject.take(1, &have, |_| true).expect("enough are fresh");
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
