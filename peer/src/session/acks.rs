//! Acks on their way: collected for 20 ms or as long as the anchor says, sent together, counted until they are answered.
//! Where chunks come from twenty sources, a message for each of them would be one for every chunk, and as many answers on
//! the line of an anchor that has better things to send.
//!
//! The next ones go when the last ones are answered: an anchor that is behind gets fewer and longer messages.

use anchorage_manifest::{
    ContentId, NodeId,
    limits::{CHUNKS_PER_MESSAGE_MAX, COLLECT_MS_MAX, COLLECT_MS_MIN, DELIVERIES_PER_ACK_MAX},
    wire::{Delivery, Reply, Request},
};
use std::{collections::BTreeMap, mem, time::Duration};
use tokio::{sync::oneshot, time::Instant};

pub(super) struct Acks {
    collect: Duration,
    collected: BTreeMap<ContentId, BTreeMap<NodeId, Vec<u32>>>,
    due: Option<Instant>,
    unanswered: usize,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Default for Acks {
    fn default() -> Self {
        Self {
            collect: Duration::from_millis(COLLECT_MS_MIN.into()),
            collected: BTreeMap::new(),
            due: None,
            unanswered: 0,
            waiting: Vec::new(),
        }
    }
}

impl Acks {
    /// Adds one.
    pub(super) fn add(&mut self, content: ContentId, from: NodeId, index: u32) {
        // Not in step with everybody else who began at the same moment.
        let pause = || self.collect.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.due.get_or_insert_with(|| Instant::now() + pause());
        let deliveries = self.collected.entry(content).or_default();
        deliveries.entry(from).or_default().push(index);
    }

    /// When those collected are to be sent.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.unanswered == 0)
    }

    /// Those collected, as requests.
    pub(super) fn take(&mut self) -> Vec<Request> {
        self.due = None;
        let collected = mem::take(&mut self.collected);
        let mut requests = Vec::new();
        for (content, given) in collected {
            let (mut deliveries, mut room) = (Vec::new(), CHUNKS_PER_MESSAGE_MAX);
            for (from, mut chunks) in given {
                while !chunks.is_empty() {
                    if room == 0 || deliveries.len() == DELIVERIES_PER_ACK_MAX {
                        let deliveries = mem::take(&mut deliveries);
                        requests.push(Request::Ack {
                            content,
                            deliveries,
                        });
                        room = CHUNKS_PER_MESSAGE_MAX;
                    }
                    let rest = chunks.split_off(chunks.len().min(room));
                    room -= chunks.len();
                    deliveries.push(Delivery { from, chunks });
                    chunks = rest;
                }
            }
            requests.push(Request::Ack {
                content,
                deliveries,
            });
        }
        self.unanswered += requests.len();
        requests
    }

    /// The anchor says how long to collect.
    pub(super) fn collect_for(&mut self, collect_ms: u32) {
        let collect_ms = collect_ms.clamp(COLLECT_MS_MIN, COLLECT_MS_MAX);
        self.collect = Duration::from_millis(collect_ms.into());
    }

    /// One of those sent is answered.
    pub(super) fn answered(&mut self, reply: &Reply) {
        if let &Reply::Acked { collect_ms } = reply {
            self.collect_for(collect_ms);
        }
        self.unanswered = self.unanswered.saturating_sub(1);
        self.wake();
    }

    /// The connection broke: the next one announces everything, so nothing is owed.
    pub(super) fn forget_sent(&mut self) {
        self.unanswered = 0;
        self.wake();
    }

    /// Tells `done` when nothing is unanswered any more.
    pub(super) fn when_answered(&mut self, done: oneshot::Sender<()>) {
        self.waiting.push(done);
        self.wake();
    }

    fn wake(&mut self) {
        if self.unanswered == 0 {
            for done in self.waiting.drain(..) {
                // Whoever waited may have given up.
                let _ = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anchorage_manifest::{Hash, codec, limits::REQUEST_SIZE_MAX, wire::ToAnchor};

    const CONTENT: ContentId = ContentId(Hash([1; 32]));
    const SOURCE: NodeId = NodeId([2; 32]);

    #[test]
    fn the_anchor_sets_the_pace() {
        let mut subject = Acks::default();
        assert_eq!(subject.due(), None);
        let before = Instant::now();
        subject.add(CONTENT, SOURCE, 1);
        subject.add(CONTENT, SOURCE, 2);
        let due = subject.due().expect("two acks wait");
        assert!(due >= before + Duration::from_millis(10));
        assert!(due <= Instant::now() + Duration::from_millis(20));
        let chunks = vec![1, 2];
        let deliveries = vec![Delivery {
            from: SOURCE,
            chunks,
        }];
        let ack = Request::Ack {
            content: CONTENT,
            deliveries,
        };
        assert_eq!(subject.take(), [ack]);
        subject.add(CONTENT, SOURCE, 3);
        assert_eq!(subject.due(), None, "the first message is not answered");
        subject.answered(&Reply::Acked {
            collect_ms: u32::MAX,
        });
        assert!(subject.due().is_some());
        subject.take();
        subject.add(CONTENT, SOURCE, 4);
        subject.answered(&Reply::Done);
        let due = subject.due().expect("one ack waits");
        assert!(due >= before + Duration::from_secs(1));
        assert!(due <= Instant::now() + Duration::from_secs(2));
    }

    #[test]
    fn what_many_sources_sent_goes_in_one_message_that_fits() {
        let mut subject = Acks::default();
        let node = |number: u8| NodeId([number; 32]);
        for number in 0..1_500 {
            let from = node(u8::try_from(number.min(40)).expect("few"));
            // Chunks that take as much room as there can be.
            subject.add(CONTENT, from, u32::MAX - number);
        }
        let requests = subject.take();
        assert_eq!(subject.unanswered, requests.len());
        assert_eq!(requests.len(), 4, "32 sources, 8 and 504 chunks, 512, 444");
        let mut acked = Vec::new();
        for request in requests {
            let ack = ToAnchor {
                id: u32::MAX,
                request,
            };
            assert!(codec::encode(&ack).len() <= REQUEST_SIZE_MAX);
            let Request::Ack { deliveries, .. } = ack.request else {
                panic!("{ack:?}");
            };
            assert!(deliveries.len() <= DELIVERIES_PER_ACK_MAX);
            acked.extend(deliveries.into_iter().flat_map(|one| one.chunks));
        }
        acked.sort_unstable();
        assert!(
            acked
                .into_iter()
                .rev()
                .eq((0..1_500).map(|index| u32::MAX - index))
        );
    }
}
