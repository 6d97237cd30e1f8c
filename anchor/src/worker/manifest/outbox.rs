//! A bounded queue before an `ipc-channel`, whose `send` blocks when nobody reads.

use ipc_channel::ipc::IpcSender;
use serde::{Serialize, de::DeserializeOwned};
use std::sync::mpsc::{self, SyncSender};

/// Most batches that wait. What comes then is dropped: a client that is so far behind is stopped or dying, and
/// asks again when it is attached again; its peers ask again when they get no answer.
const CAPACITY: usize = 4_096;

/// The way down to one life of a client process. Messages go in batches: a system call for each would cost more than
/// all the rest of an ack.
pub(super) struct Outbox<T> {
    queue: SyncSender<Vec<T>>,
    batch: Vec<T>,
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Outbox<T> {
    /// Sends from a thread of its own, until this is dropped or the client dies.
    pub(super) fn new(channel: IpcSender<Vec<T>>) -> Self {
        let (queue, batches) = mpsc::sync_channel(CAPACITY);
        std::thread::spawn(move || {
            for batch in batches {
                if channel.send(batch).is_err() {
                    return;
                }
            }
        });
        let batch = Vec::new();
        Self { queue, batch }
    }

    /// Adds a message to the batch.
    pub(super) fn put(&mut self, message: T) {
        self.batch.push(message);
    }

    /// Sends the batch.
    pub(super) fn flush(&mut self) {
        if !self.batch.is_empty() {
            // Full or closed: see above.
            let _ = self.queue.try_send(std::mem::take(&mut self.batch));
        }
    }
}
