//! Pipes in packet mode: one write is one read, and a write of at most 4,096 bytes is all or nothing.

use anchorage_manifest::{codec, limits::PACKET_SIZE_MAX};
use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{pipe2, read, write},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

/// Wanted size of a pipe in bytes; a packet takes a page of it, so this is 256 packets.
const SIZE: i32 = 1 << 20;

/// Both ends of a pipe.
pub(crate) struct Pipe {
    /// The end of the more trusted side.
    pub(crate) reader: OwnedFd,
    /// The end of the less trusted side.
    pub(crate) writer: OwnedFd,
}

impl Pipe {
    /// A new pipe; neither end passes an exec.
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_DIRECT)?;
        // The system may allow less; then writers just wait earlier.
        let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(SIZE));
        Ok(Self { reader, writer })
    }
}

/// Makes reads and writes return at once.
pub(crate) fn set_nonblocking(end: &impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(end, FcntlArg::F_GETFL)?);
    fcntl(end, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// The bytes of a packet. What does not fit is a bug: all that is put in a packet is bounded by the limits.
pub(crate) fn pack(message: &impl Serialize) -> Vec<u8> {
    let bytes = codec::encode(message);
    assert!(
        bytes.len() <= PACKET_SIZE_MAX,
        "BUG: a packet of {} bytes",
        bytes.len()
    );
    bytes
}

/// Puts a message into a packet, behind those that are in it; false if it has no room.
pub(crate) fn append(packet: &mut Vec<u8>, message: &impl Serialize) -> bool {
    let before = packet.len();
    codec::append(packet, message);
    let size = packet.len() - before;
    assert!(size <= PACKET_SIZE_MAX, "BUG: a message of {size} bytes");
    let fits = packet.len() <= PACKET_SIZE_MAX;
    if !fits {
        packet.truncate(before);
    }
    fits
}

/// Writes one packet.
pub(crate) fn send(writer: &impl AsFd, packet: &[u8]) -> io::Result<()> {
    loop {
        match write(writer, packet) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads one packet with one message or more; none when every writing end is closed, or when there is nothing yet and
/// the end does not wait.
pub(crate) fn receive<T: DeserializeOwned>(reader: &impl AsFd) -> Result<Vec<T>> {
    let mut buffer = [0; PACKET_SIZE_MAX];
    let size = loop {
        match read(reader, &mut buffer) {
            Ok(0) | Err(Errno::EAGAIN) => return Ok(Vec::new()),
            Ok(size) => break size,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot read a pipe"),
        }
    };
    codec::decode_all(&buffer[..size]).context("a worker sent nonsense")
}

/// Whether somebody may still write, or has written, to this pipe.
pub(crate) fn is_open(reader: &impl AsFd) -> bool {
    let mut watched = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    let polled = poll(&mut watched, PollTimeout::ZERO);
    let seen = watched[0].revents().unwrap_or(PollFlags::empty());
    polled.is_ok() && (seen.contains(PollFlags::POLLIN) || !seen.contains(PollFlags::POLLHUP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_keep_their_borders() -> Result<()> {
        let pipe = Pipe::new()?;
        set_nonblocking(&pipe.reader)?;
        for message in ["one", "", "three"] {
            send(&pipe.writer, &pack(&message))?;
        }
        for message in ["one", "", "three"] {
            assert_eq!(receive::<String>(&pipe.reader)?, [message]);
        }
        assert!(receive::<String>(&pipe.reader)?.is_empty());
        assert!(is_open(&pipe.reader));
        send(&pipe.writer, &[9, 9])?;
        assert!(receive::<String>(&pipe.reader).is_err());
        drop(pipe.writer);
        assert!(!is_open(&pipe.reader));
        Ok(())
    }

    #[test]
    fn a_packet_holds_as_many_messages_as_fit() -> Result<()> {
        let pipe = Pipe::new()?;
        let message = "x".repeat(1_000);
        let mut packet = Vec::new();
        let count = (0..10).filter(|_| append(&mut packet, &message)).count();
        assert_eq!(count, PACKET_SIZE_MAX / codec::encode(&message).len());
        send(&pipe.writer, &packet)?;
        assert_eq!(receive::<String>(&pipe.reader)?, vec![message; count]);
        Ok(())
    }
}
