//! A temporary directory with a config, anchors that run, and any number of peers' homes.

use crate::{Anchor, Peer, Process, free_port, random_file};
use anchorage_manifest::Hash;
use anyhow::{Context as _, Result};
use serde_json::json;
use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// Anchors and peers of one test. Everything is ended and removed with it.
pub struct Swarm {
    // Before the directory: processes end first.
    anchors: Vec<Anchor>,
    config: PathBuf,
    directory: TempDir,
}

/// What a swarm is to be like.
#[derive(Clone, Debug)]
pub struct Builder {
    anchors: u32,
    heartbeat_ms: u32,
}

impl Swarm {
    /// Two anchors that serve.
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// One anchor that serves.
    pub fn start_one() -> Result<Self> {
        Self::builder().anchors(1).start()
    }

    /// Two anchors, unless told otherwise.
    pub fn builder() -> Builder {
        Builder {
            anchors: 2,
            heartbeat_ms: 5_000,
        }
    }

    /// Anchor `id`, which must run.
    pub fn anchor(&self, id: u32) -> &Anchor {
        let found = self.anchors.iter().find(|anchor| anchor.id() == id);
        found.expect("an anchor of this swarm that was not taken out")
    }

    /// Anchor `id`, which must run, to hurt it.
    pub fn anchor_mut(&mut self, id: u32) -> &mut Anchor {
        let found = self.anchors.iter_mut().find(|anchor| anchor.id() == id);
        found.expect("an anchor of this swarm that was not taken out")
    }

    /// All anchors that run.
    pub fn anchors(&self) -> &[Anchor] {
        &self.anchors
    }

    /// Takes anchor `id` out, still running, to end it.
    pub fn take_anchor(&mut self, id: u32) -> Anchor {
        let found = self.anchors.iter().position(|anchor| anchor.id() == id);
        self.anchors
            .remove(found.expect("an anchor of this swarm that was not taken out"))
    }

    /// Starts anchor `id` again after it was taken out.
    pub fn start_anchor(&mut self, id: u32) -> Result<&Anchor> {
        let anchor = Anchor::start(id, &self.config, &self.anchor_home())?;
        self.anchors.push(anchor);
        Ok(self.anchor(id))
    }

    /// The home that all anchors share.
    pub fn anchor_home(&self) -> PathBuf {
        self.path("anchors")
    }

    /// The config of all nodes.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// A path in the swarm's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A peer with a home of its own, the same one for the same name.
    pub fn peer(&self, name: &str) -> Result<Peer> {
        Peer::new(&self.config, &self.path(&format!("peer-{name}")))
    }

    /// A file of random bytes in the swarm's directory; the same size gives the same bytes.
    pub fn file(&self, name: &str, size: u64) -> Result<(PathBuf, Hash)> {
        let path = self.path(name);
        let sha256 = random_file(&path, size, size)?;
        Ok((path, sha256))
    }
}

impl Builder {
    /// So many anchors, numbered from 1.
    #[must_use]
    pub fn anchors(mut self, count: u32) -> Self {
        self.anchors = count;
        self
    }

    /// So many milliseconds between heartbeats.
    #[must_use]
    pub fn heartbeat_ms(mut self, heartbeat_ms: u32) -> Self {
        self.heartbeat_ms = heartbeat_ms;
        self
    }

    /// Makes the directory and the config, but starts no anchor.
    pub fn lay_out(&self) -> Result<Swarm> {
        let directory = tempfile::Builder::new()
            .prefix("anchorage-test-")
            .tempdir()
            .context("cannot make a temporary directory")?;
        // Some tests run a peer as a user without rights.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open)?;
        let anchors: Vec<_> = (1..=self.anchors)
            .map(|id| json!({"id": id, "address": format!("127.0.0.1:{}", free_port())}))
            .collect();
        let config = directory.path().join("config.json");
        let text = json!({"anchors": anchors, "heartbeat_ms": self.heartbeat_ms});
        std::fs::write(&config, text.to_string()).context("cannot write the config")?;
        Ok(Swarm {
            anchors: Vec::new(),
            config,
            directory,
        })
    }

    /// Makes the swarm and waits until all of its anchors serve.
    pub fn start(&self) -> Result<Swarm> {
        let mut swarm = self.lay_out()?;
        let (config, home) = (swarm.config.clone(), swarm.anchor_home());
        let spawned: Vec<(u32, Process)> = (1..=self.anchors)
            .map(|id| {
                let mut command = Anchor::command(id, &config, &home)?;
                Ok((id, Process::spawn(&mut command)?))
            })
            .collect::<Result<_>>()?;
        for (id, process) in spawned {
            let anchor = Anchor::from_process(id, &config, &home, process)?;
            swarm.anchors.push(anchor);
        }
        Ok(swarm)
    }
}
