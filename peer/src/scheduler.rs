//! Which chunk is asked of whom: the core of `get`, without sockets, files or clock.
//!
//! Goals: every source is kept busy with about a quarter of a second of work; rare chunks first, so that no
//! chunk's last source leaves with it; near the front of the file first, so that what came early is not left for the
//! end; a source that stalls, lies or leaves costs a second request, nothing else; the last chunks are taken
//! from slow sources by quick ones instead of being waited for.
//!
//! A source that has everything is asked for `Any` chunk while there are others who fetch: it gives out what nobody
//! has, so that its line carries every chunk once. When it is exhausted it is asked once more a while later, if there is
//! something that origins alone have, and then like any other.
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

mod source;
mod wanted;

use crate::time::Time;
use anchorage_manifest::{Bitmap, Geometry};
pub(crate) use source::REQUESTS_MIN;
use source::Source;
use std::{collections::BTreeMap, mem, ops::RangeInclusive, time::Duration};
use wanted::Wanted;

/// A connection to a source, numbered by the driver.
pub type SourceId = u64;

/// A source that owes chunks and is silent for so many times as long as it usually is, within bounds, has stalled: others
/// may take its work, if they have nothing else to do. The upper bound holds for a new one, too.
const STALL: (u32, RangeInclusive<Duration>) = (3, ms(300)..=ms(750));

/// An origin is silent for as long as it has chunks for others, one after the other: while something comes from anybody,
/// it has not stopped before so long.
const ORIGIN_STALL: Duration = Duration::from_secs(2);

/// Where nobody sends anything, a source that is silent for so many times as long as it usually is, and so long at least,
/// is dialled again: behind one address there may be several processes, of which one has stopped.
const AGAIN: (u32, Duration) = (4, ms(500));

/// A source that has stalled for so long is given up.
const GIVE_UP: Duration = Duration::from_secs(10);

/// How many times slower than its thief a source must be to be robbed of a chunk.
const SLOWER: f64 = 3.0;

/// Chunks that a full source is asked to choose before it is known whether others fetch too.
const CHOSEN_AT_FIRST: u32 = 16;

/// Where so many others have everything, origins are spared even if nobody else fetches.
const ENOUGH: usize = 4;

/// What an exhausted source gave out last is in somebody's hands: it is not asked for it again for so long at least, and
/// for so many times as long as a chunk takes to come.
const HOLD: (Duration, u32) = (ms(250), 6);

/// Who waits for what others are about to have, waits no longer than this if nothing comes from anybody.
const QUIET: Duration = ms(250);

/// How often rates are looked at, and stalls at least.
const TICK: Duration = ms(250);

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
    /// Dial a source's node once more, beside the connection that is there: it sends nothing, and neither does anybody
    /// else.
    Again(SourceId),
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
    wanted: Wanted,
    /// How many sources were asked for each chunk that is on its way.
    asked: Vec<u16>,
    sources: BTreeMap<SourceId, Source>,
    /// The sources that had everything when they came.
    origins: Vec<SourceId>,
    /// How many sources lack something, and so fetch themselves.
    partial: usize,
    /// Chunks that full sources chose so far.
    chosen: u32,
    /// When a source last turned out to be exhausted.
    exhausted: Time,
    /// Time from asking for a chunk by index to having it, smoothed.
    takes: Duration,
    /// When bytes last came from anybody.
    heard: Time,
    ticked: Time,
    /// When rates were last looked at.
    measured: Time,
    /// When a source will have stalled that owes something, as far as was known at the last tick.
    stalls_at: Option<Time>,
    rng: fastrand::Rng,
    /// Who is to be given something to do; empty between events, kept for its memory.
    open: Vec<SourceId>,
}

/// Whose work an event may have changed.
enum Touched {
    Nobody,
    One(SourceId),
    /// These, in order. What others might take from them is looked at by the next tick.
    Some(Vec<SourceId>),
    /// One, and the origins: what they may be asked for depends on what they are about to choose.
    Choosing(SourceId),
    All,
}

impl Scheduler {
    /// A scheduler for what `stored` lacks. The same seed and events give the same actions.
    pub fn new(geometry: Geometry, stored: Bitmap, seed: u64) -> Self {
        Self {
            geometry,
            wanted: Wanted::new(&stored),
            asked: vec![0; stored.len() as usize],
            stored,
            sources: BTreeMap::new(),
            origins: Vec::new(),
            partial: 0,
            chosen: 0,
            exhausted: Time::default(),
            takes: Duration::ZERO,
            heard: Time::default(),
            ticked: Time::default(),
            measured: Time::default(),
            stalls_at: None,
            rng: fastrand::Rng::with_seed(seed),
            open: Vec::new(),
        }
    }

    /// Takes one event; what to do about it is added to `out`.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Action>) {
        let partial = self.partial;
        let touched = match event {
            Event::Bitmap(id, have) => self.bitmap(now, id, &have),
            Event::Have(id, chunks) => self.have(id, &chunks),
            Event::Chosen(id, index) => self.choose(now, id, index),
            Event::Exhausted(id) => self.exhausted(now, id),
            Event::Received(id, bytes) => self.received(now, id, bytes),
            Event::Stored(id, index) => self.stored(now, id, index, out),
            Event::Missing(id, index) => {
                self.unchoose(id, index);
                self.settle(id, index);
                self.lose(id, index);
                Touched::All
            }
            Event::Corrupt(id, index) => {
                self.settle(id, index);
                self.gone(id);
                out.push(Action::Blame(id, index));
                Touched::All
            }
            Event::Gone(id) => {
                self.gone(id);
                Touched::All
            }
            Event::Tick => {
                self.tick(now, out);
                Touched::All
            }
        };
        self.open.clear();
        match touched {
            // The first who fetches has come, or the last has gone: origins are asked in another way from now on.
            _ if (partial == 0) != (self.partial == 0) => self.open.extend(self.sources.keys()),
            Touched::All => self.open.extend(self.sources.keys()),
            Touched::Nobody => {}
            Touched::One(id) => self.open.push(id),
            Touched::Some(ids) => self.open.extend(ids),
            Touched::Choosing(id) => {
                self.open.extend(&self.origins);
                if !self.open.contains(&id) {
                    self.open.push(id);
                }
            }
        }
        self.fill(now, out);
    }

    /// When [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Time> {
        if self.is_done() {
            return None;
        }
        let held_until = self.exhausted + self.hold();
        let is_held = held_until > self.ticked;
        let quiet_at = is_held.then_some(self.heard + QUIET);
        let again_at = Some(self.exhausted + HOLD.0);
        let others = [
            is_held.then_some(held_until),
            again_at,
            quiet_at,
            self.stalls_at,
        ];
        let others = others.into_iter().flatten().filter(|&at| at > self.ticked);
        others.chain([self.ticked + TICK]).min()
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
            .filter(|&index| self.wanted.copies(index) == 0)
            .count()
    }

    /// Number of sources.
    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    fn bitmap(&mut self, now: Time, id: SourceId, have: &Bitmap) -> Touched {
        if have.len() != self.geometry.chunks() {
            return Touched::Nobody;
        }
        if let Some(source) = self.sources.get(&id) {
            let has_not = |&index: &u32| !have.contains(index);
            let lost: Vec<u32> = source.have.iter().filter(has_not).collect();
            lost.into_iter().for_each(|index| self.lose(id, index));
        } else {
            if have.is_full() {
                self.origins.push(id);
            }
            // It may bring what somebody waits for.
            self.heard = now;
            let source = Source::new(have, now);
            self.partial += usize::from(!source.have.is_full());
            self.sources.insert(id, source);
        }
        self.has(id, have.iter());
        Touched::All
    }

    fn have(&mut self, id: SourceId, chunks: &[u32]) -> Touched {
        self.has(id, chunks.iter().copied());
        Touched::One(id)
    }

    /// A source has these as well.
    fn has(&mut self, id: SourceId, chunks: impl Iterator<Item = u32>) {
        if let Some(source) = self.sources.get_mut(&id) {
            let was_full = source.have.is_full();
            for index in chunks {
                if source.have.insert(index) {
                    self.wanted.gain(index, source.is_origin);
                }
            }
            self.partial -= usize::from(!was_full && source.have.is_full());
        }
    }

    /// A source has begun to send a chunk. If nobody asked it for that one, it has chosen it.
    fn choose(&mut self, now: Time, id: SourceId, index: u32) -> Touched {
        let Some(source) = self.sources.get_mut(&id) else {
            return Touched::Nobody;
        };
        if source.begins(now, index) {
            return Touched::Nobody;
        }
        if source.owed_any == 0 || index >= self.geometry.chunks() {
            return Touched::Nobody;
        }
        source.owed_any -= 1;
        source.exhausted = None;
        source.is_asked_again = false;
        source.owe(now, index, size_of(self.geometry, index));
        self.chosen += 1;
        self.wanted.remove(index);
        self.asked[index as usize] += 1;
        Touched::Choosing(id)
    }

    fn exhausted(&mut self, now: Time, id: SourceId) -> Touched {
        if let Some(source) = self.sources.get_mut(&id) {
            source.owed_any = source.owed_any.saturating_sub(1);
            source.exhausted.get_or_insert(now);
            self.exhausted = now;
        }
        Touched::Choosing(id)
    }

    fn received(&mut self, now: Time, id: SourceId, bytes: u64) -> Touched {
        let Some(source) = self.sources.get_mut(&id) else {
            return Touched::Nobody;
        };
        source.receive(now, bytes);
        self.heard = now;
        if self.has_room(&self.sources[&id]) {
            Touched::One(id)
        } else {
            Touched::Nobody
        }
    }

    /// A source cannot send what it has chosen itself.
    fn unchoose(&mut self, id: SourceId, index: u32) {
        if let Some(source) = self.sources.get_mut(&id)
            && !source.owes(index)
        {
            source.owed_any = source.owed_any.saturating_sub(1);
        }
    }

    /// A source turns out not to have a chunk.
    fn lose(&mut self, id: SourceId, index: u32) {
        if let Some(source) = self.sources.get_mut(&id) {
            let was_full = source.have.is_full();
            if source.have.remove(index) {
                self.wanted.lose(index, source.is_origin);
                self.partial += usize::from(was_full);
            }
        }
    }

    fn stored(&mut self, now: Time, id: SourceId, index: u32, out: &mut Vec<Action>) -> Touched {
        let source = self.sources.get(&id).filter(|source| !source.is_origin);
        if let Some(asked) = source.and_then(|source| source.asked(index)) {
            self.takes = (self.takes * 15 + now.since(asked)) / 16;
        }
        self.settle(id, index);
        if let Some(source) = self.sources.get_mut(&id) {
            source.window += size_of(self.geometry, index);
        }
        self.stored.insert(index);
        self.wanted.remove(index);
        if self
            .asked
            .get(index as usize)
            .is_none_or(|&asked| asked == 0)
        {
            return Touched::One(id);
        }
        let mut touched = Vec::new();
        for (&other, source) in &mut self.sources {
            if source.settle(index, size_of(self.geometry, index)) {
                out.push(Action::Cancel(other, index));
                touched.push(other);
            } else if other == id {
                touched.push(id);
            }
        }
        self.asked[index as usize] = 0;
        Touched::Some(touched)
    }

    fn gone(&mut self, id: SourceId) {
        let Some(source) = self.sources.remove(&id) else {
            return;
        };
        for owed in &source.owed {
            self.release(owed.index);
        }
        let is_origin = source.is_origin;
        let chunks = source.have.iter();
        chunks.for_each(|index| self.wanted.lose(index, is_origin));
        self.partial -= usize::from(!source.have.is_full());
        self.origins.retain(|&origin| origin != id);
    }

    /// A source owes a chunk no longer; if nobody else does and it is not stored, it is wanted again.
    fn settle(&mut self, id: SourceId, index: u32) {
        if let Some(source) = self.sources.get_mut(&id)
            && source.settle(index, size_of(self.geometry, index))
        {
            self.release(index);
        }
    }

    /// One less was asked for a chunk.
    fn release(&mut self, index: u32) {
        let asked = &mut self.asked[index as usize];
        *asked -= 1;
        if *asked == 0 && !self.stored.contains(index) {
            self.wanted.insert(index);
        }
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Action>) {
        self.ticked = now;
        let elapsed = now.since(self.measured);
        if elapsed >= TICK {
            self.measured = now;
            let seconds = elapsed.as_secs_f64();
            self.sources
                .values_mut()
                .for_each(|source| source.measure(seconds));
        }
        let mut given_up = Vec::new();
        for (&id, source) in &self.sources {
            if !source.owed.is_empty() && now.since(source.heard) >= GIVE_UP {
                given_up.push(id);
            }
        }
        for id in given_up {
            self.gone(id);
            out.push(Action::Drop(id));
        }
        let chunk_size = self.geometry.chunk_size();
        // Where a whole chunk waits to be stored, it is this node that is slow.
        let says_nothing = |source: &Source| {
            !source.is_busy() || source.is_silent(now) && !source.has_come(chunk_size)
        };
        if self.sources.values().all(says_nothing) {
            for (&id, source) in &mut self.sources {
                if source.is_worth_another(now) {
                    source.is_dialled_again = true;
                    out.push(Action::Again(id));
                }
            }
        }
        let busy = self.sources.values().filter(|source| source.is_busy());
        let stalls = busy.flat_map(Source::stalls_at);
        self.stalls_at = stalls.filter(|&at| at > now).min();
    }

    /// Gives every open source that it is time to ask as much to do as it can take, one chunk each in turn.
    fn fill(&mut self, now: Time, out: &mut Vec<Action>) {
        let mut open = mem::take(&mut self.open);
        open.retain(|id| {
            self.sources
                .get(id)
                .is_some_and(|source| self.is_low(source))
        });
        while !open.is_empty() {
            open.retain(|&id| match self.next(now, id, out) {
                Some(action) => {
                    out.push(action);
                    true
                }
                None => false,
            });
        }
        self.open = open;
    }

    /// One more thing for a source to do, if it can take it and there is any.
    fn next(&mut self, now: Time, id: SourceId, out: &mut Vec<Action>) -> Option<Action> {
        let source = self.sources.get(&id)?;
        if source.has_stalled(now) {
            return None;
        }
        let chunk_size = self.geometry.chunk_size();
        let others_fetch = self.partial > 0;
        let is_wise = others_fetch || self.chosen < CHOSEN_AT_FIRST;
        let chooses =
            source.chooses() && is_wise || others_fetch && self.may_have_more(now, source);
        if chooses && source.may_choose(chunk_size) && self.may_ask_any(now) {
            self.ask_any(now, id);
            return Some(Action::Any(id));
        }
        if !self.has_room(source) {
            return None;
        }
        if source.is_origin && self.choosing(now) > 0 {
            return None;
        }
        let index = self
            .pick(now, id, others_fetch)
            .or_else(|| self.steal(now, id))
            .or_else(|| self.relieve(id, out))?;
        self.request(now, id, index);
        Some(Action::Get(id, index))
    }

    /// Whether a source can be asked for one more.
    ///
    /// Those who fetch themselves have all of what is new sooner or later. Were the first who has a chunk asked for it at
    /// once by everybody, they would all stand in line there, and the others' lines be idle: of what is on offer each of
    /// them is asked for a part. Whoever is behind has much on offer, and asks for much.
    fn has_room(&self, source: &Source) -> bool {
        let most = self.part(source).unwrap_or(usize::MAX);
        source.has_room(self.geometry.chunk_size(), most)
    }

    /// Whether it is time to ask a source for more.
    fn is_low(&self, source: &Source) -> bool {
        self.part(source)
            .is_none_or(|most| source.is_low(self.geometry.chunk_size(), most))
    }

    /// A source's part of what is on offer, in chunks, if it is one of several that fetch themselves.
    fn part(&self, source: &Source) -> Option<usize> {
        let peers = self.sources.len() - self.origins.len();
        let is_shared = self.partial > 0 && peers > 1 && !source.is_origin;
        is_shared.then(|| self.wanted.offered() / peers)
    }

    /// How long an exhausted source is not asked for what nobody else has.
    fn hold(&self) -> Duration {
        HOLD.0.max(self.takes * HOLD.1)
    }

    /// Whether what an exhausted source gave out last may still come from elsewhere: not where an origin has stopped, nor
    /// when nothing comes from anybody.
    fn is_held(&self, now: Time, since: Time) -> bool {
        now < since + self.hold()
            && !self.is_quiet(now)
            && !self.origins.iter().any(|&id| self.has_stopped(now, id))
    }

    /// Whether an exhausted source may have something to give out by now: there are chunks that origins alone have, and not on
    /// their way from one of them. Were each getter to ask for these by itself, all would ask for the same.
    fn may_have_more(&self, now: Time, source: &Source) -> bool {
        let is_over = source
            .exhausted
            .is_some_and(|since| now >= since + HOLD.0 || self.is_quiet(now));
        let are_elsewhere = self.wanted.offered() >= self.wanted.count() as usize;
        is_over && !source.is_asked_again && !are_elsewhere
    }

    /// Whether an origin has probably stopped to choose.
    fn has_stopped(&self, now: Time, origin: SourceId) -> bool {
        let source = &self.sources[&origin];
        source.is_silent(now) && (self.is_quiet(now) || now >= source.heard + ORIGIN_STALL)
    }

    /// Whether nothing comes from anybody.
    fn is_quiet(&self, now: Time) -> bool {
        now.since(self.heard) >= QUIET
    }

    /// Whether there is something to choose that is not about to be chosen.
    fn may_ask_any(&self, now: Time) -> bool {
        self.choosing(now) < self.wanted.count()
    }

    /// How many chunks are about to be chosen: one of them that is asked of an origin meanwhile might come twice.
    fn choosing(&self, now: Time) -> u32 {
        let origins = self.origins.iter();
        let live = origins.filter(|&&id| !self.has_stopped(now, id));
        live.map(|id| self.sources[id].owed_any).sum()
    }

    fn ask_any(&mut self, now: Time, id: SourceId) {
        if let Some(source) = self.sources.get_mut(&id) {
            if !source.is_busy() {
                source.heard = now;
            }
            source.is_asked_again = source.exhausted.is_some();
            source.owed_any += 1;
        }
    }

    fn request(&mut self, now: Time, id: SourceId, index: u32) {
        if let Some(source) = self.sources.get_mut(&id) {
            self.wanted.remove(index);
            self.asked[index as usize] += 1;
            source.owe(now, index, size_of(self.geometry, index));
        }
    }

    /// The rarest of the first wanted chunks that a source has; among equals any. An origin is spared while others
    /// fetch, or enough others have everything: it is asked for what no other source has, once whoever got it last had
    /// the time to say so. While nobody else fetches, it is simply the first, as disks like it.
    fn pick(&mut self, now: Time, id: SourceId, others_fetch: bool) -> Option<u32> {
        let source = self.sources.get(&id)?;
        let is_spared = source.is_origin && (others_fetch || self.has_enough());
        if !others_fetch && !is_spared {
            return self.wanted.first();
        }
        let copies_max = match source.exhausted {
            Some(_) if others_fetch && !source.is_asked_again => return None,
            Some(since) if self.is_held(now, since) => return None,
            _ if source.is_origin => self.origins.len(),
            _ => usize::MAX,
        };
        self.wanted.rarest(&source.have, copies_max, &mut self.rng)
    }

    /// Whether there are enough sources that are not origins and have everything by now.
    fn has_enough(&self) -> bool {
        let full = self.peers().filter(|peer| peer.have.is_full());
        full.count() >= ENOUGH
    }

    /// Whether a source that is not an origin has a chunk and is alive.
    fn is_elsewhere(&self, now: Time, index: u32) -> bool {
        let mut alive = self.peers().filter(|peer| !peer.has_stalled(now));
        alive.any(|peer| peer.have.contains(index))
    }

    /// The sources that are not origins.
    fn peers(&self) -> impl Iterator<Item = &Source> {
        self.sources.values().filter(|source| !source.is_origin)
    }

    /// A chunk that is taken back from the source with the longest line, for one that has nothing to do: the last one
    /// there, unless it is the next that comes. Origins are spared.
    fn relieve(&mut self, idle: SourceId, out: &mut Vec<Action>) -> Option<u32> {
        let source = self.sources.get(&idle)?;
        if self.wanted.count() > 0 || source.is_origin || source.is_busy() {
            return None;
        }
        let others = self.sources.iter().filter(|(_, other)| !other.is_origin);
        let (&victim, line) = others.max_by_key(|(_, other)| other.line())?;
        let mut last = line.owed.iter().rev().take(line.line().saturating_sub(1));
        let index = last
            .find(|owed| source.have.contains(owed.index) && self.asked[owed.index as usize] == 1)?
            .index;
        self.settle(victim, index);
        out.push(Action::Cancel(victim, index));
        Some(index)
    }

    /// A chunk that is on its way from a source that has stalled, or that this one outruns by far: of the victim
    /// who would take longest, what it was asked for last.
    fn steal(&self, now: Time, thief: SourceId) -> Option<u32> {
        let source = self.sources.get(&thief)?;
        // Somebody who owes something himself has no time to rob others, unless they send nothing at all.
        let rate = source.rate.filter(|_| !source.is_busy());
        let wait = |victim: &Source| victim.wait(now, rate);
        let mut best: Option<(f64, u32)> = None;
        for victim in self.sources.values() {
            let longest = best.map_or(0.0, |(wait, _)| wait);
            if wait(victim) <= longest {
                continue;
            }
            let mut owed = victim.owed.iter().rev().map(|owed| owed.index);
            let found = owed.find(|&index| {
                let is_alone = self.asked[index as usize] == 1;
                let mut all = self.sources.values().filter(|other| other.owes(index));
                source.have.contains(index)
                    && (is_alone || all.all(|other| wait(other) > longest))
                    && !(source.is_origin && self.is_elsewhere(now, index))
            });
            best = found.map(|index| (wait(victim), index)).or(best);
        }
        best.map(|(_, index)| index)
    }
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn size_of(geometry: Geometry, index: u32) -> u64 {
    geometry
        .extent(index)
        .map_or(0, |extent| u64::from(extent.size))
}

#[cfg(test)]
mod tests;
