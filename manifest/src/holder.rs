//! Who has chunks of a content, and where to reach it.

use crate::{Bitmap, NodeId};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// A node and the address at which it serves chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The key that the node must prove when it is dialled.
    pub node: NodeId,
    /// Where it listens.
    pub address: SocketAddr,
}

/// A source and what it has of one content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Who, and where.
    pub source: Source,
    /// Which chunks.
    pub have: Bitmap,
}
