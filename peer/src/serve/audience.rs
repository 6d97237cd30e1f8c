//! Who asks for a content, and which of its chunks are out already: the memory behind `Any`.
//!
//! While an origin gives every chunk out once before it gives one out twice, the first copy leaves it once and
//! the askers trade the rest among themselves; super-seeding (BEP 16) has the same aim. A chunk is
//! fresh if the source has it and no asker that is connected now has it, as far as they told, or is being sent it.
//!
//! Fresh chunks go out in the order of the file, as it is read and written best, those of the source's share first. What is
//! fresh of the other shares then is for other sources, of which one may be slow or gone: it goes out from the end of
//! the file, at once as long as it is much, and the rest of it, which may be on its way, a little later. What has been
//! on its way to an asker for much longer than is usual is given out again when nothing is fresh any more, and who takes so
//! long is given nothing more: that asker's line is slow, or cut, and the chunk in nobody's hands.

use super::Share;
use crate::time::Time;
use anchorage_manifest::Bitmap;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// Chunks that are looked at to see how busy an asker is.
const BACKLOG_MAX: usize = 64;

/// How long it takes from choosing a chunk to word that it has come, before that is known.
const LAG_NEW: Duration = Duration::from_millis(100);

/// What takes so many times as long as is usual, and so long at least, takes too long.
const TOO_LONG: (u32, Duration) = (6, Duration::from_millis(400));

/// So many fresh chunks of other shares for each asker may be on their way from other sources when this one is done with its
/// share, and so long.
const OTHERS_COMING_MAX: (usize, Duration) = (16, Duration::from_millis(200));

/// A connection.
pub type AskerId = u64;

/// The askers of one content.
#[derive(Debug)]
pub struct Audience {
    askers: BTreeMap<AskerId, Asker>,
    /// How many askers have each chunk.
    out: Vec<u32>,
    share: Share,
    /// What is fresh of the source's share.
    fresh: Bitmap,
    /// What is fresh of the other shares.
    others: Bitmap,
    /// When this source was done with its share, of all that it has.
    done_at: Option<Time>,
    /// Chunks of the source when these two were last made.
    known: u32,
    /// Time from choosing a chunk to word that it has come, smoothed over all askers.
    lag: Duration,
}

#[derive(Debug)]
struct Asker {
    have: Bitmap,
    /// Chunks that were chosen for it.
    chosen: Vec<u32>,
    /// Those of them that it has not told it has, each with when it was chosen.
    coming: VecDeque<(u32, Time)>,
    /// How long they took, smoothed: one pause does not make an asker slow.
    lag: Duration,
}

impl Asker {
    /// How long it has been waiting for the first of what is coming.
    fn waiting(&self, now: Time) -> Duration {
        let first = self.coming.front();
        first.map_or(Duration::ZERO, |&(_, chosen)| now.since(chosen))
    }
}

impl Audience {
    /// Nobody yet, of a content with so many chunks, of which the source gives out its share.
    pub fn new(chunks: u32, share: Share) -> Self {
        Self {
            askers: BTreeMap::new(),
            out: vec![0; chunks as usize],
            share,
            fresh: Bitmap::empty(chunks),
            others: Bitmap::empty(chunks),
            done_at: None,
            known: 0,
            lag: LAG_NEW,
        }
    }

    /// Somebody asks who has these chunks already.
    pub fn join(&mut self, now: Time, asker: AskerId, have: &Bitmap) {
        let chunks = u32::try_from(self.out.len()).expect("as many as a bitmap has");
        self.askers.entry(asker).or_insert_with(|| Asker {
            have: Bitmap::empty(chunks),
            chosen: Vec::new(),
            coming: VecDeque::new(),
            lag: Duration::ZERO,
        });
        for index in have.iter() {
            self.has(now, asker, index);
        }
    }

    /// An asker has a chunk, or is being sent it because it asked for it; whether the chunk was fresh until now.
    pub fn has(&mut self, now: Time, asker: AskerId, index: u32) -> bool {
        let Some(theirs) = self.askers.get_mut(&asker) else {
            return false;
        };
        let place = theirs
            .coming
            .iter()
            .position(|&(coming, _)| coming == index);
        if let Some((_, chosen)) = place.and_then(|place| theirs.coming.remove(place)) {
            let lag = now.since(chosen);
            theirs.lag = (theirs.lag * 3 + lag) / 4;
            // One that is slow says little of what is usual.
            self.lag = (self.lag * 7 + lag.min(self.lag * 2)) / 8;
        }
        let is_new = theirs.have.insert(index);
        self.out[index as usize] += u32::from(is_new);
        self.fresh.remove(index) || self.others.remove(index)
    }

    /// A chunk for an asker, of those that the source has: a fresh one, or else one that takes too long. `claim` says of one
    /// whether nobody else with the same store has given it out.
    pub fn take(
        &mut self,
        now: Time,
        asker: AskerId,
        have: &Bitmap,
        mut claim: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        if self.is_too_long(self.askers.get(&asker)?.lag) {
            return None;
        }
        let fresh = self.next_fresh(have, &mut claim);
        let fresh = fresh.or_else(|| self.next_of_others(now, claim));
        let Some(index) = fresh.or_else(|| self.overdue(now, asker, have)) else {
            // Who is given nothing more tells nothing more.
            self.askers.get_mut(&asker)?.coming.clear();
            return None;
        };
        self.has(now, asker, index);
        let theirs = self.askers.get_mut(&asker)?;
        theirs.chosen.push(index);
        theirs.coming.push_back((index, now));
        Some(index)
    }

    /// The first fresh chunk of the source's share that can be claimed.
    fn next_fresh(&mut self, have: &Bitmap, claim: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.known != have.count() {
            self.known = have.count();
            self.fresh = Bitmap::empty(have.len());
            self.others = Bitmap::empty(have.len());
            self.done_at = None;
            for index in have.iter().filter(|&index| self.out[index as usize] == 0) {
                let is_own = self.share.contains(index);
                let part = if is_own {
                    &mut self.fresh
                } else {
                    &mut self.others
                };
                part.insert(index);
            }
        }
        take_claimed(&mut self.fresh, |fresh| fresh.next_from(0), claim)
    }

    /// The last fresh chunk of the other shares that can be claimed, unless it may be on its way from another source.
    fn next_of_others(&mut self, now: Time, claim: impl FnMut(u32) -> bool) -> Option<u32> {
        let (each, lag) = OTHERS_COMING_MAX;
        let done_at = *self.done_at.get_or_insert(now);
        if self.others.count() as usize <= each * self.askers.len() && now < done_at + lag {
            return None;
        }
        take_claimed(&mut self.others, Bitmap::last, claim)
    }

    /// A chunk that has been on its way to its only asker, another one, for too long; it is on its way to nobody then.
    fn overdue(&mut self, now: Time, asker: AskerId, have: &Bitmap) -> Option<u32> {
        loop {
            let waiting = self.askers.iter().filter(|&(&id, _)| id != asker);
            let waiting = waiting.map(|(&id, asker)| (asker.waiting(now), id));
            let (longest, id) = waiting.max()?;
            if !self.is_too_long(longest) {
                return None;
            }
            let theirs = self.askers.get_mut(&id)?;
            let (index, _) = theirs.coming.pop_front()?;
            theirs.have.remove(index);
            let out = &mut self.out[index as usize];
            *out -= 1;
            if *out == 0 && have.contains(index) {
                return Some(index);
            }
        }
    }

    fn is_too_long(&self, time: Duration) -> bool {
        let (times, least) = TOO_LONG;
        time > least.max(self.lag * times)
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

    /// Who of those who wait is next: the least. Those who let the source choose wait for those with less to pass on, and
    /// for those at whom it arrives sooner.
    pub fn rank(&self, now: Time, asker: AskerId, asked: Option<u32>) -> usize {
        match (asked, self.askers.get(&asker)) {
            (None, Some(theirs)) => {
                let lags = theirs.waiting(now).as_micros() / self.lag.as_micros().max(1);
                self.backlog(asker) + usize::try_from(lags).unwrap_or(usize::MAX / 2)
            }
            _ => 0,
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

/// Takes chunks out of a set, one after the other, until one of them can be claimed.
fn take_claimed(
    set: &mut Bitmap,
    next: impl Fn(&Bitmap) -> Option<u32>,
    mut claim: impl FnMut(u32) -> bool,
) -> Option<u32> {
    loop {
        let index = next(set)?;
        set.remove(index);
        if claim(index) {
            return Some(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_000_000);

    /// A chunk for an asker of a source that shares its store with nobody.
    fn take(subject: &mut Audience, asker: AskerId, have: &Bitmap) -> Option<u32> {
        subject.take(NOW, asker, have, |_| true)
    }

    #[test]
    fn every_chunk_goes_out_once_before_any_goes_out_twice() {
        let have = Bitmap::full(10);
        let mut subject = Audience::new(10, Share::part(1, 2));
        for asker in 0..3 {
            subject.join(NOW, asker, &Bitmap::empty(10));
        }
        let given: Vec<u32> = (0..10)
            .filter_map(|turn| take(&mut subject, turn % 3, &have))
            .collect();
        assert_eq!(
            given,
            [1, 3, 5, 7, 9],
            "the others are for another source to give out"
        );
        assert_eq!(take(&mut subject, 0, &have), None);
    }

    #[test]
    fn what_no_other_source_gives_out_goes_out_from_the_end() {
        let have = Bitmap::full(100);
        let at = |ms: u64| Time(1_000 * ms);
        let mut subject = Audience::new(100, Share::part(0, 2));
        (0..2).for_each(|asker| subject.join(at(0), asker, &Bitmap::empty(100)));
        let take = |subject: &mut Audience, ms| subject.take(at(ms), 0, &have, |_| true);
        for index in (0..100).step_by(2) {
            assert_eq!(take(&mut subject, 0), Some(index));
        }
        // Of fifty, thirty-two may be on their way from the other source to two askers.
        for index in (65..100).rev().step_by(2) {
            assert_eq!(take(&mut subject, 0), Some(index));
        }
        assert_eq!(take(&mut subject, 199), None);
        assert!(subject.has(at(199), 1, 63) && !subject.has(at(199), 0, 63));
        let rest = (0..99).map_while(|_| take(&mut subject, 200));
        assert!(rest.eq((1..62).rev().step_by(2)));
        // What the source gets later, as a file is being published, the other one gets as well.
        let mut have = Bitmap::empty(100);
        let mut subject = Audience::new(100, Share::part(0, 2));
        subject.join(at(0), 0, &have);
        for (index, at_ms) in (0..20).zip((0..).step_by(150)) {
            have.insert(index);
            let own = (index % 2 == 0).then_some(index);
            assert_eq!(subject.take(at(at_ms), 0, &have, |_| true), own);
            assert_eq!(subject.take(at(at_ms), 0, &have, |_| true), None);
        }
    }

    #[test]
    fn sources_with_one_store_give_everything_out_once_whoever_of_them_is_asked() {
        let have = Bitmap::full(20);
        let mut given = [None; 20];
        let mut sources =
            [0, 1].map(|index| Audience::new(20, Share::whole().of_sibling(index, 2)));
        sources
            .iter_mut()
            .for_each(|source| source.join(NOW, 0, &Bitmap::empty(20)));
        // The first is asked three times as often.
        let mut order = Vec::new();
        for turn in 0..40 {
            let source = usize::from(turn % 4 == 3);
            let claim = |index: u32| *given[index as usize].get_or_insert(source) == source;
            order.extend(sources[source].take(NOW, 0, &have, claim));
        }
        assert!(order.into_iter().eq(0..20), "in the order of the file");
    }

    #[test]
    fn who_passes_on_has_less_to_pass_on() {
        let have = Bitmap::full(10);
        let mut subject = Audience::new(10, Share::whole());
        (0..4).for_each(|asker| subject.join(NOW, asker, &Bitmap::empty(10)));
        assert_eq!(
            [take(&mut subject, 0, &have), take(&mut subject, 0, &have)],
            [Some(0), Some(1)]
        );
        assert_eq!(
            [subject.backlog(0), subject.backlog(1), subject.backlog(9)],
            [2, 0, 0]
        );
        subject.has(NOW, 1, 0);
        assert_eq!(subject.backlog(0), 1, "half of the four have chunk 0");
    }

    #[test]
    fn what_askers_have_is_not_fresh_until_they_leave() {
        let have = Bitmap::full(4);
        let mut subject = Audience::new(4, Share::whole());
        let mut theirs = Bitmap::empty(4);
        theirs.insert(0);
        subject.join(NOW, 1, &theirs);
        subject.join(NOW, 2, &Bitmap::empty(4));
        subject.has(NOW, 1, 1);
        assert_eq!(take(&mut subject, 2, &have), Some(2));
        subject.leave(1);
        assert_eq!(
            [take(&mut subject, 2, &have), take(&mut subject, 2, &have)],
            [Some(0), Some(1)]
        );
        assert_eq!(
            [take(&mut subject, 2, &have), take(&mut subject, 2, &have)],
            [Some(3), None]
        );
        subject.leave(2);
        assert!(subject.is_empty());
    }

    #[test]
    fn what_the_source_gets_later_is_fresh_then() {
        let mut have = Bitmap::empty(3);
        let mut subject = Audience::new(3, Share::whole());
        subject.join(NOW, 1, &Bitmap::empty(3));
        assert_eq!(take(&mut subject, 1, &have), None);
        have.insert(2);
        assert_eq!(
            [take(&mut subject, 1, &have), take(&mut subject, 1, &have)],
            [Some(2), None]
        );
    }

    #[test]
    fn what_takes_too_long_is_given_out_again_and_who_is_slow_is_given_nothing_more() {
        let have = Bitmap::full(20);
        let at = |ms: u64| Time(1_000 * ms);
        let mut subject = Audience::new(20, Share::whole());
        (0..3).for_each(|asker| subject.join(at(0), asker, &Bitmap::empty(20)));
        let take = |subject: &mut Audience, ms, asker| subject.take(at(ms), asker, &have, |_| true);
        assert_eq!(take(&mut subject, 0, 0), Some(0));
        let rank = |subject: &Audience, ms, asker| subject.rank(at(ms), asker, None);
        // The others take 50 ms.
        for turn in 0..19 {
            let (asker, index) = (1 + turn % 2, u32::try_from(turn + 1).expect("few"));
            assert_eq!(take(&mut subject, 50 * turn, asker), Some(index));
            for all in 0..3 {
                subject.has(at(50 * turn + 50), all, index);
            }
        }
        let ranks = [0, 1, 2].map(|asker| rank(&subject, 950, asker));
        assert!(ranks[0] > 10 && ranks[1..] == [0, 0], "{ranks:?}");
        assert_eq!(take(&mut subject, 950, 1), Some(0), "nobody else has it");
        assert_eq!(take(&mut subject, 1_000, 2), None, "it has just gone out");
        subject.has(at(1_500), 0, 0);
        assert_eq!(take(&mut subject, 2_000, 2), None, "somebody has it");
        // What nobody has any more is fresh, but not for who is slow.
        (0..3).for_each(|asker| subject.leave(asker));
        (3..5).for_each(|asker| subject.join(at(2_000), asker, &Bitmap::empty(20)));
        assert_eq!(take(&mut subject, 2_000, 3), Some(0));
        subject.has(at(4_400), 3, 0);
        assert_eq!(take(&mut subject, 4_400, 3), None);
        assert_eq!(take(&mut subject, 4_400, 4), Some(1));
    }
}
