//! What the simulator is about: scenario, outcome, events, nodes and connections. What they do stands in `sim_world`.

use crate::audience::Audience;
use anchorage_manifest::{Bitmap, Geometry, Hash};
use anchorage_peer::scheduler::Scheduler;
use std::collections::VecDeque;

/// Chunks that a node sends at the same time.
const SLOTS: usize = 4;

/// What is simulated.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// Sizes of file and chunks.
    pub(crate) geometry: Geometry,
    /// Bytes a second that each node sends at most, the origin first.
    pub(crate) up: Vec<u64>,
    /// Bytes a second that each node receives at most.
    pub(crate) down: Vec<u64>,
    /// Nanoseconds from any node to any other.
    pub(crate) latency: u64,
    /// Of everything random.
    pub(crate) seed: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Seconds until each getter had everything; none if it never did.
    pub(crate) finished: Vec<Option<f64>>,
    /// Bytes that the origin sent.
    pub(crate) origin_bytes: u64,
    /// Events simulated.
    pub(crate) events: u64,
    /// SHA-256 of all of them in order.
    pub(crate) digest: Hash,
}

/// Something that happens; numbers are of nodes or connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    Dialled(usize),
    Asked(usize, Item),
    NewsOfAsker(usize, Vec<u32>),
    NewsOfSource(usize, Vec<u32>),
    Bitmap(usize),
    Exhausted(usize),
    Missing(usize, u32),
    PieceSent(usize),
    PieceCame(usize, Piece),
    News(usize),
    Tick(usize),
}

/// What an asker wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Item {
    Any,
    Chunk(u32),
    Cancel(u32),
}

/// A part of a chunk on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Piece {
    pub(crate) index: u32,
    pub(crate) size: u32,
    pub(crate) is_first: bool,
    pub(crate) is_last: bool,
}

/// A host with its lines, and the node on it.
pub(crate) struct Node {
    pub(crate) up: u64,
    pub(crate) down: u64,
    /// None for the origin.
    pub(crate) scheduler: Option<Scheduler>,
    pub(crate) have: Bitmap,
    pub(crate) audience: Audience,
    pub(crate) free_slots: usize,
    pub(crate) waiting: Vec<usize>,
    /// Connections with a slot and something left to send.
    pub(crate) flows: VecDeque<usize>,
    pub(crate) sending: Option<(usize, Piece)>,
    pub(crate) down_free: u64,
    pub(crate) sent: u64,
    pub(crate) news: Vec<u32>,
    pub(crate) asks: Vec<usize>,
    pub(crate) asked_by: Vec<usize>,
    pub(crate) ticks: bool,
    pub(crate) finished: Option<u64>,
}

/// One node asks another.
pub(crate) struct Connection {
    pub(crate) asker: usize,
    pub(crate) source: usize,
    pub(crate) queue: VecDeque<Item>,
    /// What it waits for a slot for, or has one.
    pub(crate) current: Option<Item>,
    /// Chunk and bytes left of what is being sent.
    pub(crate) flow: Option<(u32, u32)>,
    pub(crate) on_the_way: u32,
    pub(crate) chooses: bool,
    pub(crate) closed: bool,
}

impl Node {
    /// A node with lines of these rates, that has this, and a scheduler unless it is the origin.
    pub(crate) fn new((up, down): (u64, u64), have: Bitmap, scheduler: Option<Scheduler>) -> Self {
        let chunks = have.len();
        Self {
            up,
            down,
            scheduler,
            have,
            audience: Audience::new(chunks, (0..chunks).step_by(1)),
            free_slots: SLOTS,
            waiting: Vec::new(),
            flows: VecDeque::new(),
            sending: None,
            down_free: 0,
            sent: 0,
            news: Vec::new(),
            asks: Vec::new(),
            asked_by: Vec::new(),
            ticks: false,
            finished: None,
        }
    }
}

impl Connection {
    /// A connection on which nothing has been said.
    pub(crate) fn new(asker: usize, source: usize) -> Self {
        Self {
            asker,
            source,
            queue: VecDeque::new(),
            current: None,
            flow: None,
            on_the_way: 0,
            chooses: false,
            closed: false,
        }
    }
}
