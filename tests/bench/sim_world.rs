//! The world of the simulator: nodes, connections and their messages in virtual time, around the real scheduler, the
//! real memory behind `Any` and the real upload slots. What lines do stands in `sim_lines`.
//!
//! A getter needs some round trips to an anchor before it asks for anything, and some for every connection. Whoever
//! has stored a chunk is listed by the anchors, and asked by those whose neighbour it becomes, who give up somebody else
//! for that.
//! What is said takes no bandwidth, but waits behind the chunks that are on the same lines.
//!
//! Processors are simulated if a chunk is said to cost some: those of one machine, for all nodes alike, one chunk after
//! the other in the order in which they came. Nothing else takes time of them.
//!
//! Not simulated: loss, the way TCP finds its rate, disks, and nodes that are dialled again.

use crate::{
    sim_calendar::Calendar,
    sim_node::{Connection, Item, Link, Node, NodeNumber, What},
    sim_scenario::{Fate, Outcome, SECOND, Scenario},
};
use anchorage_manifest::{Bitmap, Geometry, Hash, NodeId};
use anchorage_peer::{
    rings::{RINGS, Rings},
    scheduler::{Action, Event, Scheduler},
    serve::Share,
    time::Time,
};
use sha2::{Digest as _, Sha256};
use std::{mem, rc::Rc};

/// Nanoseconds that news wait for others at least, and as many for each who is told: half of what a message may take, for
/// they often go with a chunk before. The first pauses are shorter, each by half of [`NEWS_BATCH`] longer than the one before.
const NEWS_BATCH: u64 = 10_000_000;
const NEWS_SHARE: u64 = 3_000_000;

/// Nanoseconds between two looks for others.
const LOOK_EVERY: u64 = 20_000_000;

/// Round trips to an anchor before a getter dials anybody for chunks, and before a connection is up.
const TRIPS: (u32, u32) = (10, 3);

/// Everything.
pub(crate) struct World {
    pub(crate) geometry: Geometry,
    pub(crate) latency: u64,
    setup: u64,
    pub(crate) chunk_cpu: u64,
    /// When each processor has nothing left to do; empty if they are not simulated.
    pub(crate) processors: Vec<u64>,
    /// Bytes that a line sends at a time.
    pub(crate) piece: u32,
    pub(crate) now: u64,
    calendar: Calendar,
    pub(crate) nodes: Vec<Node>,
    pub(crate) connections: Vec<Connection>,
    anchors: usize,
    /// Who has something, as far as the anchors have heard, and how often that has changed.
    rings: Rings,
    listed: u64,
    /// How often it had changed when each node looked.
    looked: Vec<u64>,
    seed: u64,
    rng: fastrand::Rng,
    actions: Vec<Action>,
    /// Chunks that the getters lack before they are at half; none left when they are.
    until_half: u64,
    half: Option<(u64, Vec<u64>)>,
    /// Bytes that came in each step.
    pub(crate) received: Vec<u64>,
    unfinished: usize,
}

/// Runs a scenario until all who count have everything, or `patience` nanoseconds. The same scenario gives the
/// same outcome.
pub(crate) fn run(scenario: &Scenario, patience: u64) -> Outcome {
    let mut world = World::new(scenario);
    let mut digest = Sha256::new();
    let mut events = 0;
    while world.unfinished > 0
        && let Some((time, what)) = world.calendar.next()
        && time <= patience
    {
        world.now = time;
        events += 1;
        let (kind, subject, operand) = what.operands();
        let mut bytes = [0; 25];
        bytes[0] = kind;
        bytes[1..9].copy_from_slice(&time.to_le_bytes());
        bytes[9..17].copy_from_slice(&(subject as u64).to_le_bytes());
        bytes[17..].copy_from_slice(&operand.to_le_bytes());
        digest.update(bytes);
        world.happen(what);
    }
    Outcome {
        finished: world.nodes.iter().map(|node| node.finished).collect(),
        half: world.half,
        sent: world.nodes.iter().map(|node| node.sent).collect(),
        received: world.received,
        events,
        digest: Hash(digest.finalize().into()),
    }
}

impl World {
    fn new(scenario: &Scenario) -> Self {
        let (geometry, mut rng) = (scenario.geometry, fastrand::Rng::with_seed(scenario.seed));
        let chunks = geometry.chunks();
        let anchors = scenario.hosts.iter().filter(|host| host.is_anchor).count();
        let nodes = scenario.hosts.iter().enumerate().map(|(number, &host)| {
            if host.is_anchor {
                let share = Share::part(number, anchors);
                return Node::new(host, Bitmap::full(chunks), share, None);
            }
            let have = Bitmap::empty(chunks);
            let scheduler = Scheduler::new(geometry, have.clone(), rng.u64(..));
            Node::new(host, have, Share::whole(), Some(scheduler))
        });
        let nodes: Vec<Node> = nodes.collect();
        let mut world = Self {
            geometry,
            latency: scenario.latency,
            setup: scenario.setup,
            chunk_cpu: scenario.chunk_cpu,
            processors: match scenario.chunk_cpu {
                0 => Vec::new(),
                _ => vec![0; scenario.processors],
            },
            piece: piece_size(geometry),
            now: 0,
            calendar: Calendar::new(),
            connections: Vec::new(),
            anchors,
            rings: Rings::default(),
            listed: 0,
            looked: vec![0; nodes.len()],
            seed: scenario.seed,
            actions: Vec::new(),
            until_half: 0,
            half: None,
            received: Vec::new(),
            unfinished: scenario.hosts.iter().filter(|host| host.counts).count(),
            nodes,
            rng,
        };
        for number in anchors..world.nodes.len() {
            if world.nodes[number].host.fate != Fate::Starts {
                world.until_half += u64::from(chunks);
                let start = world.rng.u64(..=scenario.spread);
                world.at(start + world.setup, What::Start(number));
            }
        }
        world.until_half = world.until_half * u64::from(scenario.half) / 100;
        world
    }

    /// Time as schedulers, audiences and slots see it.
    pub(crate) fn time(&self) -> Time {
        Time(self.now / 1_000)
    }

    pub(crate) fn at(&mut self, time: u64, what: What) {
        self.calendar.plan(time, what);
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Start(node) => self.start(node),
            What::Look(node) => self.look(node),
            What::Answered(link, left) => self.answered(link, left),
            What::Bitmap(link, have) => {
                self.tell(link, Event::Bitmap(link as u64, Bitmap::clone(&have)));
            }
            What::NewsOfSource(link, chunks) => {
                self.tell(link, Event::Have(link as u64, chunks.to_vec()));
            }
            What::NewsOfAsker(link, chunks) => {
                let Connection { source, closed, .. } = self.connections[link];
                if !closed {
                    let now = self.time();
                    let audience = &mut self.nodes[source].audience;
                    for &index in chunks.iter() {
                        audience.has(now, link as u64, index);
                    }
                }
            }
            What::Exhausted(link) => {
                self.tell(link, Event::Exhausted(link as u64));
            }
            What::Missing(link, index) => self.tell(link, Event::Missing(link as u64, index)),
            What::Broken(link) => self.close(link),
            What::Asked(link, item) => self.asked(link, item),
            What::Patience(node) => self.lose_patience(node),
            What::PieceSent(node) => self.piece_sent(node),
            What::PieceCame(link, piece) => self.piece_came(link, piece),
            What::Verified(link, index) => self.verified(link, index),
            What::News(node) => self.news(node),
            What::Listed(node) => {
                self.rings.insert(self.id(node));
                self.listed += 1;
            }
            What::Tick(node) => {
                self.nodes[node].ticks = false;
                self.handle(node, Event::Tick);
            }
        }
    }

    fn start(&mut self, node: NodeNumber) {
        self.nodes[node].started = Some(self.now);
        for anchor in 0..self.anchors {
            self.dial(node, anchor, TRIPS.0 + TRIPS.1);
        }
    }

    fn dial(&mut self, asker: NodeNumber, source: NodeNumber, trips: u32) -> Link {
        let link = self.connections.len();
        self.connections.push(Connection::new(asker, source));
        self.nodes[asker].asks.push(link);
        self.nodes[source].asked_by.push(link);
        self.round_trip(link, trips);
        link
    }

    fn answered(&mut self, link: Link, left: u32) {
        let Connection {
            asker,
            source,
            closed,
            ..
        } = self.connections[link];
        if closed {
            return;
        }
        if left == TRIPS.1 && source == 0 {
            self.at(self.now, What::Listed(asker));
            self.at(self.now, What::Look(asker));
        }
        if left > 0 {
            self.round_trip(link, left - 1);
            return;
        }
        self.connections[link].is_up = true;
        let have = self.nodes[asker].have.clone();
        let now = self.time();
        self.nodes[source].audience.join(now, link as u64, &have);
        let have = Rc::new(self.nodes[source].have.clone());
        self.say_to_asker(link, What::Bitmap(link, have));
    }

    /// Dials those who have become neighbours since the last look, and gives up others for them, as in
    /// peer/src/get/sources.rs.
    fn look(&mut self, node: NodeNumber) {
        if self.nodes[node].finished.is_some() || self.nodes[node].is_dead {
            return;
        }
        if mem::replace(&mut self.looked[node], self.listed) != self.listed {
            let neighbours = self.rings.neighbours(self.id(node), |_| true);
            let neighbours: Vec<NodeNumber> = neighbours.into_iter().map(number).collect();
            let connections = &self.connections;
            let asks = &mut self.nodes[node].asks;
            asks.retain(|&link| !connections[link].closed);
            let asked = asks.iter().map(|&link| (connections[link].source, link));
            let asked = asked.filter(|&(other, _)| other >= self.anchors);
            let (near, mut far): (Vec<_>, Vec<_>) =
                asked.partition(|(other, _)| neighbours.contains(other));
            let mut count = near.len() + far.len();
            for other in neighbours {
                if near.iter().any(|&(asked, _)| asked == other) {
                    continue;
                }
                if count < RINGS {
                    count += 1;
                } else if let Some((_, link)) = far.pop() {
                    self.close(link);
                }
                self.dial(node, other, TRIPS.1);
            }
        }
        self.at(self.now + LOOK_EVERY, What::Look(node));
    }

    /// What a node is called; another name, and so another place in the rings, with every seed.
    fn id(&self, node: NodeNumber) -> NodeId {
        let mut id = NodeId([0; 32]);
        id.0[..8].copy_from_slice(&(node as u64).to_le_bytes());
        id.0[8..16].copy_from_slice(&self.seed.to_le_bytes());
        id
    }

    /// Gives the asking node of a connection an event, unless it has ended.
    pub(crate) fn tell(&mut self, link: Link, event: Event) {
        if !self.connections[link].closed {
            self.handle(self.connections[link].asker, event);
        }
    }

    fn handle(&mut self, node: NodeNumber, event: Event) {
        let now = self.time();
        let Node {
            scheduler: Some(scheduler),
            finished: None,
            is_dead: false,
            ..
        } = &mut self.nodes[node]
        else {
            return;
        };
        let mut actions = mem::take(&mut self.actions);
        scheduler.handle(now, event, &mut actions);
        let deadline = scheduler.deadline();
        for action in actions.drain(..) {
            let (id, item) = match action {
                Action::Get(id, index) => (id, Some(Item::Chunk(index))),
                Action::Any(id) => (id, Some(Item::Any)),
                Action::Cancel(id, index) => (id, Some(Item::Cancel(index))),
                // Nodes are not dialled again here.
                Action::Again(_) => continue,
                Action::Drop(id) | Action::Blame(id, _) => (id, None),
            };
            let link = usize::try_from(id).expect("a connection's number");
            match item {
                Some(item) => {
                    self.connections[link].chooses |= item == Item::Any;
                    self.say_to_source(link, What::Asked(link, item));
                }
                None => self.close(link),
            }
        }
        self.actions = actions;
        if let Some(Time(us)) = deadline
            && !mem::replace(&mut self.nodes[node].ticks, true)
        {
            self.at((us * 1_000).max(self.now + 1), What::Tick(node));
        }
    }

    /// A chunk is stored.
    pub(crate) fn store(&mut self, link: Link, index: u32) {
        let node = self.connections[link].asker;
        if self.nodes[node].have.insert(index) {
            self.nodes[node].news.push(index);
            if self.nodes[node].news.len() == 1 {
                let teller = &self.nodes[node];
                let pause = NEWS_SHARE * teller.asked_by.len() as u64;
                let pause = pause.min(NEWS_BATCH / 2 * teller.times_told);
                self.at(self.now + pause.max(NEWS_BATCH), What::News(node));
            }
            if self.until_half > 0 && self.nodes[node].host.fate != Fate::Starts {
                self.until_half -= 1;
                if self.until_half == 0 {
                    self.halfway();
                }
            }
        }
        self.tell(link, Event::Stored(link as u64, index));
        let node = &mut self.nodes[node];
        if node.have.is_full() && node.finished.is_none() {
            node.finished = Some(self.now);
            self.unfinished -= usize::from(node.host.counts);
            let asks = node.asks.clone();
            asks.into_iter().for_each(|link| self.close(link));
        }
    }

    /// The getters are at half.
    fn halfway(&mut self) {
        let size = self.geometry.size();
        let lacks = |node: &Node| {
            if node.have.is_full() {
                0
            } else {
                size.saturating_sub(node.received)
            }
        };
        self.half = Some((self.now, self.nodes.iter().map(lacks).collect()));
        for number in 0..self.nodes.len() {
            match self.nodes[number].host.fate {
                Fate::Stays => {}
                Fate::Starts => self.at(self.now + self.setup, What::Start(number)),
                Fate::Stalls => self.nodes[number].has_stalled = true,
                Fate::Dies => self.die(number),
            }
        }
    }

    fn die(&mut self, number: NodeNumber) {
        let node = &mut self.nodes[number];
        node.is_dead = true;
        let (asks, asked_by) = (node.asks.clone(), node.asked_by.clone());
        self.rings.remove(self.id(number));
        self.listed += 1;
        asks.into_iter().for_each(|link| self.close(link));
        for link in asked_by {
            self.at(self.now + self.latency, What::Broken(link));
        }
    }

    fn news(&mut self, node: NodeNumber) {
        let connections = &self.connections;
        let Node {
            news,
            asks,
            asked_by,
            ..
        } = &mut self.nodes[node];
        asks.retain(|&link| !connections[link].closed);
        asked_by.retain(|&link| !connections[link].closed);
        let news: Rc<[u32]> = mem::take(news).into();
        self.nodes[node].times_told += 1;
        for place in 0..self.nodes[node].asked_by.len() {
            let link = self.nodes[node].asked_by[place];
            if self.connections[link].is_up {
                self.say_to_asker(link, What::NewsOfSource(link, news.clone()));
            }
        }
        for place in 0..self.nodes[node].asks.len() {
            let link = self.nodes[node].asks[place];
            if self.connections[link].chooses {
                self.say_to_source(link, What::NewsOfAsker(link, news.clone()));
            }
        }
    }

    /// Ends a connection, and what was being sent on it.
    pub(crate) fn close(&mut self, link: Link) {
        if !mem::replace(&mut self.connections[link].closed, true) {
            let Connection { asker, source, .. } = self.connections[link];
            self.nodes[source].audience.leave(link as u64);
            self.clear(link);
            self.handle(asker, Event::Gone(link as u64));
        }
    }
}

/// Which node is called that.
fn number(id: NodeId) -> NodeNumber {
    let (number, _) = id.0.split_first_chunk().expect("32 bytes");
    NodeNumber::try_from(u64::from_le_bytes(*number)).expect("it was one")
}

/// Bytes that a line sends at a time: as few as TCP sends in one go, but no more pieces than a chunk needs to be
/// shared out fairly.
fn piece_size(geometry: Geometry) -> u32 {
    (16 << 10).max(geometry.chunk_size().div_ceil(8))
}

/// Nanoseconds that so many bytes take on a line.
pub(crate) fn duration(size: u64, rate: u64) -> u64 {
    size * SECOND / rate
}
