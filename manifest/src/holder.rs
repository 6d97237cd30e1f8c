//! Who has chunks of a content, and where to reach it.

use crate::{NodeId, bitmap::Packed};
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
    pub have: Have,
}

/// What is said of a holder's chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Have {
    /// Which it has.
    Chunks(Packed),
    /// How many it has; which would not fit the answer.
    Count(u32),
}

impl Have {
    /// How many chunks they are.
    pub fn count(&self) -> u32 {
        match self {
            Self::Chunks(chunks) => chunks.unpack().count(),
            Self::Count(count) => *count,
        }
    }
}
