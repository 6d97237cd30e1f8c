//! The two programs under test, beside the test's own executable.

use anyhow::{Context as _, Result, ensure};
use std::path::PathBuf;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The server.
    Anchor,
    /// The node.
    Peer,
}

impl Program {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Anchor => "anchor",
            Self::Peer => "peer",
        }
    }

    /// Its executable: `target/PROFILE/NAME`, as this test is `target/PROFILE/deps/promises-…`.
    pub fn path(self) -> Result<PathBuf> {
        let test = std::env::current_exe().context("cannot find the test's own executable")?;
        let profile = test
            .parent()
            .and_then(|deps| deps.parent())
            .context("the test does not run from a target directory")?;
        let path = profile.join(self.name());
        ensure!(
            path.is_file(),
            "{} is missing: run `cargo build --workspace --bins` with the profile of the tests first",
            path.display()
        );
        Ok(path)
    }
}
