//! Lines, upload slots and buffers of the simulated world.
//!
//! A line out sends one piece at a time, in turn for each connection that has something in its buffers; a piece then
//! waits for the receiver's line. Of a connection only so many pieces may be on their way, as a TCP window
//! allows. A chunk holds its slot until its last piece is on the line, as in peer/src/serve/line.rs, or for a quarter of
//! a second.

use crate::{
    sim_node::{Connection, Holding, Item, Link, NodeNumber, Piece, Sending, What},
    sim_scenario::STEP,
    sim_world::{World, duration},
};
use anchorage_peer::scheduler::Event;
use std::{collections::VecDeque, mem};

/// Bytes of one connection that wait in the host's queue, where everything else waits behind them; few, as TCP's small
/// queues and BBR's pacing keep the rest in the socket.
const QUEUE_SIZE: u32 = 32 << 10;

/// Pieces of one connection that may be between the two lines.
const WINDOW: u32 = 16;

/// Nanoseconds after which a chunk gives its slot back, sent or not.
const SLOT_PATIENCE: u64 = 250_000_000;

impl World {
    /// Nanoseconds that a message waits behind what its host sends.
    pub(crate) fn queued(&self, node: NodeNumber) -> u64 {
        let flows = self.nodes[node].flows.iter();
        let sizes = flows.map(|&link| u64::from(self.connections[link].buffered.min(QUEUE_SIZE)));
        duration(sizes.sum(), self.nodes[node].host.up)
    }

    /// Nanoseconds that a message waits before the line in of its receiver.
    fn delayed(&self, node: NodeNumber) -> u64 {
        self.nodes[node].down_free.saturating_sub(self.now)
    }

    /// Something that the source will hear.
    pub(crate) fn say_to_source(&mut self, link: Link, what: What) {
        let Connection { asker, source, .. } = self.connections[link];
        if !self.nodes[asker].has_stalled {
            let time = self.now + self.queued(asker) + self.delayed(source) + self.latency;
            let last = &mut self.connections[link].last[0];
            *last = time.max(*last);
            let time = *last;
            self.at(time, what);
        }
    }

    /// Something that the asker will hear; it waits behind the chunks on the same connection, too.
    pub(crate) fn say_to_asker(&mut self, link: Link, what: What) {
        let Connection {
            asker,
            source,
            buffered,
            ..
        } = self.connections[link];
        if !self.nodes[source].has_stalled {
            let own = buffered.saturating_sub(QUEUE_SIZE);
            let own = duration(own.into(), self.nodes[source].host.up);
            let time = self.now + own + self.queued(source) + self.delayed(asker) + self.latency;
            let last = &mut self.connections[link].last[1];
            *last = time.max(*last);
            let time = *last;
            self.at(time, what);
        }
    }

    /// There and back again, before anything else is said.
    pub(crate) fn round_trip(&mut self, link: Link, left: u32) {
        let Connection { asker, source, .. } = self.connections[link];
        let there = self.queued(asker) + self.delayed(source);
        let back = self.queued(source) + self.delayed(asker);
        let time = self.now + there + back + 2 * self.latency;
        self.at(time, What::Answered(link, left));
    }

    pub(crate) fn asked(&mut self, link: Link, item: Item) {
        let connection = &mut self.connections[link];
        match item {
            _ if connection.closed => {}
            Item::Cancel(index) => connection.queue.retain(|item| *item != Item::Chunk(index)),
            item => {
                connection.queue.push_back(item);
                self.serve(link);
            }
        }
    }

    /// Gets in line for a slot, if there is something to send and this connection is not in line yet.
    fn serve(&mut self, link: Link) {
        let connection = &mut self.connections[link];
        if connection.waiting.is_some() || connection.closed {
            return;
        }
        connection.waiting = connection.queue.pop_front();
        if connection.waiting.is_some() {
            let source = connection.source;
            self.nodes[source].slots.wait(link);
            self.grant(source);
        }
    }

    /// A slot is free again.
    fn give_back(&mut self, source: NodeNumber) {
        let now = self.time();
        self.nodes[source].slots.give_back(now);
        self.grant(source);
    }

    /// Gives out the slots that are free.
    fn grant(&mut self, source: NodeNumber) {
        let now = self.time();
        loop {
            let connections = &self.connections;
            let node = &mut self.nodes[source];
            let audience = &node.audience;
            let asked = |link: Link| match connections[link].waiting {
                Some(Item::Chunk(index)) => Some(index),
                _ => None,
            };
            let next = node.slots.next(
                |&link| !connections[link].closed,
                |&link| audience.rank(now, link as u64, asked(link)),
                |&link| asked(link).is_none(),
            );
            match next {
                Some(link) if self.granted(link) => {}
                Some(_) => self.nodes[source].slots.give_back(now),
                None => return,
            }
        }
    }

    /// A connection has a slot; false if there is nothing to send.
    fn granted(&mut self, link: Link) -> bool {
        let now = self.time();
        let connection = &mut self.connections[link];
        let node = &mut self.nodes[connection.source];
        let index = match connection.waiting.take() {
            Some(Item::Chunk(index)) => {
                node.audience.has(now, link as u64, index);
                Some(index)
            }
            _ => node.audience.take(now, link as u64, &node.have, |_| true),
        };
        let extent = index.and_then(|index| self.geometry.extent(index));
        match (index, extent) {
            (Some(index), Some(extent)) if node.have.contains(index) => {
                if connection.buffered == 0 {
                    node.flows.push_back(link);
                }
                connection.serial += 1;
                let (serial, source) = (connection.serial, connection.source);
                connection.buffer.push_back(Sending {
                    index,
                    left: extent.size,
                    serial,
                });
                connection.buffered += extent.size;
                let until = self.now + SLOT_PATIENCE;
                node.holding.push(Holding {
                    link,
                    serial,
                    until,
                });
                if !mem::replace(&mut node.is_patient, true) {
                    self.at(until, What::Patience(source));
                }
                self.pump(source);
                self.serve(link);
                return true;
            }
            (Some(index), _) => self.say_to_asker(link, What::Missing(link, index)),
            (None, _) => self.say_to_asker(link, What::Exhausted(link)),
        }
        // The slot goes to the next; this connection gets in line behind the others.
        let connection = &mut self.connections[link];
        connection.waiting = connection.queue.pop_front();
        if connection.waiting.is_some() {
            self.nodes[connection.source].slots.wait(link);
        }
        false
    }

    /// The chunks that have had their slots for so long that it is the receivers who are slow give them back.
    pub(crate) fn lose_patience(&mut self, source: NodeNumber) {
        let (node, now) = (&mut self.nodes[source], self.now);
        let before = node.holding.len();
        node.holding.retain(|holding| holding.until > now);
        let late = before - node.holding.len();
        let next = node.holding.iter().map(|holding| holding.until).min();
        node.is_patient = next.is_some();
        if let Some(next) = next {
            self.at(next, What::Patience(source));
        }
        for _ in 0..late {
            self.give_back(source);
        }
    }

    /// Nothing more is sent on a connection.
    pub(crate) fn clear(&mut self, link: Link) {
        let connection = &mut self.connections[link];
        connection.queue = VecDeque::new();
        connection.buffer = VecDeque::new();
        connection.buffered = 0;
        let source = connection.source;
        let node = &mut self.nodes[source];
        node.flows.retain(|&flow| flow != link);
        let before = node.holding.len();
        node.holding.retain(|holding| holding.link != link);
        for _ in node.holding.len()..before {
            self.give_back(source);
        }
    }

    /// Sends the next piece, if the line is free.
    fn pump(&mut self, source: NodeNumber) {
        let node = &mut self.nodes[source];
        if node.sending.is_some() || node.has_stalled || node.is_dead {
            return;
        }
        let connections = &mut self.connections;
        let ready = |&link: &Link| connections[link].on_the_way < WINDOW;
        let Some(place) = node.flows.iter().position(ready) else {
            return;
        };
        let link = node.flows.remove(place).expect("found just now");
        let connection = &mut connections[link];
        let chunk = connection.buffer.front_mut().expect("it is in line");
        let whole = self
            .geometry
            .extent(chunk.index)
            .map_or(0, |extent| extent.size);
        let size = chunk.left.min(self.piece);
        let piece = Piece {
            index: chunk.index,
            size,
            is_first: chunk.left == whole,
            is_last: chunk.left == size,
        };
        chunk.left -= size;
        let serial = chunk.serial;
        let before = node.holding.len();
        if piece.is_last {
            connection.buffer.pop_front();
            let is_it = |holding: &Holding| (holding.link, holding.serial) == (link, serial);
            node.holding.retain(|holding| !is_it(holding));
        }
        let gives_back = node.holding.len() < before;
        node.sending = Some((link, piece));
        node.sent += u64::from(size);
        let time = self.now + duration(size.into(), node.host.up);
        self.at(time, What::PieceSent(source));
        if gives_back {
            self.give_back(source);
        }
    }

    pub(crate) fn piece_sent(&mut self, source: NodeNumber) {
        let sending = self.nodes[source].sending.take();
        let (link, piece) = sending.expect("it was being sent");
        let connection = &mut self.connections[link];
        if !connection.closed && !self.nodes[source].is_dead {
            connection.on_the_way += 1;
            connection.buffered -= piece.size;
            if connection.buffered > 0 {
                self.nodes[source].flows.push_back(link);
            }
            let receiver = &mut self.nodes[connection.asker];
            let begin = receiver.down_free.max(self.now);
            receiver.down_free = begin + duration(piece.size.into(), receiver.host.down);
            let time = receiver.down_free + self.latency;
            self.at(time, What::PieceCame(link, piece));
        }
        self.pump(source);
    }

    pub(crate) fn piece_came(&mut self, link: Link, piece: Piece) {
        let Connection { asker, source, .. } = self.connections[link];
        self.connections[link].on_the_way -= 1;
        self.nodes[asker].received += u64::from(piece.size);
        let step = usize::try_from(self.now / STEP).expect("few steps");
        if self.received.len() <= step {
            self.received.resize(step + 1, 0);
        }
        self.received[step] += u64::from(piece.size);
        let (id, index) = (link as u64, piece.index);
        if piece.is_first {
            self.tell(link, Event::Chosen(id, index));
        }
        self.tell(link, Event::Received(id, piece.size.into()));
        if piece.is_last {
            match self.processors.iter_mut().min() {
                Some(free) => {
                    *free = self.now.max(*free) + self.chunk_cpu;
                    let time = *free;
                    self.at(time, What::Verified(link, index));
                }
                None => self.verified(link, index),
            }
        }
        self.pump(source);
    }

    /// A chunk that came is the right one.
    pub(crate) fn verified(&mut self, link: Link, index: u32) {
        if !self.connections[link].closed {
            self.store(link, index);
        }
    }
}
