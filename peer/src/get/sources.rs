//! Whom to dial: the nodes that are said to have something, and how they have behaved so far.

use crate::{scheduler::SourceId, time::Time};
use anchorage_manifest::{NodeId, Source};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

/// Nodes that are dialled at the same time. Random graphs of this degree spread a chunk in a few hops.
const NODES_MAX: usize = 24;

/// Dials that may begin at once, and time from one to the next of those after them: when many start together, what the
/// first connections bring is not to wait for handshakes with everybody.
const DIALS: (u32, Duration) = (6, Duration::from_millis(8));

/// First and longest pause before a node is dialled again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The nodes that are said to have something of one content.
#[derive(Debug, Default)]
pub(super) struct Sources {
    nodes: BTreeMap<NodeId, Entry>,
    /// For whom the next free places are.
    next: BTreeSet<NodeId>,
    next_id: SourceId,
    /// When all dials so far would have begun, had each waited for its turn.
    paced: Time,
}

#[derive(Debug)]
struct Entry {
    address: SocketAddr,
    link: Option<SourceId>,
    failures: u32,
    not_before: Time,
    is_anchor: bool,
    is_banned: bool,
    is_gone: bool,
}

impl Sources {
    /// A node is said to have something.
    ///
    /// When as many are linked as may be, the newcomer takes the place of one of them as often as makes every node
    /// equally likely to be linked, whenever it came (reservoir sampling): the answer is which connection to hang up.
    /// Were the first to be known the only ones to be dialled, the lines of those who come late would stay idle.
    /// Anchors keep their places.
    pub(super) fn learn(&mut self, source: Source, is_anchor: bool) -> Option<SourceId> {
        let is_new = !self.nodes.contains_key(&source.node);
        let entry = self.nodes.entry(source.node).or_insert(Entry {
            address: source.address,
            link: None,
            failures: 0,
            not_before: Time::default(),
            is_anchor,
            is_banned: false,
            is_gone: false,
        });
        if entry.address != source.address || entry.is_gone {
            entry.address = source.address;
            entry.not_before = Time::default();
            entry.is_gone = false;
        }
        if !is_new || self.linked() < NODES_MAX || fastrand::usize(..self.nodes.len()) >= NODES_MAX
        {
            return None;
        }
        let peers = self.nodes.values().filter(|entry| !entry.is_anchor);
        let links: Vec<SourceId> = peers.filter_map(|entry| entry.link).collect();
        let link = fastrand::choice(links);
        if link.is_some() {
            self.next.insert(source.node);
        }
        link
    }

    /// A node is said to be gone; it is not dialled again unless it is learned again.
    pub(super) fn lose(&mut self, node: NodeId) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.is_gone = true;
        }
    }

    /// A node is never to be dialled again; false if it was banned before.
    pub(super) fn ban(&mut self, node: NodeId) -> bool {
        let entry = self.nodes.get_mut(&node);
        entry.is_some_and(|entry| !std::mem::replace(&mut entry.is_banned, true))
    }

    /// Whom to dial now, with the number of the connection.
    pub(super) fn pick(&mut self, now: Time) -> Vec<(SourceId, Source)> {
        let places = NODES_MAX.saturating_sub(self.linked());
        let mut dial = Vec::new();
        if places == 0 {
            return dial;
        }
        let mut candidates: Vec<_> = self
            .nodes
            .iter_mut()
            .filter(|(_, entry)| {
                !entry.is_banned
                    && !entry.is_gone
                    && entry.link.is_none()
                    && entry.not_before <= now
            })
            .collect();
        fastrand::shuffle(&mut candidates);
        candidates.sort_by_key(|(node, entry)| (!entry.is_anchor, !self.next.contains(*node)));
        for (&node, entry) in candidates.into_iter().take(places) {
            if self.paced > now + DIALS.1 * (DIALS.0 - 1) {
                break;
            }
            self.paced = self.paced.max(now) + DIALS.1;
            let id = self.next_id;
            self.next_id += 1;
            entry.link = Some(id);
            self.next.remove(&node);
            let address = entry.address;
            dial.push((id, Source { node, address }));
        }
        dial
    }

    /// There is a connection to a node that is known; its number, unless there is one already.
    pub(super) fn link(&mut self, node: NodeId) -> Option<SourceId> {
        let entry = self.nodes.get_mut(&node)?;
        if entry.link.is_some() {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        entry.link = Some(id);
        Some(id)
    }

    /// When somebody may be dialled again; never, while as many are linked as may be.
    pub(super) fn deadline(&self) -> Option<Time> {
        if self.linked() >= NODES_MAX {
            return None;
        }
        let waiting = |entry: &&Entry| entry.link.is_none() && !entry.is_banned && !entry.is_gone;
        let entries = self.nodes.values().filter(waiting);
        let earliest = entries.map(|entry| entry.not_before).min()?;
        let ahead = Time::default() + DIALS.1 * (DIALS.0 - 1);
        Some(earliest.max(Time(self.paced.0.saturating_sub(ahead.0))))
    }

    fn linked(&self) -> usize {
        self.nodes
            .values()
            .filter(|entry| entry.link.is_some())
            .count()
    }

    /// A node has delivered a chunk: whatever went wrong with it before is forgiven.
    pub(super) fn delivered(&mut self, node: NodeId) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.failures = 0;
        }
    }

    /// A connection is silent: its node is to be dialled once more, beside it.
    pub(super) fn again(&mut self, id: SourceId, node: NodeId) {
        if let Some(entry) = self.nodes.get_mut(&node)
            && entry.link == Some(id)
        {
            entry.link = None;
            self.next.insert(node);
        }
    }

    /// A connection ended.
    pub(super) fn down(&mut self, id: SourceId, node: NodeId, now: Time) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            if entry.link == Some(id) {
                entry.link = None;
            }
            let pause = BACKOFF
                .0
                .saturating_mul(1 << entry.failures.min(16))
                .min(BACKOFF.1);
            entry.failures += 1;
            entry.not_before = now + pause;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u8) -> Source {
        Source {
            node: NodeId([number; 32]),
            address: ([127, 0, 0, 1], u16::from(number)).into(),
        }
    }

    #[test]
    fn each_is_dialled_once_and_never_too_many() {
        let mut subject = Sources::default();
        subject.learn(source(1), false);
        assert_eq!(subject.pick(Time(0)).len(), 1);
        assert_eq!(subject.pick(Time(0)), []);
        (2..25).for_each(|number| _ = subject.learn(source(number), false));
        assert_eq!(subject.deadline(), Some(Time(0)));
        let (at_once, pace) = DIALS;
        let dialled = subject.pick(Time(0)).len();
        assert_eq!(dialled, at_once as usize - 1);
        let mut now = Time(0);
        for _ in dialled..NODES_MAX - 1 {
            now = now + pace;
            assert_eq!(subject.deadline(), Some(now), "the others one by one");
            assert_eq!(subject.pick(now).len(), 1);
        }
        assert_eq!(
            subject.deadline(),
            None,
            "nobody waits for a place that nobody has"
        );
    }

    #[test]
    fn who_fails_is_dialled_later_and_later() {
        let mut subject = Sources::default();
        (1..4).for_each(|number| _ = subject.learn(source(number), false));
        let dialled = subject.pick(Time(0));
        let (id, failed) = dialled[0];
        subject.down(id, failed.node, Time(0));
        assert_eq!(subject.pick(Time(0)), []);
        assert_eq!(subject.deadline(), Some(Time(50_000)));
        let (id, _) = subject.pick(Time(50_000))[0];
        subject.down(id, failed.node, Time(50_000));
        assert_eq!(subject.deadline(), Some(Time(150_000)));
        subject.ban(failed.node);
        assert_eq!(subject.deadline(), None);
        assert_eq!(subject.pick(Time(u64::MAX)), []);
    }

    #[test]
    fn who_comes_late_is_dialled_as_often_as_who_came_first() {
        const NODES: usize = 100;
        let mut linked = [0; NODES];
        for _ in 0..400 {
            let mut subject = Sources::default();
            for (number, now) in (0..NODES).zip((0..).step_by(100_000).map(Time)) {
                let source = source(u8::try_from(number).expect("a hundred"));
                let victim = subject.learn(source, number == 0);
                if let Some(link) = victim {
                    let node = subject
                        .nodes
                        .iter()
                        .find(|(_, entry)| entry.link == Some(link));
                    let node = *node.expect("a link that is there").0;
                    subject.down(link, node, now);
                }
                subject.pick(now);
            }
            assert_eq!(subject.linked(), NODES_MAX);
            for (node, entry) in &subject.nodes {
                linked[usize::from(node.0[0])] += u32::from(entry.link.is_some());
            }
        }
        assert_eq!(linked[0], 400, "the anchor keeps its place");
        let expected = 400.0 * 23.0 / 99.0;
        for part in linked[1..].chunks(33) {
            let mean = f64::from(part.iter().sum::<u32>()) / part.len() as f64;
            assert!((mean / expected - 1.0).abs() < 0.1, "{mean} of {expected}");
        }
    }
}
