//! Micro-benchmarks of the scheduler, through its public face: `cargo bench -p anchorage-peer`.
//!
//! What is timed is one `Stored` with everything that follows from it: the books, and the pick of the next chunk for
//! the source that has delivered. Half of the chunks are stored already, every source has a random half of all, and
//! in the case with an origin one has all.

use anchorage_manifest::{Bitmap, Geometry};
use anchorage_peer::{
    scheduler::{Action, Event, Scheduler, SourceId},
    time::Time,
};
use divan::{Bencher, black_box};
use fastrand::Rng;
use std::{collections::VecDeque, time::Duration};

const CHUNK_SIZE: u32 = 1 << 20;

/// Time between two chunks.
const PACE: Duration = Duration::from_micros(100);

/// Longer than exhausted sources are spared.
const HELD: Duration = Duration::from_secs(1);

fn main() {
    divan::main();
}

/// A download in the middle.
struct Middle {
    chunks: u32,
    seed: u64,
    scheduler: Scheduler,
    owed: VecDeque<(SourceId, u32)>,
    actions: Vec<Action>,
    sources: Vec<Bitmap>,
    now: Time,
}

impl Middle {
    fn new(chunks: u32, sources: u64, with_origin: bool) -> Self {
        let mut rng = Rng::with_seed(1);
        let sources = (0..sources)
            .map(|id| {
                if with_origin && id == 0 {
                    Bitmap::full(chunks)
                } else {
                    half(chunks, &mut rng)
                }
            })
            .collect();
        let mut middle = Self {
            chunks,
            seed: 0,
            scheduler: Scheduler::new(geometry(chunks), Bitmap::empty(chunks), 0),
            owed: VecDeque::new(),
            actions: Vec::new(),
            sources,
            now: Time::default(),
        };
        middle.begin();
        middle
    }

    /// Half of the file is there, and all sources come.
    fn begin(&mut self) {
        self.seed += 1;
        let stored = half(self.chunks, &mut Rng::with_seed(self.seed));
        self.scheduler = Scheduler::new(geometry(self.chunks), stored, self.seed);
        self.owed.clear();
        for (id, have) in (0..).zip(&self.sources) {
            let event = Event::Bitmap(id, have.clone());
            self.scheduler.handle(self.now, event, &mut self.actions);
            // Asked by index from now on, the origin, too.
            self.scheduler
                .handle(self.now, Event::Exhausted(id), &mut self.actions);
        }
        // What they gave out last has had the time to come from elsewhere.
        self.now = self.now + HELD;
        self.scheduler
            .handle(self.now, Event::Tick, &mut self.actions);
        self.note();
    }

    fn note(&mut self) {
        for action in self.actions.drain(..) {
            if let Action::Get(id, index) = action {
                self.owed.push_back((id, index));
            }
        }
    }

    /// The next chunk that arrives; begins anew when a quarter of the file is left.
    fn next(&mut self) -> Event {
        if self.owed.is_empty() || self.scheduler.missing_count() < self.chunks / 4 {
            self.begin();
        }
        self.now = self.now + PACE;
        let (id, index) = self
            .owed
            .pop_front()
            .expect("there is always something owed");
        // Who says nothing for long is given nothing more to do.
        let heard = Event::Received(id, 1);
        self.scheduler.handle(self.now, heard, &mut self.actions);
        self.note();
        Event::Stored(id, index)
    }
}

fn geometry(chunks: u32) -> Geometry {
    Geometry::new(u64::from(chunks) * u64::from(CHUNK_SIZE), CHUNK_SIZE).expect("within limits")
}

fn half(chunks: u32, rng: &mut Rng) -> Bitmap {
    let mut half = Bitmap::empty(chunks);
    (0..chunks).filter(|_| rng.bool()).for_each(|index| {
        half.insert(index);
    });
    half
}

fn stored(bencher: Bencher<'_, '_>, chunks: u32, sources: u64, with_origin: bool) {
    let middle = std::cell::RefCell::new(Middle::new(chunks, sources, with_origin));
    bencher
        .with_inputs(|| {
            let mut middle = middle.borrow_mut();
            middle.note();
            middle.next()
        })
        .bench_local_values(|event| {
            let middle = &mut *middle.borrow_mut();
            let now = middle.now;
            middle
                .scheduler
                .handle(now, black_box(event), &mut middle.actions);
        });
}

/// A chunk is stored and the next one picked: chunks × sources.
#[divan::bench(args = [(1_000, 8), (10_000, 8), (10_000, 50), (100_000, 50)], sample_size = 1, sample_count = 2_000)]
fn stored_and_picked(bencher: Bencher<'_, '_>, (chunks, sources): (u32, u64)) {
    stored(bencher, chunks, sources, false);
}

/// The same with an origin among the sources, which is spared while others fetch.
#[divan::bench(args = [(10_000, 50)], sample_size = 1, sample_count = 2_000)]
fn stored_and_picked_beside_an_origin(bencher: Bencher<'_, '_>, (chunks, sources): (u32, u64)) {
    stored(bencher, chunks, sources, true);
}

/// News of eight chunks of one source, while nothing can be asked of anybody.
#[divan::bench(args = [(10_000, 50)], sample_size = 1, sample_count = 2_000)]
fn have(bencher: Bencher<'_, '_>, (chunks, sources): (u32, u64)) {
    let middle = std::cell::RefCell::new(Middle::new(chunks, sources, false));
    let mut rng = Rng::with_seed(2);
    bencher
        .with_inputs(|| {
            let news = (0..8).map(|_| rng.u32(..chunks)).collect();
            Event::Have(rng.u64(..sources), news)
        })
        .bench_local_values(|event| {
            let middle = &mut *middle.borrow_mut();
            let now = middle.now;
            middle
                .scheduler
                .handle(now, black_box(event), &mut middle.actions);
        });
}

/// The look at stalls and rates.
#[divan::bench(args = [(10_000, 50)], sample_size = 1, sample_count = 2_000)]
fn tick(bencher: Bencher<'_, '_>, (chunks, sources): (u32, u64)) {
    let middle = std::cell::RefCell::new(Middle::new(chunks, sources, false));
    bencher.bench_local(|| {
        let middle = &mut *middle.borrow_mut();
        let now = middle.now;
        middle
            .scheduler
            .handle(now, black_box(Event::Tick), &mut middle.actions);
    });
}
