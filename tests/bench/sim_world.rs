//! The world of the simulator: lines, connections and upload slots in virtual time, around the real scheduler.
//!
//! A line sends one piece at a time, in turn for each chunk that has a slot; a piece then waits for the receiver's line.
//! Of a connection only so many pieces may be on their way, as a TCP window allows. What is said (asks, news)
//! takes the latency and no bandwidth. Headers are not counted: the rates are those of payload.
//!
//! Serving follows peer/src/serve: a few chunks at a time, whole; who waits longest is next, and of those who let the
//! source choose the one with the smallest backlog, in the very same `Audience`. A connection waits for one slot
//! at a time. Nobody is dialled again, which matters only where somebody stalls, and here nobody does.

use crate::sim_model::{Connection, Item, Node, Outcome, Piece, Scenario, What};
use anchorage_manifest::{Bitmap, Geometry, Hash};
use anchorage_peer::{
    scheduler::{Action, Event, Scheduler},
    time::Time,
};
use sha2::{Digest as _, Sha256};
use std::{cmp::Reverse, collections::BinaryHeap, mem};

/// Nodes that a getter asks, the origin included.
const SOURCES_MAX: usize = 24;

/// Nanoseconds that news wait for others.
const NEWS_BATCH: u64 = 20_000_000;

/// Within so many nanoseconds all getters start.
const START_SPREAD: u64 = 20_000_000;

/// Smallest piece in bytes, and most pieces of a chunk.
const PIECE: (u32, u32) = (16 << 10, 8);

/// Pieces of one connection that may be on their way.
const WINDOW: u32 = 4;

/// Everything.
pub(crate) struct World {
    geometry: Geometry,
    latency: u64,
    piece: u32,
    now: u64,
    sequence: u64,
    heap: BinaryHeap<Reverse<(u64, u64, What)>>,
    nodes: Vec<Node>,
    connections: Vec<Connection>,
    actions: Vec<Action>,
}

/// Runs a scenario to its end. The same scenario gives the same outcome.
pub(crate) fn run(scenario: &Scenario) -> Outcome {
    let mut world = World::new(scenario);
    let mut digest = Sha256::new();
    let mut events = 0;
    while let Some(Reverse((now, _, what))) = world.heap.pop() {
        world.now = now;
        events += 1;
        digest.update(now.to_be_bytes());
        digest.update(format!("{what:?}"));
        world.happen(what);
    }
    let done = |node: &Node| node.finished.map(|at| at as f64 / 1e9);
    assert!(
        world.nodes.iter().all(|node| node.audience.is_empty()),
        "BUG: who is done asks nobody"
    );
    Outcome {
        finished: world.nodes[1..].iter().map(done).collect(),
        origin_bytes: world.nodes[0].sent,
        events,
        digest: Hash(digest.finalize().into()),
    }
}

impl World {
    fn new(scenario: &Scenario) -> Self {
        let (geometry, mut rng) = (scenario.geometry, fastrand::Rng::with_seed(scenario.seed));
        let chunks = geometry.chunks();
        let nodes = scenario.up.iter().zip(&scenario.down).enumerate();
        let nodes = nodes.map(|(number, (&up, &down))| {
            let have = if number == 0 {
                Bitmap::full(chunks)
            } else {
                Bitmap::empty(chunks)
            };
            let scheduler = Scheduler::new(geometry, have.clone(), rng.u64(..));
            Node::new((up, down), have, (number > 0).then_some(scheduler))
        });
        let mut world = Self {
            geometry,
            latency: scenario.latency,
            piece: PIECE.0.max(geometry.chunk_size().div_ceil(PIECE.1)),
            now: 0,
            sequence: 0,
            heap: BinaryHeap::new(),
            nodes: nodes.collect(),
            connections: Vec::new(),
            actions: Vec::new(),
        };
        for asker in 1..world.nodes.len() {
            let start = rng.u64(..START_SPREAD);
            let others = (1..world.nodes.len()).filter(|&other| other != asker);
            for source in std::iter::once(0).chain(rng.choose_multiple(others, SOURCES_MAX - 1)) {
                let number = world.connections.len();
                world.connections.push(Connection::new(asker, source));
                world.nodes[asker].asks.push(number);
                world.nodes[source].asked_by.push(number);
                world.at(start, What::Dialled(number));
            }
        }
        world
    }

    fn at(&mut self, time: u64, what: What) {
        self.sequence += 1;
        self.heap.push(Reverse((time, self.sequence, what)));
    }

    /// Something that is heard at the other end.
    fn say(&mut self, what: What) {
        self.at(self.now + self.latency, what);
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Dialled(number) => {
                let Connection { asker, source, .. } = self.connections[number];
                let have = self.nodes[asker].have.clone();
                self.nodes[source].audience.join(number as u64, &have);
                self.say(What::Bitmap(number));
            }
            What::Bitmap(number) => {
                let have = self.nodes[self.connections[number].source].have.clone();
                self.tell(number, Event::Bitmap(number as u64, have));
            }
            What::NewsOfSource(number, chunks) => {
                self.tell(number, Event::Have(number as u64, chunks));
            }
            What::NewsOfAsker(number, chunks) => {
                let Connection { source, closed, .. } = self.connections[number];
                if !closed {
                    let audience = &mut self.nodes[source].audience;
                    chunks
                        .into_iter()
                        .for_each(|index| audience.has(number as u64, index));
                }
            }
            What::Exhausted(number) => {
                self.connections[number].chooses = false;
                self.tell(number, Event::Exhausted(number as u64));
            }
            What::Missing(number, index) => {
                self.tell(number, Event::Missing(number as u64, index));
            }
            What::Asked(number, item) => self.asked(number, item),
            What::PieceSent(node) => self.piece_sent(node),
            What::PieceCame(number, piece) => self.piece_came(number, piece),
            What::News(node) => self.news(node),
            What::Tick(node) => {
                self.nodes[node].ticks = false;
                self.handle(node, Event::Tick);
            }
        }
    }

    /// Gives the asking node of a connection an event, unless it has ended.
    fn tell(&mut self, number: usize, event: Event) {
        if !self.connections[number].closed {
            self.handle(self.connections[number].asker, event);
        }
    }

    fn handle(&mut self, node: usize, event: Event) {
        let Some(scheduler) = &mut self.nodes[node].scheduler else {
            return;
        };
        let mut actions = mem::take(&mut self.actions);
        scheduler.handle(Time(self.now / 1_000), event, &mut actions);
        let deadline = scheduler.deadline();
        for action in actions.drain(..) {
            let (id, item) = match action {
                Action::Get(id, index) => (id, Some(Item::Chunk(index))),
                Action::Any(id) => (id, Some(Item::Any)),
                Action::Cancel(id, index) => (id, Some(Item::Cancel(index))),
                Action::Drop(id) | Action::Blame(id, _) => (id, None),
            };
            let number = usize::try_from(id).expect("a connection's number");
            match item {
                Some(item) => {
                    self.connections[number].chooses |= item == Item::Any;
                    self.say(What::Asked(number, item));
                }
                None => self.close(number),
            }
        }
        self.actions = actions;
        if let Some(Time(us)) = deadline
            && !mem::replace(&mut self.nodes[node].ticks, true)
        {
            self.at((us * 1_000).max(self.now + 1), What::Tick(node));
        }
    }

    fn asked(&mut self, number: usize, item: Item) {
        let connection = &mut self.connections[number];
        match item {
            _ if connection.closed => {}
            Item::Cancel(index) => connection.queue.retain(|item| *item != Item::Chunk(index)),
            item => {
                connection.queue.push_back(item);
                self.serve(number);
            }
        }
    }

    /// Gets in line for a slot, if there is something to send and nothing of this connection is being sent.
    fn serve(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        if connection.current.is_some() || connection.closed {
            return;
        }
        connection.current = connection.queue.pop_front();
        if connection.current.is_some() {
            let node = &mut self.nodes[connection.source];
            node.waiting.push(number);
            if node.free_slots > 0 {
                node.free_slots -= 1;
                self.grant(self.connections[number].source);
            }
        }
    }

    /// Gives a slot to whoever is next.
    fn grant(&mut self, source: usize) {
        loop {
            let connections = &self.connections;
            let node = &mut self.nodes[source];
            node.waiting.retain(|&number| !connections[number].closed);
            let audience = &node.audience;
            let next =
                node.waiting.iter().enumerate().min_by_key(|&(_, &number)| {
                    match connections[number].current {
                        Some(Item::Any) => audience.backlog(number as u64),
                        _ => 0,
                    }
                });
            let Some((place, &number)) = next else {
                node.free_slots += 1;
                return;
            };
            node.waiting.remove(place);
            let index = match self.connections[number].current {
                Some(Item::Chunk(index)) => {
                    node.audience.has(number as u64, index);
                    Some(index)
                }
                _ => node.audience.take(number as u64, &node.have),
            };
            match index.and_then(|index| Some((index, self.geometry.extent(index)?))) {
                Some((index, extent)) if node.have.contains(index) => {
                    node.flows.push_back(number);
                    self.connections[number].flow = Some((index, extent.size));
                    self.pump(source);
                    return;
                }
                Some((index, _)) => self.say(What::Missing(number, index)),
                None => self.say(What::Exhausted(number)),
            }
            // The slot goes to the next; this connection may get in line behind the others.
            self.connections[number].current = self.connections[number].queue.pop_front();
            if self.connections[number].current.is_some() {
                self.nodes[source].waiting.push(number);
            }
        }
    }

    /// Sends the next piece, if the line is free.
    fn pump(&mut self, source: usize) {
        let node = &mut self.nodes[source];
        if node.sending.is_some() {
            return;
        }
        let connections = &mut self.connections;
        let ready = |&number: &usize| connections[number].on_the_way < WINDOW;
        let Some(place) = node.flows.iter().position(ready) else {
            return;
        };
        let number = node.flows.remove(place).expect("found just now");
        let (index, left) = connections[number].flow.expect("it has a slot");
        let whole = self.geometry.extent(index).map_or(0, |extent| extent.size);
        let size = left.min(self.piece);
        let piece = Piece {
            index,
            size,
            is_first: left == whole,
            is_last: left == size,
        };
        node.sending = Some((number, piece));
        node.sent += u64::from(size);
        let time = self.now + duration(size, node.up);
        self.at(time, What::PieceSent(source));
    }

    fn piece_sent(&mut self, source: usize) {
        let sending = self.nodes[source].sending.take();
        let (number, piece) = sending.expect("it was being sent");
        let connection = &mut self.connections[number];
        connection.on_the_way += 1;
        let receiver = &mut self.nodes[connection.asker];
        receiver.down_free = receiver.down_free.max(self.now) + duration(piece.size, receiver.down);
        let time = receiver.down_free + self.latency;
        if piece.is_last {
            (connection.flow, connection.current) = (None, None);
            self.serve(number);
            self.grant(source);
        } else {
            connection.flow = Some((
                piece.index,
                connection.flow.map_or(0, |flow| flow.1) - piece.size,
            ));
            self.nodes[source].flows.push_back(number);
        }
        self.at(time, What::PieceCame(number, piece));
        self.pump(source);
    }

    fn piece_came(&mut self, number: usize, piece: Piece) {
        let Connection { asker, source, .. } = self.connections[number];
        self.connections[number].on_the_way -= 1;
        let (id, index) = (number as u64, piece.index);
        if piece.is_first {
            self.tell(number, Event::Chosen(id, index));
        }
        self.tell(number, Event::Received(id, piece.size.into()));
        if piece.is_last && !self.connections[number].closed {
            let node = &mut self.nodes[asker];
            if node.have.insert(index) {
                node.news.push(index);
                if node.news.len() == 1 {
                    self.at(self.now + NEWS_BATCH, What::News(asker));
                }
            }
            self.tell(number, Event::Stored(id, index));
            let node = &mut self.nodes[asker];
            if node.have.is_full() && node.finished.is_none() {
                node.finished = Some(self.now);
                let asks = node.asks.clone();
                asks.into_iter().for_each(|number| self.close(number));
            }
        }
        self.pump(source);
    }

    fn news(&mut self, node: usize) {
        let news = mem::take(&mut self.nodes[node].news);
        for number in self.nodes[node].asked_by.clone() {
            if !self.connections[number].closed {
                self.say(What::NewsOfSource(number, news.clone()));
            }
        }
        for number in self.nodes[node].asks.clone() {
            if self.connections[number].chooses && !self.connections[number].closed {
                self.say(What::NewsOfAsker(number, news.clone()));
            }
        }
    }

    /// Ends a connection; a chunk that is being sent is sent to its end.
    fn close(&mut self, number: usize) {
        if !mem::replace(&mut self.connections[number].closed, true) {
            let Connection { asker, source, .. } = self.connections[number];
            self.nodes[source].audience.leave(number as u64);
            self.connections[number].queue.clear();
            if self.nodes[asker].finished.is_none() {
                self.handle(asker, Event::Gone(number as u64));
            }
        }
    }
}

/// Nanoseconds that so many bytes take.
fn duration(size: u32, rate: u64) -> u64 {
    u64::from(size) * 1_000_000_000 / rate
}
