//! Handing a socket to another process: one datagram of one byte, with the descriptor as its rights.

use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
        sendmsg, socketpair,
    },
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
};

/// Both ends of a mailbox for sockets.
pub(crate) struct Handoff {
    /// Where sockets go in.
    pub(crate) sender: OwnedFd,
    /// Where they come out.
    pub(crate) receiver: OwnedFd,
}

impl Handoff {
    /// A new mailbox; neither end waits, neither passes an exec.
    pub(crate) fn new() -> io::Result<Self> {
        let (sender, receiver) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )?;
        Ok(Self { sender, receiver })
    }
}

/// Puts `socket` into a mailbox, or says `WouldBlock` when that is full.
pub(crate) fn send(mailbox: &impl AsFd, socket: &impl AsFd) -> io::Result<()> {
    let rights = [socket.as_fd().as_raw_fd()];
    let sent = sendmsg::<()>(
        mailbox.as_fd().as_raw_fd(),
        &[IoSlice::new(&[0])],
        &[ControlMessage::ScmRights(&rights)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    );
    match sent {
        Ok(_) => Ok(()),
        // Too many sockets under way, for this user or for the kernel's buffers, is a full mailbox too.
        Err(Errno::ETOOMANYREFS | Errno::ENOBUFS) => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => Err(error.into()),
    }
}

/// Takes the next socket out of a mailbox, or says `WouldBlock` when there is none.
pub(crate) fn receive(mailbox: &impl AsFd) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([libc::c_int; 1]);
    let message = recvmsg::<()>(
        mailbox.as_fd().as_raw_fd(),
        &mut buffers,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    if message.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut sockets = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the kernel has just installed these descriptors in this process, for nobody else to own.
            sockets.extend(
                numbers
                    .into_iter()
                    .map(|number| unsafe { OwnedFd::from_raw_fd(number) }),
            );
        }
    }
    // No rights: this process had no descriptor left to take them with.
    sockets
        .pop()
        .ok_or_else(|| io::Error::other("a hand-off without a socket"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
    };

    #[test]
    fn a_socket_handed_over_is_the_same_connection() -> io::Result<()> {
        let mailbox = Handoff::new()?;
        let (near, mut far) = UnixStream::pair()?;
        far.write_all(b"sent before the hand-off")?;
        send(&mailbox.sender, &near)?;
        drop(near);
        let mut taken = UnixStream::from(receive(&mailbox.receiver)?);
        taken.write_all(b"answer")?;
        drop(taken.try_clone()?);
        let mut text = [0; 24];
        taken.read_exact(&mut text)?;
        assert_eq!(&text, b"sent before the hand-off");
        drop(taken);
        let mut answer = String::new();
        far.read_to_string(&mut answer)?;
        assert_eq!(answer, "answer");
        Ok(())
    }

    #[test]
    fn a_full_mailbox_would_block() -> io::Result<()> {
        let mailbox = Handoff::new()?;
        let (near, _far) = UnixStream::pair()?;
        let empty = receive(&mailbox.receiver).expect_err("nothing was sent");
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        let full = (0..100_000).find_map(|_| send(&mailbox.sender, &near).err());
        assert_eq!(
            full.map(|error| error.kind()),
            Some(io::ErrorKind::WouldBlock)
        );
        assert!(receive(&mailbox.receiver).is_ok());
        Ok(())
    }
}
