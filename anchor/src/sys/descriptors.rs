//! Descriptors by number: what a worker finds at its start, and what must never reach it.

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open},
    libc,
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        stat::Mode,
    },
};
use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

/// First number of the table at the head of [`crate::sys`]: the status pipe.
pub(crate) const FIRST: RawFd = 3;

/// Most transfer processes, which bounds the table.
pub(crate) const TRANSFERS_MAX: u8 = 8;

/// First number past the table: three descriptors of the connection process and one for each transfer process.
pub(crate) const END: RawFd = FIRST + 3 + TRANSFERS_MAX as RawFd;

/// Makes the supervisor's table clean: whatever the caller left open goes no further than this process, and the
/// numbers of the table stay taken, so that nothing opened later can be in the way of a worker's descriptors.
pub(crate) fn reserve() -> io::Result<()> {
    // SAFETY: close_range(2) with CLOSE_RANGE_CLOEXEC closes nothing; it sets a flag that no Rust type relies upon.
    let marked = unsafe {
        libc::close_range(
            FIRST.unsigned_abs(),
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC.cast_signed(),
        )
    };
    Errno::result(marked)?;
    loop {
        let placeholder = open(
            "/dev/null",
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        if placeholder.as_raw_fd() >= END {
            return Ok(());
        }
        // Kept to the end of the process, on purpose.
        std::mem::forget(placeholder);
    }
}

/// Takes possession of a descriptor that the supervisor left for this worker. Each number can be taken once.
pub(crate) fn take(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the number is only looked at; a closed one makes fcntl answer EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = FdFlag::from_bits_retain(fcntl(borrowed, FcntlArg::F_GETFD)?);
    if flags.contains(FdFlag::FD_CLOEXEC) {
        return Err(io::Error::other(format!(
            "descriptor {number} was taken already"
        )));
    }
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: the descriptor is open and came through exec, as only those do that the supervisor put there; the flag
    // set above makes a second call fail, so it has one owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Allows as many open descriptors as the administrator permits.
pub(crate) fn raise_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Raising the soft limit up to the hard one is always allowed; without it there are just fewer connections.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_number_cannot_be_taken() {
        assert!(take(987).is_err());
    }

    #[test]
    fn a_number_is_taken_once() -> io::Result<()> {
        let file = open("/dev/null", OFlag::O_RDONLY, Mode::empty())?;
        let number = file.as_raw_fd();
        std::mem::forget(file);
        let taken = take(number)?;
        assert!(take(number).is_err());
        drop(taken);
        Ok(())
    }
}
