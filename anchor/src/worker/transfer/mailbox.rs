//! Where sockets come in from the connection process.

use crate::sys::{handoff, readiness};
use std::{
    io::{self, ErrorKind},
    os::fd::OwnedFd,
    time::Duration,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::TcpStream,
    time::sleep,
};

/// Pause when a socket cannot be taken, for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// The receiving end of a hand-off.
pub(super) struct Mailbox {
    receiver: AsyncFd<OwnedFd>,
}

impl Mailbox {
    /// A mailbox in this runtime.
    pub(super) fn new(receiver: OwnedFd) -> io::Result<Self> {
        let receiver = readiness::register(receiver, Interest::READABLE)?;
        Ok(Self { receiver })
    }

    /// The next socket. An error means that there will be no more.
    pub(super) async fn take(&self) -> io::Result<TcpStream> {
        loop {
            let mut ready = self.receiver.readable().await?;
            let Ok(taken) = ready.try_io(handoff::receive) else {
                continue;
            };
            match taken.and_then(adopt) {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(error),
                Err(_) => sleep(PAUSE).await,
            }
        }
    }
}

fn adopt(socket: OwnedFd) -> io::Result<TcpStream> {
    let stream = std::net::TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}
