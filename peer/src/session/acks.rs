//! Acks on their way: collected for 20 ms or as long as the anchor says, sent together, counted until they are answered.
//!
//! The next ones go when the last ones are answered: an anchor that is behind gets fewer and longer messages.

use anchorage_manifest::{
    ContentId, NodeId,
    limits::{CHUNKS_PER_MESSAGE_MAX, COLLECT_MS_MAX, COLLECT_MS_MIN},
    wire::{Reply, Request},
};
use std::{collections::BTreeMap, mem, time::Duration};
use tokio::{sync::oneshot, time::Instant};

pub(super) struct Acks {
    collect: Duration,
    collected: BTreeMap<(ContentId, NodeId), Vec<u32>>,
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
        self.collected
            .entry((content, from))
            .or_default()
            .push(index);
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
        for ((content, from), chunks) in collected {
            for chunks in chunks.chunks(CHUNKS_PER_MESSAGE_MAX) {
                requests.push(Request::Ack {
                    content,
                    from,
                    chunks: chunks.to_vec(),
                });
            }
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
    use anchorage_manifest::Hash;

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
        assert!(matches!(&subject.take()[..], [Request::Ack { chunks, .. }] if *chunks == [1, 2]));
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
}
