//! One home of a peer: commands that run to their end, and nodes that go on serving.

use crate::{Finished, PATIENCE, Process, Program};
use anchorage_manifest::{Manifest, NodeId};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A home, a directory to work in, and a config.
#[derive(Clone, Debug)]
pub struct Peer {
    config: PathBuf,
    directory: PathBuf,
}

/// A peer's process that serves.
pub struct Serving {
    /// Where it serves chunks.
    pub address: SocketAddr,
    /// Its key.
    pub id: NodeId,
    /// The process.
    pub process: Process,
}

impl Peer {
    /// A peer whose home and working directory are below `directory`.
    pub fn new(config: &Path, directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self {
            config: config.to_owned(),
            directory: directory.to_owned(),
        })
    }

    /// Its home.
    pub fn home(&self) -> PathBuf {
        self.directory.join("home")
    }

    /// A path in its working directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Its config.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// A command of this peer, not yet started, with its home and config.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(Program::Peer.path()?);
        command
            .args(arguments)
            .arg("--config")
            .arg(&self.config)
            .arg("--home")
            .arg(self.home())
            .current_dir(&self.directory);
        Ok(command)
    }

    /// Starts a command and leaves it running.
    pub fn spawn(&self, arguments: &[&str]) -> Result<Process> {
        Process::spawn(&mut self.command(arguments)?)
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<Finished> {
        self.run_within(arguments, PATIENCE)
    }

    /// Runs a command that may take longer than most.
    pub fn run_within(&self, arguments: &[&str], limit: Duration) -> Result<Finished> {
        self.spawn(arguments)?.wait(limit)
    }

    /// Publishes a file, perhaps with further arguments; gives the last event.
    pub fn publish(&self, path: &Path, arguments: &[&str]) -> Result<Value> {
        let path = path.to_str().context("a path")?;
        let all = [&["publish", path, "--json"], arguments].concat();
        self.run(&all)?.exits(0)?.last("published")
    }

    /// Gets a file, perhaps with further arguments; gives the last event.
    pub fn get(&self, name: &str, arguments: &[&str]) -> Result<Value> {
        let all = [&["get", name, "--json"], arguments].concat();
        self.run(&all)?.exits(0)?.last("done")
    }

    /// Starts `peer serve` and waits until it serves.
    pub fn serve(&self, arguments: &[&str]) -> Result<Serving> {
        Serving::of(self.spawn(&[&["serve", "--json"], arguments].concat())?)
    }

    /// The manifest of a name.
    pub fn manifest(&self, name: &str) -> Result<Manifest> {
        let finished = self.run(&["manifest", name, "--json"])?.exits(0)?;
        serde_json::from_value(finished.json()?)
            .with_context(|| format!("not a manifest: {finished}"))
    }

    /// The addresses that every chunk of a name has in the manifest.
    pub fn holders(&self, name: &str) -> Result<Vec<SocketAddr>> {
        let chunks = self.manifest(name)?.chunks;
        let mut holders = chunks.first().context("a chunk")?.peers.clone();
        holders.retain(|address| chunks.iter().all(|chunk| chunk.peers.contains(address)));
        Ok(holders)
    }

    /// The status of this node.
    pub fn status(&self) -> Result<Value> {
        self.run(&["status", "--json"])?.exits(0)?.json()
    }
}

impl Serving {
    /// Waits until a process serves.
    pub fn of(mut process: Process) -> Result<Self> {
        let serving = process.event("serving", PATIENCE)?;
        let text = |field: &str| serving[field].as_str().context("a text");
        Ok(Self {
            address: text("address")?.parse().context("an address")?,
            id: text("id")?.parse().context("a node id")?,
            process,
        })
    }
}
