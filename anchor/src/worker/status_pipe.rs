//! A worker's pipe up to the supervisor.

use crate::{
    packet::{self, Counters, Status},
    sys::{
        descriptors::{self, FIRST},
        pipe,
    },
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    io::{self, ErrorKind},
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

/// Longest wait in milliseconds for room in the pipe.
const PATIENCE_MS: u16 = 1_000;

/// The writing end; copies share it.
#[derive(Clone)]
pub(super) struct StatusPipe {
    writer: Arc<OwnedFd>,
}

impl StatusPipe {
    /// Takes the end that the supervisor left for this process.
    pub(super) fn take() -> io::Result<Self> {
        let writer = descriptors::take(FIRST)?;
        pipe::set_nonblocking(&writer)?;
        Ok(Self {
            writer: Arc::new(writer),
        })
    }

    /// Says that the bootstrap is under way.
    pub(super) fn wired(&self) {
        self.send_surely(&Status::Wired);
    }

    /// Says that the worker does its task.
    pub(super) fn ready(&self) {
        self.send_surely(&Status::Ready);
    }

    /// Says how much was done. If the supervisor is behind it gets the next one.
    pub(super) fn counted(&self, counters: Counters) {
        let _ = pipe::send(&self.writer, &pipe::pack(&Status::Counted(counters)));
    }

    /// Says something to the user. If the supervisor is behind it is lost.
    pub(super) fn said(&self, text: &str) {
        let _ = pipe::send(&self.writer, &pipe::pack(&Status::Said(packet::text(text))));
    }

    /// Says that the worker can never do its task.
    pub(super) fn fatal(&self, text: &str) {
        self.send_surely(&Status::Fatal(packet::text(text)));
    }

    /// Waits for room in the pipe. If there is none for long, or nobody reads, this process is about to end anyway.
    fn send_surely(&self, status: &Status) {
        let packet = pipe::pack(status);
        while let Err(error) = pipe::send(&self.writer, &packet) {
            let mut watched = [PollFd::new(self.writer.as_fd(), PollFlags::POLLOUT)];
            let room = poll(&mut watched, PollTimeout::from(PATIENCE_MS));
            if error.kind() != ErrorKind::WouldBlock || !matches!(room, Ok(1..)) {
                return;
            }
        }
    }
}
