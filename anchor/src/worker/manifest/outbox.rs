//! A bounded queue before an `ipc-channel`, whose `send` blocks when nobody reads.

use ipc_channel::ipc::IpcSender;
use serde::{Serialize, de::DeserializeOwned};
use std::sync::mpsc::{self, SyncSender};

/// Most messages that wait. What comes then is dropped: a client that is so far behind is stopped or dying, and
/// asks again when it is attached again; its peers ask again when they get no answer.
const CAPACITY: usize = 4_096;

/// The way down to one life of a client process.
pub(super) struct Outbox<T> {
    queue: SyncSender<T>,
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Outbox<T> {
    /// Sends from a thread of its own, until this is dropped or the client dies.
    pub(super) fn new(channel: IpcSender<T>) -> Self {
        let (queue, messages) = mpsc::sync_channel(CAPACITY);
        std::thread::spawn(move || {
            for message in messages {
                if channel.send(message).is_err() {
                    return;
                }
            }
        });
        Self { queue }
    }

    /// Queues a message.
    pub(super) fn put(&self, message: T) {
        // Full or closed: see above.
        let _ = self.queue.try_send(message);
    }
}
