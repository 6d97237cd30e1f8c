//! The Unix socket of `anchor status`: whoever connects gets one report, and is never waited for.

use crate::{
    home::{Home, SocketPath},
    report::Report,
};
use anyhow::{Context as _, Result};
use std::{
    fs::{self, Permissions},
    io::Write as _,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{fs::PermissionsExt as _, net::UnixListener},
    },
};

/// The listening socket, for the owner of the state directory alone.
pub(super) struct StatusSocket {
    listener: UnixListener,
    path: SocketPath,
}

impl StatusSocket {
    /// Listens in a state directory that is locked: a socket found there is stale.
    pub(super) fn bind(home: &Home) -> Result<Self> {
        let operand = || {
            format!(
                "cannot listen on {}/status.sock",
                home.directory().display()
            )
        };
        let path = SocketPath::new(home)?;
        path.clear().with_context(operand)?;
        let listener = UnixListener::bind(path.path()).with_context(operand)?;
        fs::set_permissions(path.path(), Permissions::from_mode(0o600)).with_context(operand)?;
        listener.set_nonblocking(true).with_context(operand)?;
        Ok(Self { listener, path })
    }

    /// Gives the report to everybody who waits. It is far smaller than the socket's buffer, so a slow reader gets it
    /// too, and one that does not read costs nothing.
    pub(super) fn answer(&self, report: &Report) {
        let mut text = serde_json::to_string(report).expect("plain data always encodes");
        text.push('\n');
        while let Ok((mut stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                // Who has gone already misses it.
                let _ = stream.write_all(text.as_bytes());
            }
        }
    }

    /// Takes the socket out of the directory.
    pub(super) fn remove(&self) {
        // The next anchor here would remove it anyway.
        let _ = self.path.clear();
    }
}

impl AsFd for StatusSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}
