//! One inbox for all that reaches the manifest process, fed by one thread for each pipe.

use crate::{
    order::Order,
    packet::{Asked, Deposited},
    sys::pipe,
};
use serde::de::DeserializeOwned;
use std::{
    os::fd::OwnedFd,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    time::Duration,
};

/// Most mail that waits here, packets mostly; more waits in the pipes.
const CAPACITY: usize = 256;

/// Something to deal with.
pub(super) enum Mail {
    /// The connection process asks.
    Asked(Vec<Asked>),
    /// A transfer process tells or asks.
    Deposited(u8, Vec<Deposited>),
    /// The supervisor orders.
    Ordered(Order),
    /// A client sent a packet that cannot be read; the packet is dropped.
    Nonsense(String),
}

/// The inbox.
pub(super) struct Inbox {
    sender: SyncSender<Mail>,
    receiver: Receiver<Mail>,
}

impl Inbox {
    /// An empty inbox.
    pub(super) fn new() -> Self {
        let (sender, receiver) = mpsc::sync_channel(CAPACITY);
        Self { sender, receiver }
    }

    /// A way in.
    pub(super) fn sender(&self) -> SyncSender<Mail> {
        self.sender.clone()
    }

    /// Reads packets off a pipe from now on.
    pub(super) fn read_requests<T: DeserializeOwned>(
        &self,
        pipe: OwnedFd,
        mail: impl Fn(Vec<T>) -> Mail + Send + 'static,
    ) {
        let sender = self.sender();
        std::thread::spawn(move || {
            loop {
                let mail = match pipe::receive(&pipe) {
                    // The supervisor, which holds the other end, is gone; so is this process in a moment.
                    Ok(messages) if messages.is_empty() => return,
                    Ok(messages) => mail(messages),
                    Err(error) => Mail::Nonsense(format!("{error:#}")),
                };
                if sender.send(mail).is_err() {
                    return;
                }
            }
        });
    }

    /// All that is there, at most `size_max`; waits at most `patience` for the first.
    pub(super) fn batch(&self, patience: Duration, size_max: usize) -> Vec<Mail> {
        match self.receiver.recv_timeout(patience) {
            Ok(first) => std::iter::once(first)
                .chain(self.receiver.try_iter().take(size_max - 1))
                .collect(),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Vec::new(),
        }
    }
}
