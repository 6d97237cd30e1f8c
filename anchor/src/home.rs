//! An anchor's state directory: what lies where, and who may use it.
//!
//! ```text
//! <home>/anchor-<ID>/  key           the anchor's secret seed
//!                      lock          locked by the supervisor as long as it lives
//!                      anchor.redb   releases and contents; the manifest process alone opens it
//!                      store/        chunks; the transfer processes open it
//!                      status.sock   where `anchor status` asks
//! ```

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// The state directory of one anchor.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    directory: PathBuf,
}

impl Home {
    /// The directory of anchor `id` below `home`, or below the user's data directory.
    pub(crate) fn new(home: Option<&Path>, id: u32) -> Result<Self> {
        let home = match home {
            Some(home) => home.to_owned(),
            None => data_directory()
                .context("neither HOME nor XDG_DATA_HOME says where to keep data")?,
        };
        let directory = std::path::absolute(home.join(format!("anchor-{id}")))
            .context("cannot find the current directory")?;
        Ok(Self { directory })
    }

    /// Makes the directory, for its owner alone.
    pub(crate) fn create(&self) -> Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .with_context(|| {
                format!(
                    "cannot make the state directory {}",
                    self.directory.display()
                )
            })
    }

    /// Locks the directory for this process; `None` if another anchor has it.
    pub(crate) fn lock(&self) -> Result<Option<Flock<File>>> {
        let path = self.directory.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// The directory itself.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file of the secret seed.
    pub(crate) fn key(&self) -> PathBuf {
        self.directory.join("key")
    }

    /// The database's file.
    pub(crate) fn database(&self) -> PathBuf {
        self.directory.join("anchor.redb")
    }

    /// The chunk store's directory.
    pub(crate) fn store(&self) -> PathBuf {
        self.directory.join("store")
    }
}

/// `$XDG_DATA_HOME/anchorage`, or what the XDG base directory specification says instead.
fn data_directory() -> Option<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("anchorage"))
}

/// The status socket, by a path that is short however deep the state directory lies: a socket's path has at most 107
/// bytes.
pub(crate) struct SocketPath {
    path: PathBuf,
    /// Keeps the number in the path valid.
    _directory: File,
}

impl SocketPath {
    /// The path of the status socket of `home`.
    pub(crate) fn new(home: &Home) -> Result<Self> {
        use std::os::fd::AsRawFd as _;
        let directory = File::open(home.directory())
            .with_context(|| format!("cannot open {}", home.directory().display()))?;
        let path = format!("/proc/self/fd/{}/status.sock", directory.as_raw_fd()).into();
        Ok(Self {
            path,
            _directory: directory,
        })
    }

    /// The path, valid as long as this lives.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what an earlier anchor left there.
    pub(crate) fn clear(&self) -> std::io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    };

    #[test]
    fn a_directory_is_private_and_locked_once() -> Result<()> {
        let root = tempfile::tempdir()?;
        let home = Home::new(Some(root.path()), 7)?;
        home.create()?;
        let mode = fs::metadata(home.directory())?.permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let lock = home.lock()?;
        assert!(lock.is_some());
        assert!(home.lock()?.is_none());
        drop(lock);
        assert!(home.lock()?.is_some());
        Ok(())
    }

    #[test]
    fn the_socket_works_in_the_deepest_directory() -> Result<()> {
        let root = tempfile::tempdir()?;
        let home = Home::new(Some(&root.path().join("x".repeat(200))), 1)?;
        home.create()?;
        let socket = SocketPath::new(&home)?;
        socket.clear()?;
        let first = UnixListener::bind(socket.path())?;
        UnixStream::connect(SocketPath::new(&home)?.path())?;
        drop(first);
        socket.clear()?;
        UnixListener::bind(socket.path())?;
        Ok(())
    }
}
