//! The home of a node: its key, what it owns, and the lock that keeps a second node out.
//!
//! ```text
//! home/key             the identity's secret seed
//!      known_anchors   the anchors' keys as first met
//!      lock            held by the node that lives here
//!      peer.sock       where that node takes commands from others
//!      store/          what it has; see the store
//! ```

use anyhow::{Context as _, Result};
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    os::{fd::AsRawFd as _, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
};

/// A directory that a node may live in.
pub struct Home {
    path: PathBuf,
    directory: File,
}

/// Proof that a home is this process's.
pub struct HomeLock {
    _lock: Flock<File>,
}

impl Home {
    /// The home at `path`, made readable by its owner alone if there is none.
    pub fn open(path: &Path) -> Result<Self> {
        let operand = || format!("cannot use the home {}", path.display());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(operand)?;
        let path = fs::canonicalize(path).with_context(operand)?;
        let directory = File::open(&path).with_context(operand)?;
        Ok(Self { path, directory })
    }

    /// The default: `anchorage` in the XDG data directory.
    pub fn default_path() -> Result<PathBuf> {
        let data = std::env::var_os("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        let data = match data {
            Some(data) => data,
            None => {
                let home =
                    std::env::home_dir().context("there is no home directory; say --home DIR")?;
                home.join(".local/share")
            }
        };
        Ok(data.join("anchorage"))
    }

    /// Moves in; `None` while another process lives here.
    pub fn lock(&self) -> Result<Option<HomeLock>> {
        let path = self.path.join("lock");
        let operand = || format!("cannot lock {}", path.display());
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(operand)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(HomeLock { _lock: lock })),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error).with_context(operand),
        }
    }

    /// Where the home is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The identity's file.
    pub fn key(&self) -> PathBuf {
        self.path.join("key")
    }

    /// The file of the anchors' keys.
    pub fn known_anchors(&self) -> PathBuf {
        self.path.join("known_anchors")
    }

    /// The store's directory.
    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// The socket for commands. A path through the open directory: the kernel allows socket paths of 107 bytes.
    pub fn socket(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/self/fd/{}/peer.sock",
            self.directory.as_raw_fd()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_lives_in_a_home() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let home = Home::open(&directory.path().join("deep/home"))?;
        let lock = home.lock()?.context("nobody is here")?;
        assert!(Home::open(home.path())?.lock()?.is_none());
        drop(lock);
        assert!(home.lock()?.is_some());
        Ok(())
    }

    #[test]
    fn a_socket_path_is_short_however_deep_the_home() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let home = Home::open(&directory.path().join("x".repeat(200)))?;
        assert!(home.socket().as_os_str().len() < 60);
        std::os::unix::net::UnixListener::bind(home.socket())?;
        assert!(home.path().join("peer.sock").exists());
        Ok(())
    }
}
