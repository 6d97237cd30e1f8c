//! Waiting for one of the `slots` of a server, and giving it back.

use super::{Server, audience::AskerId, slots::Slots};
use anchorage_manifest::ContentId;
use std::sync::{Arc, MutexGuard};
use tokio::sync::oneshot;

/// Somebody who waits for a slot.
pub(super) struct Waiting {
    asker: AskerId,
    content: ContentId,
    /// The chunk; none if the source is to choose one.
    asked: Option<u32>,
    grant: oneshot::Sender<Grant>,
}

/// A slot; given back when it is dropped.
pub(super) struct Grant {
    server: Arc<Server>,
}

impl Server {
    /// A place in the line for a slot, for a chunk that was asked for or for one that is to be chosen. Whoever drops it has
    /// gone.
    pub(super) fn line_up(
        self: &Arc<Self>,
        asker: AskerId,
        content: ContentId,
        asked: Option<u32>,
    ) -> oneshot::Receiver<Grant> {
        let (grant, granted) = oneshot::channel();
        self.slots().wait(Waiting {
            asker,
            content,
            asked,
            grant,
        });
        self.grant();
        granted
    }

    /// Gives out the slots that are free.
    fn grant(self: &Arc<Self>) {
        loop {
            let next = {
                let mut slots = self.slots();
                let (now, audiences) = (self.now(), self.audiences());
                slots.next(
                    |waiting| !waiting.grant.is_closed(),
                    |waiting| {
                        let hearers = audiences.get(&waiting.content);
                        hearers.map_or(0, |hearers| {
                            hearers.audience.rank(now, waiting.asker, waiting.asked)
                        })
                    },
                    |waiting| waiting.asked.is_none(),
                )
            };
            let Some(next) = next else {
                return;
            };
            // Somebody who has gone in this moment drops the grant, which brings us here again.
            drop(next.grant.send(Grant {
                server: self.clone(),
            }));
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots<Waiting>> {
        self.slots.lock().expect("no holder of this lock panics")
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.server.slots().give_back(self.server.now());
        self.server.grant();
    }
}
