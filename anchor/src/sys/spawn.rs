//! Fork and exec of the own binary: a worker in an address space of its own, with the descriptors of its table.

use super::descriptors::{END, FIRST};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};
use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, Stdio},
};

/// The binary that runs, even when its file has been replaced or removed since.
pub(crate) const SELF: &str = "/proc/self/exe";

/// Starts this binary again as `title`, with one more variable in its environment and `descriptors` at the numbers
/// from [`FIRST`] on.
pub(crate) fn spawn<A: AsRef<OsStr>>(
    title: &str,
    arguments: impl IntoIterator<Item = A>,
    (variable, value): (&str, &str),
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<Child> {
    // Above the table, so that putting one in place never overwrites another that is still to be placed.
    let mut moves: Vec<(OwnedFd, RawFd)> = Vec::new();
    for (target, source) in (FIRST..END).zip(descriptors) {
        let number = fcntl(source, FcntlArg::F_DUPFD_CLOEXEC(END))?;
        // SAFETY: fcntl has just made this descriptor, for nobody else to own.
        moves.push((unsafe { OwnedFd::from_raw_fd(number) }, target));
    }
    assert_eq!(
        moves.len(),
        descriptors.len(),
        "BUG: the table is too short"
    );
    let mut command = Command::new(SELF);
    command
        .arg0(title)
        .args(arguments)
        .env(variable, value)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    // SAFETY: between fork and exec the closure calls dup2 alone, which is async-signal-safe, on numbers fixed before
    // the fork; the targets are placeholders of `descriptors::reserve`, which no Rust value of the child uses.
    unsafe {
        command.pre_exec(move || {
            for (source, target) in &moves {
                Errno::result(libc::dup2(source.as_raw_fd(), *target))?;
            }
            Ok(())
        });
    }
    command.spawn()
}
