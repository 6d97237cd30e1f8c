//! Who takes part in a simulated swarm: nodes with their lines, and connections between them.

use crate::sim_scenario::Host;
use anchorage_manifest::Bitmap;
use anchorage_peer::{
    scheduler::Scheduler,
    serve::{Share, audience::Audience, slots::Slots},
};
use std::{collections::VecDeque, rc::Rc};

/// Number of a node.
pub(crate) type NodeNumber = usize;

/// Number of a connection.
pub(crate) type Link = usize;

/// Something that happens.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A node starts.
    Start(NodeNumber),
    /// A node looks whom else to ask.
    Look(NodeNumber),
    /// The other side of a connection has answered; so many more times to go until it is up.
    Answered(Link, u32),
    Asked(Link, Item),
    NewsOfAsker(Link, Rc<[u32]>),
    NewsOfSource(Link, Rc<[u32]>),
    Bitmap(Link, Rc<Bitmap>),
    Exhausted(Link),
    Missing(Link, u32),
    Broken(Link),
    /// A chunk of a node may have had its slot for so long that it gives it back.
    Patience(NodeNumber),
    PieceSent(NodeNumber),
    PieceCame(Link, Piece),
    /// A processor is done with a chunk that came.
    Verified(Link, u32),
    News(NodeNumber),
    /// The anchors have heard that a node has something.
    Listed(NodeNumber),
    Tick(NodeNumber),
}

/// What an asker wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Any,
    Chunk(u32),
    Cancel(u32),
}

/// A chunk that a connection has begun to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    pub(crate) index: u32,
    /// Bytes that are not on the line yet.
    pub(crate) left: u32,
    /// Its number on the connection.
    pub(crate) serial: u32,
}

/// A chunk that has a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holding {
    pub(crate) link: Link,
    /// Its number on the connection.
    pub(crate) serial: u32,
    /// When it gives the slot back at the latest.
    pub(crate) until: u64,
}

/// A part of a chunk on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) index: u32,
    pub(crate) size: u32,
    pub(crate) is_first: bool,
    pub(crate) is_last: bool,
}

/// A host with its lines, and the node on it.
#[expect(
    clippy::struct_excessive_bools,
    reason = "four things that have nothing to do with one another"
)]
pub(crate) struct Node {
    pub(crate) host: Host,
    /// None for an anchor.
    pub(crate) scheduler: Option<Scheduler>,
    pub(crate) have: Bitmap,
    pub(crate) audience: Audience,
    pub(crate) slots: Slots<Link>,
    /// Who has a slot.
    pub(crate) holding: Vec<Holding>,
    /// Whether it will be looked who has one for too long.
    pub(crate) is_patient: bool,
    /// Connections with something in their buffers.
    pub(crate) flows: VecDeque<Link>,
    pub(crate) sending: Option<(Link, Piece)>,
    /// When the line in has nothing left to deliver.
    pub(crate) down_free: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) news: Vec<u32>,
    /// How often it has told news.
    pub(crate) times_told: u64,
    pub(crate) asks: Vec<Link>,
    pub(crate) asked_by: Vec<Link>,
    pub(crate) ticks: bool,
    pub(crate) started: Option<u64>,
    pub(crate) finished: Option<u64>,
    pub(crate) is_dead: bool,
    pub(crate) has_stalled: bool,
}

/// One node asks another.
pub(crate) struct Connection {
    pub(crate) asker: NodeNumber,
    pub(crate) source: NodeNumber,
    pub(crate) queue: VecDeque<Item>,
    /// What it waits for a slot for.
    pub(crate) waiting: Option<Item>,
    /// Chunks that are being sent.
    pub(crate) buffer: VecDeque<Sending>,
    /// Bytes of them that have not left the host.
    pub(crate) buffered: u32,
    /// How many chunks were granted a slot so far.
    pub(crate) serial: u32,
    /// Pieces between the two lines.
    pub(crate) on_the_way: u32,
    pub(crate) chooses: bool,
    pub(crate) is_up: bool,
    pub(crate) closed: bool,
    /// When the last message each way arrives: none overtakes another.
    pub(crate) last: [u64; 2],
}

impl Node {
    /// A node that has this, gives out `share` first, and has a scheduler unless it is an anchor.
    pub(crate) fn new(
        host: Host,
        have: Bitmap,
        share: Share,
        scheduler: Option<Scheduler>,
    ) -> Self {
        Self {
            host,
            scheduler,
            audience: Audience::new(have.len(), share),
            have,
            slots: Slots::default(),
            holding: Vec::new(),
            is_patient: false,
            flows: VecDeque::new(),
            sending: None,
            down_free: 0,
            sent: 0,
            received: 0,
            news: Vec::new(),
            times_told: 0,
            asks: Vec::new(),
            asked_by: Vec::new(),
            ticks: false,
            started: None,
            finished: None,
            is_dead: false,
            has_stalled: false,
        }
    }
}

impl Connection {
    /// A connection on which nothing has been said.
    pub(crate) fn new(asker: NodeNumber, source: NodeNumber) -> Self {
        Self {
            asker,
            source,
            queue: VecDeque::new(),
            waiting: None,
            buffer: VecDeque::new(),
            buffered: 0,
            serial: 0,
            on_the_way: 0,
            chooses: false,
            is_up: false,
            closed: false,
            last: [0; 2],
        }
    }
}

impl What {
    /// Kind and operands, for the digest.
    pub(crate) fn operands(&self) -> (u8, usize, u64) {
        match *self {
            Self::Start(node) => (0, node, 0),
            Self::Look(node) => (1, node, 0),
            Self::Answered(link, left) => (2, link, left.into()),
            Self::Asked(link, Item::Any) => (3, link, 0),
            Self::Asked(link, Item::Chunk(index)) => (4, link, index.into()),
            Self::Asked(link, Item::Cancel(index)) => (5, link, index.into()),
            Self::NewsOfAsker(link, ref news) => (6, link, news.len() as u64),
            Self::NewsOfSource(link, ref news) => (7, link, news.len() as u64),
            Self::Bitmap(link, ref have) => (8, link, have.count().into()),
            Self::Exhausted(link) => (9, link, 0),
            Self::Missing(link, index) => (10, link, index.into()),
            Self::Broken(link) => (11, link, 0),
            Self::PieceSent(node) => (12, node, 0),
            Self::PieceCame(link, piece) => (
                13,
                link,
                u64::from(piece.index) << 32 | u64::from(piece.size),
            ),
            Self::News(node) => (14, node, 0),
            Self::Listed(node) => (15, node, 0),
            Self::Tick(node) => (16, node, 0),
            Self::Patience(node) => (17, node, 0),
            Self::Verified(link, index) => (18, link, index.into()),
        }
    }
}
