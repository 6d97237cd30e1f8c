//! Acks on their way: collected for 20 ms, sent together, counted until they are answered.

use anchorage_manifest::{ContentId, NodeId, limits::CHUNKS_PER_MESSAGE_MAX, wire::Request};
use std::{collections::BTreeMap, mem, time::Duration};
use tokio::{sync::oneshot, time::Instant};

/// How long an ack may wait for others.
const BATCH: Duration = Duration::from_millis(20);

#[derive(Default)]
pub(super) struct Acks {
    collected: BTreeMap<(ContentId, NodeId), Vec<u32>>,
    since: Option<Instant>,
    unanswered: usize,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Acks {
    /// Adds one.
    pub(super) fn add(&mut self, content: ContentId, from: NodeId, index: u32) {
        self.since.get_or_insert_with(Instant::now);
        self.collected
            .entry((content, from))
            .or_default()
            .push(index);
    }

    /// When those collected are to be sent.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + BATCH)
    }

    /// Those collected, as requests.
    pub(super) fn take(&mut self) -> Vec<Request> {
        self.since = None;
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

    /// One of those sent is answered.
    pub(super) fn answered(&mut self) {
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
