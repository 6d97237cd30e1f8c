//! What will happen, in order: a ring of short days, and a heap for the present one (a calendar queue: Brown, 1988).
//!
//! With ten thousand nodes some ten million events are planned at any time. One heap of them all is a cache miss for
//! each of its two dozen levels; a day holds few enough for the cache, and a later one is a list that grows at its end.

use crate::sim_node::What;
use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    mem,
};

/// A day is 2 to the power of this nanoseconds: 16 µs.
const DAY: u32 = 14;

/// Days of the ring: half a second, longer than all but a few events are planned ahead.
const DAYS: usize = 1 << 15;

/// What will happen.
pub(crate) struct Calendar {
    /// The present day, and what was planned for it since it began.
    today: BinaryHeap<Reverse<Entry>>,
    day: u64,
    /// The days from the next one on, each at its number modulo their count.
    days: Vec<Vec<Entry>>,
    /// How many events `days` hold.
    planned: usize,
    /// What is later than that.
    far: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
}

/// Something that will happen; what was planned first is first among what happens at the same time.
struct Entry {
    time: u64,
    sequence: u64,
    what: What,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.time, self.sequence).cmp(&(other.time, other.sequence))
    }
}

impl Calendar {
    /// Nothing planned.
    pub(crate) fn new() -> Self {
        Self {
            today: BinaryHeap::new(),
            day: 0,
            days: std::iter::repeat_with(Vec::new).take(DAYS).collect(),
            planned: 0,
            far: BinaryHeap::new(),
            sequence: 0,
        }
    }

    /// Something will happen at this nanosecond.
    pub(crate) fn plan(&mut self, time: u64, what: What) {
        self.sequence += 1;
        let entry = Entry {
            time,
            sequence: self.sequence,
            what,
        };
        match (time >> DAY).saturating_sub(self.day) {
            0 => self.today.push(Reverse(entry)),
            ahead if ahead < DAYS as u64 => {
                self.planned += 1;
                self.days[place(time >> DAY)].push(entry);
            }
            _ => self.far.push(Reverse(entry)),
        }
    }

    /// What happens next, and when.
    pub(crate) fn next(&mut self) -> Option<(u64, What)> {
        while self.today.is_empty() {
            self.turn()?;
        }
        let Reverse(Entry { time, what, .. }) = self.today.pop()?;
        Some((time, what))
    }

    /// The next day for which something may be planned; none if nothing is.
    fn turn(&mut self) -> Option<()> {
        let far = self.far.peek().map(|Reverse(entry)| entry.time >> DAY);
        self.day = if self.planned > 0 { self.day + 1 } else { far? };
        let entries = mem::take(&mut self.days[place(self.day)]);
        self.planned -= entries.len();
        self.today.extend(entries.into_iter().map(Reverse));
        while let Some(Reverse(entry)) = self.far.peek()
            && entry.time >> DAY <= self.day
        {
            self.today.extend(self.far.pop());
        }
        Some(())
    }
}

/// Where a day is in the ring.
fn place(day: u64) -> usize {
    usize::try_from(day % DAYS as u64).expect("fewer than DAYS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_earlier_comes_first_and_then_what_was_planned_first() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut subject, mut model) = (Calendar::new(), Vec::new());
        let (mut now, mut number) = (0, 0);
        let mut happened = 0;
        while happened < 5_000 {
            for _ in 0..rng.usize(..4) {
                let ahead = 1u64 << rng.u32(..33);
                let time = now + rng.u64(..ahead) / 1_000 * 1_000;
                subject.plan(time, What::Start(number));
                model.push((time, number));
                number += 1;
            }
            let first = model.iter().min().copied();
            let next = subject.next().map(|(time, what)| match what {
                What::Start(number) => (time, number),
                what => unreachable!("{what:?} was not planned"),
            });
            assert_eq!(next, first);
            model.retain(|&entry| Some(entry) != first);
            now = next.map_or(now, |(time, _)| time);
            happened += 1;
        }
    }
}
