//! Whom to dial: the nodes that are said to have something, and how they have behaved so far.
//!
//! Anchors are dialled all, and of the others the neighbours in [`Rings`]. Whoever cannot be reached is stood in for by
//! the next one, until it can be and has delivered something.

use crate::{
    rings::{RINGS, Rings},
    scheduler::SourceId,
    time::Time,
};
use anchorage_manifest::{NodeId, Source};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

/// Dials that may begin at once, and time from one to the next of those after them: when many start together, what the
/// first connections bring is not to wait for handshakes with everybody.
const DIALS: (u32, Duration) = (6, Duration::from_millis(8));

/// First and longest pause before a node is dialled again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The nodes that are said to have something of one content.
#[derive(Debug)]
pub(super) struct Sources {
    me: NodeId,
    nodes: BTreeMap<NodeId, Entry>,
    /// All who may be dialled, but for anchors.
    rings: Rings,
    /// What is to be done by all that is known; none once something has changed.
    plan: Option<Plan>,
    /// Connections that are being ended for somebody else.
    leaving: BTreeSet<SourceId>,
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

/// Whom to dial and whom to leave.
#[derive(Debug, Default)]
struct Plan {
    /// Who is to be dialled, the last one first.
    dial: Vec<NodeId>,
    /// Who but anchors is connected, and has not failed since it delivered something.
    links: usize,
    /// Who of them need not be.
    spare: Vec<NodeId>,
    /// When somebody may be dialled again, and the plan is another.
    retry: Option<Time>,
}

impl Sources {
    /// Nobody is known to `me` yet.
    pub(super) fn new(me: NodeId) -> Self {
        Self {
            me,
            nodes: BTreeMap::new(),
            rings: Rings::default(),
            plan: None,
            leaving: BTreeSet::new(),
            next_id: 0,
            paced: Time::default(),
        }
    }

    /// A node is said to have something.
    pub(super) fn learn(&mut self, source: Source, is_anchor: bool) {
        let entry = self.nodes.entry(source.node).or_insert(Entry {
            address: source.address,
            link: None,
            failures: 0,
            not_before: Time::default(),
            is_anchor,
            is_banned: false,
            // Until it is heard of, which is now.
            is_gone: true,
        });
        if entry.address != source.address || entry.is_gone {
            entry.address = source.address;
            entry.not_before = Time::default();
            entry.is_gone = false;
            if !entry.is_anchor && !entry.is_banned {
                self.rings.insert(source.node);
            }
            self.plan = None;
        }
    }

    /// A node is said to be gone; it is not dialled again unless it is learned again.
    pub(super) fn lose(&mut self, node: NodeId) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.is_gone = true;
            self.rings.remove(node);
            self.plan = None;
        }
    }

    /// A node is never to be dialled again; false if it was banned before.
    pub(super) fn ban(&mut self, node: NodeId) -> bool {
        self.rings.remove(node);
        self.plan = None;
        let entry = self.nodes.get_mut(&node);
        entry.is_some_and(|entry| !std::mem::replace(&mut entry.is_banned, true))
    }

    /// Whom to dial now, with the number of the connection, and which connections to end for them.
    pub(super) fn pick(&mut self, now: Time) -> (Vec<(SourceId, Source)>, Vec<SourceId>) {
        let (mut dialled, mut ended) = (Vec::new(), Vec::new());
        let plan = self.plan.take();
        let mut plan = plan
            .filter(|plan| plan.retry.is_none_or(|retry| retry > now))
            .unwrap_or_else(|| self.plan(now));
        while self.paced <= now + DIALS.1 * (DIALS.0 - 1)
            && let Some(node) = plan.dial.pop()
        {
            self.paced = self.paced.max(now) + DIALS.1;
            let id = self.number();
            let entry = self.nodes.get_mut(&node).expect("BUG: known when planned");
            entry.link = Some(id);
            let address = entry.address;
            dialled.push((id, Source { node, address }));
            plan.links += usize::from(!entry.is_anchor && entry.failures == 0);
        }
        while plan.links > RINGS
            && let Some(spare) = plan.spare.pop()
        {
            plan.links -= 1;
            let link = self.nodes[&spare].link;
            self.leaving.extend(link);
            ended.extend(link);
        }
        self.plan = Some(plan);
        (dialled, ended)
    }

    /// What is to be done by all that is known now.
    fn plan(&self, now: Time) -> Plan {
        let mut plan = Plan::default();
        let mut is_ready = |entry: &Entry| {
            let is_ready = entry.link.is_some() || entry.not_before <= now;
            if !is_ready {
                let retry = plan.retry.get_or_insert(entry.not_before);
                *retry = entry.not_before.min(*retry);
            }
            is_ready
        };
        let neighbours = self
            .rings
            .neighbours(self.me, |node| is_ready(&self.nodes[&node]));
        plan.dial = neighbours
            .iter()
            .copied()
            .filter(|node| self.nodes[node].link.is_none())
            .collect();
        fastrand::shuffle(&mut plan.dial);
        for (&node, entry) in &self.nodes {
            if entry.is_anchor {
                if entry.link.is_none() && !entry.is_banned && !entry.is_gone && is_ready(entry) {
                    plan.dial.push(node);
                }
            } else if entry.failures == 0
                && let Some(link) = &entry.link
                && !self.leaving.contains(link)
            {
                plan.links += 1;
                if !neighbours.contains(&node) {
                    plan.spare.push(node);
                }
            }
        }
        plan
    }

    /// There is a connection to a node that is known; its number, unless there is one already.
    pub(super) fn link(&mut self, node: NodeId) -> Option<SourceId> {
        if self.nodes.get(&node)?.link.is_some() {
            return None;
        }
        let id = self.number();
        self.nodes.get_mut(&node)?.link = Some(id);
        self.plan = None;
        Some(id)
    }

    fn number(&mut self) -> SourceId {
        self.next_id += 1;
        self.next_id - 1
    }

    /// When somebody may be dialled again, if all stays as it is.
    pub(super) fn deadline(&self) -> Option<Time> {
        let Some(plan) = &self.plan else {
            return Some(Time::default());
        };
        let ahead = Time::default() + DIALS.1 * (DIALS.0 - 1);
        let turn = Time(self.paced.0.saturating_sub(ahead.0));
        let turn = (!plan.dial.is_empty()).then_some(turn);
        turn.into_iter().chain(plan.retry).min()
    }

    /// A node has delivered a chunk: whatever went wrong with it before is forgiven.
    pub(super) fn delivered(&mut self, node: NodeId) {
        if let Some(entry) = self.nodes.get_mut(&node)
            && std::mem::take(&mut entry.failures) > 0
        {
            self.plan = None;
        }
    }

    /// A connection is silent: its node is to be dialled once more, beside it.
    pub(super) fn again(&mut self, id: SourceId, node: NodeId) {
        if let Some(entry) = self.nodes.get_mut(&node)
            && entry.link == Some(id)
        {
            entry.link = None;
            self.leaving.remove(&id);
            self.plan = None;
        }
    }

    /// A connection ended.
    pub(super) fn down(&mut self, id: SourceId, node: NodeId, now: Time) {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return;
        };
        self.plan = None;
        if entry.link == Some(id) {
            entry.link = None;
        }
        if self.leaving.remove(&id) {
            return;
        }
        let pause = BACKOFF
            .0
            .saturating_mul(1 << entry.failures.min(16))
            .min(BACKOFF.1);
        entry.failures += 1;
        entry.not_before = now + pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Sources {
        Sources::new(NodeId([0; 32]))
    }

    fn source(number: u8) -> Source {
        Source {
            node: NodeId([number; 32]),
            address: ([127, 0, 0, 1], u16::from(number)).into(),
        }
    }

    /// Dials until nobody is left to be dialled; who was dialled, and which connections ended for them.
    fn settle(subject: &mut Sources, mut now: Time) -> (Vec<(SourceId, Source)>, Vec<SourceId>) {
        let (mut dialled, mut ended) = (Vec::new(), Vec::new());
        for _ in 0..100 {
            let (more, fewer) = subject.pick(now);
            dialled.extend(more);
            ended.extend(fewer);
            now = now + DIALS.1;
        }
        (dialled, ended)
    }

    fn linked(subject: &Sources) -> Vec<NodeId> {
        let nodes = subject.nodes.iter();
        let stays = |link| !subject.leaving.contains(&link);
        let linked = nodes.filter(|(_, entry)| entry.link.is_some_and(stays));
        linked.map(|(&node, _)| node).collect()
    }

    #[test]
    fn each_is_dialled_once_and_never_too_many() {
        let mut subject = subject();
        subject.learn(source(1), false);
        assert_eq!(subject.pick(Time(0)).0.len(), 1);
        assert_eq!(subject.pick(Time(0)), (vec![], vec![]));
        (2..=100).for_each(|number| subject.learn(source(number), false));
        assert_eq!(subject.deadline(), Some(Time(0)));
        let (at_once, pace) = DIALS;
        let dialled = subject.pick(Time(0)).0.len();
        assert_eq!(dialled, at_once as usize - 1);
        let mut now = Time(0);
        while linked(&subject).len() < RINGS {
            now = now + pace;
            assert_eq!(subject.deadline(), Some(now), "the others one by one");
            let (dialled, ended) = subject.pick(now);
            assert_eq!((dialled.len(), ended), (1, vec![]));
        }
        let (dialled, ended) = settle(&mut subject, now);
        assert_eq!(
            dialled.len(),
            ended.len(),
            "the first gives way, unless it may stay"
        );
        assert!(ended.is_empty() || ended == [0]);
        assert_eq!(
            subject.deadline(),
            None,
            "nobody waits for a place that nobody has"
        );
    }

    #[test]
    fn anchors_are_dialled_first_and_beside_all_others() {
        let mut subject = subject();
        (1..=100).for_each(|number| subject.learn(source(number), number % 50 == 0));
        let (dialled, _) = settle(&mut subject, Time(0));
        let first: Vec<NodeId> = dialled[..2].iter().map(|(_, source)| source.node).collect();
        assert!(first.contains(&source(50).node) && first.contains(&source(100).node));
        assert_eq!(dialled.len(), 2 + RINGS);
    }

    #[test]
    fn who_fails_is_dialled_later_and_later() {
        let mut subject = subject();
        (1..4).for_each(|number| subject.learn(source(number), false));
        let (dialled, _) = subject.pick(Time(0));
        let (id, failed) = dialled[0];
        subject.down(id, failed.node, Time(0));
        assert_eq!(subject.pick(Time(0)).0, []);
        assert_eq!(subject.deadline(), Some(Time(50_000)));
        let (id, _) = subject.pick(Time(50_000)).0[0];
        subject.down(id, failed.node, Time(50_000));
        assert_eq!(subject.pick(Time(50_000)).0, []);
        assert_eq!(subject.deadline(), Some(Time(150_000)));
        subject.ban(failed.node);
        assert_eq!(subject.pick(Time(u64::MAX)).0, []);
        assert_eq!(subject.deadline(), None);
    }

    #[test]
    fn another_stands_in_until_who_failed_is_back() {
        let mut subject = subject();
        (1..=40).for_each(|number| subject.learn(source(number), false));
        let (dialled, _) = settle(&mut subject, Time(0));
        let before = linked(&subject);
        let (id, failed) = dialled[3];
        let now = Time(2_000_000);
        subject.down(id, failed.node, now);
        let (dialled, ended) = subject.pick(now);
        assert_eq!((dialled.len(), ended), (1, vec![]));
        let (stand_in, other) = dialled[0];
        assert!(!before.contains(&other.node));
        assert_eq!(subject.deadline(), Some(now + BACKOFF.0));
        let (dialled, ended) = subject.pick(now + BACKOFF.0);
        assert_eq!((dialled[0].1, ended), (failed, vec![]));
        subject.delivered(failed.node);
        assert_eq!(subject.pick(now + BACKOFF.0), (vec![], vec![stand_in]));
        assert_eq!(linked(&subject), before);
        subject.down(stand_in, other.node, now + BACKOFF.0);
        assert_eq!(settle(&mut subject, now + BACKOFF.0), (vec![], vec![]));
    }

    #[test]
    fn who_is_gone_is_dialled_when_it_is_heard_of_again() {
        let mut subject = subject();
        subject.learn(source(1), false);
        let (id, Source { node, .. }) = subject.pick(Time(0)).0[0];
        subject.lose(node);
        subject.down(id, node, Time(0));
        assert_eq!(subject.pick(Time(u64::MAX)).0, []);
        assert_eq!(subject.deadline(), None);
        subject.learn(source(1), false);
        assert_eq!(subject.pick(Time(0)).0.len(), 1, "without a pause");
    }

    #[test]
    fn the_order_in_which_they_come_does_not_matter() {
        let mut all: Vec<u8> = (1..=100).collect();
        let mut expected = None;
        for _ in 0..20 {
            fastrand::shuffle(&mut all);
            let mut subject = subject();
            let mut links = BTreeMap::new();
            let times = (0..).step_by(100_000).map(Time);
            for (&number, now) in all.iter().zip(times) {
                subject.learn(source(number), false);
                let (dialled, ended) = settle(&mut subject, now);
                links.extend(dialled);
                for id in ended {
                    let gone: Source = links.remove(&id).expect("a link that is there");
                    subject.down(id, gone.node, now);
                }
                assert!(links.len() <= RINGS);
            }
            let linked = linked(&subject);
            assert_eq!(*expected.get_or_insert(linked.clone()), linked);
        }
    }
}
