//! The transfer processes as the connection process sees them: mailboxes for sockets, filled in turn.

use crate::sys::{
    descriptors::{self, FIRST},
    handoff,
};
use std::{
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicUsize, Ordering},
};
use tokio::net::TcpStream;

/// The mailboxes.
pub(super) struct Transfers {
    mailboxes: Vec<OwnedFd>,
    next: AtomicUsize,
}

impl Transfers {
    /// Takes the mailboxes that the supervisor left for this process.
    pub(super) fn take(count: u8) -> io::Result<Self> {
        let mailboxes = (0..count)
            .map(|index| descriptors::take(FIRST + 3 + i32::from(index)))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            mailboxes,
            next: AtomicUsize::new(0),
        })
    }

    /// Gives a socket, of which nothing was read, to the next process that has room. When none has, it is closed, and
    /// the peer tries again.
    pub(super) fn give(&self, stream: TcpStream) {
        let Ok(stream) = stream.into_std() else {
            return;
        };
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.mailboxes.len();
        for step in 0..count {
            let mailbox = &self.mailboxes[first.wrapping_add(step) % count];
            if handoff::send(mailbox, &stream).is_ok() {
                return;
            }
        }
    }
}
