//! Both ends of everything that workers send each other through, kept so that it outlives them.

use crate::{
    sys::{handoff::Handoff, pipe::Pipe},
    task::Task,
};
use std::{
    io,
    net::TcpListener,
    os::fd::{AsFd as _, BorrowedFd},
};

/// The listener, the hand-offs and the request pipes.
pub(super) struct Mailboxes {
    listener: TcpListener,
    /// From the connection process to the manifest process.
    requests: Pipe,
    /// For each transfer process: how sockets come to it, and how it asks the manifest process.
    transfers: Vec<(Handoff, Pipe)>,
}

impl Mailboxes {
    /// New mailboxes for so many transfer processes.
    pub(super) fn new(listener: TcpListener, transfers: u8) -> io::Result<Self> {
        Ok(Self {
            listener,
            requests: Pipe::new()?,
            transfers: (0..transfers)
                .map(|_| Ok((Handoff::new()?, Pipe::new()?)))
                .collect::<io::Result<_>>()?,
        })
    }

    /// Number of transfer processes.
    pub(super) fn transfers(&self) -> u8 {
        u8::try_from(self.transfers.len()).expect("made of so many")
    }

    /// What a worker gets, in the order of the table at the head of [`crate::sys`], without the status pipe.
    pub(super) fn descriptors(&self, task: Task) -> Vec<BorrowedFd<'_>> {
        match task {
            Task::Connection => {
                let own = [self.listener.as_fd(), self.requests.writer.as_fd()];
                let handoffs = self
                    .transfers
                    .iter()
                    .map(|(handoff, _)| handoff.sender.as_fd());
                own.into_iter().chain(handoffs).collect()
            }
            Task::Manifest => {
                let transfers = self.transfers.iter().map(|(_, pipe)| pipe.reader.as_fd());
                std::iter::once(self.requests.reader.as_fd())
                    .chain(transfers)
                    .collect()
            }
            Task::Transfer(index) => {
                let (handoff, pipe) = &self.transfers[usize::from(index)];
                vec![handoff.receiver.as_fd(), pipe.writer.as_fd()]
            }
        }
    }
}
