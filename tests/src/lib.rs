//! The ground of the end-to-end tests: real anchors and peers on loopback, and strangers made by hand.
//!
//! | type | what it is |
//! | --- | --- |
//! | [`Swarm`] | a temporary directory with a config, anchors that run, and any number of peers' homes |
//! | [`Anchor`] | one anchor: its process tree, its status, ways to hurt it |
//! | [`Peer`] | one home: commands that run to their end, and nodes that go on serving |
//! | [`Process`] | one child and everything it forked; nothing of it outlives the value |
//! | [`Control`], [`Chunks`] | a node's end of one connection, by hand |
//! | [`Fake`] | a node that serves as told: honestly, slowly, wrongly or not at all; an anchor too, if asked |
//!
//! Every wait has a deadline, and every deadline is generous: a timing is asserted only where one is promised.

mod anchor;
mod fake;
mod file;
mod finished;
mod peer;
mod ports;
pub mod proc;
mod process;
mod program;
mod swarm;
mod until;
mod wire;

pub use anchor::{Anchor, Worker};
pub use fake::{Fake, Holding, Log, Manner};
pub use file::{random_bytes, random_file, sha256, sha256_of};
pub use finished::Finished;
pub use peer::{Peer, Serving};
pub use ports::{free_port, unused_address};
pub use process::{Process, Stream};
pub use program::Program;
pub use swarm::{Builder, Swarm};
pub use until::until;
pub use wire::{Chunks, Control, Wire};

use std::time::Duration;

/// How long a command or a start may take at most before the test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(60);
