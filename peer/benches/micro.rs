//! Micro-benchmarks of the scheduler, through its public face: `cargo bench -p anchorage-peer`.
//!
//! What is timed is a chunk that comes and is stored with everything that follows from it: the books, and the pick of
//! the next chunk for the source that has delivered. Half of the chunks are stored already, every source has a random
//! half of all, and in the case with an origin one has all. Sources deliver in the order in which they were asked, at
//! an even pace, and ticks come when they are due, apart from what is timed.
//!
//! Only who is asked to choose says that it is exhausted, as in life: an exhausted source is spared for a while, and
//! where all are, nothing is picked.

use anchorage_manifest::{Bitmap, Geometry};
use anchorage_peer::{
    scheduler::{Action, Event, Scheduler, SourceId},
    time::Time,
};
use divan::{Bencher, black_box};
use fastrand::Rng;
use std::{cell::RefCell, collections::VecDeque, mem, ops::Range, time::Duration};

const CHUNK_SIZE: u32 = 1 << 20;

/// Time between two chunks: a gigabyte a second.
const PACE: Duration = Duration::from_millis(1);

/// Longer than a source may be silent.
const PAUSE: Duration = Duration::from_secs(1);

fn main() {
    divan::main();
}

/// A part of a download, again and again.
struct Download {
    scheduler: Scheduler,
    sources: Vec<Bitmap>,
    /// How many chunks may be missing; it begins with the end of the range, and anew below its start.
    missing: Range<u32>,
    /// Whether all sources are silent for a while after they were asked first.
    pauses: bool,
    owed: VecDeque<(SourceId, u32)>,
    actions: Vec<Action>,
    now: Time,
    rng: Rng,
}

impl Download {
    /// The third quarter of one.
    fn middle(chunks: u32, sources: u64, with_origin: bool) -> Self {
        let mut rng = Rng::with_seed(1);
        let have = |id| match id {
            0 if with_origin => Bitmap::full(chunks),
            _ => some(chunks / 2, chunks, &mut rng),
        };
        let mut download = Self {
            scheduler: Scheduler::new(geometry(chunks), Bitmap::full(chunks), 0),
            sources: (0..sources).map(have).collect(),
            missing: chunks / 4..chunks / 2,
            pauses: false,
            owed: VecDeque::new(),
            actions: Vec::new(),
            now: Time::default(),
            rng,
        };
        download.begin();
        download
    }

    /// The end of one: every source was asked for some of the last chunks and has stalled.
    fn end(chunks: u32, sources: u32) -> Self {
        let mut download = Self {
            missing: 1..2 * sources,
            pauses: true,
            ..Self::middle(chunks, sources.into(), false)
        };
        download.begin();
        download
    }

    /// What is not missing is there, and all sources come.
    fn begin(&mut self) {
        let chunks = self.sources[0].len();
        let stored = some(chunks - self.missing.end, chunks, &mut self.rng);
        self.scheduler = Scheduler::new(geometry(chunks), stored, self.rng.u64(..));
        self.owed.clear();
        for (id, have) in (0..).zip(self.sources.clone()) {
            self.handle(Event::Bitmap(id, have));
            self.answer();
        }
        if self.pauses {
            self.now = self.now + PAUSE;
        }
    }

    fn handle(&mut self, event: Event) {
        self.scheduler.handle(self.now, event, &mut self.actions);
    }

    /// Does what is to be done. Who may choose has nothing.
    fn answer(&mut self) {
        while !self.actions.is_empty() {
            for action in mem::take(&mut self.actions) {
                match action {
                    Action::Get(id, index) => self.owed.push_back((id, index)),
                    Action::Cancel(id, index) => self.owed.retain(|&owed| owed != (id, index)),
                    Action::Any(id) => self.handle(Event::Exhausted(id)),
                    Action::Again(_) | Action::Drop(_) | Action::Blame(..) => {}
                }
            }
        }
    }

    /// Who brings the next chunk, and which.
    fn next(&mut self) -> (SourceId, u32) {
        self.answer();
        if self.owed.is_empty() || self.scheduler.missing_count() < self.missing.start {
            self.begin();
        }
        self.now = self.now + PACE;
        if self.scheduler.deadline().is_some_and(|at| at <= self.now) {
            self.handle(Event::Tick);
            self.answer();
        }
        self.owed.pop_front().expect("something is owed")
    }

    /// A chunk comes whole and is stored.
    fn store(&mut self, (id, index): (SourceId, u32)) {
        self.handle(Event::Received(id, CHUNK_SIZE.into()));
        self.handle(Event::Stored(id, index));
    }
}

fn geometry(chunks: u32) -> Geometry {
    Geometry::new(u64::from(chunks) * u64::from(CHUNK_SIZE), CHUNK_SIZE).expect("within limits")
}

/// About so many chunks of all.
fn some(count: u32, chunks: u32, rng: &mut Rng) -> Bitmap {
    let mut some = Bitmap::empty(chunks);
    for index in (0..chunks).filter(|_| rng.u32(..chunks) < count) {
        some.insert(index);
    }
    some
}

fn stored(bencher: Bencher<'_, '_>, download: Download) {
    let download = RefCell::new(download);
    bencher
        .with_inputs(|| download.borrow_mut().next())
        .bench_local_values(|owed| download.borrow_mut().store(black_box(owed)));
}

/// A chunk is stored and the next one picked: chunks × sources.
#[divan::bench(args = [(1_000, 8), (10_000, 8), (10_000, 50), (100_000, 50)], sample_size = 1, sample_count = 2_000)]
fn stored_and_picked(bencher: Bencher<'_, '_>, (chunks, sources): (u32, u64)) {
    stored(bencher, Download::middle(chunks, sources, false));
}

/// The same with an origin among the sources, which is spared while others fetch.
#[divan::bench(args = [(10_000, 50)], sample_size = 1, sample_count = 2_000)]
fn stored_and_picked_beside_an_origin(bencher: Bencher<'_, '_>, (chunks, sources): (u32, u64)) {
    stored(bencher, Download::middle(chunks, sources, true));
}

/// The same where nothing is left to pick, and who has time takes the work of those who have stalled.
#[divan::bench(args = [(10_000, 50)], sample_size = 1, sample_count = 2_000)]
fn stored_and_robbed(bencher: Bencher<'_, '_>, (chunks, sources): (u32, u32)) {
    stored(bencher, Download::end(chunks, sources));
}

/// News of eight chunks of one source, while nothing can be asked of anybody.
#[divan::bench(args = [(10_000, 50)], sample_size = 1, sample_count = 2_000)]
fn have(bencher: Bencher<'_, '_>, (chunks, sources): (u32, u64)) {
    let middle = RefCell::new(Download::middle(chunks, sources, false));
    let mut rng = Rng::with_seed(2);
    bencher
        .with_inputs(|| {
            let news = (0..8).map(|_| rng.u32(..chunks)).collect();
            Event::Have(rng.u64(..sources), news)
        })
        .bench_local_values(|event| middle.borrow_mut().handle(black_box(event)));
}

/// The look at stalls and rates.
#[divan::bench(args = [(10_000, 50)], sample_size = 1, sample_count = 2_000)]
fn tick(bencher: Bencher<'_, '_>, (chunks, sources): (u32, u64)) {
    let middle = RefCell::new(Download::middle(chunks, sources, false));
    bencher.bench_local(|| middle.borrow_mut().handle(black_box(Event::Tick)));
}
