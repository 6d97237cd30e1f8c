//! Waiting for one of the `slots` of a server, and giving it back.

use super::{Server, audience::AskerId};
use anchorage_manifest::ContentId;
use std::sync::Arc;
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
    /// Waits for a slot for a chunk that was asked for, or for one that is to be chosen.
    pub(super) async fn slot(
        self: &Arc<Self>,
        asker: AskerId,
        content: ContentId,
        asked: Option<u32>,
    ) -> Grant {
        let granted = {
            let mut slots = self.slots.lock().expect("no holder of this lock panics");
            if slots.take() {
                return Grant {
                    server: self.clone(),
                };
            }
            let (grant, granted) = oneshot::channel();
            slots.wait(Waiting {
                asker,
                content,
                asked,
                grant,
            });
            granted
        };
        granted
            .await
            .expect("who waits is granted a slot sooner or later")
    }

    fn release(self: &Arc<Self>) {
        let next = {
            let mut slots = self.slots.lock().expect("no holder of this lock panics");
            let audiences = self.audiences();
            slots.give_back(
                |waiting| !waiting.grant.is_closed(),
                |waiting| {
                    let audience = audiences.get(&waiting.content);
                    audience.map_or(0, |audience| audience.rank(waiting.asker, waiting.asked))
                },
            )
        };
        if let Some(next) = next {
            // Somebody who has gone in this moment drops the grant, which brings us here again.
            drop(next.grant.send(Grant {
                server: self.clone(),
            }));
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.server.release();
    }
}
