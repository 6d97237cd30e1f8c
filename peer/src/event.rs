//! What a command tells while it runs and when it is done: one JSON object a line, or words for people.

use crate::{failure::Exit, failure::Failure, file_path::FilePath};
use anchorage_manifest::{ContentId, Hash, Manifest, NodeId};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use tokio::sync::mpsc;

/// One thing that a command has to tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Something is not as it should be, and the command goes on all the same.
    Warning {
        /// What.
        message: String,
    },
    /// A source sent bytes that do not match their hash; it is not asked again.
    Liar {
        /// Where it is.
        address: SocketAddr,
        /// Who it is.
        node: NodeId,
        /// Which chunk.
        chunk: u32,
    },
    /// How far the command is.
    Progress(Progress),
    /// A file is there and verified.
    Done(Done),
    /// A release is registered.
    Published(Published),
    /// The node serves.
    Serving {
        /// Its id.
        id: NodeId,
        /// Where others reach it.
        address: SocketAddr,
        /// How many files it owns, in whole or in part.
        files: usize,
    },
    /// A file was compared with its release.
    Verified(Verified),
    /// The answer to `peer manifest`.
    Manifest(Manifest),
    /// The answer to `peer list`.
    Releases {
        /// In the order of their names.
        releases: Vec<Listed>,
    },
    /// The answer to `peer status`.
    Status(Status),
}

/// How far a command is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Of which name.
    pub name: String,
    /// What is being done.
    pub phase: Phase,
    /// Bytes done.
    pub bytes: u64,
    /// Bytes to do in all.
    pub size: u64,
    /// Bytes a second lately.
    pub bytes_per_second: f64,
    /// Connected sources.
    pub sources: usize,
}

/// What a command is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Reads a file and hashes it.
    Hashing,
    /// Sends chunks to the anchors.
    Uploading,
    /// Fetches chunks.
    Fetching,
}

/// The last event of `peer get`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The release's name.
    pub name: String,
    /// Where the file is.
    pub path: FilePath,
    /// Its size.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// SHA-256 of the whole file, verified.
    pub sha256: Hash,
    /// Whether nothing had to be fetched.
    pub already_complete: bool,
    /// Who sent how much.
    pub from: Vec<Share>,
}

/// What came from one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The source's address.
    pub address: SocketAddr,
    /// Whether it is an anchor.
    pub anchor: bool,
    /// Bytes of verified chunks.
    pub bytes: u64,
    /// Number of verified chunks.
    pub chunks: u32,
}

/// The last event of `peer publish`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// The release's name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Its content.
    pub content: ContentId,
    /// Bytes of the file.
    pub size: u64,
    /// Number of chunks.
    pub chunks: u32,
    /// SHA-256 of the whole file.
    pub sha256: Hash,
    /// Whether the anchors knew it already.
    pub outcome: PublishOutcome,
    /// The anchors where it is registered now.
    pub anchors: Vec<u32>,
    /// Whether the anchors have the chunks, so that the publisher may leave.
    pub uploaded: bool,
}

/// Whether a release is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PublishOutcome {
    /// No anchor had it.
    New,
    /// The same name had the same bytes before.
    Unchanged,
}

/// The last event of `peer verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The file.
    pub path: FilePath,
    /// The release that it was compared with.
    pub name: String,
    /// Whether it is the release's file.
    pub ok: bool,
    /// Number of chunks of the release.
    pub chunks: u32,
    /// Indices of those that are wrong in the file.
    pub bad: Vec<u32>,
    /// Bytes that the file has more (or less, if negative) than the release.
    pub surplus: i64,
}

/// One release in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Bytes of the file.
    pub size: u64,
    /// Its content.
    pub content: ContentId,
    /// Whose it is.
    pub publisher: NodeId,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its id.
    pub id: NodeId,
    /// Where others reach it; none while it serves nothing.
    pub address: Option<SocketAddr>,
    /// The anchors of its config.
    pub anchors: Vec<AnchorStatus>,
    /// How many other nodes it has heard of.
    pub peers_known: usize,
    /// What it owns.
    pub files: Vec<FileStatus>,
    /// Bytes of chunks that came in.
    pub bytes_in: u64,
    /// Bytes of chunks that went out.
    pub bytes_out: u64,
    /// Whether it serves at this moment.
    pub serving: bool,
}

/// One anchor as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnchorStatus {
    /// Its number.
    pub id: u32,
    /// Its address.
    pub address: String,
    /// Whether the session is up.
    pub connected: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One file that a node owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStatus {
    /// Its name.
    pub name: Option<String>,
    /// Where it is.
    pub path: FilePath,
    /// Its size when it is complete.
    pub size: u64,
    /// Whether every chunk is there.
    pub complete: bool,
}

/// Where a command's events go.
#[derive(Clone)]
pub struct Events(mpsc::UnboundedSender<Event>);

impl Events {
    /// A way for events, and its end.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Tells something; whoever does not listen any more misses it.
    pub fn tell(&self, event: Event) {
        drop(self.0.send(event));
    }

    /// Tells that something is not as it should be.
    pub fn warn(&self, message: impl Into<String>) {
        self.tell(Event::Warning {
            message: message.into(),
        });
    }
}

/// How a command ended, for another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The exit code.
    pub exit: u8,
    /// What went wrong, if something did.
    pub error: Option<String>,
    /// What the user can do about it.
    pub hint: Option<String>,
}

impl From<Result<(), Failure>> for Ended {
    fn from(result: Result<(), Failure>) -> Self {
        match result {
            Ok(()) => Self {
                exit: 0,
                error: None,
                hint: None,
            },
            Err(failure) => Self {
                exit: failure.exit as u8,
                error: Some(format!("{:#}", failure.error)),
                hint: failure.hint,
            },
        }
    }
}

impl From<Ended> for Result<(), Failure> {
    fn from(ended: Ended) -> Self {
        let exit = match ended.exit {
            0 => return Ok(()),
            2 => Exit::Usage,
            3 => Exit::Mismatch,
            4 => Exit::Incomplete,
            130 => Exit::Interrupted,
            _ => Exit::Failed,
        };
        let error = anyhow::anyhow!(ended.error.unwrap_or_default());
        Err(Failure {
            exit,
            error,
            hint: ended.hint,
        })
    }
}
