//! The few chunks that a process sends at the same time, and who may send the next.
//!
//! TCP does not share a line evenly among many connections, and a chunk that has arrived whole can be passed on
//! while half a chunk cannot: so the source decides whose chunk goes next, and sends few at a time, whole. Who
//! waits longest is first, except that of those who let the source choose, the one with the least to pass on is.

use super::{Server, audience::AskerId};
use anchorage_manifest::ContentId;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Chunks that are sent at the same time.
const SLOTS: usize = 4;

/// Slots, and those who wait for one.
pub(super) struct Slots {
    free: usize,
    /// In the order in which they came.
    waiting: Vec<Waiting>,
}

struct Waiting {
    asker: AskerId,
    /// The content, if the source is to choose a chunk of it.
    any: Option<ContentId>,
    grant: oneshot::Sender<Grant>,
}

/// A slot; given back when it is dropped.
pub(super) struct Grant {
    server: Arc<Server>,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            free: SLOTS,
            waiting: Vec::new(),
        }
    }
}

impl Server {
    /// Waits for a slot: for a chunk that was asked for, or for one of `any` that is to be chosen.
    pub(super) async fn slot(self: &Arc<Self>, asker: AskerId, any: Option<ContentId>) -> Grant {
        let granted = {
            let mut slots = self.slots.lock().expect("no holder of this lock panics");
            if slots.free > 0 {
                slots.free -= 1;
                return Grant {
                    server: self.clone(),
                };
            }
            let (grant, granted) = oneshot::channel();
            slots.waiting.push(Waiting { asker, any, grant });
            granted
        };
        granted
            .await
            .expect("who waits is granted a slot sooner or later")
    }

    fn release(self: &Arc<Self>) {
        let next = {
            let mut slots = self.slots.lock().expect("no holder of this lock panics");
            slots.waiting.retain(|waiting| !waiting.grant.is_closed());
            let audiences = self.audiences();
            let backlog = |waiting: &Waiting| {
                let audience = waiting.any.and_then(|content| audiences.get(&content));
                audience.map_or(0, |audience| audience.backlog(waiting.asker))
            };
            let first = (0..slots.waiting.len()).min_by_key(|&at| backlog(&slots.waiting[at]));
            match first {
                Some(at) => slots.waiting.remove(at),
                None => {
                    slots.free += 1;
                    return;
                }
            }
        };
        // Somebody who has gone in this moment drops the grant, which brings us here again.
        drop(next.grant.send(Grant {
            server: self.clone(),
        }));
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.server.release();
    }
}
