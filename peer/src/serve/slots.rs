//! The few chunks that a process sends at the same time, and who may send the next.
//!
//! TCP does not share a line evenly among many connections, and a chunk that has arrived whole can be passed on
//! while half a chunk cannot: so the source decides whose chunk goes next, and sends few at a time, whole. Who
//! has the least rank is next; among equals, who waits longest.
//!
//! How few depends on how many ask. Each of them receives from others at the same time, so that some lines are full
//! while others are empty; with as many slots as half of those who ask, this one is busy all the same (sixteen hosts
//! with four slots sent at 80 % of their lines, with twelve at 89 %). What goes out for the first time is not of this
//! kind: the sooner it is whole, the sooner it is passed on.

use crate::time::Time;
use std::time::Duration;

/// Slots however few ask, and for chunks that the source chooses.
const SLOTS_MIN: usize = 4;

/// Slots however many ask.
const SLOTS_MAX: usize = 12;

/// How long a chunk may take because others are sent at the same time: on a slow line fewer are.
const CHUNK_TIME: Duration = Duration::from_millis(150);

/// A slot that comes back sooner after another one was not used.
const SPACING_MIN: Duration = Duration::from_micros(100);

/// Slots, and those who wait for one.
#[derive(Debug)]
pub struct Slots<W> {
    used: usize,
    /// In the order in which they came.
    waiting: Vec<W>,
    /// When the last slot was given back, if somebody waited for it.
    given_back: Option<Time>,
    /// Time from one chunk to the next while there is always one to send, smoothed.
    spacing: Option<Duration>,
}

impl<W> Default for Slots<W> {
    fn default() -> Self {
        Self {
            used: 0,
            waiting: Vec::new(),
            given_back: None,
            spacing: None,
        }
    }
}

impl<W> Slots<W> {
    /// Somebody waits for a slot.
    pub fn wait(&mut self, who: W) {
        self.waiting.push(who);
    }

    /// A slot is given back.
    pub fn give_back(&mut self, now: Time) {
        self.used = self.used.saturating_sub(1);
        let spacing = self.given_back.map(|last| now.since(last));
        if let Some(spacing) = spacing.filter(|&spacing| spacing >= SPACING_MIN) {
            let smoothed = self.spacing.map(|old| (old * 7 + spacing) / 8);
            self.spacing = Some(smoothed.unwrap_or(spacing));
        }
        self.given_back = (!self.waiting.is_empty()).then_some(now);
    }

    /// Who gets a slot that is free, of those who are still there. To be asked whenever somebody waits or a slot was given
    /// back, again and again until nobody gets one.
    pub fn next(
        &mut self,
        is_there: impl FnMut(&W) -> bool,
        mut rank: impl FnMut(&W) -> usize,
        mut chooses: impl FnMut(&W) -> bool,
    ) -> Option<W> {
        self.waiting.retain(is_there);
        if self.used >= self.limit() {
            return None;
        }
        let is_for_asked = self.used >= SLOTS_MIN;
        let waiting = self.waiting.iter().enumerate();
        let (place, _) = waiting
            .filter(|(_, who)| !is_for_asked || !chooses(who))
            .min_by_key(|&(_, who)| rank(who))?;
        self.used += 1;
        Some(self.waiting.remove(place))
    }

    /// How many there are now.
    fn limit(&self) -> usize {
        let in_time = self.spacing.map_or(SLOTS_MAX, |spacing| {
            usize::try_from(CHUNK_TIME.as_micros() / spacing.as_micros().max(1))
                .unwrap_or(SLOTS_MAX)
        });
        let half = usize::midpoint(self.used, self.waiting.len());
        half.min(in_time).clamp(SLOTS_MIN, SLOTS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(subject: &mut Slots<(&'static str, usize)>) -> Option<&'static str> {
        let is_there = |&(name, _): &(&str, usize)| name != "gone";
        let chooses = |&(name, _): &(&str, usize)| name == "any";
        let granted = subject.next(is_there, |&(_, rank)| rank, chooses);
        granted.map(|(name, _)| name)
    }

    #[test]
    fn the_least_rank_is_next_and_among_equals_who_waits_longest() {
        let mut subject = Slots::default();
        for _ in 0..SLOTS_MIN {
            subject.wait(("early", 0));
            assert_eq!(next(&mut subject), Some("early"));
        }
        for (name, rank) in [("a", 2), ("b", 1), ("gone", 0), ("c", 1)] {
            subject.wait((name, rank));
        }
        let mut order = Vec::new();
        for _ in 0..4 {
            assert_eq!(next(&mut subject), None, "all are in use");
            subject.give_back(Time(0));
            order.push(next(&mut subject));
        }
        assert_eq!(order, [Some("b"), Some("c"), Some("a"), None]);
    }

    #[test]
    fn as_many_as_half_of_those_who_ask_but_few_for_what_goes_out_first() {
        let mut subject = Slots::default();
        for _ in 0..16 {
            subject.wait(("any", 0));
        }
        assert_eq!(
            (0..99).filter_map(|_| next(&mut subject)).count(),
            SLOTS_MIN
        );
        for _ in 0..4 {
            subject.wait(("asked", 1));
        }
        let granted: Vec<_> = (0..99).filter_map(|_| next(&mut subject)).collect();
        assert_eq!(granted, ["asked"; 4]);
        for _ in 0..99 {
            subject.wait(("asked", 1));
        }
        let granted = (0..99).filter_map(|_| next(&mut subject)).count();
        assert_eq!(SLOTS_MIN + 4 + granted, SLOTS_MAX);
    }

    #[test]
    fn a_slow_line_sends_few_at_a_time() {
        for (spacing_ms, limit) in [(10, SLOTS_MAX), (15, 10), (50, SLOTS_MIN)] {
            let mut subject = Slots::default();
            (0..200).for_each(|_| subject.wait(("asked", 1)));
            while next(&mut subject).is_some() {}
            for turn in 0..50 {
                subject.give_back(Time(1_000 * spacing_ms * turn));
                subject.give_back(Time(1_000 * spacing_ms * turn + 1));
                while next(&mut subject).is_some() {}
            }
            assert_eq!(subject.used, limit, "at {spacing_ms} ms");
            subject.waiting.clear();
            subject.give_back(Time(0));
            assert_eq!(subject.given_back, None, "a line that rests tells nothing");
        }
    }
}
