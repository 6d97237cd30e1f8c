//! What travels down: orders of the supervisor, and what the manifest process tells its clients, over `ipc-channel`.
//!
//! A worker makes the channel of its orders itself and sends the supervisor the sending end; that bootstrap is the
//! one thing that this library ever carries upward. The links between workers are made by the supervisor, anew
//! whenever either end is, and sent to both in an `Attach`.

use anchorage_manifest::{ContentId, Geometry, NodeId, wire};
use anchorage_peer::serve::Share;
use ipc_channel::ipc::{IpcReceiver, IpcSender};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::PathBuf};

/// The supervisor's orders. A worker that gets one of another task has been sent nonsense, and ends.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// First, to the connection process.
    StartConnection(ConnectionStart),
    /// First, to the manifest process.
    StartManifest(ManifestStart),
    /// First, to a transfer process.
    StartTransfer(TransferStart),
    /// To the connection process: the manifest process answers here from now on.
    AttachConnection(IpcReceiver<Vec<ToConnection>>),
    /// To a transfer process: the manifest process answers here from now on.
    AttachTransfer(IpcReceiver<Vec<ToTransfer>>),
    /// To the manifest process: the connection process listens here from now on.
    AttachManifestToConnection(IpcSender<Vec<ToConnection>>),
    /// To the manifest process: transfer process `index` listens here from now on.
    AttachManifestToTransfer {
        /// Which.
        index: u8,
        /// Where.
        replies: IpcSender<Vec<ToTransfer>>,
    },
    /// The configuration has changed.
    Reload {
        /// Milliseconds between a peer's heartbeats.
        heartbeat_ms: u32,
    },
    /// Finish what is under way, then end.
    Drain,
}

/// What the connection process needs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ConnectionStart {
    /// The seed of the anchor's key.
    pub(crate) seed: [u8; 32],
    /// Milliseconds between a peer's heartbeats.
    pub(crate) heartbeat_ms: u32,
    /// Number of transfer processes.
    pub(crate) transfers: u8,
}

/// What the manifest process needs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ManifestStart {
    /// The database's file.
    pub(crate) database: PathBuf,
    /// The anchor's node id.
    pub(crate) node: NodeId,
    /// Where the anchor serves.
    pub(crate) address: SocketAddr,
    /// Milliseconds between a peer's heartbeats.
    pub(crate) heartbeat_ms: u32,
    /// Number of transfer processes.
    pub(crate) transfers: u8,
}

/// What a transfer process needs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TransferStart {
    /// The seed of the anchor's key.
    pub(crate) seed: [u8; 32],
    /// The chunk store's directory.
    pub(crate) store: PathBuf,
    /// Which part of every content this process gives out first.
    pub(crate) share: Share,
}

/// What the manifest process tells the connection process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToConnection {
    /// First: what is asked from now on is answered here. What was asked before may have been answered to nobody.
    Listening,
    /// The answer to a request.
    Reply {
        /// The request's number.
        sequence: u64,
        /// The answer.
        reply: wire::Reply,
    },
    /// The answer to a request, a long one: encoded already, lest every process on its way does that again.
    Encoded {
        /// The request's number.
        sequence: u64,
        /// The answer, as [`anchorage_manifest::codec`] encodes it.
        #[serde(with = "serde_bytes")]
        reply: Vec<u8>,
    },
    /// Sources have changed; for those who watch the content.
    Push(wire::Push),
}

/// What the manifest process tells a transfer process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ToTransfer {
    /// First: what is asked from now on is answered here. What was asked or told before may be forgotten.
    Listening,
    /// The answer to an `Admit`.
    Admitted {
        /// Which content.
        content: ContentId,
        /// Its sizes, if some release has it.
        geometry: Option<Geometry>,
    },
    /// Another transfer process has stored something of a content.
    Stored {
        /// Which content.
        content: ContentId,
    },
}
