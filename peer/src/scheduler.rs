//! Which chunk is asked of whom: the core of `get`, without sockets, files or clock.
//!
//! Goals: every source is kept busy with about a quarter of a second of work; rare chunks first, so that no
//! chunk's last source leaves with it; near the front of the file first, so that its hash can be computed along
//! the way; a source that stalls, lies or leaves costs a second request, nothing else; the last chunks are taken
//! from slow sources by quick ones instead of being waited for.
//!
//! A source that has everything is asked for `Any` chunk while there are others who fetch: it gives out what nobody
//! has, so that its line carries every chunk once. When it is exhausted it is asked like any other.
//!
//! Non-goals: whom to connect to (the driver's), what the others need (each looks after itself).
//!
//! ```text
//!            Bitmap, Have                 Get                      Stored
//!  lacking ───────────────► wanted ───────────────► requested ───────────────► stored
//!                              ▲                        │
//!                              └────────────────────────┘
//!                     Missing, Corrupt, Gone, or stalled and stolen
//! ```

use crate::time::Time;
use anchorage_manifest::{Bitmap, Geometry};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A connection to a source, numbered by the driver.
pub type SourceId = u64;

/// Work that a source is given ahead, in time at its measured rate.
const AHEAD: Duration = Duration::from_millis(250);

/// Bytes that a new source is given ahead; as many again as it delivers, until its rate is known.
const AHEAD_SIZE_NEW: u64 = 64 << 10;

/// Least and most bytes that a source of known rate is given ahead.
const AHEAD_SIZE: std::ops::Range<u64> = 128 << 10..32 << 20;

/// Most requests that a source is given ahead.
const REQUESTS_MAX: usize = 256;

/// Missing chunks near the front of the file among which the rarest is looked for.
const FRONT_CHUNKS: usize = 256;

/// A source that owes chunks and sent no byte for so long has stalled: others may take its work.
const STALL: Duration = Duration::from_secs(1);

/// A source that has stalled for so long is given up.
const GIVE_UP: Duration = Duration::from_secs(10);

/// How many times slower than its thief a source must be to be robbed of a chunk.
const SLOWER: f64 = 3.0;

/// Chunks that a full source is asked to choose before it is known whether others fetch too.
const CHOSEN_AT_FIRST: u32 = 16;

/// How often stalls and rates are looked at.
const TICK: Duration = Duration::from_millis(250);

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A source has these chunks; said once when it comes, and again when much has changed.
    Bitmap(SourceId, Bitmap),
    /// A source has these chunks as well.
    Have(SourceId, Vec<u32>),
    /// A source has begun to send a chunk; the only word of which, if it was asked to choose.
    Chosen(SourceId, u32),
    /// A source that was asked to choose has nothing that nobody has.
    Exhausted(SourceId),
    /// Bytes of a chunk came from a source.
    Received(SourceId, u64),
    /// A chunk came from a source, was verified and stored.
    Stored(SourceId, u32),
    /// A source does not have a chunk after all.
    Missing(SourceId, u32),
    /// A chunk came from a source and did not match its hash.
    Corrupt(SourceId, u32),
    /// A source is gone.
    Gone(SourceId),
    /// The deadline has come.
    Tick,
}

/// What the driver is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask a source for a chunk.
    Get(SourceId, u32),
    /// Ask a source for a chunk that it chooses.
    Any(SourceId),
    /// Take a request back; the chunk may come all the same.
    Cancel(SourceId, u32),
    /// Hang up on a source: it sends nothing.
    Drop(SourceId),
    /// Hang up on a source and never ask its node again: it sent what is not the chunk.
    Blame(SourceId, u32),
}

/// The scheduler of one content.
#[derive(Debug)]
pub struct Scheduler {
    geometry: Geometry,
    stored: Bitmap,
    /// Neither stored nor requested.
    wanted: Bitmap,
    /// How many sources have each chunk.
    copies: Vec<u16>,
    /// Who was asked for each chunk that is on its way.
    requested: BTreeMap<u32, BTreeSet<SourceId>>,
    sources: BTreeMap<SourceId, Source>,
    /// Chunks that full sources chose so far.
    chosen: u32,
    ticked: Time,
    rng: fastrand::Rng,
}

#[derive(Debug)]
struct Source {
    have: Bitmap,
    owed: BTreeSet<u32>,
    owed_bytes: u64,
    /// Chunks that it was asked to choose and has not begun to send.
    owed_any: u32,
    /// Whether it had everything when it came.
    is_origin: bool,
    /// Whether it may have chunks that nobody has.
    chooses: bool,
    /// Bytes that it has earned to owe.
    window: u64,
    /// Bytes a second, smoothed; none until something came.
    rate: Option<f64>,
    bytes_since_tick: u64,
    heard: Time,
}

impl Source {
    fn has_stalled(&self, now: Time) -> bool {
        !self.owed.is_empty() && now.since(self.heard) >= STALL
    }

    /// Whether it owes something.
    fn is_busy(&self) -> bool {
        !self.owed.is_empty() || self.owed_any > 0
    }

    /// How many bytes it may owe: slow start as in TCP, bounded by what its rate fills.
    fn ahead(&self) -> u64 {
        let Some(rate) = self.rate else {
            return self.window.min(AHEAD_SIZE.end);
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped"
        )]
        let filled = (rate * AHEAD.as_secs_f64()) as u64;
        self.window
            .min(filled.clamp(AHEAD_SIZE.start, AHEAD_SIZE.end))
    }

    fn has_room(&self, chunk_size: u32) -> bool {
        let owed = self.owed.len() + self.owed_any as usize;
        let owed_bytes = self.owed_bytes + u64::from(self.owed_any) * u64::from(chunk_size);
        let fits = owed_bytes + u64::from(chunk_size) <= self.ahead();
        owed < 2 || (fits && owed < REQUESTS_MAX)
    }
}

impl Scheduler {
    /// A scheduler for what `stored` lacks. The same seed and events give the same actions.
    pub fn new(geometry: Geometry, stored: Bitmap, seed: u64) -> Self {
        let mut wanted = Bitmap::empty(geometry.chunks());
        for index in stored.missing() {
            wanted.insert(index);
        }
        Self {
            geometry,
            stored,
            wanted,
            copies: vec![0; geometry.chunks() as usize],
            requested: BTreeMap::new(),
            sources: BTreeMap::new(),
            chosen: 0,
            ticked: Time::default(),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Takes one event; what to do about it is added to `out`.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Bitmap(id, have) => self.bitmap(now, id, &have),
            Event::Have(id, chunks) => self.have(id, &chunks),
            Event::Chosen(id, index) => self.choose(now, id, index),
            Event::Exhausted(id) => {
                if let Some(source) = self.sources.get_mut(&id) {
                    source.owed_any = source.owed_any.saturating_sub(1);
                    source.chooses = false;
                }
            }
            Event::Received(id, bytes) => {
                if let Some(source) = self.sources.get_mut(&id) {
                    source.heard = now;
                    source.bytes_since_tick += bytes;
                }
            }
            Event::Stored(id, index) => self.stored(id, index, out),
            Event::Missing(id, index) => {
                self.unchoose(id, index);
                self.settle(id, index);
                self.lose(id, index);
            }
            Event::Corrupt(id, index) => {
                self.settle(id, index);
                self.gone(id);
                out.push(Action::Blame(id, index));
            }
            Event::Gone(id) => self.gone(id),
            Event::Tick => self.tick(now, out),
        }
        self.fill(now, out);
    }

    /// When [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Time> {
        (!self.is_done()).then(|| self.ticked + TICK)
    }

    /// Whether every chunk is stored.
    pub fn is_done(&self) -> bool {
        self.stored.is_full()
    }

    /// The chunks that are not stored.
    pub fn missing(&self) -> impl Iterator<Item = u32> + '_ {
        self.stored.missing()
    }

    /// Number of chunks that are not stored.
    pub fn missing_count(&self) -> u32 {
        self.stored.len() - self.stored.count()
    }

    /// Number of chunks that are not stored and that no source has.
    pub fn sourceless(&self) -> usize {
        self.missing()
            .filter(|&index| self.copies[index as usize] == 0)
            .count()
    }

    /// Number of sources.
    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    fn bitmap(&mut self, now: Time, id: SourceId, have: &Bitmap) {
        if have.len() != self.geometry.chunks() {
            return;
        }
        if let Some(source) = self.sources.get(&id) {
            let lost: Vec<u32> = source
                .have
                .iter()
                .filter(|&index| !have.contains(index))
                .collect();
            lost.into_iter().for_each(|index| self.lose(id, index));
        }
        let source = self.sources.entry(id).or_insert_with(|| Source {
            have: Bitmap::empty(have.len()),
            owed: BTreeSet::new(),
            owed_bytes: 0,
            owed_any: 0,
            is_origin: have.is_full(),
            chooses: have.is_full(),
            window: AHEAD_SIZE_NEW,
            rate: None,
            bytes_since_tick: 0,
            heard: now,
        });
        for index in have.iter() {
            if source.have.insert(index) {
                self.copies[index as usize] += 1;
            }
        }
    }

    fn have(&mut self, id: SourceId, chunks: &[u32]) {
        if let Some(source) = self.sources.get_mut(&id) {
            for &index in chunks {
                if source.have.insert(index) {
                    self.copies[index as usize] += 1;
                }
            }
        }
    }

    /// A source has begun to send a chunk. If nobody asked it for that one, it has chosen it.
    fn choose(&mut self, now: Time, id: SourceId, index: u32) {
        if let Some(source) = self.sources.get_mut(&id)
            && source.owed_any > 0
            && !source.owed.contains(&index)
        {
            source.owed_any -= 1;
            if source.owed.is_empty() {
                source.heard = now;
            }
            source.owed.insert(index);
            source.owed_bytes += size_of(self.geometry, index);
            self.chosen += 1;
            self.wanted.remove(index);
            self.requested.entry(index).or_default().insert(id);
        }
    }

    /// A source cannot send what it has chosen itself.
    fn unchoose(&mut self, id: SourceId, index: u32) {
        if let Some(source) = self.sources.get_mut(&id)
            && !source.owed.contains(&index)
        {
            source.owed_any = source.owed_any.saturating_sub(1);
        }
    }

    /// A source turns out not to have a chunk.
    fn lose(&mut self, id: SourceId, index: u32) {
        if self
            .sources
            .get_mut(&id)
            .is_some_and(|source| source.have.remove(index))
        {
            self.copies[index as usize] -= 1;
        }
    }

    fn stored(&mut self, id: SourceId, index: u32, out: &mut Vec<Action>) {
        self.settle(id, index);
        if let Some(source) = self.sources.get_mut(&id) {
            source.window += size_of(self.geometry, index);
        }
        self.stored.insert(index);
        self.wanted.remove(index);
        for other in self.requested.get(&index).cloned().unwrap_or_default() {
            out.push(Action::Cancel(other, index));
            self.settle(other, index);
        }
    }

    fn gone(&mut self, id: SourceId) {
        let Some(source) = self.sources.get(&id) else {
            return;
        };
        let owed = source.owed.clone();
        owed.into_iter().for_each(|index| self.settle(id, index));
        if let Some(source) = self.sources.remove(&id) {
            source
                .have
                .iter()
                .for_each(|index| self.copies[index as usize] -= 1);
        }
    }

    /// A source owes a chunk no longer; if nobody else does and it is not stored, it is wanted again.
    fn settle(&mut self, id: SourceId, index: u32) {
        if let Some(source) = self.sources.get_mut(&id)
            && source.owed.remove(&index)
        {
            source.owed_bytes -= size_of(self.geometry, index);
        }
        if let Some(askers) = self.requested.get_mut(&index) {
            askers.remove(&id);
            if askers.is_empty() {
                self.requested.remove(&index);
                if !self.stored.contains(index) {
                    self.wanted.insert(index);
                }
            }
        }
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Action>) {
        let seconds = now.since(self.ticked).as_secs_f64().max(0.001);
        self.ticked = now;
        let mut given_up = Vec::new();
        for (&id, source) in &mut self.sources {
            if source.bytes_since_tick > 0 {
                let rate = source.bytes_since_tick as f64 / seconds;
                source.rate = Some(source.rate.map_or(rate, |old| old.mul_add(0.5, rate * 0.5)));
                source.bytes_since_tick = 0;
            }
            if !source.owed.is_empty() && now.since(source.heard) >= GIVE_UP {
                given_up.push(id);
            }
        }
        for id in given_up {
            self.gone(id);
            out.push(Action::Drop(id));
        }
    }

    /// Gives every source as much to do as it can take, one chunk each in turn.
    fn fill(&mut self, now: Time, out: &mut Vec<Action>) {
        let others_fetch = self.sources.values().any(|source| !source.have.is_full());
        let mut open: Vec<SourceId> = self.sources.keys().copied().collect();
        while !open.is_empty() {
            open.retain(|&id| {
                let source = &self.sources[&id];
                if source.has_stalled(now) || !source.has_room(self.geometry.chunk_size()) {
                    return false;
                }
                let may_choose = others_fetch || self.chosen < CHOSEN_AT_FIRST;
                if source.chooses && may_choose && self.may_ask_any() {
                    self.ask_any(now, id);
                    out.push(Action::Any(id));
                    return true;
                }
                if source.is_origin && self.is_choosing(now) {
                    return false;
                }
                let Some(index) = self.pick(id, others_fetch).or_else(|| self.steal(now, id))
                else {
                    return false;
                };
                self.request(now, id, index);
                out.push(Action::Get(id, index));
                true
            });
        }
    }

    /// Whether there is something to choose that is not about to be chosen.
    fn may_ask_any(&self) -> bool {
        let asked: u32 = self.sources.values().map(|source| source.owed_any).sum();
        asked < self.wanted.count()
    }

    /// Whether some source is about to choose: what is asked of an origin meanwhile might come twice.
    fn is_choosing(&self, now: Time) -> bool {
        let mut sources = self.sources.values();
        sources.any(|source| source.owed_any > 0 && now.since(source.heard) < STALL)
    }

    fn ask_any(&mut self, now: Time, id: SourceId) {
        let source = self.sources.get_mut(&id).expect("looked at just now");
        if !source.is_busy() {
            source.heard = now;
        }
        source.owed_any += 1;
    }

    fn request(&mut self, now: Time, id: SourceId, index: u32) {
        self.wanted.remove(index);
        self.requested.entry(index).or_default().insert(id);
        let source = self
            .sources
            .get_mut(&id)
            .expect("picked for a source that is here");
        if source.owed.is_empty() {
            source.heard = now;
        }
        source.owed.insert(index);
        source.owed_bytes += size_of(self.geometry, index);
    }

    /// The rarest of the first wanted chunks that a source has; among equals any. An origin is spared while
    /// others fetch: it is asked for what no other source has. While nobody else fetches, it is simply the first, so
    /// that the file's hash follows from memory.
    fn pick(&mut self, id: SourceId, others_fetch: bool) -> Option<u32> {
        let source = &self.sources[&id];
        if !others_fetch {
            return self.wanted.intersection(&source.have).next();
        }
        let is_spared = others_fetch && source.is_origin;
        let origins = self
            .sources
            .values()
            .filter(|source| source.is_origin)
            .count();
        let mut best = None;
        let mut equals = 0;
        for index in self.wanted.intersection(&source.have).take(FRONT_CHUNKS) {
            let copies = self.copies[index as usize];
            if is_spared && usize::from(copies) > origins {
                continue;
            }
            match best {
                Some((_, least)) if copies > least => continue,
                Some((_, least)) if copies == least => equals += 1,
                _ => equals = 1,
            }
            if self.rng.u32(..equals) == 0 {
                best = Some((index, copies));
            } else {
                best = best.map(|(index, _)| (index, copies));
            }
        }
        best.map(|(index, _)| index)
    }

    /// A chunk that is on its way from a source that has stalled, or that this one outruns by far.
    fn steal(&mut self, now: Time, thief: SourceId) -> Option<u32> {
        let source = &self.sources[&thief];
        // Somebody who owes something himself has no time to rob others.
        if source.is_busy() {
            return None;
        }
        let waits = |id: &SourceId| {
            let victim = &self.sources[id];
            if victim.has_stalled(now) {
                return f64::INFINITY;
            }
            match (victim.rate, source.rate) {
                (Some(theirs), Some(ours)) if theirs * SLOWER < ours => {
                    victim.owed_bytes as f64 / theirs
                }
                _ => 0.0,
            }
        };
        self.requested
            .iter()
            .filter(|(index, askers)| source.have.contains(**index) && !askers.contains(&thief))
            .map(|(&index, askers)| {
                (
                    index,
                    askers.iter().map(waits).fold(f64::INFINITY, f64::min),
                )
            })
            .filter(|&(_, wait)| wait > 0.0)
            .max_by(|(_, one), (_, two)| one.total_cmp(two))
            .map(|(index, _)| index)
    }
}

fn size_of(geometry: Geometry, index: u32) -> u64 {
    geometry
        .extent(index)
        .map_or(0, |extent| u64::from(extent.size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHUNK: u32 = 1 << 20;

    fn geometry(chunks: u32) -> Geometry {
        Geometry::new(u64::from(chunks) * u64::from(CHUNK), CHUNK).expect("within limits")
    }

    fn scheduler(chunks: u32) -> Scheduler {
        Scheduler::new(geometry(chunks), Bitmap::empty(chunks), 1)
    }

    fn ms(ms: u64) -> Time {
        Time(1000 * ms)
    }

    fn gets(actions: &[Action]) -> Vec<(SourceId, u32)> {
        actions
            .iter()
            .filter_map(|action| {
                if let Action::Get(id, i) = *action {
                    Some((id, i))
                } else {
                    None
                }
            })
            .collect()
    }

    /// A source joins that is asked by index only.
    fn join(
        subject: &mut Scheduler,
        now: Time,
        id: SourceId,
        have: &Bitmap,
        out: &mut Vec<Action>,
    ) {
        subject.bitmap(now, id, have);
        subject.handle(now, Event::Exhausted(id), out);
    }

    #[test]
    fn a_chunk_is_asked_of_one_source_at_a_time() {
        let mut subject = scheduler(4);
        let mut out = Vec::new();
        join(&mut subject, ms(0), 1, &Bitmap::full(4), &mut out);
        join(&mut subject, ms(0), 2, &Bitmap::full(4), &mut out);
        let asked = gets(&out);
        assert_eq!(asked.len(), 4, "two each");
        let distinct: BTreeSet<u32> = asked.iter().map(|&(_, index)| index).collect();
        assert_eq!(distinct.len(), 4);
    }

    #[test]
    fn the_rarest_comes_first() {
        let mut subject = scheduler(100);
        let mut common = Bitmap::full(100);
        common.remove(70);
        let mut out = Vec::new();
        subject.bitmap(ms(0), 1, &common);
        subject.bitmap(ms(0), 2, &common);
        join(&mut subject, ms(0), 3, &Bitmap::full(100), &mut out);
        assert!(gets(&out).contains(&(3, 70)), "{out:?}");
    }

    #[test]
    fn a_source_that_stalls_is_robbed_and_then_dropped() {
        let mut subject = scheduler(2);
        let mut out = Vec::new();
        join(&mut subject, ms(0), 1, &Bitmap::full(2), &mut out);
        assert_eq!(gets(&out).len(), 2);
        out.clear();
        join(&mut subject, ms(10), 2, &Bitmap::full(2), &mut out);
        assert_eq!(out, [], "nothing is asked twice without need");
        subject.handle(ms(1000), Event::Tick, &mut out);
        let robbed = gets(&out);
        assert_eq!(robbed.len(), 1);
        assert_eq!(robbed[0].0, 2);
        out.clear();
        subject.handle(ms(1001), Event::Stored(2, robbed[0].1), &mut out);
        assert!(out.contains(&Action::Cancel(1, robbed[0].1)), "{out:?}");
        out.clear();
        subject.handle(ms(10_000), Event::Tick, &mut out);
        assert!(out.contains(&Action::Drop(1)), "{out:?}");
    }

    #[test]
    fn a_liar_is_blamed_and_its_work_given_to_others() {
        let mut subject = scheduler(1);
        let mut out = Vec::new();
        join(&mut subject, ms(0), 1, &Bitmap::full(1), &mut out);
        join(&mut subject, ms(0), 2, &Bitmap::full(1), &mut out);
        let (liar, _) = gets(&out)[0];
        out.clear();
        subject.handle(ms(1), Event::Corrupt(liar, 0), &mut out);
        assert_eq!(out, [Action::Blame(liar, 0), Action::Get(3 - liar, 0)]);
    }

    #[test]
    fn a_source_is_given_more_ahead_as_it_delivers() {
        let mut subject = scheduler(1000);
        let mut out = Vec::new();
        join(&mut subject, ms(0), 1, &Bitmap::full(1000), &mut out);
        assert_eq!(gets(&out).len(), 2);
        let first = gets(&std::mem::take(&mut out));
        for (id, index) in first {
            subject.handle(ms(1), Event::Stored(id, index), &mut out);
        }
        assert_eq!(gets(&out).len(), 2);
        for (id, index) in gets(&std::mem::take(&mut out)) {
            subject.handle(ms(2), Event::Stored(id, index), &mut out);
        }
        assert_eq!(gets(&out).len(), 4, "its window has grown to four chunks");
    }

    #[test]
    fn a_full_source_chooses_while_others_fetch_and_is_asked_by_index_when_exhausted() {
        let mut subject = scheduler(100);
        let mut out = Vec::new();
        let mut partial = Bitmap::empty(100);
        partial.insert(9);
        subject.handle(ms(0), Event::Bitmap(2, partial), &mut out);
        subject.handle(ms(0), Event::Bitmap(1, Bitmap::full(100)), &mut out);
        assert_eq!(out, [Action::Get(2, 9), Action::Any(1), Action::Any(1)]);
        out.clear();
        subject.handle(ms(1), Event::Chosen(1, 40), &mut out);
        subject.handle(ms(1), Event::Stored(1, 40), &mut out);
        assert_eq!(out, [Action::Any(1)], "one more for one that came");
        out.clear();
        subject.handle(ms(2), Event::Exhausted(1), &mut out);
        assert_eq!(
            out,
            [],
            "it is about to choose once more, as far as is known"
        );
        subject.handle(ms(2), Event::Exhausted(1), &mut out);
        assert!(
            matches!(out[..], [Action::Get(1, _), Action::Get(1, _)]),
            "{out:?}"
        );
    }

    /// What a fake source does with a request.
    #[derive(Clone, Copy, Debug)]
    enum Mood {
        Honest,
        Silent,
        Lying,
        Leaving,
        Forgetful,
    }

    fn mood() -> impl Strategy<Value = Mood> {
        prop_oneof![
            3 => Just(Mood::Honest),
            1 => Just(Mood::Silent),
            1 => Just(Mood::Lying),
            1 => Just(Mood::Leaving),
            1 => Just(Mood::Forgetful),
        ]
    }

    proptest! {
        /// If one honest source has everything, the rest may do what they like.
        #[test]
        fn it_finishes_whatever_the_others_do(
            chunks in 0u32..80,
            seed: u64,
            others in prop::collection::vec((mood(), any::<u64>()), 0..8),
        ) {
            let mut subject = Scheduler::new(geometry(chunks), Bitmap::empty(chunks), seed);
            let mut moods = vec![Mood::Honest];
            let mut out = Vec::new();
            subject.handle(ms(0), Event::Bitmap(0, Bitmap::full(chunks)), &mut out);
            for (mood, bits) in others {
                let mut have = Bitmap::empty(chunks);
                for index in (0..chunks).filter(|index| bits >> (index % 64) & 1 == 1) {
                    have.insert(index);
                }
                subject.handle(ms(0), Event::Bitmap(moods.len() as u64, have), &mut out);
                moods.push(mood);
            }
            let mut now = ms(0);
            let mut steps = 0;
            while !subject.is_done() {
                steps += 1;
                prop_assert!(steps < 2000, "it does not finish: {:?}", subject);
                now = now + Duration::from_millis(100);
                let actions = std::mem::take(&mut out);
                for action in actions {
                    let (id, chosen) = match action {
                        Action::Get(id, index) => (id, Some(index)),
                        Action::Any(id) => (id, None),
                        Action::Cancel(..) | Action::Drop(_) | Action::Blame(..) => continue,
                    };
                    let mood = moods[usize::try_from(id).expect("few")];
                    let index = match (chosen, subject.wanted.next_from(0), mood) {
                        (Some(index), _, _) => index,
                        (None, _, Mood::Silent) => continue,
                        (None, Some(index), Mood::Honest | Mood::Lying) => {
                            subject.handle(now, Event::Chosen(id, index), &mut out);
                            index
                        }
                        _ => {
                            subject.handle(now, Event::Exhausted(id), &mut out);
                            continue;
                        }
                    };
                    let event = match mood {
                        Mood::Honest => {
                            subject.handle(now, Event::Received(id, u64::from(CHUNK)), &mut out);
                            Event::Stored(id, index)
                        }
                        Mood::Silent => continue,
                        Mood::Lying => Event::Corrupt(id, index),
                        Mood::Leaving => Event::Gone(id),
                        Mood::Forgetful => Event::Missing(id, index),
                    };
                    subject.handle(now, event, &mut out);
                }
                subject.handle(now, Event::Tick, &mut out);
            }
            prop_assert!(subject.requested.is_empty());
            prop_assert_eq!(subject.deadline(), None);
        }
    }
}
